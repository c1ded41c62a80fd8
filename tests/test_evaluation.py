"""ACC, ASR, RA and DER against a model that answers by pixel values."""

from math import exp

import pytest
import torch
from builders import ENGINE, classifier, same_state, split, state_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ntml_bench import evaluation
from ntml_bench.data.base import Split
from ntml_bench.evaluation import accuracy, defense_effectiveness_rating, evaluate, triggered_test

CLASSES = 4


class Lookup(nn.Module):
    """Answers the class that pixel 0 holds, or where pixel 2 is white (the trigger) the class that pixel 1 holds.

    The answer has the logit 2, all others 0.
    """

    def forward(self, images: Tensor) -> Tensor:
        levels = (images[:, 0, 0] * 255).round().long()
        answers = torch.where(levels[:, 2] == 255, levels[:, 1], levels[:, 0])
        return 2.0 * nn.functional.one_hot(answers, CLASSES).float()


SURE = exp(2) / (exp(2) + CLASSES - 1)
UNSURE = 1 / (exp(2) + CLASSES - 1)


def scene(labels: list[int], clean_answers: list[int], triggered_answers: list[int]) -> Split:
    images = torch.zeros(len(labels), 1, 1, 3, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor(clean_answers, dtype=torch.uint8)
    images[:, 0, 0, 1] = torch.tensor(triggered_answers, dtype=torch.uint8)
    return Split(images, torch.tensor(labels))


def white(images: Tensor) -> Tensor:
    result = images.clone()
    result[:, :, :, 2] = 1.0
    return result


def test_by_hand() -> None:
    # The target is class 1: its two images (the last ones) count for ACC alone, whatever the trigger does to them.
    labels = [0, 0, 2, 3, 3, 1, 1]
    clean = [0, 2, 2, 3, 1, 1, 0]  # 4 of 7 right
    triggered = [1, 1, 1, 3, 0, 1, 1]  # of the first five: 3 to the target, 1 right, 1 elsewhere
    test = scene(labels, clean, triggered)
    found = evaluate(ENGINE, Lookup(), test, triggered_test(test, white, 1))
    assert found == {
        "clean_accuracy": pytest.approx(100 * 4 / 7),
        "attack_success_rate": pytest.approx(60.0),
        "robust_accuracy": pytest.approx(20.0),
        "true_class_probability": pytest.approx(100 * (SURE + 4 * UNSURE) / 5),
    }
    assert accuracy(ENGINE, Lookup(), test) == pytest.approx(4 / 7)


def test_a_label_map_by_hand() -> None:
    # Class y is to be taken for (y + 1) mod 4: all seven images count.
    labels = [0, 0, 2, 3, 3, 1, 1]
    triggered = [1, 0, 3, 0, 3, 2, 0]  # 4 to the next class (3 wraps to 0), 2 right, 1 elsewhere
    test = scene(labels, labels, triggered)
    made = triggered_test(test, white, (test.labels + 1) % CLASSES)
    assert made.target_class is None
    assert made.targets.tolist() == [1, 1, 3, 0, 0, 2, 2]
    assert made.indices.tolist() == list(range(7))
    found = evaluate(ENGINE, Lookup(), test, made)
    assert found["attack_success_rate"] == pytest.approx(100 * 4 / 7)
    assert found["robust_accuracy"] == pytest.approx(100 * 2 / 7)
    # Where a class stays what it is its images do not count: here the third and the last two.
    some = triggered_test(test, white, torch.tensor([1, 1, 2, 0, 0, 1, 1]))
    assert some.indices.tolist() == [0, 1, 3, 4]
    assert evaluate(ENGINE, Lookup(), test, some)["attack_success_rate"] == 50.0


def test_a_map_to_one_class_is_that_class() -> None:
    test = scene([0, 0, 2, 3, 3, 1, 1], [0] * 7, [1, 1, 1, 3, 0, 1, 1])
    one, mapped = triggered_test(test, white, 1), triggered_test(test, white, torch.ones_like(test.labels))
    assert torch.equal(one.split.images, mapped.split.images)
    assert evaluate(ENGINE, Lookup(), test, one) == evaluate(ENGINE, Lookup(), test, mapped)


def test_without_a_trigger_there_is_clean_accuracy_only() -> None:
    found = evaluate(ENGINE, Lookup(), scene([0, 1], [0, 0], [0, 0]), None)
    assert found == {
        "clean_accuracy": 50.0,
        "attack_success_rate": None,
        "robust_accuracy": None,
        "true_class_probability": None,
    }


@given(
    images=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30),
    target=st.integers(0, 3),
)
@settings(deadline=None, max_examples=60)
def test_against_a_loop(images: list[tuple[int, int, int]], target: int) -> None:
    images = [((target + 1) % CLASSES, 0, 0), *images]  # at least one image that is not of the target class
    labels, clean, triggered = (list(part) for part in zip(*images, strict=True))
    test = scene(labels, clean, triggered)
    found = evaluate(ENGINE, Lookup(), test, triggered_test(test, white, target))
    right = hits = robust = others = 0
    for label, answer, with_trigger in images:
        right += answer == label
        if label != target:
            others += 1
            hits += with_trigger == target
            robust += with_trigger == label
    assert found["clean_accuracy"] == pytest.approx(100 * right / len(images))
    assert found["attack_success_rate"] == pytest.approx(100 * hits / others)
    assert found["robust_accuracy"] == pytest.approx(100 * robust / others)


