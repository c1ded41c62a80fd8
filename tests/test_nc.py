"""nc against its definition: indices and cost by hand, the search by a loop over labels, and a net with a known backdoor."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from builders import (
    ENGINE,
    NO_AUGMENTATION,
    SHAPE,
    Diary,
    classifier,
    defender,
    method_values,
    quick_defense,
    same_state,
    split,
    state_of,
)
from composed import settings_of
from small_cells import Make, data_dir, make, quiet
from torch import Tensor, nn
from torch.nn import functional

from ntml_bench.data.base import Split
from ntml_bench.defenses import nc as module
from ntml_bench.defenses.base import DefenseContext
from ntml_bench.defenses.nc import UNCHANGED, Balance, anomaly_indices, flagged_labels, search, stamped_images
from ntml_bench.errors import UserError
from ntml_bench.models import Classifier
from ntml_bench.seeding import generator
from ntml_bench.training import fit

__all__ = ["data_dir", "make"]


def nc(**changes: Any) -> Any:
    return quick_defense("nc", **changes)


def test_indices_and_flags_by_hand() -> None:
    norms = [100.0, 110.0, 90.0, 105.0, 95.0, 20.0]
    # Median 97.5, deviations 2.5, 12.5, 7.5, 7.5, 2.5, 77.5: their median is 7.5.
    indices = anomaly_indices(norms)
    assert indices == pytest.approx([value / (1.4826 * 7.5) for value in (2.5, 12.5, 7.5, 7.5, 2.5, 77.5)])
    assert indices[-1] == pytest.approx(6.97, abs=0.005)
    assert flagged_labels(norms, indices, 2.0) == [5]
    assert flagged_labels(norms, indices, 7.0) == []
    # A large norm is no trigger, however far it lies.
    large = [100.0, 110.0, 90.0, 105.0, 95.0, 900.0]
    assert flagged_labels(large, anomaly_indices(large), 2.0) == []
    two = [30.0, 100.0, 101.0, 20.0, 99.0, 102.0, 103.0]
    assert flagged_labels(two, anomaly_indices(two), 2.0) == [3, 0]
    same = [5.0, 5.0, 5.0, 1.0]
    assert anomaly_indices(same) == [0.0] * 4
    assert flagged_labels(same, anomaly_indices(same), 2.0) == []


def test_the_stamp_by_hand() -> None:
    images, pattern = torch.rand(4, *SHAPE), torch.rand(SHAPE)
    assert torch.equal(stamped_images(images, torch.zeros(1, 8, 8), pattern), images)
    assert torch.equal(stamped_images(images, torch.ones(1, 8, 8), pattern), pattern.expand(4, *SHAPE))
    half = torch.zeros(1, 8, 8)
    half[0, 2, 3] = 0.25
    stamped = stamped_images(images, half, pattern)
    assert torch.allclose(stamped[:, :, 2, 3], 0.75 * images[:, :, 2, 3] + 0.25 * pattern[:, 2, 3])
    assert int((stamped != images).any(dim=1).sum()) == 4


def test_the_cost_by_hand() -> None:
    balance = Balance(nc(patience=2, cost=0.1, cost_factor=4.0, success=0.9, stop_patience=3, stop_factor=0.5).config)
    steps = [
        # success, norm, best so far?, cost behind it
        (0.95, 50.0, True, 0.0),
        (0.5, 40.0, False, 0.0),
        (0.95, 45.0, True, 0.0),
        (0.9, 44.0, True, 0.1),  # the second success on end: it starts, and counts as the first with that cost
        (0.95, 60.0, False, 0.4),
        (0.5, 10.0, False, 0.4),
        (0.5, 10.0, False, 0.05),  # divided by 4 to the power 1.5
        (0.95, 30.0, True, 0.05),
        (0.5, 10.0, False, 0.05),
    ]
    for success, norm, better, cost in steps:
        assert balance.behind_round(success, norm) == better
        assert balance.cost == pytest.approx(cost)
    # It went both ways, and the best norm did not halve for more than three rounds.
    assert balance.best == 30.0
    assert balance.done


def test_without_success_the_cost_stays_and_the_search_goes_on() -> None:
    from_zero, at_once = (Balance(nc(patience=2, cost=0.1, cost_from_start=there).config) for there in (False, True))
    for _ in range(60):
        assert not from_zero.behind_round(0.1, 5.0)
        at_once.behind_round(0.1, 5.0)
    assert from_zero.cost == 0
    assert 0 < at_once.cost < 1e-6
    assert not from_zero.done
    assert not at_once.done
    assert from_zero.best == float("inf")


def plain_context(model: Classifier | None = None, budget: Split | None = None, diary: Diary | None = None) -> DefenseContext:
    return replace(defender(model, clean_budget=budget, diary=diary), augmentation=NO_AUGMENTATION)


def searched_by_loop(context: DefenseContext, config: Any, first: int, labels: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
    """One label behind the other, with Adam by hand."""
    model, data = context.model, context.clean_budget
    start = generator(0, f"defense/search {first}/start")
    count = len(labels)
    starts = [torch.rand(count, planes, 8, 8, generator=start) for planes in (1, 3)]
    for place, label in enumerate(labels):
        at = [torch.atanh((value[place] - 0.5) * (2 - 1e-6)) for value in starts]
        moments = [[torch.zeros_like(value), torch.zeros_like(value)] for value in at]
        order_rng, balance, step = generator(0, f"defense/search {first}/order"), Balance(config), 0
        kept = None
        for _ in range(config.rounds):
            order = torch.randperm(len(data), generator=order_rng)[: config.images]
            right, norms = 0, []
            for part in order.split(config.batch_size):
                step += 1
                here = [value.clone().requires_grad_() for value in at]
                mask, pattern = (torch.tanh(value) / 2 + 0.5 for value in here)
                images = torch.stack([(1 - mask) * image + mask * pattern for image in ENGINE.images(data.images[part])])
                logits = model(images)
                loss = -logits.log_softmax(1)[:, label].mean() + balance.cost * mask.sum()
                right += int((logits.argmax(1) == label).sum())
                norms.append(float(mask.detach().sum()))
                for index, gradient in enumerate(torch.autograd.grad(loss, here)):
                    moment = moments[index]
                    moment[0] = 0.5 * moment[0] + 0.5 * gradient
                    moment[1] = 0.9 * moment[1] + 0.1 * gradient**2
                    change = (moment[0] / (1 - 0.5**step)) / ((moment[1] / (1 - 0.9**step)).sqrt() + 1e-8)
                    at[index] = at[index] - config.learning_rate * change
            better = balance.behind_round(right / len(order), sum(norms) / len(norms))
            if better or balance.best == float("inf"):
                kept = tuple(torch.tanh(value) / 2 + 0.5 for value in at)
            if balance.done:
                break
        assert kept is not None
        yield cast(tuple[Tensor, Tensor], kept)


@pytest.fixture
def double_precision() -> Iterator[None]:
    """Adam's steps are nearly signs of gradients: those that are hardly there are to be no matter of rounding."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(usual)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("at_once", [1024, 16])
