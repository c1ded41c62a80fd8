"""rnp against its definition: the ascent by a plain loop, the masks by SGD by hand, and when the unlearning ends."""

from copy import deepcopy
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from builders import (
    ENGINE,
    NO_AUGMENTATION,
    Diary,
    classifier,
    defender,
    method_values,
    quick_defense,
    recipe,
    same_state,
    split,
    state_of,
)
from composed import settings_of
from torch.nn import functional

from ntml_bench.defenses.base import DefenseContext
from ntml_bench.defenses.masks import batch_norms, choose_threshold, prune
from ntml_bench.errors import UserError
from ntml_bench.models import Classifier
from ntml_bench.seeding import generator


def rnp(**changes: Any) -> Any:
    """With one large batch, so that the order of the images does not matter."""
    base = {"unlearning__batch_size": 24, "batch_size": 24, "threshold": 0.5}
    return quick_defense("rnp", **{**base, **changes})


def plain_context(diary: Diary | None = None) -> DefenseContext:
    return replace(defender(diary=diary), augmentation=NO_AUGMENTATION)


def test_the_ascent_against_a_plain_loop() -> None:
    diary = Diary()
    context = plain_context(diary)
    rate, decay = 0.005, 0.1
    changes = {"epochs": 3, "learning_rate": rate, "momentum": 0.0, "weight_decay": decay, "schedule": "constant"}
    defense = rnp(unlearned_accuracy=0.0, **{f"unlearning__{key}": value for key, value in changes.items()})
    found = defense._unlearned(context, context.clean_budget)
    assert same_state(state_of(context.model), state_of(classifier()))

    model = classifier().train()
    images, labels = ENGINE.images(context.clean_budget.images), context.clean_budget.labels
    losses, accuracies = [], []
    order_rng = generator(0, "defense/unlearning/order")
    for _ in range(3):
        order = torch.randperm(24, generator=order_rng)
        logits = model(images[order])
        loss = functional.cross_entropy(logits, labels[order])
        losses.append(loss.item())
        accuracies.append((logits.argmax(1) == labels[order]).double().mean().item())
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                # Uphill for the loss, and the decay shrinks all the same.
                parameter.add_(rate * (gradient - decay * parameter))
    for name, value in state_of(model).items():
        assert torch.allclose(state_of(found)[name].double(), value.double(), atol=1e-5), name
    assert losses[-1] > losses[0]
    curve = [values for stage, values in diary.logged if stage == "unlearning"]
    assert [values["loss"] for values in curve] == pytest.approx(losses, rel=1e-4)
    assert [values["accuracy"] for values in curve] == pytest.approx(accuracies)


def test_unlearning_ends_at_the_first_epoch_at_or_below_its_accuracy() -> None:
    model, data = classifier(), split(24, seed=1)
    learning = recipe(epochs=8, learning_rate=0.05, momentum=0.9)
    defender(model, clean_budget=data).fine_tune(model, learning, "training")

    def accuracies(border: float) -> list[float]:
        diary = Diary()
        context = replace(defender(model, diary=diary, clean_budget=data), augmentation=NO_AUGMENTATION)
        rnp(unlearned_accuracy=border, unlearning__epochs=8, unlearning__learning_rate=0.03)._unlearned(context, data)
        return [values["accuracy"] for stage, values in diary.logged if stage == "unlearning"]

    whole = accuracies(0.0)
    assert len(set(whole)) > 2
    for border in (0.1, whole[1], whole[2], 1.0):
        ends = [epoch for epoch, accuracy in enumerate(whole, start=1) if accuracy <= border]
        assert accuracies(border) == whole[: ends[0] if ends else None]


def test_the_masks_learn_by_sgd_on_the_weights_alone_and_stay_in_their_range() -> None:
    context = plain_context()
    unlearned = classifier(seed=3)
    rate, weight = 3.0, 0.2
    defense = rnp(recovery_epochs=2, recovery_weight=weight, learning_rate=rate, momentum=0.0)
    found = torch.cat(list(defense._recover(context, deepcopy(unlearned), context.clean_budget).values()))

    images, labels = ENGINE.images(context.clean_budget.images), context.clean_budget.labels
    by_hand = deepcopy(unlearned).train()
    norms = list(batch_norms(by_hand).values())
    weights = [norm.weight.detach().clone() for norm in norms]
    mask = torch.ones(sum(map(len, weights)))
    for _ in range(2):
        with torch.no_grad():
            for norm, plain, part in zip(norms, weights, mask.split([len(plain) for plain in weights]), strict=True):
                norm.weight.copy_(plain * part)
        loss = functional.cross_entropy(by_hand(images), labels)
        gradients = torch.autograd.grad(loss, [norm.weight for norm in norms])
        # Of w m by m: the gradient by the weight times w.
        slope = torch.cat([gradient * plain for gradient, plain in zip(gradients, weights, strict=True)])
        mask = (mask - rate * weight * slope).clamp(0, 1)
    assert torch.allclose(found, mask, atol=1e-4)
    assert 0 < mask.lt(1).sum() < len(mask)


