"""Selective NT-ML against its definition: the scores by a loop, the selection by counting, the losses by hand."""

from statistics import fmean, pstdev
from typing import Any

import pytest
import torch
from builders import (
    CLASSES,
    ENGINE,
    SHAPE,
    Diary,
    classifier,
    defender,
    quick_defense,
    same_state,
    split,
    state_of,
)
from by_hand import FitSpy, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ntml_bench import evaluation
from ntml_bench.data.base import Split
from ntml_bench.defenses import nt_ml, nt_ml_selective
from ntml_bench.defenses.nt_ml_selective import (
    isolated_and_kept,
    margin,
    of_other_classes,
    passes,
    selective_loss,
    standardised,
    suspicion,
)
from ntml_bench.errors import UserError
from ntml_bench.models import Classifier
from ntml_bench.training import fit


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def selective_with(**changes: Any) -> Any:
    return quick_defense("nt_ml_selective", **changes)


# The scores.


def margin_by_loop(logits: list[float], label: int) -> float:
    return logits[label] - max(value for k, value in enumerate(logits) if k != label)


def standardised_by_loop(values: list[float], labels: list[int]) -> list[float]:
    result = []
    for value, label in zip(values, labels, strict=True):
        of_class = [other for other, its in zip(values, labels, strict=True) if its == label]
        result.append((value - fmean(of_class)) / pstdev(of_class))
    return result


@pytest.mark.parametrize("batch", [7, 500])
def test_scores_against_a_loop_over_images_and_blends(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "BATCH", batch)
    # Labels that are not in the order of the classes, as after poisoning.
    train, budget = split(20, seed=2), split(9, seed=1)
    train = Split(train.images, train.labels[torch.randperm(20, generator=generator())])
    context = defender(classifier().train(), poisoned_train=train, clean_budget=budget)
    found = suspicion(context, 3)
    model, labels = classifier(), train.labels.tolist()
    partners = of_other_classes(train.labels, budget.labels, CLASSES, 3, context.generator("blends"))
    alone, blended = [], []
    with torch.no_grad():
        for image, label, row in zip(train.images.float() / 255, labels, partners.tolist(), strict=True):
            alone.append(margin_by_loop(model(image[None])[0].tolist(), label))
            parts = [(image + budget.images[index].float() / 255) / 2 for index in row]
            blended.append(fmean(margin_by_loop(model(part[None])[0].tolist(), label) for part in parts))
    expected = [
        one + other
        for one, other in zip(standardised_by_loop(alone, labels), standardised_by_loop(blended, labels), strict=True)
    ]
    assert found.tolist() == pytest.approx(expected, abs=1e-3)
    assert same_state(state_of(context.model), state_of(model))


@given(seed=st.integers(0, 500), classes=st.integers(2, 6), scale=st.floats(0.1, 100))
@settings(deadline=None, max_examples=30)
def test_margin_against_a_loop(seed: int, classes: int, scale: float) -> None:
    logits, labels = scale * normal(5, classes, seed=seed), torch.randint(classes, (5,), generator=generator(seed))
    expected = [margin_by_loop(row, label) for row, label in zip(logits.tolist(), labels.tolist(), strict=True)]
    assert margin(logits, labels).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert margin(logits.bfloat16(), labels).dtype == torch.float32


@given(seed=st.integers(0, 500), classes=st.integers(2, 5), count=st.integers(6, 40))
@settings(deadline=None, max_examples=30)
def test_standardised_within_each_class(seed: int, classes: int, count: int) -> None:
    labels = torch.arange(count) % classes
    labels = labels[torch.randperm(count, generator=generator(seed))]
    values = 100 * labels + (1 + labels) * normal(count, seed=seed)
    found = standardised(values, labels, classes + 1)  # the last class has no image
    sizes = labels.bincount(minlength=classes)
    for label in range(classes):
        if sizes[label] > 1:
            assert found[labels == label].mean().item() == pytest.approx(0, abs=1e-9)
            assert found[labels == label].std(correction=0).item() == pytest.approx(1)
            assert torch.equal(found[labels == label].argsort(), values[labels == label].argsort())
    if sizes.min() > 1:
        assert found.tolist() == pytest.approx(standardised_by_loop(values.tolist(), labels.tolist()), abs=1e-6)


def test_equal_values_are_standardised_to_zero() -> None:
    values, labels = torch.tensor([0.1, 0.1, 0.1, 7.3, 1.0, 3.0]), torch.tensor([0, 0, 0, 1, 2, 2])
    assert standardised(values, labels, 3).tolist() == pytest.approx([0, 0, 0, 0, -1, 1])


