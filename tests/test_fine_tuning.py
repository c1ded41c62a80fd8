"""ft_init, fe_tuning, fst and ft_sam against their definitions."""

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from builders import (
    ENGINE,
    NO_AUGMENTATION,
    SHAPE,
    classifier,
    defender,
    method_values,
    quick_defense,
    same_state,
    split,
    state_of,
)
from composed import settings_of
from torch import Tensor, nn
from torch.nn import functional

from ntml_bench.defenses.base import DefenseContext
from ntml_bench.defenses.ft_sam import moved, running_statistics_kept, smoothed_cross_entropy
from ntml_bench.defenses.heads import reinitialise_head, scale_to
from ntml_bench.errors import UserError
from ntml_bench.models import Classifier
from ntml_bench.training import fit

SHIFTS = ("ft_init", "fe_tuning", "fst")


def recipe_of(name: str, **changes: Any) -> Any:
    return cast(Any, quick_defense(name, **changes)).config.recipe


def fitted(context: DefenseContext, model: Classifier, recipe: Any, loss: Any) -> dict[str, Tensor]:
    """The weights of the model after a fine-tuning of that loss, written out."""
    fit(
        ENGINE,
        context.clean_budget,
        recipe,
        models=[model],
        loss=loss,
        augmentation=context.augmentation,
        seed=context.seed,
        purpose="defense/fine-tuning",
        log=lambda _: None,
    )
    return state_of(model)


# A new head.


def test_a_new_head_is_uniform_within_its_bound_and_nothing_else_moves() -> None:
    context = defender()
    model = classifier()
    head = model.head
    reinitialise_head(context, head)
    bound = head.in_features**-0.5
    values = torch.cat([head.weight.detach().flatten(), head.bias.detach()])
    assert values.abs().max() <= bound
    quarters = values.histc(4, -bound, bound) / len(values)
    assert (quarters - 0.25).abs().max() < 4 * (0.25 * 0.75 / len(values)) ** 0.5
    before, after = state_of(classifier()), state_of(model)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"net.fc.weight", "net.fc.bias"}
    without_bias = nn.Linear(5, 3, bias=False)
    reinitialise_head(context, without_bias)
    assert without_bias.bias is None
    assert without_bias.weight.abs().max() <= 5**-0.5


def test_ft_init_is_fine_tuning_from_a_new_head() -> None:
    context, expected = defender(), classifier()
    reinitialise_head(context, expected.head)
    state = fitted(context, expected, recipe_of("ft_init"), lambda x, y: functional.cross_entropy(expected(x), y))
    assert same_state(state_of(quick_defense("ft_init").purify(context)), state)


def test_fe_tuning_trains_all_but_the_new_head() -> None:
    context, fresh = defender(), classifier()
    norm = fresh.head.weight.detach().norm()
    reinitialise_head(context, fresh.head)
    scale_to(fresh.head.weight, norm)
    model = quick_defense("fe_tuning", recipe__weight_decay=0.1).purify(context)
    before, after = state_of(fresh), state_of(model)
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {"net.fc.weight", "net.fc.bias", "mean", "std"}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_fst_against_a_plain_loop() -> None:
    """One batch of all images, so that their order does not matter but for rounding."""
    context = replace(defender(), augmentation=NO_AUGMENTATION)
    rate, alpha = 0.1, 0.3
    changes = {"epochs": 3, "batch_size": 24, "learning_rate": rate, "momentum": 0.0, "schedule": "constant"}
    found = quick_defense("fst", alpha=alpha, **{f"recipe__{key}": value for key, value in changes.items()}).purify(context)

    model = classifier().train()
    old = model.head.weight.detach().clone()
    reinitialise_head(context, model.head)
    images, labels = ENGINE.images(context.clean_budget.images), context.clean_budget.labels
    parameters = dict(model.named_parameters())
    for _ in range(3):
        loss = functional.cross_entropy(model(images), labels)
        gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
        gradients["net.fc.weight"] = gradients["net.fc.weight"] + alpha * old  # the derivative of alpha <W, W0>
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter -= rate * gradients[name]
            model.head.weight.mul_(old.square().sum().sqrt() / model.head.weight.square().sum().sqrt())
    for name, value in state_of(model).items():
        assert torch.allclose(state_of(found)[name].double(), value.double(), atol=2e-5), name


@pytest.mark.parametrize(
    ("name", "epochs", "changes"), [("fst", 1, {"alpha": 0.0}), ("fst", 4, {"alpha": 5.0}), ("fe_tuning", 2, {})]
)
def test_the_new_head_has_the_norm_of_the_backdoored_one(name: str, epochs: int, changes: dict[str, Any]) -> None:
    norm = classifier().head.weight.norm()
    model = quick_defense(name, **changes, recipe__epochs=epochs, recipe__weight_decay=0.1).purify(defender())
    assert torch.allclose(model.head.weight.norm(), norm, rtol=1e-5)


def test_alpha_turns_the_new_head_away_from_the_backdoored_one() -> None:
    old = classifier().head.weight.detach().flatten()

    def likeness(alpha: float) -> float:
        weight = quick_defense("fst", alpha=alpha, recipe__epochs=3).purify(defender()).head.weight.detach().flatten()
        return functional.cosine_similarity(weight, old, dim=0).item()

    assert likeness(2.0) < likeness(0.2) < likeness(0.0)


@pytest.mark.parametrize("name", SHIFTS)
def test_a_net_without_a_linear_head_is_refused(name: str) -> None:
    class Headless(nn.Module):
        def get_classifier(self) -> nn.Module:
            return nn.Identity()

    with pytest.raises(UserError, match="ends in Identity"):
        quick_defense(name).check(Classifier(Headless(), torch.zeros(3), torch.ones(3)), SHAPE)