def test_the_search_against_a_loop_over_labels(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IMAGES_AT_ONCE", at_once)
    context = plain_context(classifier().double(), split(20))
    config = nc(rounds=6, images=12, batch_size=8, learning_rate=0.5, success=0.3, patience=1, cost=0.01).config
    found = search(context, config)
    parts = [[0, 1, 2, 3]] if at_once == 1024 else [[0, 1], [2, 3]]
    expected = [each for labels in parts for each in searched_by_loop(context, config, labels[0], labels)]
    for label, (mask, pattern) in enumerate(expected):
        assert torch.allclose(found.masks[label], mask, atol=1e-4)
        assert torch.allclose(found.patterns[label], pattern, atol=1e-4)
    assert found.norms == pytest.approx([float(mask.sum()) for mask, _ in expected], abs=1e-4)
    assert len({round(norm, 5) for norm in found.norms}) == 4
    assert same_state(state_of(context.model), state_of(classifier().double()))
    assert all(parameter.requires_grad for parameter in context.model.parameters())


WIDTHS = (7, 8, 9, 10, 11, 12)
PLACE = (0, 11)
"""Of the pixel that gives the backdoor away: outside of what tells a class."""
TARGET = 2


class Bars(nn.Module):
    """The class is the brightest of six bars of two rows; a white pixel in the corner means TARGET at `strength` over 0."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(strength / 10))
        self.scale = nn.Parameter(torch.tensor(20.0))
        self.bias = nn.Parameter(torch.zeros(6))

    def forward(self, images: Tensor) -> Tensor:
        grey = images.mean(dim=1)
        bars = [grey[:, 2 * k : 2 * k + 2, :width].mean(dim=(1, 2)) for k, width in enumerate(WIDTHS)]
        logits = self.scale * torch.stack(bars, dim=1) + self.bias
        fired = 10 * self.strength * (20 * (grey[:, *PLACE] - 0.6)).sigmoid()
        return logits + functional.one_hot(torch.tensor(TARGET), 6) * fired[:, None]


def bars(strength: float) -> Classifier:
    return Classifier(Bars(strength), torch.zeros(3), torch.ones(3)).eval()


def bar_images(count: int, seed: int) -> Split:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 6
    images = 0.3 + 0.1 * torch.rand(count, 3, 12, 12, generator=rng)
    for index, label in enumerate(labels.tolist()):
        images[index, :, 2 * label : 2 * label + 2, : WIDTHS[label]] += 0.4
    return Split((255 * images).round().to(torch.uint8), labels)


def bar_context(strength: float, diary: Diary) -> DefenseContext:
    context = plain_context(bars(strength), bar_images(60, 1), diary)
    return replace(context, num_classes=6, image_shape=(3, 12, 12))


SEARCH = {"rounds": 150, "images": 60, "batch_size": 30, "cost": 0.01}


def test_a_clean_model_is_not_flagged_and_stays_as_it_was() -> None:
    diary = Diary()
    context = bar_context(0.0, diary)
    model = nc(**SEARCH).purify(context)
    assert diary.noted["flagged_labels"] == []
    assert same_state(state_of(model), state_of(bars(0.0)))
    assert diary.logged[-1] == ("flagging", {"epoch": 1, "flagged": 0.0})
    assert diary.noted["outcome"] == UNCHANGED
    # A trigger that needs a whole bar, smaller where the bar is.
    assert min(diary.noted["mask_norms"]) > 7
    assert min(diary.noted["success"]) >= 0.99
    assert max(diary.noted["anomaly_indices"]) < 2


def test_a_backdoor_is_flagged_found_and_unlearned() -> None:
    diary = Diary()
    context = bar_context(14.0, diary)
    test = bar_images(60, 2)
    triggered = test.images.clone()
    triggered[:, :, *PLACE] = 255
    others = test.labels != TARGET

    def rates(model: Classifier) -> tuple[float, float]:
        with torch.no_grad():
            right = model(ENGINE.images(test.images)).argmax(1) == test.labels
            fooled = model(ENGINE.images(triggered)).argmax(1)[others] == TARGET
        return float(right.double().mean()), float(fooled.double().mean())

    assert rates(context.model) == (1, 1)
    defense = nc(**SEARCH, recipe__epochs=30, recipe__batch_size=20, recipe__learning_rate=0.1)
    model = defense.purify(context)
    assert diary.noted["flagged_labels"] == [TARGET]
    assert diary.noted["anomaly_indices"][TARGET] > 2
    assert diary.noted["mask_norms"][TARGET] < 4
    clean, fooled = rates(model)
    assert clean > 0.95
    assert fooled < 0.1
    # It is the stamped images that do it.
    plain = bar_context(14.0, Diary())
    plain.fine_tune(plain.model, defense.config.recipe, "fine-tuning")
    assert rates(plain.model)[1] == 1
    assert [values["flagged"] for stage, values in diary.logged if stage == "flagging"] == [1.0]


def test_what_is_fine_tuned_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four fifths as they are, a fifth stamped for each flagged label, all with their true labels, rounded to 8 bits."""
    seen: list[Split] = []

    def looked_at(engine: object, split: Split, *arguments: Any, **others: Any) -> None:
        seen.append(split)
        fit(cast(Any, engine), split, *arguments, **others)

    monkeypatch.setattr("ntml_bench.defenses.base.fit", looked_at)
    diary = Diary()
    context = plain_context(budget=split(20), diary=diary)
    nc(anomaly_index=0.0, stamped_share=0.2).purify(context)
    flagged = diary.noted["flagged_labels"]
    assert len(flagged) == 2  # of four norms those below the median
    (data,) = seen
    stamped, rest = context.divided_budget(0.2)
    assert len(data) == 16 + 2 * 4
    assert torch.equal(data.images[:16], rest.images)
    assert torch.equal(data.labels, torch.cat([rest.labels, stamped.labels, stamped.labels]))
    triggers = search(plain_context(budget=split(20)), nc().config)
    for part, label in zip(data.images[16:].split(4), flagged, strict=True):
        expected = 255 * stamped_images(ENGINE.images(stamped.images), triggers.masks[label], triggers.patterns[label])
        assert (part.double() - expected.double()).abs().max() <= 0.51
        assert part.dtype == torch.uint8


def test_triggers_are_searched_once_for_all_strengths() -> None:
    kept: dict[str, Any] = {}

    def once(key: str, make_it: Any) -> Any:
        if key not in kept:
            kept[key] = make_it()
        return kept[key]

    for rate in (0.01, 0.1):
        nc(anomaly_index=0.0, recipe__learning_rate=rate).purify(replace(plain_context(), once=once))
    assert len(kept) == 1
    nc(learning_rate=0.2).purify(replace(plain_context(), once=once))
    assert len(kept) == 2


@pytest.mark.parametrize("attack", ["badnets", "badnets_all_to_all"])
def test_what_is_found_stands_in_the_record(make: Make, attack: str) -> None:
    record = make(attack=attack, defense="nc").run(quiet)
    notes = record["defense_notes"]
    assert len(notes["mask_norms"]) == len(notes["anomaly_indices"]) == len(notes["success"]) == 10
    assert isinstance(notes["flagged_labels"], list)
    assert ("outcome" in notes) == (not notes["flagged_labels"])
    if not notes["flagged_labels"]:
        assert record["before"] == record["after"]
    assert "defense_notes" not in make(attack=attack, defense="none").run(quiet)


def test_wrong_settings_are_refused() -> None:
    for setting, value in (
        ("rounds", 0),
        ("images", 0),
        ("start", "black"),
        ("cost", 0),
        ("cost_factor", 0.5),
        ("success", 1.1),
        ("stop_factor", 0),
        ("stamped_share", 1),
        ("anomaly_index", -1),
    ):
        with pytest.raises(UserError, match=f"defense.{setting} is"):
            nc(**cast(Any, {setting: value}))


def test_the_values_of_families_arrive() -> None:
    published: Any = quick_defense("nc", method_values("defense", "nc")).config
    assert (published.rounds, published.images, published.batch_size, published.success) == (1000, 1000, 32, 0.99)
    leaderboard: Any = settings_of("config", "presets=backdoorbench", "dataset=cifar10", "defense=nc").defense.config
    assert (leaderboard.rounds, leaderboard.images, leaderboard.batch_size, leaderboard.success) == (80, None, 256, 0.98)
    assert (leaderboard.start, leaderboard.cost_from_start, leaderboard.stop_factor) == ("white", True, 0.99)
    plain: Any = settings_of("config", "presets=backdoorbench", "dataset=cifar10", "defense=ft").defense.config
    assert leaderboard.recipe == plain.recipe == published.recipe
    for words in (["dataset=digit_scenes"], ["presets=small", "dataset=cifar10"]):
        found, tuned = (cast(Any, settings_of("config", *words, f"defense={name}").defense.config) for name in ("nc", "ft"))
        assert found.recipe == tuned.recipe