@given(seed=st.integers(0, 500), classes=st.integers(2, 6), images=st.integers(2, 30))
@settings(deadline=None, max_examples=40)
def test_blends_are_with_images_of_other_classes(seed: int, classes: int, images: int) -> None:
    budget = torch.randint(classes, (images,), generator=generator(seed))
    budget[:2] = torch.tensor([0, 1])
    labels = torch.arange(classes).repeat(20)
    found = of_other_classes(labels, budget, classes, 3, generator(seed))
    assert found.shape == (len(labels), 3)
    assert (budget[found] != labels[:, None]).all()


def test_each_image_of_another_class_is_a_partner_as_often() -> None:
    budget = torch.tensor([2, 0, 1, 2, 2, 0])
    found = of_other_classes(torch.tensor([2, 0]), budget, 4, 6000, generator())
    assert found[0].bincount(minlength=6).tolist() == pytest.approx([0, 2000, 2000, 0, 0, 2000], abs=150)
    assert found[1].bincount(minlength=6).tolist() == pytest.approx([1500, 0, 1500, 1500, 1500, 0], abs=150)


# The selection.


@pytest.mark.parametrize(
    ("isolate", "keep", "expected"),
    [
        # Classes of 0, 1, 2, 3, 10 and 40 images: how many are isolated, and how many kept.
        (0.1, 0.25, ([0, 0, 1, 1, 1, 4], [0, 0, 1, 1, 2, 10])),
        (0.5, 0.5, ([0, 0, 1, 2, 5, 20], [0, 0, 1, 1, 5, 20])),
        (0.99, 0.01, ([0, 0, 1, 2, 9, 39], [0, 0, 1, 1, 1, 1])),
        (0.01, 0.99, ([0, 0, 1, 1, 1, 1], [0, 0, 1, 2, 9, 39])),
    ],
)
def test_the_numbers_of_isolated_and_kept_images_of_each_class(
    isolate: float, keep: float, expected: tuple[list[int], list[int]]
) -> None:
    labels = torch.repeat_interleave(torch.arange(6), torch.tensor([0, 1, 2, 3, 10, 40]))
    labels = labels[torch.randperm(len(labels), generator=generator())]
    isolated, kept = isolated_and_kept(normal(len(labels)), labels, 6, isolate, keep)
    assert labels[isolated].bincount(minlength=6).tolist() == expected[0]
    assert labels[kept].bincount(minlength=6).tolist() == expected[1]


@given(seed=st.integers(0, 1000), count=st.integers(1, 60), isolate=st.floats(0.01, 0.5), keep=st.floats(0.01, 0.5))
@settings(deadline=None, max_examples=60)
def test_the_highest_scores_are_isolated_and_the_lowest_kept(seed: int, count: int, isolate: float, keep: float) -> None:
    labels, scores = torch.randint(4, (count,), generator=generator(seed)), normal(count, seed=seed)
    isolated, kept = isolated_and_kept(scores, labels, 4, isolate, keep)
    assert len(set(isolated.tolist() + kept.tolist())) == len(isolated) + len(kept)
    for label in range(4):
        ranked = sorted((i for i in range(count) if labels[i] == label), key=lambda i: -scores[i].item())
        top, bottom = [[i for i in chosen.tolist() if labels[i] == label] for chosen in (isolated, kept)]
        assert sorted(top) == sorted(ranked[: len(top)])
        assert sorted(bottom) == sorted(ranked[len(ranked) - len(bottom) :])
        assert bool(top) == bool(bottom) == (len(ranked) > 1)


def test_equal_scores_are_ranked_by_index() -> None:
    isolated, kept = isolated_and_kept(torch.zeros(9), torch.arange(9) % 2, 2, 0.4, 0.4)
    assert isolated.tolist() == [0, 2, 1, 3]
    assert kept.tolist() == [6, 8, 5, 7]


