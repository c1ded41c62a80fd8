"""Whole cells on small data: what is trained when, what is stored, and that the numbers survive the store."""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import CONF, DEFENSE_NAMES, UNTOUCHABLE, same_state, state_of
from omegaconf import OmegaConf
from small_cells import Make, data_dir, make, quiet
from torch import Tensor
from torch.nn import functional

import ntml_bench.app.cell
import ntml_bench.app.stages
import ntml_bench.app.victims
from ntml_bench.app.cell import Cell
from ntml_bench.app.keys import Keys
from ntml_bench.attacks import ATTACKS
from ntml_bench.data.augmentation import augment
from ntml_bench.defenses.base import CLEAN_BUDGET, DEFENSES, Defense, DefenseConfig, DefenseContext
from ntml_bench.engine import Engine
from ntml_bench.errors import UserError
from ntml_bench.evaluation import evaluate, triggered_test
from ntml_bench.exhibits.gallery import gallery
from ntml_bench.exhibits.model import exhibit
from ntml_bench.models import Classifier
from ntml_bench.seeding import generator
from ntml_bench.training import fit

__all__ = ["data_dir", "make"]

# Those that are made from files have tests of their own.
ATTACK_NAMES = [name for name in ATTACKS if (CONF / "attack" / f"{name}.yaml").exists() and not ATTACKS[name].from_files]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs of tests that only ask whether a cell works: the victims are trained once."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The purposes of the trainings of victims and surrogates since the last look."""
    seen: list[str] = []

    def counted(*arguments: Any, **named: Any) -> None:
        seen.append(named["purpose"])
        fit(*arguments, **named)

    monkeypatch.setattr(ntml_bench.app.victims, "fit", counted)
    return seen


