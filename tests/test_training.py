"""fit, against SGD computed by hand, and what its callers rely on."""

import os
from collections.abc import Callable
from math import cos, pi
from shutil import which
from typing import Any

import numpy as np
import pytest
import torch
from builders import ENGINE, NO_AUGMENTATION, recipe, same_state, split, state_of
from torch import Tensor, nn

import ntml_bench.training
from ntml_bench.data.base import AugmentationConfig, Split
from ntml_bench.engine import Engine
from ntml_bench.errors import UserError
from ntml_bench.schema import build
from ntml_bench.training import (
    SCHEDULES,
    Recipe,
    SteppedRecipe,
    TrainingConfig,
    TrainingDivergedError,
    cross_entropy_of,
    fit,
)

SHAPE = (2, 3, 3)
AUGMENTATION = AugmentationConfig(crop_padding=1, horizontal_flip=True)


def linear(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(18, 4))


def train(model: nn.Module, data: Split, settings: Recipe, **changes: Any) -> list[dict[str, float]]:
    log: list[dict[str, float]] = []
    arguments: dict[str, Any] = {
        "models": [model],
        "loss": cross_entropy_of(model),
        "augmentation": NO_AUGMENTATION,
        "seed": 0,
        "purpose": "test",
        "log": log.append,
    }
    fit(ENGINE, data, settings, **arguments | changes)
    return log


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_steps_are_those_of_sgd_by_hand(momentum: float, nesterov: bool) -> None:
    rate, decay, data = 0.3, 0.01, split(12, SHAPE)
    model = linear()
    layer = model[1]
    assert isinstance(layer, nn.Linear)
    # Weights with the bias as their last column, softmax regression in numpy.
    weights = np.concatenate([layer.weight.detach().numpy(), layer.bias.detach().numpy()[:, None]], axis=1).astype(np.float64)
    inputs = np.concatenate([data.images.flatten(1).numpy() / 255, np.ones((12, 1))], axis=1)
    wanted = np.eye(4)[data.labels.numpy()]
    velocity, losses = np.zeros_like(weights), []
    for _ in range(3):
        exponentials = np.exp(inputs @ weights.T)
        probabilities = exponentials / exponentials.sum(1, keepdims=True)
        losses.append(-np.log((probabilities * wanted).sum(1)).mean())
        gradient = (probabilities - wanted).T @ inputs / 12 + decay * weights
        velocity = momentum * velocity + gradient
        weights = weights - rate * (gradient + momentum * velocity if nesterov else velocity)
    settings = recipe(epochs=3, batch_size=12, learning_rate=rate, momentum=momentum, nesterov=nesterov, weight_decay=decay)
    log = train(model, data, settings)
    assert np.allclose(layer.weight.detach().numpy(), weights[:, :-1], atol=1e-6)
    assert np.allclose(layer.bias.detach().numpy(), weights[:, -1], atol=1e-6)
    assert [values["epoch"] for values in log] == [1, 2, 3]
    assert np.allclose([values["loss"] for values in log], losses, atol=1e-6)


class Recording(torch.optim.SGD):
    """Notes the learning rate of every step that is taken."""

    rates: list[list[float]]

    def step(self, *arguments: Any, **named: Any) -> Any:
        self.rates.append([group["lr"] for group in self.param_groups])
        return super().step(*arguments, **named)


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    seen: list[list[float]] = []
    monkeypatch.setattr(Recording, "rates", seen, raising=False)
    monkeypatch.setattr(torch.optim, "SGD", Recording)
    return seen


