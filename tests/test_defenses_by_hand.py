"""Each defense but NT-ML against its definition, computed again by loops, by finite differences or by hand."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from builders import (
    CLASSES,
    ENGINE,
    NO_AUGMENTATION,
    UNTOUCHABLE,
    Diary,
    classifier,
    defender,
    method_values,
    quick_defense,
    recipe,
    reloaded,
    same_state,
    split,
    state_of,
)
from by_hand import FitSpy, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from ntml_bench.data.base import Split
from ntml_bench.defenses import anp, nad
from ntml_bench.defenses.anp import objective
from ntml_bench.defenses.base import DefenseContext, feature_maps
from ntml_bench.defenses.fp import channels_to_keep, head_inputs
from ntml_bench.defenses.i_bau import IBAU, IBAUConfig, hypergradient
from ntml_bench.defenses.masks import Channels, batch_norms, choose_threshold, prune
from ntml_bench.defenses.nad import attention
from ntml_bench.errors import UserError
from ntml_bench.evaluation import accuracy
from ntml_bench.models import Classifier
from ntml_bench.training import fit


def double(*shape: int, seed: int = 0) -> Tensor:
    return normal(*shape, seed=seed).double()


# Neural attention distillation.


def test_attention_against_a_loop() -> None:
    features = normal(2, 3, 2, 2)
    found = attention(features)
    for image in range(2):
        raw = [
            sum(features[image, channel, row, column].item() ** 2 for channel in range(3))
            for row in range(2)
            for column in range(2)
        ]
        norm = sum(value**2 for value in raw) ** 0.5
        assert found[image].tolist() == pytest.approx([value / norm for value in raw], rel=1e-4)


@given(seed=st.integers(0, 100), scale=st.floats(0.01, 100))
@settings(deadline=None, max_examples=20)
def test_attention_has_norm_one_and_no_scale(seed: int, scale: float) -> None:
    features = normal(2, 3, 4, 5, seed=seed)
    assert attention(features).shape == (2, 20)
    assert torch.allclose(attention(features).norm(dim=1), torch.ones(2))
    assert torch.allclose(attention(scale * features), attention(features), atol=1e-5)


def test_the_loss_of_attention_distillation(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = FitSpy()
    monkeypatch.setattr(nad, "fit", spy)
    context = defender()
    student = quick_defense("nad", attention_weights=[2.0, 3.0]).purify(context)
    assert student is context.model
    (call,) = spy.calls
    assert call["models"] == [student]
    assert call["data"] is context.clean_budget
    # The teacher as the defense makes it: the backdoored model after its fine-tuning.
    teacher = classifier()
    config = cast(Any, quick_defense("nad")).config
    context.fine_tune(teacher, config.teacher, "teacher", config.cutout)
    assert call["cutout"] == config.cutout
    images, labels = split(5, shape=(3, 16, 16)).images.float() / 255, torch.tensor([0, 1, 2, 3, 0])
    with torch.no_grad():
        logits, ours = feature_maps(student, student.stages(2), images)
        _, theirs = feature_maps(teacher, teacher.stages(2), images)
        distances = [(attention(a) - attention(b)).square().mean() for a, b in zip(ours, theirs, strict=True)]
        assert all(distance > 0 for distance in distances)
        expected = functional.cross_entropy(logits, labels) + 2 * distances[0] + 3 * distances[1]
        assert torch.allclose(call["loss"](images, labels), expected)


def test_attention_distillation_takes_the_published_steps() -> None:
    config = cast(Any, quick_defense("nad", method_values("defense", "nad"))).config
    for steps, epochs in ((config.teacher, 10), (config.student, 20)):
        assert (steps.epochs, steps.batch_size, steps.momentum, steps.nesterov) == (epochs, 64, 0.9, True)
        assert (steps.learning_rate, steps.weight_decay, steps.schedule) == (0.1, 1e-4, "step")
        # 0.1 in the first two epochs, 0.01 in the others: the share is of both trainings a whole number of epochs.
        assert steps.full_rate * steps.epochs == 2
    assert config.cutout == 2


def test_the_teacher_of_attention_distillation_is_fine_tuned_and_then_fixed() -> None:
    diary = Diary()
    quick_defense("nad").purify(defender(diary=diary))
    ((stage, teacher),) = diary.observed
    assert stage == "teacher"
    assert not same_state(teacher, state_of(classifier()))
    assert [stage for stage, _ in diary.logged] == ["teacher", "student"]


def test_feature_maps_are_those_of_the_modules_and_the_hooks_are_gone() -> None:
    model, images = classifier(), split(2).images.float() / 255
    logits, (early, late) = feature_maps(model, model.stages(2), images)
    assert torch.equal(logits, model(images))
    assert early.shape[1] == 64
    assert late.shape[1] == 128
    assert not any(module._forward_hooks for module in model.modules())


# Adversarial neuron pruning.


class TinyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, 3, 3)
        self.bn = nn.BatchNorm2d(3)
        self.fc = nn.Linear(12, 3)
        self.bn.weight.data = torch.tensor([1.0, 0.7, -0.5])
        self.bn.bias.data = torch.tensor([0.1, -0.2, 0.3])

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.tanh(self.bn(self.conv(x))).flatten(1))


def loss_with(model: TinyNet, images: Tensor, labels: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
    """The cross-entropy of a copy whose BatchNorm weight and bias are multiplied by hand."""
    copy = deepcopy(model)
    copy.bn.weight.data *= weights.detach()
    copy.bn.bias.data *= biases.detach()
    with torch.no_grad():
        return functional.cross_entropy(copy(images), labels)


def along(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-6) -> Tensor:
    """The gradient by central differences."""
    directions = torch.eye(len(at), dtype=at.dtype) * step
    return torch.stack([(function(at + d) - function(at - d)) / (2 * step) for d in directions])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("eps", [0.0, 0.4])
def test_the_objective_of_pruning_and_its_gradient_by_finite_differences(training: bool, eps: float) -> None:
    model = TinyNet().double().requires_grad_(False).train(training)
    images, labels = double(5, 2, 4, 4), torch.tensor([0, 1, 2, 1, 0])
    mask, one = torch.tensor([0.9, 0.6, 0.3], dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    start = eps * torch.tensor([[0.9, -0.5, 0.1], [-0.7, 0.2, 0.6]], dtype=torch.float64)
    up = along(lambda value: loss_with(model, images, labels, value, one + start[1]), mask + start[0]).sign()
    d = start[0] + eps * up
    up = along(lambda value: loss_with(model, images, labels, mask + start[0], value), one + start[1]).sign()
    e = start[1] + eps * up

    def by_hand(value: Tensor) -> Tensor:
        # The perturbation is a constant: the masks are not to learn from its sign.
        robust = loss_with(model, images, labels, value + d, one + e)
        return 0.2 * loss_with(model, images, labels, value, one) + 0.8 * robust

    learned = mask.clone().requires_grad_()
    found = objective(Channels(model), learned, start, images, labels, eps, 0.2)
    assert found.item() == pytest.approx(by_hand(mask).item(), abs=1e-9)
    (gradient,) = torch.autograd.grad(found, learned)
    assert torch.allclose(gradient, along(by_hand, mask), atol=1e-7)
    if eps > 0:
        assert loss_with(model, images, labels, mask + d, one + e) > loss_with(model, images, labels, mask, one)


def test_the_channels_of_all_layers_stand_in_one_row() -> None:
    model, data = classifier(), split(6)
    images = ENGINE.images(data.images)
    channels, rng = Channels(model), torch.Generator().manual_seed(1)
    weights, biases = torch.rand(2, len(channels.weight), generator=rng)
    scaled, place = deepcopy(model), 0
    for norm in scaled.modules():
        if isinstance(norm, nn.BatchNorm2d):
            here = slice(place, place := place + norm.num_features)
            norm.weight.data *= weights[here]
            norm.bias.data *= biases[here]
    assert place == len(channels.weight) == sum(channels.sizes)
    with torch.no_grad():
        found = channels.loss(weights, biases, images, data.labels)
        assert torch.allclose(found, functional.cross_entropy(scaled(images), data.labels), atol=1e-6)


Seen = list[tuple[Tensor, Tensor]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The start of the perturbation and the images of each step of anp."""
    steps: Seen = []

    def watched(channels: Channels, mask: Tensor, start: Tensor, images: Tensor, *others: Any) -> Tensor:
        steps.append((start, images))
        return objective(channels, mask, start, images, *others)

    monkeypatch.setattr(anp, "objective", watched)
    return steps


