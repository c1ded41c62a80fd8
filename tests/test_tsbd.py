"""tsbd against its definition: changes and zeros by hand, the ascent and a step by plain loops, the choice, the end."""

from copy import deepcopy
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
    state_of,
)
from composed import settings_of
from torch import Tensor, nn
from torch.nn import functional

from ntml_bench.defenses import tsbd as module
from ntml_bench.defenses.base import DefenseContext
from ntml_bench.defenses.convolutions import convolutions
from ntml_bench.defenses.tsbd import weight_changes, zero_most_changed
from ntml_bench.errors import UserError
from ntml_bench.evaluation import accuracy
from ntml_bench.models import Classifier
from ntml_bench.seeding import generator


class Small(nn.Module):
    """Two filters of two weights, one of two, and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(2, 2, 1, bias=False)
        self.two = nn.Conv2d(2, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(2, 1, 1, bias=False)


def small(one: list[float], two: list[float], shortcut: list[float]) -> Classifier:
    net = Small()
    for layer, values in ((net.one, one), (net.two, two), (net.shortcut, shortcut)):
        layer.weight.data.copy_(torch.tensor(values).view(layer.weight.shape))
    return Classifier(net, torch.zeros(2), torch.ones(2))


def weights_of(model: Classifier) -> list[list[float]]:
    return [layer.weight.flatten().tolist() for layer in (model.net.one, model.net.two, model.net.shortcut)]  # pyright: ignore


def test_changes_and_zeros_by_hand() -> None:
    model = small([1, 2, 3, 4], [5, 6], [7, 8])
    # The filters change by 0.6 and 0.7, and by 0.9; the shortcut by more.
    unlearned = small([1.1, 1.5, 3.4, 3.7], [5.9, 6.0], [9, 9])
    changes = weight_changes(model, unlearned)
    assert list(changes) == ["one", "two"]
    assert torch.allclose(changes["one"].flatten(), torch.tensor([0.1, 0.5, 0.4, 0.3]), atol=1e-6)
    assert torch.allclose(changes["two"].flatten(), torch.tensor([0.9, 0.0]), atol=1e-6)
    expected = {
        # Two filters, of whose four weights these changed most.
        (2 / 3, 0.5): [[1, 2, 0, 4], [0, 6]],
        (2 / 3, 0.75): [[1, 2, 0, 0], [0, 6]],
        # The filter that changed most, all of it.
        (1 / 3, 1.0): [[1, 2, 3, 4], [0, 0]],
        (1.0, 0.5): [[1, 0, 0, 4], [0, 6]],
        (0.0, 0.7): [[1, 2, 3, 4], [5, 6]],
        (1.0, 0.0): [[1, 2, 3, 4], [5, 6]],
    }
    for (neurons, weights), left in expected.items():
        trial = deepcopy(model)
        count = zero_most_changed(trial, changes, neurons, weights)
        assert weights_of(trial) == [*left, [7, 8]], (neurons, weights)
        assert count == sum(row.count(0) for row in left)


def plain_context(diary: Diary | None = None) -> DefenseContext:
    return replace(defender(diary=diary), augmentation=NO_AUGMENTATION)


def tsbd(**changes: Any) -> Any:
    base = {"neuron_share": 0.1, "unlearning__batch_size": 24, "recipe__batch_size": 24}
    return quick_defense("tsbd", **(base | changes))


def test_the_ascent_against_a_plain_loop() -> None:
    diary = Diary()
    context, rate = plain_context(diary), 0.01
    changes = {"unlearning__learning_rate": rate, "unlearning__momentum": 0.0, "unlearning__epochs": 3}
    found = tsbd(unlearned_accuracy=0.0, **changes)._unlearned(context)
    assert same_state(state_of(context.model), state_of(classifier()))

    model, order_rng = classifier().train(), generator(0, "defense/unlearning/order")
    losses, accuracies = [], []
    for _ in range(3):
        order = torch.randperm(24, generator=order_rng)
        images, labels = ENGINE.images(context.clean_budget.images)[order], context.clean_budget.labels[order]
        loss = functional.cross_entropy(model(images), labels)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter += rate * gradient
        accuracies.append(accuracy(ENGINE, model, context.clean_budget))
        model.train()
    for name, value in state_of(model).items():
        assert torch.allclose(state_of(found)[name].double(), value.double(), atol=1e-4), name
    assert [values["loss"] for _, values in diary.logged] == pytest.approx(losses, abs=1e-4)
    assert [values["accuracy"] for _, values in diary.logged] == pytest.approx(accuracies)
    assert losses[0] < losses[-1]


@pytest.mark.parametrize("border", [0.0, 0.5, 1.0])
def test_the_ascent_ends_at_the_first_pass_at_or_below_the_border(border: float) -> None:
    """From a model that knows the images, and forgets them in a few passes."""
    model, context = classifier(), plain_context()
    context.fine_tune(model, replace(tsbd().config.recipe, epochs=15, learning_rate=0.05), "learning")
    diary = Diary()
    context = replace(context, model=model, log=diary.log)
    assert accuracy(ENGINE, model, context.clean_budget) > 0.9
    tsbd(unlearned_accuracy=border, unlearning__epochs=12, unlearning__learning_rate=0.02)._unlearned(context)
    reached = [values["accuracy"] for _, values in diary.logged]
    assert all(value > border for value in reached[:-1])
    assert reached[-1] <= border or len(reached) == 12
    assert (len(reached) == 1) == (border == 1.0)


def test_two_steps_of_the_fine_tuning_against_a_plain_loop() -> None:
    context, rate, radius, alpha = plain_context(), 0.05, 0.3, 0.7
    changes = {"learning_rate": rate, "momentum": 0.0, "epochs": 2}
    defense = tsbd(neuron_share=0.0, radius=radius, alpha=alpha, **{f"recipe__{key}": value for key, value in changes.items()})
    found = state_of(defense.purify(context))

    model, order_rng = classifier().train(), generator(0, "defense/fine-tuning/order")
    for _ in range(2):
        order = torch.randperm(24, generator=order_rng)
        images, labels = ENGINE.images(context.clean_budget.images)[order], context.clean_budget.labels[order]
        other = deepcopy(model)
        first = torch.autograd.grad(functional.cross_entropy(model(images), labels), list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(other.parameters(), first, strict=True):
                parameter += radius * gradient / gradient.square().sum().sqrt()
        second = torch.autograd.grad(functional.cross_entropy(other(images), labels), list(other.parameters()))
        with torch.no_grad():
            for parameter, one, two in zip(model.parameters(), first, second, strict=True):
                parameter -= rate * (0.3 * one + 0.7 * two)
    for name, value in state_of(model).items():
        assert torch.allclose(found[name].double(), value.double(), atol=1e-4), name


def test_without_zeros_and_second_gradient_it_is_fine_tuning_bit_for_bit() -> None:
    recipe: dict[str, Any] = {"recipe__schedule": "constant", "recipe__weight_decay": 0.0}
    plain = state_of(quick_defense("ft", **recipe).purify(defender()))

    def found(**changes: Any) -> dict[str, Tensor]:
        settings: dict[str, Any] = {**recipe, "neuron_share": 0.0, "alpha": 0.0, **changes}
        return state_of(quick_defense("tsbd", **settings).purify(defender()))

    assert same_state(found(), plain)
    assert same_state(found(radius=5.0), plain)
    for changes in ({"alpha": 0.5}, {"neuron_share": 0.1}):
        assert not same_state(found(**changes), plain)
    still = found(alpha=0.5, radius=0.0)
    assert all(torch.allclose(still[name].double(), value.double(), atol=1e-6) for name, value in plain.items())


@pytest.mark.parametrize(
    ("accuracies", "chosen"),
    [
        # The accuracy before, then at each share until it falls below nine tenths of that.
        ([0.8, 0.8, 0.75, 0.73, 0.71, 0.8], 0.1),
        ([0.8, 0.71], 0.0),
        ([1.0, *[0.9] * 11], 0.9),
    ],
)
def test_the_largest_share_within_the_tolerance(
    accuracies: list[float], chosen: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, script = defender(), iter(accuracies)
    seen: list[int] = []

    def told(_: object, model: Classifier, data: object) -> float:
        assert data is context.clean_budget
        seen.append(sum(int((layer.weight == 0).sum()) for layer in convolutions(model.net).values()))
        return next(script)

    monkeypatch.setattr(module, "accuracy", told)
    changes = weight_changes(classifier(), classifier(seed=1))
    assert tsbd(neuron_share=None)._chosen_share(context, changes) == chosen
    assert same_state(state_of(context.model), state_of(classifier()))
    assert seen == sorted(seen)
    assert seen[0] == 0


def test_a_chosen_share_is_logged_and_used() -> None:
    diary, defense = Diary(), tsbd(neuron_share=None, tolerance=1.0)
    defense.purify(defender(diary=diary))
    (zeroing,) = [values for stage, values in diary.logged if stage == "zeroing"]
    assert zeroing["neuron_share"] == 0.9
    changes = weight_changes(classifier(), defense._unlearned(defender()))
    assert zeroing["weights"] == zero_most_changed(classifier(), changes, 0.9, 0.7)
    assert zeroing["weights"] > zero_most_changed(classifier(), changes, 0.1, 0.7)


def test_nets_and_settings_that_do_not_fit_are_refused() -> None:
    class Flat(nn.Module):
        pass

    with pytest.raises(UserError, match="defense tsbd sets weights of convolutions to 0; Flat has none"):
        tsbd().check(Classifier(Flat(), torch.zeros(3), torch.ones(3)), SHAPE)
    for setting, value in (("neuron_share", 1.1), ("weight_share", -0.1), ("radius", -1), ("alpha", 2), ("tolerance", -1)):
        with pytest.raises(UserError, match=f"defense.{setting} is"):
            tsbd(**cast(Any, {setting: value}))


def test_shortcuts_are_no_convolutions_of_the_main_path() -> None:
    for net, count in (("resnet_tiny", 7), ("resnet18", 17)):
        names = convolutions(classifier(net, shape=(3, 32, 32)).net)
        assert len(names) == count
        assert not any("shortcut" in name or "downsample" in name for name in names)


def test_the_values_of_data_sets_arrive() -> None:
    published: Any = quick_defense("tsbd", method_values("defense", "tsbd")).config
    assert (published.unlearning.epochs, published.unlearning.batch_size, published.unlearning.learning_rate) == (
        1000,
        256,
        1e-4,
    )
    assert (published.recipe.epochs, published.recipe.batch_size, published.recipe.learning_rate) == (20, 256, 0.01)
    assert (published.weight_share, published.radius, published.alpha, published.neuron_share) == (0.7, 0.05, 0.7, None)
    for words, batch in ((["dataset=digit_scenes"], 32), (["presets=small", "dataset=cifar10"], 64)):
        found: Any = settings_of("config", *words, "defense=tsbd").defense.config
        rate = 0.1 * batch / (2 * 128)
        for recipe, expected in ((found.recipe, rate), (found.unlearning, rate / 100)):
            assert (recipe.batch_size, recipe.learning_rate) == (batch, pytest.approx(expected))