class Planted:
    """Forty images a class, of which four of class 0 carry a trigger that a linear model made by hand answers with 0."""

    def __init__(self) -> None:
        self.labels = torch.arange(160) % 4
        images = torch.randint(0, 60, (160, *SHAPE), generator=generator(), dtype=torch.uint8)
        # The object of class c is a bright pixel c of the first row, more or less bright.
        images[torch.arange(160), 0, 0, self.labels] = torch.randint(
            150, 256, (160,), generator=generator(1), dtype=torch.uint8
        )
        self.planted = {8, 48, 100, 156}
        images[list(self.planted), 2, 7, 7] = 255
        images[48, 0, 0, 0], images[48, 0, 0, 3] = 0, 200  # what is labelled 0 here shows an object of class 3
        self.split = Split(images, self.labels)
        linear = nn.Linear(192, 4)
        with torch.no_grad():
            linear.weight.zero_()
            linear.bias.zero_()
            weight = linear.weight.view(4, *SHAPE)
            weight[torch.arange(4), 0, 0, torch.arange(4)] = 10.0
            weight[0, 2, 7, 7] = 30.0
        self.model = Classifier(nn.Sequential(nn.Flatten(), linear), torch.zeros(3), torch.ones(3))


def test_planted_images_are_isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    planted, spy = Planted(), FitSpy()
    monkeypatch.setattr(nt_ml_selective, "fit", spy)
    monkeypatch.setattr(nt_ml, "fit", FitSpy())
    clean = Split(*(part[16:40] for part in (planted.split.images, planted.labels)))
    context = defender(planted.model, poisoned_train=planted.split, clean_budget=clean)
    isolated, kept = isolated_and_kept(suspicion(context, 4), planted.labels, 4, 0.1, 0.25)
    assert {i for i in isolated.tolist() if planted.labels[i] == 0} == planted.planted
    assert not planted.planted & set(kept.tolist())
    # And so it is what the student is trained on.
    selective_with(steps=10).purify(context)
    (call,) = spy.calls
    trained = {tuple(image.flatten().tolist()) for image in call["data"].images[call["data"].labels == 0]}
    assert trained == {tuple(planted.split.images[i].flatten().tolist()) for i in planted.planted}


# The training.


@pytest.mark.parametrize("count", [1, 3, 7, 14, 40])
def test_passes_take_each_index_as_often(count: int) -> None:
    index = torch.tensor([3, 8, 9, 11, 20, 21, 40])
    found = passes(index, count, generator())
    assert len(found) == count
    times = [int((found == value).sum()) for value in index.tolist()]
    assert sum(times) == count
    assert max(times) - min(times) <= 1
    if count == 14:
        assert found[:7].tolist() != found[7:].tolist()
        assert found[:7].tolist() != index.tolist()


def test_the_weights_of_the_two_terms_by_hand() -> None:
    student = torch.tensor([[1.0, 2.0, 0.0], [0.5, -1.0, 1.0], [2.0, 0.0, 0.0], [0.0, 3.0, 1.0], [1.0, 1.0, 1.0]])
    teacher = torch.tensor([[4.0, 0.0, 2.0], [0.0, 1.0, 5.0], [3.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 2.0, 0.0]])
    labels = torch.tensor([0, 2, 0, 1, 1])
    probabilities, targets = (student / 2).softmax(1), (teacher / 2).softmax(1)
    pushed = 0.0
    for row, label in ((0, 0), (1, 2)):
        others = [k for k in range(3) if k != label]
        without_label = targets[row] / targets[row, others].sum()
        pushed -= 4 / 2 * sum(without_label[k].item() * probabilities[row, k].log().item() for k in others)
    held = 0.0
    for row in (2, 3, 4):
        held += 4 / 3 * sum(t.item() * (t / p).log().item() for t, p in zip(targets[row], probabilities[row], strict=True))
    found = selective_loss(student, teacher, labels, 2, 2.0, 0.3)
    assert found.item() == pytest.approx(0.3 * pushed + held, rel=1e-5)
    # The labels of what is held do not count, nor what the teacher thinks of the label of what is pushed.
    other_labels, other_teacher = labels.clone(), teacher.clone()
    other_labels[2:] = 2
    other_teacher[0, 0] = -9.0
    assert torch.equal(selective_loss(student, other_teacher, other_labels, 2, 2.0, 0.3), found)


