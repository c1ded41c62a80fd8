"""Tuning at a price: the arithmetic of the choice, and whole cells in which only the clean budget decides."""

from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import DEFENSE_NAMES, same_state, state_of
from hypothesis import given
from hypothesis import strategies as st
from small_cells import Make, data_dir, make, quiet, settings_of
from torch import Tensor

from ntml_bench.defenses.base import DEFENSES, DefenseContext
from ntml_bench.errors import UserError
from ntml_bench.evaluation import accuracy
from ntml_bench.models import Classifier
from ntml_bench.tracking.content import summary_of
from ntml_bench.tuning import fall, parted, read_strength, strongest

__all__ = ["data_dir", "make"]

TUNED = ("tuning=price", "defense.strength.values=[0.001,0.01]")
BUDGET = 24


def answers(*right: int) -> Tensor:
    return torch.tensor(right, dtype=torch.bool)


def test_the_fall_of_ten_images_by_hand() -> None:
    """Three are lost, one is gained: 20 points, and the variance of an image is 0.4 - 0.04."""
    before = answers(1, 1, 1, 1, 1, 1, 1, 0, 0, 0)
    after = answers(0, 0, 0, 1, 1, 1, 1, 1, 0, 0)
    lost, error = fall(before, after)
    assert lost == pytest.approx(20)
    assert error == pytest.approx(100 * sqrt(0.36 / 10))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_the_fall_is_that_of_a_paired_sample(pairs: list[tuple[bool, bool]]) -> None:
    before, after = (torch.tensor(column) for column in zip(*pairs, strict=True))
    lost, error = fall(before, after)
    sample = [100.0 * (one - other) for one, other in pairs]
    mean = sum(sample) / len(sample)
    assert lost == pytest.approx(mean)
    assert error == pytest.approx(sqrt(sum((value - mean) ** 2 for value in sample) / len(sample) ** 2), abs=1e-6)


def test_the_strongest_that_is_affordable_is_taken() -> None:
    falls = [(0.0, 0.0), (1.5, 0.4), (1.0, 0.5), (2.6, 0.7), (3.0, 0.9), (30.0, 4.0)]
    assert strongest(falls, price=2) == 3  # 2.6 is above 2 by less than its standard error, 3.0 by more
    assert strongest(falls, price=1) == 2  # a weaker one that costs more does not bar it
    assert strongest(falls, price=30) == 5
    assert strongest(falls[-1:], price=2) is None


@given(st.integers(2, 60), st.floats(0.05, 0.9), st.integers(0, 5))
def test_the_budget_falls_into_two_parts(count: int, share: float, seed: int) -> None:
    labels = torch.arange(200) % 4
    budget = torch.randperm(200, generator=torch.Generator().manual_seed(seed))[:count].sort().values
    if not 0 < round(share * count) < count:
        with pytest.raises(UserError, match="validation_share"):
            parted(budget, labels, share, seed)
        return
    purifies, validates = parted(budget, labels, share, seed)
    assert torch.cat([purifies, validates]).sort().values.equal(budget)
    assert len(validates) == round(share * count)
    of_class = [torch.bincount(labels[part], minlength=4) / len(part) for part in (budget, validates)]
    assert bool(((of_class[0] - of_class[1]).abs() * len(validates) <= 1 + 1e-6).all())


def test_each_strength_is_run_once_and_the_choice_is_recorded(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, int]] = []
    genuine = DEFENSES["ft"].purify

    def counted(self: Any, context: DefenseContext) -> Classifier:
        seen.append((self.config.recipe.learning_rate, len(context.clean_budget)))
        return genuine(self, context)

    monkeypatch.setattr(DEFENSES["ft"], "purify", counted)
    records = {price: make(*TUNED, f"price={price}", defense="ft").run(quiet) for price in (0, 100)}
    # Both prices share the candidates, which train on what is not validated on.
    assert seen == [(0.001, BUDGET - 7), (0.01, BUDGET - 7)]
    assert len({record["key"] for record in records.values()}) == 2
    choice = records[100]["tuning"]
    assert (choice["setting"], choice["validation_images"], choice["chosen"]) == ("recipe.learning_rate", 7, 0.01)
    assert [candidate["value"] for candidate in choice["candidates"]] == [0.001, 0.01]
    assert records[100]["after"] == choice["candidates"][1]["after"]
    assert records[100]["seconds"]["defense"] == sum(candidate["seconds"] for candidate in choice["candidates"])
    assert [{**found, "affordable": None} for found in choice["candidates"]] == [
        {**found, "affordable": None} for found in records[0]["tuning"]["candidates"]
    ]
    logged = summary_of(records[100])
    assert logged["tuning/chosen"] == 0.01
    assert logged["tuning/fall"] == choice["candidates"][1]["fall"]
    settings = records[100]["settings"]["defense"]
    assert (settings["tuning"], settings["price"], settings["recipe"]["learning_rate"]) == ("price", 100, "tuned")
    # Another validation share leaves another part to purify with.
    make(*TUNED, "price=100", "validation_share=0.5", defense="ft").run(quiet)
    assert seen[2:] == [(0.001, BUDGET - 12), (0.01, BUDGET - 12)]