def test_the_backdoored_model_is_pruned_not_the_unlearned_one() -> None:
    context = defender()
    model = quick_defense("rnp", threshold=0.999, learning_rate=5.0, recovery_epochs=2).purify(context)
    before, after = state_of(classifier()), state_of(model)
    norms = batch_norms(model)
    pruned = 0
    for name, value in after.items():
        layer, _, kind = name.rpartition(".")
        changed = value != before[name]
        if layer in norms and kind == "weight":
            assert value[changed].eq(0).all()
            pruned += int(changed.sum())
        else:
            assert not changed.any()
    assert 0 < pruned < sum(len(norm.weight) for norm in norms.values())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_pruned_channel_is_constant_at_its_bias() -> None:
    model = classifier()
    name, norm = next(iter(batch_norms(model).items()))
    masks = {key: torch.ones_like(layer.weight) for key, layer in batch_norms(model).items()}
    masks[name][2] = 0.5
    assert prune(model, masks, 0.5) == 1
    seen: list[Any] = []
    norm.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.no_grad():
        model(ENGINE.images(split(4).images))
    assert torch.equal(seen[0][:, 2], norm.bias[2].expand_as(seen[0][:, 2]))


def test_a_null_threshold_is_chosen_on_images_that_neither_stage_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    stages: list[set[Any]] = []
    context = defender(clean_budget=split(40, seed=4))

    def rows(data: Any) -> set[Any]:
        return {tuple(image.flatten().tolist()) for image in data.images}

    defense: Any = quick_defense("rnp", threshold=None, selection_share=0.3)
    for name in ("_unlearned", "_recover"):
        genuine = getattr(defense, name)

        def spy(*arguments: Any, genuine: Any = genuine) -> Any:
            stages.append(rows(arguments[-1]))
            return genuine(*arguments)

        monkeypatch.setattr(defense, name, spy)

    def chosen(context: DefenseContext, masks: Any, held_out: Any, tolerance: float) -> float:
        stages.append(rows(held_out))
        return choose_threshold(context, masks, held_out, tolerance)

    monkeypatch.setattr("ntml_bench.defenses.masks.choose_threshold", chosen)
    assert isinstance(defense.purify(context), Classifier)
    unlearning, recovery, held_out = stages
    assert unlearning == recovery
    assert (len(unlearning), len(held_out)) == (28, 12)
    assert unlearning | held_out == rows(context.clean_budget)


def test_a_net_without_batch_norm_and_wrong_values_are_refused() -> None:
    shape = (3, 32, 32)
    with pytest.raises(UserError, match="defense rnp prunes channels of BatchNorm layers; ConvNeXt has none"):
        quick_defense("rnp").check(classifier("convnext_atto", shape=shape), shape)
    for setting, value in (
        ("unlearned_accuracy", 1.1),
        ("recovery_epochs", 0),
        ("threshold", -0.1),
        ("unlearning__full_rate", 2),
    ):
        with pytest.raises(UserError, match=setting.replace("__", ".")):
            quick_defense("rnp", **cast(Any, {setting: value}))


def test_the_values_are_the_published_ones() -> None:
    config: Any = quick_defense("rnp", method_values("defense", "rnp")).config
    steps = config.unlearning
    assert (steps.epochs, steps.learning_rate, steps.full_rate, steps.batch_size) == (20, 0.01, 0.5, 128)
    assert (config.recovery_epochs, config.learning_rate, config.recovery_weight, config.unlearned_accuracy) == (
        20,
        0.2,
        0.2,
        0.2,
    )
    leaderboard: Any = settings_of("config", "presets=backdoorbench", "dataset=cifar10", "defense=rnp").defense.config
    assert leaderboard.threshold == 0.7
    embedded: Any = settings_of("config", "dataset=digit_scenes", "defense=rnp").defense.config
    assert 210 // embedded.batch_size == 210 // embedded.unlearning.batch_size == round(500 / 128)