@pytest.fixture
def purifications(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The defenses that were run."""
    seen: list[str] = []
    for name in DEFENSE_NAMES:
        monkeypatch.setattr(DEFENSES[name], "purify", _counted(name, DEFENSES[name].purify, seen))
    return seen


def _counted(name: str, genuine: Callable[[Any, DefenseContext], Classifier], seen: list[str]) -> Callable[..., Classifier]:
    def purify(self: Any, context: DefenseContext) -> Classifier:
        seen.append(name)
        return genuine(self, context)

    return purify


def numbers(record: dict[str, Any]) -> dict[str, Any]:
    return {part: record[part] for part in ("before", "after", "floor", "defense_effectiveness_rating", "stages")}


def check_record(record: dict[str, Any], attack: str, defense: str) -> None:
    assert (record["attack"], record["defense"], record["state"]) == (attack, defense, "done")
    assert record["published_rate"] == ATTACKS[attack].published_rate
    for part in ("before", "after"):
        for name, value in record[part].items():
            if attack == "none" and name != "clean_accuracy":
                assert value is None
            else:
                assert 0 <= value <= 100
        if attack != "none":
            assert record[part]["attack_success_rate"] + record[part]["robust_accuracy"] <= 100 + 1e-9
    assert (record["defense_effectiveness_rating"] is None) == ("none" in (attack, defense))
    assert all(seconds >= 0 for seconds in record["seconds"].values())
    assert record["history"][0]["stage"] == "victim"
    assert record["settings"]["attack"]["name"] == attack
    assert record["environment"]["packages"]["torch"] == version("torch")
    assert record["needs"] == list(DEFENSES[defense].needs)
    if defense == "none":
        assert record["before"] == record["after"]


@pytest.mark.parametrize("attack", ATTACK_NAMES)
def test_every_attack_end_to_end(attack: str, make: Make, shared: Path) -> None:
    cell = make(attack=attack, defense="ft", outputs=shared)
    record = cell.run(quiet)
    check_record(record, attack, "ft")
    if attack != "none":
        assert record["notes"]["poisons"] == round(record["settings"]["attack"]["poisoning_rate"] * 160)
    # The budget holds no image that the attack touched, and as many as are asked for.
    victim = cell.stages.victim()
    purified = cell.stages.purified()[1]
    assert purified["clean_budget_images"] == 24
    touched = set(victim.poisoning.indices.tolist())
    assert len(touched) == record["notes"]["poisons"] + record["notes"]["covers"]
    seen = budget_of(cell)
    assert len(seen) == 24
    assert not touched & seen


def budget_of(cell: Cell) -> set[int]:
    """The training images that a defense of the cell is given as its clean budget, by their indices."""
    caught: list[DefenseContext] = []

    class CaughtError(Exception):
        pass

    class Catcher(Defense[DefenseConfig]):
        def purify(self, context: DefenseContext) -> Classifier:
            caught.append(context)
            raise CaughtError

    object.__setattr__(cell.settings, "defense", Catcher(cell.settings.defense.config))
    with pytest.raises(CaughtError):
        cell.stages._purify(cell.settings.defense)
    train, budget = cell.data.train, caught[0].clean_budget
    rows = {tuple(image.flatten().tolist()): number for number, image in enumerate(train.images)}
    assert len(rows) == len(train)
    indices = [rows[tuple(image.flatten().tolist())] for image in budget.images]
    assert torch.equal(budget.labels, train.labels[indices])
    return set(indices)


# Every attack with two defenses or more, every defense with two attacks or more: a new method adds two cells, not a row.
PAIRS = sorted(
    {
        (ATTACK_NAMES[index % len(ATTACK_NAMES)], DEFENSE_NAMES[(index + shift) % len(DEFENSE_NAMES)])
        for index in range(max(len(ATTACK_NAMES), len(DEFENSE_NAMES)))
        for shift in (0, 1)
    }
)


def test_the_pairs_have_every_attack_and_every_defense_twice() -> None:
    for place, names in enumerate((ATTACK_NAMES, DEFENSE_NAMES)):
        counts = Counter(pair[place] for pair in PAIRS)
        assert set(counts) == set(names)
        assert min(counts.values()) >= 2
    assert len(PAIRS) <= 2 * max(len(ATTACK_NAMES), len(DEFENSE_NAMES))


@pytest.mark.parametrize(("attack", "defense"), PAIRS)
def test_every_attack_meets_two_defenses_end_to_end(attack: str, defense: str, make: Make, shared: Path) -> None:
    check_record(make(attack=attack, defense=defense, outputs=shared).run(quiet), attack, defense)


def test_the_victim_is_trained_once_and_shared(make: Make, trainings: list[str], purifications: list[str]) -> None:
    for defense in ("none", "ft", "anp"):
        make(defense=defense).run(quiet)
    assert trainings == ["victim"]
    assert purifications == ["ft", "anp"]
    make(defense="ft").run(quiet)  # a second time: nothing
    assert trainings == ["victim"]
    assert purifications == ["ft", "anp"]


def test_a_second_run_reads_its_numbers(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make("floor=true", defense="nt_ml").run(quiet)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was computed again")

    for module, name in (
        *((ntml_bench.app.victims, name) for name in ("fit", "make_classifier")),
        *((ntml_bench.app.stages, name) for name in ("evaluate", "triggered_test", "gallery", "exhibit")),
    ):
        monkeypatch.setattr(module, name, refuse)
    second = make("floor=true", defense="nt_ml")
    assert second.record() == first
    assert second.run(quiet) == first


@pytest.mark.parametrize(
    ("change", "trained", "defended"),
    [
        ("defense.recipe.epochs=2", [], ["ft"]),
        ("clean_budget=0.2", [], ["ft"]),
        ("attack.trigger_size=2", ["victim"], ["ft"]),
        ("attack.target_class=3", ["victim"], ["ft"]),
        ("training.learning_rate=0.05", ["victim"], ["ft"]),
        ("dataset.augmentation.crop_padding=1", ["victim"], ["ft"]),
        ("dataset.train_limit=170", ["victim"], ["ft"]),
        ("deterministic=true", ["victim"], ["ft"]),
        ("seed=1", ["victim"], ["ft"]),
        ("sweep=another", [], []),
    ],
)
def test_a_changed_setting_reruns_what_it_touches(
    change: str, trained: list[str], defended: list[str], make: Make, trainings: list[str], purifications: list[str]
) -> None:
    first = make(defense="ft")
    first.run(quiet)
    trainings.clear()
    purifications.clear()
    try:
        changed = make(change, defense="ft")
        changed.run(quiet)
    finally:
        torch.use_deterministic_algorithms(False)
    assert trainings == trained
    assert purifications == defended
    assert (changed.key == first.key) == (not defended)


def test_what_a_recipe_is_called_is_in_no_key(make: Make) -> None:
    cell = make(defense="ft")
    settings = replace(cell.settings, training=replace(cell.settings.training, name="renamed"))
    assert Keys.of(settings, cell.engine, cell.data.fingerprint) == cell.stages.keys


def test_a_defense_without_a_budget_does_not_depend_on_it(make: Make, trainings: list[str]) -> None:
    first = make(defense="none")
    assert make("clean_budget=0.3", defense="none").key == first.key
    assert CLEAN_BUDGET not in first.settings.defense.needs
    # An attack without any attack's settings: the clean model is one.
    assert make("attack.target_class=4", attack="none").stages.keys.victim == make(attack="none").stages.keys.victim
    assert trainings == []


def test_a_defense_that_needs_no_budget_runs_where_no_image_is_clean(make: Make) -> None:
    cell = make("clean_budget=1.0", defense="clp")
    record = cell.run(quiet)
    assert record["needs"] == []
    assert cell.stages.purified()[1]["clean_budget_images"] == 0
    assert make(defense="clp").key == cell.key
    # What chooses among its strengths are clean images.
    for overrides, defense in (((), "ft"), (("tuning=price", "price=1"), "clp")):
        with pytest.raises(UserError, match="allowed: at most the 144 images that the attack leaves untouched"):
            make("clean_budget=1.0", *overrides, defense=defense)
    assert make("tuning=price", "price=1", defense="clp").manifest_entry()["needs"] == ["clean_budget"]
    assert make("tuning=price", "price=1", defense="ep").settings.needs == ("clean_budget", "poisoned_training_set")


def test_keys_of_all_cells_differ(make: Make) -> None:
    cells = [
        make(f"seed={seed}", attack=attack, defense=defense)
        for attack in ("none", "badnets", "sig")
        for defense in ("none", "ft", "nt_ml")
        for seed in (0, 1)
    ]
    assert len({cell.key for cell in cells}) == len(cells)
    assert len({cell.stages.keys.purified for cell in cells}) == len(cells)
    assert len({cell.stages.keys.victim for cell in cells}) == 3 * 2


def test_a_surrogate_has_a_key_by_what_it_is_trained_against(make: Make) -> None:
    keys = make().stages.keys
    standard = make("attack.surrogate=standard", attack="lc").stages.keys
    assert standard.surrogate == keys.surrogate
    assert standard == make("attack.surrogate=standard", "attack.adversary.epsilon=4", attack="lc").stages.keys
    changes = ["epsilon=4", "step_size=1", "steps=3"]
    others = [make(*(f"attack.adversary.{one}" for one in change), attack="lc").stages.keys for change in ([], *zip(changes))]
    assert len({other.surrogate for other in (standard, *others)}) == 5
    assert len({other.victim for other in (standard, *others)}) == 5


def test_what_poisons_are_not_made_from_is_in_no_key(make: Make) -> None:
    every = {field.name for field in fields(make(attack="lc").settings.attack.config)}

    def determining(*settings: str) -> set[str]:
        return set(make(*settings, attack="lc").settings.attack.determining())

    assert determining("attack.surrogate=standard", "attack.norm=l2") == every - {"surrogate", "adversary"}
    # The norm of the poisons that were made before there was a choice is in no key, either.
    assert determining("attack.surrogate=standard") == every - {"surrogate", "adversary", "norm"}
    assert determining("attack.surrogate=adversarial") == every - {"norm"}


def test_an_adversarial_surrogate_is_trained_on_what_its_adversary_leaves(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    rises: list[float] = []
    adversarial = make("attack.adversary.steps=1", "attack.adversary.step_size=8", attack="lc")

    def watched(*arguments: Any, **named: Any) -> None:
        after = named["after_augmentation"]

        def change(images: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
            changed = after(images, labels, rng)
            seen.append((images, changed))
            model = deepcopy(named["models"][0])
            before, behind = (functional.cross_entropy(model(batch), labels).item() for batch in (images, changed))
            rises.append(behind - before)
            return changed

        fit(*arguments, **named | {"after_augmentation": change if named["purpose"] == "surrogate" else after})

    monkeypatch.setattr(ntml_bench.app.victims, "fit", watched)
    adversarial.stages.victims.attack_context().surrogate()
    assert len(seen) == 160 // 40
    assert min(rises) > 0
    for images, changed in seen:
        assert 0 < float((changed - images).abs().max()) <= 8 / 255 + 1e-6
    monkeypatch.undo()
    standard = make("attack.surrogate=standard", attack="lc")
    weights = [state_of(cell.stages.victims.attack_context().surrogate()) for cell in (adversarial, standard)]
    assert not same_state(*weights)


def test_a_compiled_training_has_a_key_of_its_own(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ntml_bench.engine.which", lambda _: "g++")
    seen: list[str] = []

    def compiled(engine: Engine, function: Any) -> Any:
        seen.append(engine.compilation)
        return function

    monkeypatch.setattr(Engine, "compiled", compiled)
    cell = make("compile=default")
    cell.stages.victim()
    assert seen == ["default"]
    assert cell.stages.keys.victim != make().stages.keys.victim


def test_the_seed_is_in_every_key_where_the_data_do_not_depend_on_it(make: Make) -> None:
    whole = ["dataset.train_limit=null", "dataset.test_limit=null"]
    one, other = make(*whole, defense="ft"), make(*whole, "seed=1", defense="ft")
    assert one.data.fingerprint == other.data.fingerprint
    assert len({one.key, other.key}) == 2
    assert len({one.stages.keys.victim, other.stages.keys.victim, one.stages.keys.clean, other.stages.keys.clean}) == 4
    assert one.stages.keys.purified != other.stages.keys.purified


def test_the_floor_is_the_clean_model_under_the_trigger(make: Make, trainings: list[str]) -> None:
    cell = make("floor=true")
    record = cell.run(quiet)
    assert trainings == ["victim", "victim"]
    clean = make(attack="none")
    record_of_clean = clean.run(quiet)
    assert trainings == ["victim", "victim"]  # the same model
    assert record["floor"]["clean_accuracy"] == record_of_clean["before"]["clean_accuracy"]
    assert record_of_clean["floor"] is None
    attack = cell.settings.attack
    triggered = triggered_test(cell.data.test, lambda images: attack.trigger(images, {}), attack.config.target_class)
    assert record["floor"] == evaluate(cell.engine, clean.stages.victim().model, cell.data.test, triggered)
    assert make("attack.trigger_size=5", "floor=true").run(quiet)["floor"] != record["floor"]
    assert trainings == ["victim"] * 3


def test_loaded_models_give_the_recorded_numbers(make: Make) -> None:
    record = make(attack="wanet", defense="anp").run(quiet)
    cell = make(attack="wanet", defense="anp")
    model = cell.stages.purified().model
    assert not model.training
    assert cell.stages._measure(model) == record["after"]
    assert cell.stages._measure(cell.stages.victim().model) == record["before"]
    folder = cell.store.path("purified", cell.stages.keys.purified)
    assert sorted(path.name for path in folder.iterdir()) == ["checksums.json", "record.json", "tensors.safetensors"]


def test_the_poisons_are_drawn_once(make: Make) -> None:
    """What the store says was poisoned is what the victim was trained on, and what a defender finds."""
    cell = make(attack="blended")
    seen: list[torch.Tensor] = []
    genuine = ntml_bench.app.victims.fit

    def spy(engine: Any, data: Any, *arguments: Any, **named: Any) -> None:
        seen.append(data.images.clone())
        genuine(engine, data, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ntml_bench.app.victims, "fit", spy)
        victim = cell.stages.victim()
    train = cell.data.train
    changed = (seen[0] != train.images).flatten(1).any(1).nonzero().flatten()
    assert torch.equal(changed, victim.poisoning.indices)
    assert torch.equal(seen[0][changed], victim.poisoning.images)
    assert torch.equal(victim.poisoning.apply(train).images, seen[0])
    assert victim.poisoning.labels.eq(0).all()
    assert train.labels[changed].ne(0).all()


def test_an_attack_that_controls_the_training_gets_clean_batches(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = make(attack="wanet")
    calls: list[int] = []
    genuine = type(cell.settings.attack).during_training

    def spy(self: Any, images: torch.Tensor, labels: torch.Tensor, *rest: Any) -> Any:
        calls.append(len(images))
        levels = images * 255
        assert torch.equal(levels.round(), levels.round().clamp(0, 255))
        for image, label in zip(levels.round().to(torch.uint8), labels, strict=True):
            same = (cell.data.train.images == image).flatten(1).all(1)
            assert label in cell.data.train.labels[same]
        return genuine(self, images, labels, *rest)

    monkeypatch.setattr(type(cell.settings.attack), "during_training", spy)
    cell.stages.victim()
    assert calls == [40] * 4


def test_the_recipe_of_the_settings_trains_the_victim(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = make("training.weight_decay=0.001", "training.schedule=cosine")
    seen: list[Any] = []
    monkeypatch.setattr(ntml_bench.app.victims, "fit", lambda *arguments, **named: seen.append((arguments[2], named)))
    cell.stages.victim()
    ((recipe, named),) = seen
    assert recipe is cell.settings.training
    assert (recipe.weight_decay, recipe.schedule) == (0.001, "cosine")
    assert named["augmentation"] is cell.settings.dataset.config.augmentation
    assert named["seed"] == 0


def test_a_victim_is_the_same_whatever_ran_before(make: Make, tmp_path: Path) -> None:
    first = state_of(make(outputs=tmp_path / "one").stages.victim().model)
    make(attack="sig", outputs=tmp_path / "two").stages.victim()
    torch.manual_seed(5)
    again = state_of(make(outputs=tmp_path / "two").stages.victim().model)
    assert same_state(first, again)
    assert not same_state(first, state_of(make("seed=1", outputs=tmp_path / "two").stages.victim().model))


def test_observing_a_stage_changes_nothing(make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    watched = make(defense="nt_ml", outputs=tmp_path / "one")
    record = watched.run(quiet)
    assert list(record["stages"]) == ["student after NT", "teacher after ML"]
    assert all(set(metrics) == set(record["after"]) for metrics in record["stages"].values())
    # In place of what a context is given: to ignore it, and then to do nothing.
    ignored = property(lambda self: lambda stage, model: None, lambda self, value: None)
    monkeypatch.setattr(DefenseContext, "observe", ignored, raising=False)
    alone = make(defense="nt_ml", outputs=tmp_path / "two")
    assert alone.run(quiet)["after"] == record["after"]
    assert same_state(state_of(alone.stages.purified()[0]), state_of(watched.stages.purified()[0]))


def test_observing_leaves_the_mode_of_every_module(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[list[bool]] = []

    def purify(self: Any, context: DefenseContext) -> Classifier:
        model = context.model.train()
        next(iter(model.children())).eval()
        modes.append([module.training for module in model.modules()])
        context.observe("half in training", model)
        modes.append([module.training for module in model.modules()])
        return model.eval()

    monkeypatch.setattr(DEFENSES["ft"], "purify", purify)
    cell = make(defense="ft")
    assert list(cell.stages.purified()[1]["stages"]) == ["half in training"]
    assert modes[0] == modes[1]
    assert len(set(modes[0])) == 2


def test_a_cell_leaves_what_is_looked_at(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def counted(name: str, genuine: Callable[..., Any]) -> Callable[..., Any]:
        def look(*arguments: Any) -> Any:
            seen.append(name)
            return genuine(*arguments)

        return look

    for name in ("gallery", "exhibit"):
        monkeypatch.setattr(ntml_bench.app.stages, name, counted(name, getattr(ntml_bench.app.stages, name)))
    cells = {defense: make(defense=defense) for defense in ("none", "ft", "fp")}
    records = {defense: cell.run(quiet) for defense, cell in cells.items()}
    # The attack's images and its model belong to all defenses.
    assert seen == ["gallery", "exhibit", "exhibit", "exhibit"]
    keys = {defense: record["exhibits"] for defense, record in records.items()}
    assert len({found["gallery"] for found in keys.values()}) == len({found["before"] for found in keys.values()}) == 1
    assert keys["none"]["before"] == keys["none"]["after"]
    assert len({found["after"] for found in keys.values()}) == 3
    triggered = cells["ft"].stages.triggered_by(cells["ft"].stages.victim().poisoning.state)
    for defense, cell in cells.items():
        assert {
            f"gallery-{keys[defense]['gallery']}",
            *(f"exhibit-{keys[defense][when]}" for when in ("before", "after")),
        } <= set(records[defense]["artifacts"])
        model = cell.stages.purified().model
        found = cell.store.load("exhibit", keys[defense]["after"])
        assert found is not None
        expected = exhibit(cell.engine, model, cell.data.test, triggered)
        assert found.record == expected.record
        assert same_state(found.tensors, expected.tensors)
    shown = cells["ft"].store.load("gallery", keys["ft"]["gallery"])
    assert shown is not None
    assert same_state(shown.tensors, gallery(cells["ft"].data, triggered).tensors)


def test_without_an_attack_there_is_nothing_to_look_at(make: Make, shared: Path) -> None:
    record = make(attack="none", outputs=shared).run(quiet)
    assert record["exhibits"] is None
    assert not [name for name in record["artifacts"] if name.startswith(("gallery", "exhibit"))]


def test_a_record_of_an_older_version_is_made_anew_from_what_is_stored(
    make: Make, monkeypatch: pytest.MonkeyPatch, trainings: list[str], purifications: list[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ntml_bench.app.cell, "RECORD_VERSION", 1)
        older = make("floor=true", defense="ft")
        before = older.run(quiet)
        shutil.rmtree(older.store.path("gallery", before["exhibits"]["gallery"]))
    trainings.clear()
    purifications.clear()
    newer = make("floor=true", defense="ft")
    assert newer.key != older.key
    after = newer.run(quiet)
    assert (trainings, purifications) == ([], [])
    assert numbers(after) == numbers(before)
    assert after["artifacts"] == before["artifacts"]
    assert newer.store.load("gallery", after["exhibits"]["gallery"]) is not None


def test_a_defense_may_change_its_model_but_not_the_victim(make: Make) -> None:
    cell = make(defense="ft")
    before = state_of(cell.stages.victim().model)
    cell.stages.purified()
    assert same_state(state_of(cell.stages.victim().model), before)


def test_no_attack_has_no_success_rate(make: Make, shared: Path) -> None:
    record = make("floor=true", attack="none", defense="ft", outputs=shared).run(quiet)
    for part in ("before", "after"):
        assert record[part]["clean_accuracy"] is not None
        assert record[part]["attack_success_rate"] is record[part]["robust_accuracy"] is None
    assert record["defense_effectiveness_rating"] is record["floor"] is None


def test_a_failure_is_written_down_and_a_later_success_removes_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, context: DefenseContext) -> Classifier:
        raise RuntimeError("no more channels\nand more")

    cell = make(defense="ft")
    with monkeypatch.context() as patch:
        patch.setattr(DEFENSES["ft"], "purify", fail)
        with pytest.raises(RuntimeError, match="no more channels"):
            cell.run(quiet)
    path = cell.store.root / f"cell-{cell.key}.failed.json"
    assert path == cell.failure_path
    failure = json.loads(path.read_text())
    assert failure["error"] == "RuntimeError: no more channels"
    assert "Traceback (most recent call last)" in failure["traceback"]
    assert "in fail" in failure["traceback"]
    assert cell.record() is None
    assert not cell.store.locked("cell", cell.key)
    # What was done before the failure is kept.
    assert cell.store.record("victim", cell.stages.keys.victim) is not None
    assert make(defense="ft").run(quiet)["state"] == "done"
    assert not path.exists()


def test_an_interrupt_is_no_failure(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    cell = make(defense="ft")
    monkeypatch.setattr(DEFENSES["ft"], "purify", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cell.run(quiet)
    assert not cell.failure_path.exists()


@pytest.mark.parametrize("attack", ["badnets", "wanet", "lc"])
def test_an_interrupted_training_goes_on_from_its_last_epoch(
    attack: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ntml_bench.checkpoint.SECONDS_BETWEEN", 0.0)
    options = ["training.epochs=4"]
    undisturbed = make(*options, outputs=tmp_path / "undisturbed", attack=attack).stages.victim()

    for training in ["attacker's surrogate", "training with lc"] if attack == "lc" else [f"training with {attack}"]:

        def stop(text: str, training: str = training) -> None:
            if f"{training}: epoch 3/4" in text:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            make(*options, attack=attack).run(stop)
    cell = make(*options, attack=attack)
    assert [path.name for path in cell.store.root.glob(".*.checkpoint")] == [f".victim-{cell.stages.keys.victim}.checkpoint"]
    batches: list[int] = []

    def counted(images: Tensor, *arguments: Any) -> Tensor:
        batches.append(len(images))
        return augment(images, *arguments)

    monkeypatch.setattr("ntml_bench.training.augment", counted)
    cell.run(quiet)
    assert len(batches) == 2 * 4, "two of four epochs were behind it"
    assert same_state(state_of(cell.stages.victim().model), state_of(undisturbed.model))
    assert cell.stages.victim().record["history"] == undisturbed.record["history"]
    assert not list(cell.store.root.glob(".*.checkpoint"))


@pytest.mark.parametrize(
    ("options", "overrides", "message"),
    [
        ({}, ["attack.target_class=10"], r"attack\.target_class is 10; the data set has 10 classes"),
        ({}, ["attack.trigger_size=13"], r"attack\.trigger_size is 13"),
        ({"attack": "sig"}, ["attack.poisoning_rate=0.2"], r"attack\.poisoning_rate is 0\.2: 32 of 160"),
        ({"defense": "nt_ml"}, ["defender_has_training_set=false"], "needs the poisoned training set"),
        ({"defense": "nt_ml"}, ["defense.mode=drop"], r"defense\.student_start=scratch"),
        ({"defense": "ft"}, ["clean_budget=0.05"], "at least one for each of the 10 classes"),
        ({"defense": "anp"}, ["model=timm", "model.name=vit_tiny_patch16_224"], "VisionTransformer has none"),
        ({"defense": "nad"}, ["model=timm", "model.name=vit_tiny_patch16_224"], "needs feature maps"),
        ({}, ["model=timm", "model.name=resnet_tinny"], "Did you mean 'resnet_tiny'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(
    options: dict[str, str], overrides: list[str], message: str, make: Make, trainings: list[str]
) -> None:
    with pytest.raises(UserError, match=message):
        make(*overrides, **options)
    assert trainings == []


def test_the_patches_of_a_net_are_in_its_keys_where_they_were_others(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    transformer = ["model=timm", "model.name=test_vit", "attack.trigger_size=3"]
    other = make(*transformer, "dataset.image_size=28")
    same = make(*transformer, "dataset.image_size=32")
    monkeypatch.setattr(ntml_bench.app.cell, "patch_size_of", lambda *_: None)
    assert other.stages.keys.victim != make(*transformer, "dataset.image_size=28").stages.keys.victim
    assert same.stages.keys == make(*transformer, "dataset.image_size=32").stages.keys


@pytest.mark.parametrize("model", ["test_vit", "mobilenetv3_small_050"])
def test_i_bau_takes_second_derivatives_of_any_net(model: str, make: Make) -> None:
    cell = make("model=timm", f"model.name={model}", "dataset.image_size=16", defense="i_bau")
    record = cell.run(quiet)
    assert record["after"]["clean_accuracy"] is not None
    assert not same_state(state_of(cell.stages.victim().model), state_of(cell.stages.purified()[0]))


def test_only_the_evaluator_reads_the_test_images(make: Make, data_dir: Path) -> None:
    cell = make(defense="fp")
    cell.stages.victim()
    blind = make(defense="fp")
    blind.stages.data = replace(cell.data, test=UNTOUCHABLE)
    blind.stages.purified()
    with pytest.raises(AssertionError, match="out of reach"):
        blind.stages._measure(cell.stages.victim().model)


def test_the_clean_budget_is_the_same_list_for_every_defense(make: Make) -> None:
    budgets = [budget_of(make(defense=defense)) for defense in ("ft", "nt_ml")]
    assert budgets[0] == budgets[1]
    assert budget_of(make("seed=1", defense="ft")) != budgets[0]


def test_one_seed_gives_all_victims_the_same_start_order_and_choice(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What docs/protocol.md says that runs of one seed share."""
    starts: list[dict[str, Any]] = []
    genuine = ntml_bench.app.victims.fit

    def spy(engine: Any, data: Any, recipe: Any, **named: Any) -> None:
        (model,) = named["models"]
        starts.append({name: value.clone() for name, value in model.state_dict().items()})
        assert (named["seed"], named["purpose"]) == (0, "victim")
        genuine(engine, data, recipe, **named)

    monkeypatch.setattr(ntml_bench.app.victims, "fit", spy)
    cells = {attack: make(attack=attack, defense="ft") for attack in ("badnets", "blended", "wanet")}
    victims = {attack: cell.stages.victim() for attack, cell in cells.items()}
    assert len(starts) == 3
    assert all(torch.equal(start[name], value) for start in starts for name, value in starts[0].items())
    poisons = [victim.poisoning.indices[victim.poisoning.is_poison].tolist() for victim in victims.values()]
    assert poisons[0] == poisons[1] == poisons[2] != []
    assert budget_of(cells["badnets"]) == budget_of(cells["blended"]) != budget_of(cells["wanet"])


def test_streams_of_defense_and_attack_have_names_of_their_own() -> None:
    assert generator(0, "attack/order").initial_seed() != generator(0, "defense/order").initial_seed()


def test_resolved_settings_hold_every_value_of_the_yaml_files(make: Make) -> None:
    resolved = make(attack="sig", defense="nt_ml").resolved_settings()
    for group, name in (("attack", "sig"), ("defense", "nt_ml"), ("training", "one_cycle")):
        loaded = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
        assert isinstance(loaded, dict)
        assert set(resolved[group]) == set(loaded) - {"strength"}
    assert resolved["defense"]["ml"]["epochs"] == 1
    assert resolved["seed"] == 0