def expected_rate(schedule: str, step: int, steps: int, warmup: float) -> float:
    """The share of the highest rate at a step (from 0) of so many."""
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return (1 + cos(pi * step / steps)) / 2
    peak = warmup * (steps + 1) - 1
    if step <= peak:
        return 1 + (1 / 25 - 1) * (1 + cos(pi * step / peak)) / 2
    return (1 + cos(pi * (step - peak) / (steps - peak))) / 2


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
@pytest.mark.parametrize(("epochs", "count"), [(1, 4), (4, 23), (2, 40)])
@pytest.mark.parametrize("warmup", [0.0, 0.3])
def test_the_schedule_as_the_optimizer_sees_it(
    schedule: str, epochs: int, count: int, warmup: float, rates: list[list[float]]
) -> None:
    settings = recipe(epochs=epochs, batch_size=4, schedule=schedule, warmup=warmup, learning_rate=0.5)
    train(linear(), split(count, SHAPE), settings)
    steps = epochs * (count // 4)
    assert len(rates) == steps
    expected = [0.5 * expected_rate(schedule, step, steps, warmup) for step in range(steps)]
    assert [rate for (rate,) in rates] == pytest.approx(expected, abs=1e-5)
    if schedule != "constant" and steps > 10:
        # As long as the training, no longer: the last step is all but at 0.
        assert rates[-1][0] < 0.5 * 0.03


@pytest.mark.parametrize(("full_rate", "epochs", "full_epochs"), [(0.1, 20, 2), (0.2, 10, 2), (0.0, 3, 0), (1.0, 3, 3)])
def test_the_rate_falls_to_a_tenth_once(full_rate: float, epochs: int, full_epochs: int, rates: list[list[float]]) -> None:
    plain = vars(recipe(epochs=epochs, batch_size=4, learning_rate=0.5))
    train(linear(), split(12, SHAPE), SteppedRecipe(**plain | {"schedule": "step", "full_rate": full_rate}))
    assert [rate for (rate,) in rates] == pytest.approx([0.5] * 3 * full_epochs + [0.05] * 3 * (epochs - full_epochs))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_stepped_recipe_knows_the_other_schedules_too(schedule: str) -> None:
    plain = vars(recipe(epochs=3, schedule=schedule, warmup=0.3))
    assert same_state(trained(SteppedRecipe(**plain, full_rate=0.5)), trained(Recipe(**plain)))


def test_only_a_stepped_recipe_has_steps() -> None:
    values = vars(recipe()) | {"schedule": "step"}
    assert build(SteppedRecipe, values | {"full_rate": 0.1}, "recipe").full_rate == 0.1
    with pytest.raises(UserError, match=r"recipe.schedule is 'step'; allowed: constant, cosine"):
        build(Recipe, values, "recipe")
    with pytest.raises(UserError, match=r"recipe.full_rate is 2.0; allowed: at least 0 and at most 1"):
        build(SteppedRecipe, values | {"full_rate": 2}, "recipe")


@pytest.mark.parametrize("steps", range(1, 13))
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.2, 0.25, 0.5, 0.9])
def test_one_cycle_of_any_length_rises_and_falls(steps: int, warmup: float, rates: list[list[float]]) -> None:
    train(linear(), split(4, SHAPE), recipe(epochs=steps, batch_size=4, schedule="one_cycle", warmup=warmup))
    seen = [rate for (rate,) in rates]
    highest = seen.index(max(seen))
    assert 0 < max(seen) <= 0.1 + 1e-12
    assert seen[: highest + 1] == sorted(seen[: highest + 1])
    assert seen[highest:] == sorted(seen[highest:], reverse=True)
    assert abs(highest - (warmup * (steps + 1) - 1)) <= 1


def test_each_model_has_its_learning_rate(rates: list[list[float]]) -> None:
    models = [linear(), linear()]
    start = state_of(models[0])
    # The gradient of a linear loss is the same wherever the weights are.
    train(
        models[0],
        split(20, SHAPE),
        recipe(epochs=2, momentum=0.9, schedule="cosine"),
        models=models,
        learning_rates=[0.1, 0.02],
        loss=lambda images, labels: models[0](images).sum() + models[1](images).sum(),
    )
    assert rates[0] == [0.1, 0.02]
    assert rates[3] == pytest.approx([0.1 * (1 + cos(pi * 3 / 4)) / 2, 0.02 * (1 + cos(pi * 3 / 4)) / 2])
    for name, value in start.items():
        fast, slow = models[0].state_dict()[name] - value, models[1].state_dict()[name] - value
        assert torch.allclose(fast, 5 * slow, rtol=1e-3)
        assert fast.abs().min() > 0


def test_as_many_rates_as_models() -> None:
    with pytest.raises(ValueError, match="zip"):
        train(linear(), split(8, SHAPE), recipe(), learning_rates=[0.1, 0.2])


def trained(settings: Recipe | None = None, **changes: Any) -> dict[str, Tensor]:
    model = linear()
    train(
        model,
        split(20, SHAPE),
        settings or recipe(epochs=2),
        **{"augmentation": AUGMENTATION, "loss": cross_entropy_of(model)} | changes,
    )
    return state_of(model)


def test_the_same_seed_and_purpose_give_the_same_weights() -> None:
    first = trained()
    torch.rand(3)
    assert same_state(first, trained())
    assert not same_state(first, trained(seed=1))
    assert not same_state(first, trained(purpose="another"))


def test_the_global_stream_is_neither_used_nor_moved() -> None:
    model = linear()
    before = torch.get_rng_state()
    train(model, split(20, SHAPE), recipe(), augmentation=AUGMENTATION)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 3},
        {"batch_size": 5},
        {"learning_rate": 0.2},
        {"momentum": 0.8},
        {"nesterov": False},
        {"weight_decay": 0.1},
        {"schedule": "cosine"},
        {"warmup": 0.6},
    ],
)
def test_every_setting_of_a_recipe_matters(change: dict[str, Any]) -> None:
    base: dict[str, Any] = {"epochs": 4, "momentum": 0.9, "nesterov": True, "schedule": "one_cycle", "warmup": 0.3}
    assert not same_state(trained(recipe(**base)), trained(recipe(**base | change)))