@pytest.mark.parametrize(("defense", "values", "made"), [("anp", (0.2, 0.9), "_learn_masks"), ("nad", (0.01, 0.3), "")])
def test_what_strengths_share_is_made_once_and_changes_nothing(
    defense: str, values: tuple[float, float], made: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    owner, name = (DEFENSES[defense], made) if made else (DefenseContext, "fine_tune")
    genuine = getattr(owner, name)

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(name)
        return genuine(*arguments, **named)

    monkeypatch.setattr(owner, name, counted)

    def tuned(values: tuple[float, ...], outputs: Path) -> Any:
        strengths = f"defense.strength.values={list(values)}"
        cell = make("tuning=price", "price=100", strengths, defense=defense, outputs=outputs)
        return cell.run(quiet), state_of(cell.stages.purified().model)

    both, model = tuned(values, tmp_path / "both")
    assert len(calls) == 1
    alone, model_alone = tuned(values[1:], tmp_path / "alone")
    assert len(calls) == 2
    assert same_state(model, model_alone)
    assert both["history"] == alone["history"]
    assert both["tuning"]["candidates"][1]["after"] == alone["after"]


def test_the_choice_is_made_on_images_that_no_candidate_saw(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    budgets: list[Tensor] = []
    genuine = DEFENSES["ft"].purify

    def caught(self: Any, context: DefenseContext) -> Classifier:
        budgets.append(context.clean_budget.images)
        return genuine(self, context)

    monkeypatch.setattr(DEFENSES["ft"], "purify", caught)
    cell = make(*TUNED, "price=100", defense="ft")
    record = cell.run(quiet)
    train = cell.data.train
    purifies, validates = cell.stages._budget_parts(cell.stages.victim())
    assert all(images.equal(train[purifies].images) for images in budgets)
    assert not set(purifies.tolist()) & set(validates.tolist())
    model = cell.stages.purified().model
    expected = 100 * accuracy(cell.engine, model, train[validates])
    assert record["tuning"]["candidates"][-1]["accuracy"] == pytest.approx(expected)


def test_where_no_strength_is_affordable_the_model_stays(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def ruined(self: Any, context: DefenseContext) -> Classifier:
        # All images get one class, that of which there is hardly one in the validation part.
        with torch.no_grad():
            context.model.head.weight.zero_()
            assert context.model.head.bias is not None
            context.model.head.bias.copy_(-(torch.arange(10.0) ** 2))
        return context.model

    monkeypatch.setattr(DEFENSES["ft"], "purify", ruined)
    overrides = ("training.epochs=12", "training.batch_size=16")
    cell = make(*TUNED, *overrides, "price=0", defense="ft")
    record = cell.run(quiet)
    assert record["tuning"]["chosen"] is None
    assert not any(found["affordable"] for found in record["tuning"]["candidates"])
    assert record["after"] == record["before"]
    assert same_state(state_of(cell.stages.purified().model), state_of(cell.stages.victim().model))
    assert record["exhibits"]["after"] == record["exhibits"]["before"]


@pytest.mark.parametrize("defense", [name for name in DEFENSE_NAMES if name != "none"])
def test_every_defense_has_strengths_that_differ(defense: str) -> None:
    tuning = settings_of("tuning=price", "price=1", defense=defense).tuning
    assert tuning is not None
    assert len(tuning.candidates) >= 3
    assert len({candidate.config for candidate in map(_hashable, tuning.candidates)}) == len(tuning.candidates)


def _hashable(defense: Any) -> Any:
    return type("Seen", (), {"config": repr(defense.config)})


def test_no_defense_is_not_tuned_and_has_one_cell(make: Make) -> None:
    keys = {make("tuning=price", f"price={price}").key for price in (1, 2)} | {make().key}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("price=2",), "tuning is none"),
        (("tuning=price",), "price is null"),
        (("tuning=price", "price=-1"), "price is -1"),
        (("tuning=price", "price=1", "defense.strength.setting=recipe.learning_rat"), "Did you mean 'recipe.learning_rate'"),
        (("tuning=price", "price=1", "defense.strength.setting=recipe"), "'recipe'"),
        (("tuning=price", "price=1", "defense.strength.values=[]"), "at least one value"),
        (("tuning=price", "price=1", "defense.strength.values=[0.1,0.1]"), "once"),
        (("tuning=price", "price=1", "defense.strength.values=[0.1,-1]"), "learning_rate is -1.0"),
        (("defense.strength.values=[0.1,-1]",), "defense.strength"),
        (("tuning=price", "price=1", "~defense.strength"), "needs the strength of defense ft"),
    ],
)
def test_mistakes_are_named(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings_of(*overrides, defense="ft")


def test_a_part_that_would_be_empty_is_refused_before_training(make: Make) -> None:
    with pytest.raises(UserError, match=r"validation_share is 0\.01 of a clean budget of 24 images"):
        make(*TUNED, "price=1", "validation_share=0.01", defense="ft")


def test_a_strength_is_a_setting_and_a_list() -> None:
    assert read_strength({"setting": "steps", "values": [1, 2]}).values == (1, 2)
    for wrong in ({"setting": "steps"}, {"setting": 1, "values": [1]}, [1, 2], {"setting": "a", "values": [float("nan")]}):
        with pytest.raises(UserError, match=r"defense\.strength"):
            read_strength(wrong)