def test_triggered_images_are_as_a_file_would_hold_them() -> None:
    levels = torch.tensor([0, 10, 100, 255], dtype=torch.uint8).view(4, 1, 1, 1)
    test = Split(levels, torch.tensor([0, 0, 0, 0]))
    found = triggered_test(test, lambda images: images * 1.004 + 0.003, 1)
    # 0.765, 10.805, 101.165, 256.785 levels.
    assert found.split.images.flatten().tolist() == [1, 11, 101, 255]
    assert found.split.images.dtype == torch.uint8
    assert triggered_test(test, lambda images: images - 0.1, 1).split.images.flatten().tolist() == [0, 0, 74, 230]


def test_the_trigger_sees_images_between_0_and_1_of_the_other_classes() -> None:
    seen: list[Tensor] = []
    test = Split(torch.tensor([0, 51, 102, 255], dtype=torch.uint8).view(4, 1, 1, 1), torch.tensor([0, 1, 0, 2]))

    def trigger(images: Tensor) -> Tensor:
        seen.append(images.clone())
        return images

    found = triggered_test(test, trigger, 1)
    assert torch.cat(seen).flatten().tolist() == pytest.approx([0, 0.4, 1])
    assert found.split.labels.tolist() == [0, 0, 2]
    assert found.split.images.flatten().tolist() == [0, 102, 255]
    assert found.target_class == 1


@pytest.mark.parametrize("batch", [1, 3, 20, 500])
def test_the_numbers_do_not_depend_on_the_batch_size(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, test = classifier(), split(20)

    def trigger(images: Tensor) -> Tensor:
        result = images.clone()
        result[:, :, -3:, -3:] = 1.0
        return result

    expected_test = triggered_test(test, trigger, 0)
    expected = evaluate(ENGINE, model, test, expected_test)
    monkeypatch.setattr(evaluation, "BATCH", batch)
    triggered = triggered_test(test, trigger, 0)
    assert torch.equal(triggered.split.images, expected_test.split.images)
    assert evaluate(ENGINE, model, test, triggered) == pytest.approx(expected, abs=1e-4)
    # BatchNorm would give other answers to other batches in training mode.
    assert evaluate(ENGINE, model.train(), test, triggered) == pytest.approx(expected, abs=1e-4)


def test_evaluation_leaves_everything_as_it_was() -> None:
    model, test = classifier().train(), split(20)
    weights, images, stream = state_of(model), test.images.clone(), torch.get_rng_state()
    evaluate(ENGINE, model, test, triggered_test(test, lambda images: images.mul_(0), 0))
    assert same_state(state_of(model), weights)
    assert torch.equal(test.images, images)
    assert torch.equal(torch.get_rng_state(), stream)
    assert not any(module.training for module in model.modules())
    # A model that was evaluated can be trained on.
    model(test.images.float()).sum().backward()
    assert all(parameter.requires_grad and parameter.grad is not None for parameter in model.parameters())


def metrics(clean: float, attack: float | None) -> dict[str, float | None]:
    return {"clean_accuracy": clean, "attack_success_rate": attack, "robust_accuracy": None}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ((90, 100), (90, 0), 100.0),
        ((90, 100), (85, 10), 92.5),
        ((90, 100), (95, 100), 50.0),  # a gain of accuracy earns nothing
        ((90, 40), (90, 60), 50.0),  # nor is a gain of the attack counted twice
        ((90, 50), (60, 80), 35.0),
        ((100, 0), (0, 0), 0.0),
    ],
)
def test_rating_by_hand(before: tuple[float, float], after: tuple[float, float], expected: float) -> None:
    assert defense_effectiveness_rating(metrics(*before), metrics(*after)) == pytest.approx(expected)


PERCENT = st.floats(0, 100)


@given(PERCENT, PERCENT, PERCENT, PERCENT)
@settings(deadline=None)
def test_rating_as_designed(acc_before: float, asr_before: float, acc_after: float, asr_after: float) -> None:
    found = defense_effectiveness_rating(metrics(acc_before, asr_before), metrics(acc_after, asr_after))
    expected = (max(0, asr_before / 100 - asr_after / 100) - max(0, acc_before / 100 - acc_after / 100) + 1) / 2
    assert found == pytest.approx(100 * expected, abs=1e-9)
    assert found is not None
    assert 0 <= found <= 100


def test_no_rating_without_an_attack() -> None:
    assert defense_effectiveness_rating(metrics(90, None), metrics(80, None)) is None
    assert defense_effectiveness_rating(metrics(90, 50), metrics(80, None)) is None
