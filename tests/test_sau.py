"""sau against its definition: its losses by hand, the search by a plain loop over images, a round by a plain loop."""

from copy import deepcopy
from dataclasses import replace
from math import log
from typing import Any, cast

import pytest
import torch
from builders import ENGINE, NO_AUGMENTATION, Diary, classifier, defender, quick_defense, same_state, split, state_of
from torch import Tensor
from torch.nn import functional

from ntml_bench.defenses.sau import divergence, unlearning_loss
from ntml_bench.errors import UserError
from ntml_bench.models import Classifier


def logits_of(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities]).log()


def test_the_divergence_by_hand() -> None:
    one, other = logits_of(0.2, 0.5, 0.3), logits_of(0.6, 0.1, 0.3)
    expected = 0.5 * (0.2 * log(0.2 / 0.4) + 0.5 * log(0.5 / 0.3) + 0.6 * log(0.6 / 0.4) + 0.1 * log(0.1 / 0.3))
    assert divergence(one, other).item() == pytest.approx(expected, rel=1e-5)
    assert divergence(one, one).item() == 0
    # Of certain and different answers it is log 2, and a number.
    assert divergence(torch.tensor([[100.0, -100.0]]), torch.tensor([[-100.0, 100.0]])).item() == pytest.approx(
        log(2), rel=1e-5
    )


def test_the_loss_of_unlearning_by_hand() -> None:
    logits = logits_of(0.2, 0.5, 0.3).repeat(2, 1).requires_grad_()
    classes = torch.tensor([1, 1])
    both, one, none = (unlearning_loss(logits, classes, torch.tensor(chosen)) for chosen in ([1, 1], [1, 0], [0, 0]))
    assert both.item() == pytest.approx(log(2), abs=1e-5)
    assert one.item() == pytest.approx(log(2) / 2, abs=1e-5)
    assert none.item() == 0
    (gradient,) = torch.autograd.grad(one, logits)
    assert gradient[0].abs().max() > 0
    assert gradient[1].eq(0).all()
    # What is certain is a number; what is hardly there is let go.
    assert unlearning_loss(torch.tensor([[100.0, 0.0]]), torch.tensor([0]), torch.tensor([True])).isfinite()
    faint = torch.tensor([[0.0, 20.0]], requires_grad=True)
    assert torch.autograd.grad(unlearning_loss(faint, torch.tensor([0]), torch.tensor([True])), faint)[0].eq(0).all()


def searched_by_loop(model: Classifier, other: Classifier, images: Tensor, labels: Tensor, config: Any) -> Tensor:
    """Image by image but for the end, which is where all are shared."""
    count, delta = len(images), torch.full_like(images, config.bound)
    for _ in range(config.steps):
        moved, all_shared = [], True
        for index in range(count):
            here = delta[index : index + 1].clone().requires_grad_()
            x, y = images[index : index + 1], labels[index : index + 1]
            logits = [net(x + here) for net in (model, other)]
            changed = [bool(logit.argmax() != net(x).argmax()) for logit, net in zip(logits, (model, other), strict=True)]
            shared = all(changed) and bool(logits[0].argmax() == logits[1].argmax())
            value = sum(
                (-functional.cross_entropy(z, y) / 2 for z, c in zip(logits, changed, strict=True) if not c), 0 * here.sum()
            )
            value = config.adversarial_weight * value
            if not shared:
                value = value + config.shared_weight * divergence(*logits).sum()
            (gradient,) = torch.autograd.grad(value, here)
            moved.append((here.detach() - config.step_size * gradient.sign()).clamp(-config.bound, config.bound))
            all_shared = all_shared and shared
        delta = torch.cat(moved)
        if all_shared:
            break
    return delta


@pytest.mark.parametrize("step_size", [0.2, 0.05])
def test_the_search_against_a_loop(step_size: float) -> None:
    # In double precision: the sign of a gradient that is hardly there is no matter of rounding.
    model, other = classifier(seed=1).double(), classifier(seed=2).double()
    data = split(6)
    images = ENGINE.images(data.images).double()
    defense: Any = quick_defense("sau", steps=4, step_size=step_size)
    found = defense._perturbation(model, other, images, data.labels)
    expected = searched_by_loop(model, other, images, data.labels, defense.config)
    assert torch.allclose(found, expected)
    assert found.abs().max() <= 0.2
    assert found.lt(0.2).any()


def test_a_round_against_a_plain_loop() -> None:
    context = replace(defender(), augmentation=NO_AUGMENTATION)
    defense: Any = quick_defense("sau", batch_size=24, rounds=1, learning_rate=1e-3, step_size=0.05)
    found = state_of(defense.purify(context))

    model, old = classifier(), classifier()
    images, labels = ENGINE.images(context.clean_budget.images), context.clean_budget.labels
    perturbed = images + defense._perturbation(deepcopy(model), old, images, labels)
    with torch.no_grad():
        before, after = old(images).argmax(1), old(perturbed).argmax(1)
    value = functional.cross_entropy(model(images), labels)
    answers = model(perturbed).softmax(1)
    misled = [index for index in range(24) if after[index] not in (labels[index], before[index])]
    for index in misled:
        value = value - (1 - answers[index, after[index]]).log() / 24
    parameters = dict(model.named_parameters())
    gradients = dict(zip(parameters, torch.autograd.grad(value, list(parameters.values())), strict=True))
    # Adam's first step is that of the sign, as far as a gradient is more than its eps.
    for name, before_step in parameters.items():
        gradient = gradients[name]
        expected = before_step.detach() - 1e-3 * gradient / (gradient.abs() + 1e-8)
        clear = gradient.abs() > 1e-4
        assert torch.allclose(found[name][clear], expected[clear], atol=1e-5), name
    untouched = {name for name in found if name not in parameters}
    assert all(torch.equal(found[name], state_of(classifier())[name]) for name in untouched)


def test_labels_that_are_true_or_were_there_before_are_not_unlearned() -> None:
    """Without a bound nothing is perturbed, so nothing is misled: plain fine-tuning in eval mode."""
    diary = Diary()
    model = quick_defense("sau", bound=0.0, rounds=2).purify(defender(diary=diary))
    assert [values["shared"] for _, values in diary.logged] == [0.0, 0.0]
    assert not same_state(state_of(model), state_of(classifier()))
    assert diary.logged[1][1]["loss"] < diary.logged[0][1]["loss"]


def test_wrong_settings_are_refused() -> None:
    for setting, value in (("rounds", 0), ("bound", -0.1), ("step_size", 0), ("shared_weight", -1)):
        with pytest.raises(UserError, match=f"defense.{setting} is"):
            quick_defense("sau", **cast(Any, {setting: value}))