# Sharpness.


def test_how_far_the_weights_are_moved_by_hand() -> None:
    weights, gradients = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    expected = weights + 0.5 * torch.tensor([3.0, 16.0]) / 73**0.5
    whole = nn.Parameter(weights.clone())
    whole.grad = gradients.clone()
    # All parameters are one vector; one without a gradient stays.
    parts = [nn.Parameter(weight.clone()) for weight in weights]
    for part, gradient in zip(parts, gradients, strict=True):
        part.grad = gradient.clone()
    still = nn.Parameter(torch.tensor([7.0]))
    with moved([whole], 0.5), moved([*parts, still], 0.5):
        assert torch.allclose(whole, expected)
        assert torch.allclose(torch.stack(list(parts)), expected)
        assert still.item() == 7
        whole.grad = torch.ones(2)
    assert torch.equal(whole, weights)
    assert torch.equal(torch.stack(list(parts)), weights)
    assert torch.equal(whole.grad, torch.ones(2))
    # A gradient of nothing but zeros moves nothing.
    whole.grad = torch.zeros(2)
    with moved([whole], 2.0):
        assert torch.equal(whole, weights)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_smoothed_loss_by_hand(smoothing: float, classes: int) -> None:
    logits = torch.randn(4, classes, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 1, 0])
    target = torch.full((4, classes), smoothing / (classes - 1))
    target[torch.arange(4), labels] = 1 - smoothing
    expected = -(target * logits.log_softmax(1)).sum(1).mean()
    assert smoothed_cross_entropy(logits, labels, smoothing).item() == pytest.approx(expected.item(), rel=1e-5)


def test_running_statistics_see_one_pass_of_a_step() -> None:
    model = classifier().train()
    before = state_of(model)
    images = ENGINE.images(split(8).images)
    usual = classifier().train()(images)
    with running_statistics_kept(model):
        assert torch.equal(model(images), usual)
    assert same_state(state_of(model), before)
    model(images)
    assert not same_state(state_of(model), before)
    # 24 images in batches of 8, twice.
    purified = state_of(quick_defense("ft_sam", recipe__epochs=2).purify(defender()))
    assert {int(value) for name, value in purified.items() if name.endswith("num_batches_tracked")} == {6}


def test_without_rho_it_is_fine_tuning_with_the_smoothed_loss_bit_for_bit() -> None:
    context, expected = defender(), classifier()
    changes = {"recipe__epochs": 2, "recipe__nesterov": True}
    recipe = recipe_of("ft_sam", **changes)
    state = fitted(context, expected, recipe, lambda x, y: smoothed_cross_entropy(expected(x), y, 0.1))
    found = state_of(quick_defense("ft_sam", rho=0.0, **changes).purify(context))
    assert same_state(found, state)
    assert not same_state(state_of(quick_defense("ft_sam", rho=0.01, **changes).purify(defender())), state)


def test_a_step_against_a_plain_loop() -> None:
    context = replace(defender(), augmentation=NO_AUGMENTATION)
    rate, rho, decay = 0.1, 2.0, 0.01
    changes = {"epochs": 2, "batch_size": 24, "learning_rate": rate, "momentum": 0.0, "weight_decay": decay}
    changes |= {"schedule": "constant"}
    found = quick_defense("ft_sam", rho=rho, **{f"recipe__{key}": value for key, value in changes.items()}).purify(context)

    images, labels = ENGINE.images(context.clean_budget.images), context.clean_budget.labels
    model = classifier().train()

    def gradient(of: Classifier) -> list[Tensor]:
        loss = smoothed_cross_entropy(of(images), labels, 0.1)
        return list(torch.autograd.grad(loss, list(of.parameters())))

    for _ in range(2):
        first = gradient(model)
        weights = [parameter.detach() for parameter in model.parameters()]
        length = sum((w * g).square().sum() for w, g in zip(weights, first, strict=True)) ** 0.5
        other = classifier().train()
        other.load_state_dict(model.state_dict())
        with torch.no_grad():
            for parameter, w, g in zip(other.parameters(), weights, first, strict=True):
                parameter.copy_(w + rho * w**2 * g / length)
        second = gradient(other)
        with torch.no_grad():
            for parameter, g in zip(model.parameters(), second, strict=True):
                parameter -= rate * (g + decay * parameter)
    for name, value in state_of(model).items():
        assert torch.allclose(state_of(found)[name].double(), value.double(), atol=5e-5), name


def test_wrong_settings_are_refused() -> None:
    for name, setting, value in (("ft_sam", "rho", -1), ("ft_sam", "smoothing", 0.6), ("fst", "alpha", -0.1)):
        with pytest.raises(UserError, match=f"defense.{setting} is"):
            quick_defense(name, **cast(Any, {setting: value}))


def test_the_values_are_the_published_ones() -> None:
    for name in SHIFTS:
        steps = method_values("defense", name)["recipe"]
        assert (steps["epochs"], steps["batch_size"], steps["learning_rate"], steps["weight_decay"]) == (10, 128, 0.01, 0.0)
    found = {}
    for dataset in ("cifar10", "gtsrb", "cifar100", "tiny_imagenet"):
        configs = [settings_of("config", f"dataset={dataset}", f"defense={name}").defense.config for name in ("fst", "ft_sam")]
        fst, ft_sam = cast(Any, configs)
        found[dataset] = (fst.alpha, fst.recipe.epochs, fst.recipe.learning_rate, ft_sam.rho)
    assert found == {
        "cifar10": (0.2, 10, 0.01, 2.0),
        "gtsrb": (0.1, 10, 0.01, 8.0),
        "cifar100": (0.001, 15, 0.001, 2.0),
        "tiny_imagenet": (0.001, 15, 0.001, 8.0),
    }