def test_a_training_recipe_is_used_as_it_is() -> None:
    named = TrainingConfig(name="x", **vars(recipe(epochs=2)))
    assert same_state(trained(recipe(epochs=2)), trained(named))


def test_models_end_in_eval_mode_and_train_in_training_mode() -> None:
    model = nn.Sequential(linear(), nn.BatchNorm1d(4)).eval()
    modes: set[bool] = set()

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        modes.add(model[1].training)
        return model(images).square().sum()

    train(model, split(8, SHAPE), recipe(), loss=loss)
    assert modes == {True}
    assert not any(module.training for module in model.modules())
    assert model[1].state_dict()["num_batches_tracked"] == 1


def test_frozen_parameters_stay() -> None:
    model = linear()
    model[1].weight.requires_grad_(False)
    start = state_of(model)
    train(model, split(8, SHAPE), recipe(weight_decay=0.1))
    assert torch.equal(start["1.weight"], model.state_dict()["1.weight"])
    assert not torch.equal(start["1.bias"], model.state_dict()["1.bias"])


def numbered(count: int) -> Split:
    return Split(torch.full((count, *SHAPE), 9, dtype=torch.uint8), torch.arange(count))


def batches_of(count: int, **changes: Any) -> list[list[int]]:
    """The labels of the batches that a training on `count` images with labels of their own goes through."""
    model, seen = linear(), []

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        seen.append(labels.tolist())
        return model(images).mean()

    train(model, numbered(count), recipe(**changes), loss=loss)
    return seen


def test_a_batch_larger_than_the_set_is_the_set() -> None:
    batches = batches_of(6, epochs=3, batch_size=100)
    assert [sorted(batch) for batch in batches] == [list(range(6))] * 3


def test_an_epoch_takes_each_image_at_most_once_and_leaves_out_others_each_time() -> None:
    batches = batches_of(11, epochs=4, batch_size=4)
    assert [len(batch) for batch in batches] == [4] * 8
    epochs = [batches[number] + batches[number + 1] for number in range(0, 8, 2)]
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert len({tuple(sorted(set(range(11)) - set(epoch))) for epoch in epochs}) > 1
    assert {label for epoch in epochs for label in epoch} == set(range(11))


def test_the_loss_sees_images_between_0_and_1() -> None:
    seen: list[Tensor] = []
    model = linear()
    data = Split(torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, *SHAPE), torch.tensor([0, 1, 2]))

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        seen.append(images[labels.argsort(), 0, 0, 0])
        return model(images).mean()

    train(model, data, recipe(), loss=loss)
    assert torch.equal(seen[0], torch.tensor([0.0, 0.2, 1.0]))


def test_a_hole_is_cut_behind_the_augmentation() -> None:
    seen: list[Tensor] = []

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        seen.append(images)
        return model(images).mean()

    model, data = linear(), Split(torch.full((8, *SHAPE), 255, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64))
    train(model, data, recipe(), loss=loss, cutout=4)
    dark = (seen[0] == 0).all(dim=1)
    assert (seen[0] == 1).all(dim=1).logical_or(dark).all()
    # Around a corner 2x2 of its 4x4 pixels lie inside, around the middle all of the image.
    assert all(4 <= count <= 9 for count in dark.sum(dim=(1, 2)).tolist())


