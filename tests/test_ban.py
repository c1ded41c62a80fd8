"""ban against its definition: the noise and a step by plain loops over a scaled copy of the model."""

from copy import deepcopy
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from builders import ENGINE, NO_AUGMENTATION, classifier, defender, method_values, quick_defense, split, state_of
from composed import settings_of
from torch import Tensor, nn
from torch.nn import functional

from ntml_bench.defenses.ban import adversarial_noise
from ntml_bench.defenses.masks import Channels
from ntml_bench.errors import UserError
from ntml_bench.models import Classifier
from ntml_bench.seeding import generator


def scaled(model: Classifier, noise: Tensor) -> Classifier:
    """A copy with the noise (d, e) [2, C] in its weights and biases."""
    copy, place = deepcopy(model), 0
    for norm in copy.modules():
        if isinstance(norm, nn.BatchNorm2d):
            here = slice(place, place := place + norm.num_features)
            norm.weight.data *= 1 + noise[0, here]
            norm.bias.data *= 1 + noise[1, here]
    return copy


def channel_gradient(model: Classifier, noise: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """Of the loss for the noise [2, C]: that for the scaled weight, times the weight that is scaled."""
    copy = scaled(model, noise)
    functional.cross_entropy(copy(images), labels).backward()
    rows: list[list[Tensor]] = [[], []]
    for norm, plain in zip(copy.modules(), model.modules(), strict=True):
        if isinstance(norm, nn.BatchNorm2d) and isinstance(plain, nn.BatchNorm2d):
            rows[0].append(cast(Tensor, norm.weight.grad) * plain.weight.detach())
            rows[1].append(cast(Tensor, norm.bias.grad) * plain.bias.detach())
    return torch.stack([torch.cat(row) for row in rows])


def start_of(count: int, eps: float) -> Tensor:
    return eps * (2 * torch.rand(2, count, generator=torch.Generator().manual_seed(3)) - 1)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_noise_against_a_loop(steps: int) -> None:
    # In double precision: the sign of a gradient that is hardly there is no matter of rounding.
    model, data = classifier().double().train(), split(8)
    images = ENGINE.images(data.images).double()
    channels = Channels(model)
    start = start_of(len(channels.weight), 0.3).double()
    found = adversarial_noise(channels, start, images, data.labels, 0.3, steps)
    noise = start
    for _ in range(steps):
        noise = noise + 0.3 / steps * channel_gradient(model, noise, images, data.labels).sign()
    assert torch.allclose(found, noise)
    # It is not put back.
    assert 0.3 < found.abs().max() <= 0.6
    with torch.no_grad():
        losses = [functional.cross_entropy(scaled(model, each)(images), data.labels) for each in (start, found)]
    assert losses[1] > losses[0]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_two_steps_against_a_plain_loop() -> None:
    context = replace(defender(), augmentation=NO_AUGMENTATION)
    rate, eps, weight = 0.05, 0.2, 0.7
    changes = {
        "batch_size": 24,
        "learning_rate": rate,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "schedule": "constant",
        "epochs": 2,
    }
    defense = quick_defense(
        "ban", eps=eps, steps=1, noise_weight=weight, **{f"recipe__{key}": value for key, value in changes.items()}
    )
    found = state_of(defense.purify(context))

    model, rng, order_rng = classifier().train(), generator(0, "defense/noise"), generator(0, "defense/fine-tuning/order")
    count = sum(norm.num_features for norm in model.modules() if isinstance(norm, nn.BatchNorm2d))
    for _ in range(2):
        order = torch.randperm(24, generator=order_rng)
        images, labels = ENGINE.images(context.clean_budget.images)[order], context.clean_budget.labels[order]
        start = eps * (2 * torch.rand(2, count, generator=rng) - 1)
        noise = start + eps * channel_gradient(deepcopy(model), start, images, labels).sign()
        noisy = scaled(model, noise)
        functional.cross_entropy(noisy(images), labels).backward()
        functional.cross_entropy(model(images), labels).backward()
        place = 0
        with torch.no_grad():
            for (name, parameter), other in zip(model.named_parameters(), noisy.parameters(), strict=True):
                factor: Any = 1.0
                if isinstance(model.get_submodule(name.rpartition(".")[0]), nn.BatchNorm2d):
                    # A layer's weight stands before its bias.
                    row = 0 if name.endswith("weight") else 1
                    factor = 1 + noise[row, place : place + len(parameter)]
                    place += len(parameter) * row
                parameter -= rate * (cast(Tensor, parameter.grad) + weight * factor * cast(Tensor, other.grad))
                parameter.grad = None
        assert place == count
    for name, value in model.named_parameters():
        assert torch.allclose(found[name], value, atol=1e-4), name


def test_running_statistics_see_all_passes() -> None:
    for steps, passes in ((1, 3), (2, 4)):
        found = state_of(quick_defense("ban", steps=steps).purify(defender()))
        # 24 images in batches of 8.
        assert {int(value) for name, value in found.items() if name.endswith("num_batches_tracked")} == {3 * passes}


def test_without_noise_it_is_fine_tuning_bit_for_bit() -> None:
    recipe = {f"recipe__{key}": value for key, value in {"learning_rate": 0.02, "schedule": "constant"}.items()}
    plain = state_of(quick_defense("ft", **recipe).purify(defender()))
    parameters = dict(classifier().named_parameters())

    def same(**changes: Any) -> bool:
        found = state_of(quick_defense("ban", **recipe, **changes).purify(defender()))
        return all(torch.equal(found[name], plain[name]) for name in parameters)

    assert same(noise_weight=0.0)
    assert not same(noise_weight=0.1)


def test_nets_and_settings_that_do_not_fit_are_refused() -> None:
    shape = (3, 32, 32)
    with pytest.raises(UserError, match="defense ban perturbs channels of BatchNorm layers; ConvNeXt has none"):
        quick_defense("ban").check(classifier("convnext_atto", shape=shape), shape)
    for setting, value in (("eps", -0.1), ("steps", 0), ("noise_weight", -1)):
        with pytest.raises(UserError, match=f"defense.{setting} is"):
            quick_defense("ban", **cast(Any, {setting: value}))


def test_the_values_of_data_sets_arrive() -> None:
    published: Any = quick_defense("ban", method_values("defense", "ban")).config
    assert (published.eps, published.noise_weight, published.steps) == (0.3, 0.5, 1)
    assert (published.recipe.epochs, published.recipe.batch_size, published.recipe.learning_rate) == (25, 128, 0.005)
    for words, batch in ((["dataset=digit_scenes"], 16), (["presets=small", "dataset=cifar10"], 32)):
        found: Any = settings_of("config", *words, "defense=ban").defense.config
        assert (found.recipe.batch_size, found.recipe.epochs) == (batch, 25)
        assert found.recipe.learning_rate == pytest.approx(0.1 * batch / (2 * 128))