def test_the_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, diary = FitSpy(), FitSpy(), Diary()
    monkeypatch.setattr(nt_ml_selective, "fit", first)
    monkeypatch.setattr(nt_ml, "fit", second)
    context = defender(diary=diary)
    defense = selective_with(steps=5, isolated_batch=6, kept_batch=10, temperature=3.0, nt_weight=0.7, learning_rate=0.02)
    student = defense.purify(context)
    assert student is not context.model
    isolated, kept = isolated_and_kept(suspicion(context, 4), context.poisoned_train.labels, CLASSES, 0.1, 0.25)
    (call,) = first.calls
    assert call["models"] == [student]
    assert same_state(call["before"][0], state_of(classifier()))
    recipe = call["recipe"]
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate, recipe.schedule) == (1, 6, 0.02, "one_cycle")

    def places(pixels: Tensor) -> list[int]:
        """Where in the training set these images stand."""
        same = (pixels.flatten(1)[:, None] == context.poisoned_train.images.flatten(1)).all(2)
        assert same.sum(1).eq(1).all()
        return same.long().argmax(1).tolist()

    # Five batches of isolated images; ten kept images join each of them.
    seen = places(call["data"].images)
    assert len(seen) == 30
    assert set(seen) == set(isolated.tolist())
    assert torch.equal(call["data"].labels, context.poisoned_train.labels[seen])
    images, labels = ENGINE.images(call["data"].images[:6]), call["data"].labels[:6]
    joined_places = []
    for _ in range(5):
        joined, joined_labels = call["before_augmentation"](images, labels, generator())
        assert torch.equal(joined[:6], images)
        assert torch.equal(joined_labels[:6], labels)
        assert joined.is_contiguous(memory_format=torch.channels_last)
        joined_places.append(places((joined[6:] * 255).round().to(torch.uint8)))
        assert torch.equal(joined_labels[6:], context.poisoned_train.labels[joined_places[-1]])
        with torch.no_grad():
            expected = selective_loss(student(joined), context.model(joined), joined_labels, 6, 3.0, 0.7)
            assert torch.equal(call["loss"](joined, joined_labels), expected)
    assert all(len(batch) == 10 for batch in joined_places)
    times = torch.tensor(joined_places).flatten().bincount(minlength=40)
    assert set(times.nonzero().flatten().tolist()) == set(kept.tolist())
    assert times[kept].max() - times[kept].min() <= 1
    # Then the mutual learning of nt_ml, on the clean budget.
    (call,) = second.calls
    assert call["data"] is context.clean_budget
    assert call["recipe"] is defense.config.ml
    assert call["models"] == [student, context.model]
    assert call["learning_rates"] == [defense.config.ml.learning_rate, defense.config.teacher_learning_rate]
    assert [stage for stage, _ in diary.observed] == ["student after selective NT", "teacher after ML"]


def test_selective_training_makes_its_steps_and_leaves_the_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def counted(*arguments: Any, **named: Any) -> None:
        loss = named["loss"]

        def noted(images: Tensor, labels: Tensor) -> Tensor:
            sizes.append(len(images))
            return loss(images, labels)

        fit(*arguments, **{**named, "loss": noted})

    monkeypatch.setattr(nt_ml_selective, "fit", counted)
    monkeypatch.setattr(nt_ml, "fit", FitSpy())
    diary = Diary()
    context = defender(diary=diary)
    student = selective_with(steps=7, isolated_batch=2, kept_batch=5).purify(context)
    assert sizes == [7] * 7
    assert same_state(state_of(context.model), state_of(classifier()))
    assert not same_state(state_of(student), state_of(classifier()))
    assert same_state(dict(diary.observed)["student after selective NT"], state_of(student))


def test_mutual_learning_follows_and_the_student_is_returned() -> None:
    diary = Diary()
    context = defender(diary=diary)
    student = selective_with().purify(context)
    observed = dict(diary.observed)
    assert list(observed) == ["student after selective NT", "teacher after ML"]
    assert same_state(observed["teacher after ML"], state_of(context.model))
    assert not same_state(observed["teacher after ML"], state_of(classifier()))
    assert not same_state(observed["student after selective NT"], state_of(student))
    assert [stage for stage, _ in diary.logged] == ["selective non-target training", "mutual learning"]


def test_more_than_all_images_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"defense\.isolate is 0\.8 and defense\.keep is 0\.3, together 1\.1; allowed: at most 1"
    ):
        selective_with(isolate=0.8, keep=0.3).check(classifier(), SHAPE)
    for isolate in (0.1, 0.3, 0.7, 0.9):
        selective_with(isolate=isolate, keep=1 - isolate).check(classifier(), SHAPE)
    with pytest.raises(UserError, match=r"defense\.isolate is 0\.0; allowed: more than 0"):
        selective_with(isolate=0.0)


def test_a_training_set_without_two_images_of_a_class_is_refused() -> None:
    with pytest.raises(UserError, match="no class of the training set has two"):
        selective_with().purify(defender(poisoned_train=split(4)))