def test_a_batch_is_changed_before_it_is_augmented(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    genuine = ntml_bench.training.augment

    def augment(images: Tensor, config: AugmentationConfig, rng: torch.Generator) -> Tensor:
        events.append("augment")
        assert images.eq(1).all()
        return genuine(images, config, rng)

    def change(images: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        events.append("change")
        torch.rand(1, generator=rng)
        return torch.ones_like(images), torch.full_like(labels, 3)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        events.append("loss")
        assert labels.eq(3).all()
        assert images.eq(0).any()  # the padding, which came after
        return model(images).mean()

    model = linear()
    monkeypatch.setattr(ntml_bench.training, "augment", augment)
    train(
        model,
        split(16, SHAPE),
        recipe(),
        loss=loss,
        before_augmentation=change,
        augmentation=AugmentationConfig(crop_padding=3, horizontal_flip=False),
    )
    assert events == ["change", "augment", "loss"] * 2


def test_augmented_images_are_changed_with_the_labels_at_hand_before_the_loss_sees_them() -> None:
    seen: list[Tensor] = []

    def change(images: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
        assert images.eq(0).any()  # the padding, which came before
        return images.new_ones(images.shape) * labels.view(-1, 1, 1, 1) + torch.rand(1, generator=rng)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        seen.append((images[:, 0, 0, 0] - labels).round(decimals=4))
        return model(images).mean()

    model = linear()
    crops = AugmentationConfig(crop_padding=3, horizontal_flip=False)
    train(model, split(16, SHAPE), recipe(), loss=loss, after_augmentation=change, augmentation=crops)
    assert [len(set(batch.tolist())) for batch in seen] == [1, 1]
    assert 0 < float(seen[0][0]) < 1
    assert not torch.equal(seen[0], seen[1])


def test_the_log_has_one_mean_an_epoch() -> None:
    model, losses = linear(), iter([1.0, 2.0, 6.0, 10.0])
    log = train(
        model,
        split(16, SHAPE),
        recipe(epochs=2),
        loss=lambda images, labels: model(images).sum() * 0 + next(losses),
    )
    assert log == [{"epoch": 1, "loss": 1.5}, {"epoch": 2, "loss": 8.0}]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_no_number_ends_the_training(value: float) -> None:
    model, log = linear(), []
    with pytest.raises(TrainingDivergedError, match=r"test: the loss is .* in epoch 1"):
        train(model, split(16, SHAPE), recipe(), loss=lambda images, labels: model(images).sum() * 0 + value, log=log.append)
    assert log == []


def test_steps_too_large_end_the_training() -> None:
    with pytest.raises(TrainingDivergedError, match="in epoch"):
        train(linear(), split(16, SHAPE), recipe(epochs=20, learning_rate=1e38))


def test_training_learns() -> None:
    model = linear()
    log = train(model, split(64, SHAPE), recipe(epochs=20, batch_size=8, learning_rate=0.3))
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]


@pytest.mark.slow
@pytest.mark.skipif(which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_training_is_the_same_but_for_rounding() -> None:
    data, settings = split(12, SHAPE), recipe(epochs=3, batch_size=4, learning_rate=0.1, momentum=0.9)
    compiling = Engine.create("cpu", "float32", deterministic=False, compilation="default")
    assert ENGINE.compiled(train) is train
    plain, compiled = linear(), linear()
    history = train(plain, data, settings)
    found = train(compiled, data, settings, loss=compiling.compiled(cross_entropy_of(compiled)))
    assert np.allclose([values["loss"] for values in found], [values["loss"] for values in history], atol=1e-5)
    for one, other in zip(compiled.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_nothing_to_compile_with_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ntml_bench.engine.which", lambda _: None)
    with pytest.raises(UserError, match="compile is 'default', but there is no C"):
        Engine.create("cpu", "float32", deterministic=False, compilation="default")


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_step_of_ones_own_that_is_the_usual_one_changes_no_bit(momentum: float) -> None:
    data, settings = split(20, SHAPE), recipe(epochs=2, batch_size=6, momentum=momentum, schedule="cosine", weight_decay=0.01)
    usual, own, again = linear(), linear(), linear()
    log = train(usual, data, settings)

    def recomputed(optimizer: torch.optim.Optimizer, gradient_again: Callable[[], object]) -> None:
        optimizer.zero_grad()
        gradient_again()
        optimizer.step()

    assert train(own, data, settings, take_step=lambda optimizer, _: optimizer.step()) == log
    assert train(again, data, settings, take_step=recomputed) == log
    assert same_state(state_of(own), state_of(usual))
    assert same_state(state_of(again), state_of(usual))


def test_a_step_of_ones_own_takes_the_place_of_the_usual_one() -> None:
    model, calls = linear(), []
    before = state_of(model)

    def take_step(optimizer: torch.optim.Optimizer, gradient_again: Callable[[], object]) -> None:
        gradients = [parameter.grad for group in optimizer.param_groups for parameter in group["params"]]
        calls.append(all(gradient is not None for gradient in gradients))
        optimizer.zero_grad()
        optimizer.step()

    train(model, split(20, SHAPE), recipe(epochs=2, batch_size=6), take_step=take_step)
    assert calls == [True] * 6
    assert same_state(state_of(model), before)


def test_a_training_ends_behind_the_epoch_that_says_so() -> None:
    ended, whole = linear(), linear()
    seen: list[int] = []
    log = train(ended, split(12, SHAPE), recipe(epochs=5), stop=lambda: seen.append(0) or len(seen) == 2)
    assert log == train(whole, split(12, SHAPE), recipe(epochs=2))
    assert same_state(state_of(ended), state_of(whole))
    assert not ended.training