def test_each_step_starts_its_perturbation_at_random(seen: Seen) -> None:
    quick_defense("anp", steps=5, eps=0.3).purify(defender())
    starts = torch.stack([start for start, _ in seen])
    channels = sum(len(norm.weight) for norm in batch_norms(classifier()).values())
    assert starts.shape == (5, 2, channels)
    # Uniform in [-eps, eps]: its quarters are equally full, within 4 standard deviations.
    quarters = starts.flatten().histc(4, -0.3, 0.3) / starts.numel()
    assert (quarters - 0.25).abs().max() < 4 * (0.25 * 0.75 / starts.numel()) ** 0.5
    assert quarters.sum() == 1
    assert not torch.equal(starts[0], starts[1])


def rows(images: Tensor) -> set[tuple[int, ...]]:
    return {tuple((image * 255).round().int().flatten().tolist()) for image in images}


def test_a_threshold_is_chosen_on_images_that_the_masks_did_not_see(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[Split] = []
    monkeypatch.setattr(
        "ntml_bench.defenses.masks.accuracy", lambda engine, model, data: measured.append(data) or accuracy(engine, model, data)
    )
    context = replace(defender(clean_budget=split(40, seed=4)), augmentation=NO_AUGMENTATION)
    quick_defense("anp", steps=30, threshold=None).purify(context)
    learned_from = set[tuple[int, ...]]().union(*(rows(images) for _, images in seen))
    held_out = rows(ENGINE.images(measured[0].images))
    assert all(torch.equal(data.images, measured[0].images) for data in measured)
    assert len(held_out) == 12
    assert len(learned_from) == 28
    assert held_out | learned_from == rows(ENGINE.images(context.clean_budget.images))


def test_for_a_fixed_threshold_nothing_is_held_out(seen: Seen) -> None:
    context = replace(defender(clean_budget=split(40, seed=4)), augmentation=NO_AUGMENTATION)
    quick_defense("anp", steps=50).purify(context)
    learned_from = set[tuple[int, ...]]().union(*(rows(images) for _, images in seen))
    assert learned_from == rows(ENGINE.images(context.clean_budget.images))


def test_a_budget_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(UserError, match="of 1 images nothing is left to learn masks from"):
        quick_defense("anp", threshold=None).purify(defender(clean_budget=split(1)))
    with pytest.raises(UserError, match="selection_share"):
        quick_defense("anp", selection_share=1.0)


def test_pruning_zeroes_the_weight_alone_at_or_below_the_threshold() -> None:
    model = classifier()
    before = state_of(model)
    rng = torch.Generator().manual_seed(0)
    masks = {name: torch.randint(0, 5, norm.weight.shape, generator=rng) / 4 for name, norm in batch_norms(model).items()}
    count = prune(model, masks, 0.5)
    assert count == sum(int((mask <= 0.5).sum()) for mask in masks.values()) > 0
    after = state_of(model)
    for name, value in before.items():
        layer, _, kind = name.rpartition(".")
        if layer in masks and kind == "weight":
            for channel, mask in enumerate(masks[layer].tolist()):
                assert after[name][channel] == (0 if mask <= 0.5 else value[channel])
        else:
            assert torch.equal(after[name], value)
    images = split(6).images.float() / 255
    with torch.no_grad():
        assert torch.equal(reloaded(model)(images), model(images))
    assert prune(classifier(), masks, -1.0) == 0


def test_learning_masks_moves_nothing_but_the_pruned_channels() -> None:
    diary = Diary()
    context = defender(diary=diary)
    model = quick_defense("anp", learning_rate=5.0, threshold=0.6).purify(context)
    before, after = state_of(classifier()), state_of(model)
    norms = batch_norms(model)
    pruned = 0
    for name, value in after.items():
        layer, _, kind = name.rpartition(".")
        if layer in norms and kind == "weight":
            changed = value != before[name]
            assert value[changed].eq(0).all()
            pruned += int(changed.sum())
        else:
            assert torch.equal(value, before[name])  # the running statistics among them, and the biases
    stage, values = diary.logged[-1]
    assert stage == "pruning"
    assert values["pruned_channels"] == pruned
    assert 0 < pruned < values["channels"] == sum(len(norm.weight) for norm in norms.values())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_masks_stay_between_0_and_1_and_start_at_1() -> None:
    defense = cast(Any, quick_defense("anp", learning_rate=50.0, steps=2))
    masks = torch.cat(list(defense._learn_masks(defender(), split(24, seed=1)).values()))
    assert masks.min() == 0
    assert masks.max() == 1
    slow = cast(Any, quick_defense("anp", learning_rate=1e-12))
    still = torch.cat(list(slow._learn_masks(defender(), split(24, seed=1)).values()))
    assert torch.allclose(still, torch.ones_like(still))


def trained_classifier() -> Classifier:
    model, data = classifier(), split(64, seed=3)
    defender(model, clean_budget=data).fine_tune(model, recipe(epochs=8, learning_rate=0.05, momentum=0.9), "training")
    assert accuracy(ENGINE, model, data) > 0.9
    return model


@pytest.mark.parametrize("tolerance", [0.0, 0.2, 1.0])
def test_the_chosen_threshold_is_the_last_within_the_tolerance(tolerance: float) -> None:
    model = trained_classifier()
    rng = torch.Generator().manual_seed(1)
    masks = {name: torch.rand(norm.weight.shape, generator=rng) for name, norm in batch_norms(model).items()}
    context = defender(model, clean_budget=split(40, seed=4), poisoned_train=UNTOUCHABLE)
    before = state_of(model)
    chosen = choose_threshold(context, masks, context.clean_budget, tolerance)
    assert same_state(state_of(model), before)

    def accuracy_at(threshold: float) -> float:
        trial = deepcopy(model)
        prune(trial, masks, threshold)
        return accuracy(ENGINE, trial, context.clean_budget)

    needed = (1 - tolerance) * accuracy(ENGINE, model, context.clean_budget)
    if chosen >= 0:
        assert accuracy_at(chosen) >= needed
    if tolerance == 1:
        assert chosen == pytest.approx(0.95)
    else:
        assert chosen < 0.9
        following = 0.0 if chosen < 0 else chosen + 0.05
        assert accuracy_at(following) < needed


def test_the_part_to_select_on_is_a_stratified_part_of_the_budget() -> None:
    context = defender(clean_budget=split(40))
    part = context.part_of_budget(0.5)
    assert part.labels.bincount().tolist() == [5] * CLASSES
    rows = {tuple(image.flatten().tolist()) for image in context.clean_budget.images}
    assert all(tuple(image.flatten().tolist()) in rows for image in part.images)
    assert torch.equal(part.images, context.part_of_budget(0.5).images)
    assert len(context.part_of_budget(0.001)) == 1
    assert len(context.part_of_budget(1.0)) == 40
    same, rest = context.divided_budget(0.5)
    assert torch.equal(same.images, part.images)
    assert {tuple(image.flatten().tolist()) for image in torch.cat([part.images, rest.images])} == rows
    assert len(rest) == 20


# I-BAU.


MATRIX = torch.tensor([[1.5, 0.2, -0.3], [0.1, 1.2, 0.4], [-0.2, 0.3, 0.9]], dtype=torch.float64)
STEP = 0.2


def quadratic_hypergradient(iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """Result, delta - b, theta - c; inner loss |A delta - theta|^2 / 2, outer |delta - b|^2 / 2 + |theta - c|^2 / 2."""
    theta, delta = double(3, seed=1).requires_grad_(), double(3, seed=2)
    b, c = double(3, seed=3), double(3, seed=4)
    (found,), value = hypergradient(
        lambda d: ((d - b).square().sum() + (theta - c).square().sum()) / 2,
        lambda d: (MATRIX @ d - theta).square().sum() / 2,
        delta,
        [theta],
        STEP,
        iterations,
    )
    assert value == pytest.approx(((delta - b).square().sum() + (theta - c).square().sum()).item() / 2)
    return found, delta - b, (theta - c).detach()


def test_the_hypergradient_reaches_the_total_derivative() -> None:
    found, by_delta, direct = quadratic_hypergradient(2000)
    # delta*(theta) = A^-1 theta, so the derivative of the outer loss for theta is theta - c + A^-T (delta - b).
    assert torch.allclose(found, direct + torch.linalg.inv(MATRIX).T @ by_delta, atol=1e-8)


@pytest.mark.parametrize("iterations", [0, 1, 2, 5])
def test_the_hypergradient_after_few_iterations(iterations: int) -> None:
    found, by_delta, direct = quadratic_hypergradient(iterations)
    step_map = torch.eye(3, dtype=torch.float64) - STEP * MATRIX.T @ MATRIX
    v = torch.zeros_like(by_delta)
    for _ in range(iterations):
        v = step_map.T @ v + by_delta
    assert torch.allclose(found, direct + STEP * MATRIX @ v, atol=1e-10)


def test_a_parameter_that_is_not_read_has_a_gradient_of_zero() -> None:
    theta, unused = double(3).requires_grad_(), double(2).requires_grad_()
    gradients, _ = hypergradient(
        lambda d: d.sum(), lambda d: (d * theta).square().sum(), double(3, seed=1), [theta, unused], 0.1, 2
    )
    assert gradients[0].abs().sum() > 0
    assert torch.equal(gradients[1], torch.zeros(2, dtype=torch.float64))


def i_bau(**changes: Any) -> Any:
    config = cast(IBAUConfig, quick_defense("i_bau").config)
    return IBAU(IBAUConfig(**vars(config) | changes))


def test_the_perturbation_leads_away_from_the_answers_of_the_model() -> None:
    model, data = classifier(), split(8)
    images = ENGINE.images(data.images)
    delta = torch.zeros(1, 3, 8, 8)
    for batch in (images[:4], images[4:]):
        answers = model(batch).argmax(1)
        at = (batch + delta).requires_grad_()
        (gradient,) = torch.autograd.grad(functional.cross_entropy(model(at), answers), at)
        delta = delta + 0.5 * (gradient.sum(0, keepdim=True) - 2 * 0.1 * delta)
    settings: dict[str, Any] = {"inner_learning_rate": 0.5, "penalty": 0.1, "inner_passes": 1}
    context = defender(model)
    for radius in (100.0, None):
        found = i_bau(radius=radius, **settings)._find_perturbation(context, [images[:4], images[4:]])
        assert torch.allclose(found, delta, atol=1e-6)
    # Outside of the ball it is drawn back to its surface, in the same direction.
    short = i_bau(radius=0.001, **settings)._find_perturbation(context, [images[:4], images[4:]])
    assert short.norm().item() == pytest.approx(0.001)
    assert torch.allclose(short, delta / delta.norm() * 0.001, atol=1e-8)


@pytest.mark.parametrize(("share", "count", "carriers"), [(0.4, 8, 3), (0.01, 100, 1), (0.01, 99, 0), (1.0, 5, 5)])
def test_the_share_of_a_batch_rounded_down_carries_the_perturbation(share: float, count: int, carriers: int) -> None:
    inputs: list[Tensor] = []

    def model(images: Tensor) -> Tensor:
        inputs.append(images)
        return torch.zeros(len(images), CLASSES)

    images, labels, delta = normal(count, 3, 8, 8), torch.arange(count) % CLASSES, normal(1, 3, 8, 8, seed=1)
    context, rng = defender(cast(Any, model)), torch.Generator().manual_seed(0)
    for _ in range(2):
        i_bau(perturbed_share=share)._outer_loss(context, images, labels, rng)(delta)
    carry = [(found != images).flatten(1).any(1) for found in inputs]
    for found, carries in zip(inputs, carry, strict=True):
        assert int(carries.sum()) == carriers
        assert torch.equal(found, images + delta * carries[:, None, None, None])
    assert torch.equal(carry[0], carry[1]) == (carriers in (0, count))  # drawn anew for each step


def test_two_rounds_of_unlearning_against_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    data, iterations, step = split(12, seed=1), 3, 0.3
    defense = i_bau(
        rounds=2,
        batch_size=8,
        perturbed_share=1.0,
        inner_learning_rate=0.5,
        fixed_point_iterations=iterations,
        fixed_point_step=step,
        learning_rate=0.01,
    )
    # Adam divides by the gradient, which makes much of its last bits.
    monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)
    found = defense.purify(defender(clean_budget=data))

    model = classifier()
    order = torch.randperm(12, generator=defender().generator("order"))
    batches = [(ENGINE.images(data.images[part]), data.labels[part]) for part in (order[:8], order[8:])]

    def cross_entropy(delta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(model(images + delta.view(1, 3, 8, 8)), labels)

    def inner(delta: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        return defense.config.penalty * delta.square().sum() - cross_entropy(delta, images, labels)

    for _ in range(2):
        delta = torch.zeros(192)
        for images, _ in batches:
            answers = model(images).argmax(1)
            delta = delta - 0.5 * torch.autograd.functional.jacobian(lambda d, x=images, y=answers: inner(d, x, y), delta)
        assert delta.norm() < 10
        for batch in batches:
            # dPhi/ddelta = 1 - step * Hessian of the inner loss, of the first batch with its labels.
            hessian = cast(Tensor, torch.autograd.functional.hessian(lambda d: inner(d, *batches[0]), delta))
            by_delta = torch.autograd.functional.jacobian(lambda d, pair=batch: cross_entropy(d, *pair), delta)
            map_of_v = torch.eye(192) - step * hessian
            v = sum((torch.linalg.matrix_power(map_of_v.T, k) @ by_delta for k in range(iterations)), torch.zeros(192))
            at = delta.clone().requires_grad_()
            (inner_gradient,) = torch.autograd.grad(inner(at, *batches[0]), at, create_graph=True)
            total = cross_entropy(delta, *batch) - step * (inner_gradient @ v)
            gradients = torch.autograd.grad(total, list(model.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter -= 0.01 * gradient
    moved = max((value - state_of(classifier())[name]).abs().max().item() for name, value in state_of(found).items())
    assert moved > 1e-3
    for name, value in state_of(model).items():
        assert torch.allclose(state_of(found)[name], value, atol=2e-6), name


def test_unlearning_keeps_the_running_statistics_and_lowers_the_loss() -> None:
    diary = Diary()
    context = defender(diary=diary)
    model = i_bau(rounds=12, learning_rate=0.003).purify(context)
    before = state_of(classifier())
    for name, value in state_of(model).items():
        if "running" in name or "batches" in name or name in ("mean", "std"):
            assert torch.equal(value, before[name])
    losses = [values["loss"] for _, values in diary.logged]
    assert len(losses) == 12
    assert losses[-1] < losses[0]
    assert all(values["perturbation_norm"] <= 10 * (1 + 1e-5) for _, values in diary.logged)


# Fine-pruning.


def channels_to_keep_by_loop(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, order: Tensor, tolerance: float
) -> list[bool]:
    def accuracy_without(pruned: list[int]) -> float:
        cut = weight.clone()
        cut[:, pruned] = 0
        return (functional.linear(features, cut, bias).argmax(1) == labels).double().mean().item()

    pruned: list[int] = []
    for channel in order.tolist()[:-1]:
        if accuracy_without([*pruned, channel]) < (1 - tolerance) * accuracy_without([]):
            break
        pruned.append(channel)
    return [channel not in pruned for channel in range(len(order))]


@given(seed=st.integers(0, 500), channels=st.integers(1, 8), tolerance=st.sampled_from([0.0, 0.1, 0.3, 0.6, 1.0]))
@settings(deadline=None, max_examples=80)
def test_the_channels_that_stay_against_a_loop(seed: int, channels: int, tolerance: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    features, weight = torch.rand(30, channels, generator=rng), torch.randn(3, channels, generator=rng)
    bias, order = torch.randn(3, generator=rng) / 5, torch.randperm(channels, generator=rng)
    labels = (features @ weight.T + bias).argmax(1)
    labels = torch.where(torch.rand(30, generator=rng) < 0.8, labels, torch.randint(3, (30,), generator=rng))
    kept = channels_to_keep(features, labels, weight, bias, order, tolerance)
    assert kept.tolist() == channels_to_keep_by_loop(features, labels, weight, bias, order, tolerance)
    assert kept.any()


def test_a_head_without_a_bias_is_one_with_a_bias_of_zero() -> None:
    features, weight, order = normal(30, 5), normal(3, 5, seed=1), torch.randperm(5)
    labels = torch.arange(30) % 3
    kept = channels_to_keep(features, labels, weight, None, order, 0.2)
    assert torch.equal(kept, channels_to_keep(features, labels, weight, torch.zeros(3), order, 0.2))


class OfPatches(nn.Module):
    """A linear layer that reads each place of a feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 6, 4, 4), nn.Linear(6, CLASSES)

    def get_classifier(self) -> nn.Linear:
        return self.fc

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.stem(images).flatten(2).transpose(1, 2)).mean(1)


def test_fp_refuses_a_head_that_reads_no_channels_of_an_image() -> None:
    model = Classifier(OfPatches(), torch.zeros(3), torch.ones(3))
    with pytest.raises(UserError, match=r"defense fp prunes the channels \[N, D\].* OfPatches reads \[2, 4, 6\] of 2 images"):
        quick_defense("fp").check(model, (3, 8, 8))


def test_i_bau_refuses_a_net_without_second_derivatives() -> None:
    net = OfPatches()
    quick_defense("i_bau").check(Classifier(net, torch.zeros(3), torch.ones(3)), (3, 8, 8))
    # The kernel itself: `functional.hardsigmoid` would be put in its place.
    net.stem.register_forward_hook(lambda _module, _inputs, output: torch.ops.aten.hardsigmoid(output))
    with pytest.raises(UserError, match="defense i_bau needs second derivatives of the net, and OfPatches has none"):
        quick_defense("i_bau").check(Classifier(net, torch.zeros(3), torch.ones(3)), (3, 8, 8))


def test_pruned_columns_are_those_of_the_least_active_channels_and_stay_zero() -> None:
    diary, model = Diary(), trained_classifier()
    context = defender(model, diary=diary, clean_budget=split(24, seed=1))
    activity = head_inputs(context, model, context.clean_budget).mean(0)
    purified = quick_defense("fp", recipe__epochs=3, recipe__weight_decay=0.1, recipe__nesterov=True).purify(context)
    stage, values = diary.logged[0]
    assert stage == "pruning"
    pruned = int(values["pruned_channels"])
    assert 0 < pruned < values["channels"] == len(activity)
    columns = purified.head.weight.detach().abs().sum(0)
    assert set(columns.eq(0).nonzero().flatten().tolist()) == set(activity.argsort()[:pruned].tolist())
    assert len(diary.logged) == 1 + 3


def test_the_accuracy_after_pruning_is_within_the_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained_classifier()
    context = defender(model, clean_budget=split(40, seed=4))
    part = context.part_of_budget(0.5)
    before = accuracy(ENGINE, model, part)
    after: list[float] = []
    monkeypatch.setattr(DefenseContext, "fine_tune", lambda self, model, *_: after.append(accuracy(ENGINE, model, part)))
    quick_defense("fp", tolerance=0.2).purify(context)
    assert after[0] >= 0.8 * before


def test_head_inputs_are_what_the_last_layer_reads() -> None:
    model, data = classifier(), split(12)
    inputs = head_inputs(defender(), model.train(), data)
    with torch.no_grad():
        assert torch.allclose(model.head(inputs), classifier()(data.images.float() / 255), atol=1e-5)
    assert not model.training
    assert not model.head._forward_pre_hooks


# Fine-tuning.


def test_fine_tuning_is_a_training_on_the_budget() -> None:
    context, expected = defender(), classifier()
    settings = cast(Any, quick_defense("ft", recipe__epochs=2)).config.recipe
    fit(
        ENGINE,
        context.clean_budget,
        settings,
        models=[expected],
        loss=lambda images, labels: functional.cross_entropy(expected(images), labels),
        augmentation=context.augmentation,
        seed=0,
        purpose="defense/fine-tuning",
        log=lambda _: None,
    )
    assert same_state(state_of(quick_defense("ft", recipe__epochs=2).purify(context)), state_of(expected))


def test_no_defense_gives_the_model_back() -> None:
    context = defender()
    assert quick_defense("none").purify(context) is context.model
    assert same_state(state_of(context.model), state_of(classifier()))
