"""NT-ML against its definition, computed again by loops or by hand, and what its settings change."""

from copy import deepcopy
from math import exp, log
from typing import Any, cast

import pytest
import torch
from builders import ENGINE, UNTOUCHABLE, Diary, classifier, defender, quick_defense, same_state, split, state_of
from by_hand import FitSpy, normal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from ntml_bench.defenses import nt_ml
from ntml_bench.defenses.nt_ml import divergence, non_target_loss
from ntml_bench.errors import UserError
from ntml_bench.models import Classifier
from ntml_bench.training import fit

# The losses.


def softmax(values: list[float]) -> list[float]:
    highest = max(values)
    parts = [exp(value - highest) for value in values]
    return [part / sum(parts) for part in parts]


def non_target_loss_by_loop(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, mode: str) -> float:
    total = 0.0
    for z_student, z_teacher, label in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        others = [k for k in range(len(z_student)) if k != label]
        target = dict(zip(others, softmax([z_teacher[k] / temperature for k in others]), strict=True))
        counted = list(range(len(z_student))) if mode == "mask" else others
        given = dict(zip(counted, softmax([z_student[k] / temperature for k in counted]), strict=True))
        for k in others:
            total -= temperature**2 * target[k] * log(given[k])
    return total / len(labels)


@given(
    seed=st.integers(0, 1000),
    batch=st.integers(1, 4),
    classes=st.integers(2, 6),
    temperature=st.floats(0.5, 8),
    scale=st.floats(0.1, 20),
    mode=st.sampled_from(["mask", "drop"]),
)
@settings(deadline=None, max_examples=80)
def test_non_target_loss_against_a_loop(
    seed: int, batch: int, classes: int, temperature: float, scale: float, mode: str
) -> None:
    student, teacher = scale * normal(batch, classes, seed=seed), scale * normal(batch, classes, seed=seed + 1)
    labels = torch.randint(classes, (batch,), generator=torch.Generator().manual_seed(seed))
    expected = non_target_loss_by_loop(student, teacher, labels, temperature, mode)
    found = non_target_loss(student, teacher, labels, temperature, mode)
    assert found.item() == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("mode", ["mask", "drop"])
def test_the_teacher_s_logit_of_the_label_does_not_count(mode: str) -> None:
    student, teacher, labels = normal(3, 5), normal(3, 5, seed=1), torch.tensor([0, 4, 2])
    other = teacher.scatter(1, labels[:, None], 50.0)
    assert non_target_loss(student, other, labels, 2.0, mode) == non_target_loss(student, teacher, labels, 2.0, mode)


def test_masking_pushes_the_label_down_and_dropping_leaves_it() -> None:
    student, teacher, labels = normal(4, 5).requires_grad_(), normal(4, 5, seed=1), torch.tensor([0, 4, 2, 2])
    (by_mask,) = torch.autograd.grad(non_target_loss(student, teacher, labels, 2.0, "mask"), student)
    (by_drop,) = torch.autograd.grad(non_target_loss(student, teacher, labels, 2.0, "drop"), student)
    at_label = by_mask.gather(1, labels[:, None])
    # A descent lowers a logit whose gradient is positive: t / batch times the probability that the label still has.
    assert torch.allclose(at_label, 2.0 / 4 * (student / 2).softmax(1).gather(1, labels[:, None]))
    assert (at_label > 0).all()
    assert by_drop.gather(1, labels[:, None]).eq(0).all()
    assert by_drop.abs().sum() > 0


@pytest.mark.parametrize("mode", ["mask", "drop"])
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_extreme_logits_give_a_finite_loss(mode: str, size: float) -> None:
    labels = torch.tensor([0, 1])
    teacher = torch.tensor([[size, -size, 0.0], [0.0, size, -size]])
    student = (-teacher).clone().requires_grad_()
    loss = non_target_loss(student, teacher, labels, 2.0, mode)
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@given(seed=st.integers(0, 1000), classes=st.integers(2, 6), temperature=st.floats(0.5, 8))
@settings(deadline=None, max_examples=40)
def test_divergence_against_a_loop(seed: int, classes: int, temperature: float) -> None:
    target, logits = 3 * normal(3, classes, seed=seed), 3 * normal(3, classes, seed=seed + 1)
    expected = 0.0
    for z_target, z in zip(target.tolist(), logits.tolist(), strict=True):
        p, q = softmax([value / temperature for value in z_target]), softmax([value / temperature for value in z])
        expected += temperature**2 * sum(a * log(a / b) for a, b in zip(p, q, strict=True)) / 3
    assert divergence(target, logits, temperature).item() == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert divergence(logits, logits, temperature).item() == pytest.approx(0, abs=1e-5)


# The stages.


def nt_ml_with(**changes: Any) -> Any:
    return quick_defense("nt_ml", **changes)


def test_the_student_starts_from_the_teacher_and_learns_on_the_poisoned_set(monkeypatch: pytest.MonkeyPatch) -> None:
    spy, context = FitSpy(), defender()
    monkeypatch.setattr(nt_ml, "fit", spy)
    defense = nt_ml_with()
    student = defense.purify(context)
    first, second = spy.calls
    assert first["data"] is context.poisoned_train
    assert first["recipe"] is defense.config.nt
    assert first["models"] == [student]
    assert student is not context.model
    assert same_state(first["before"][0], state_of(classifier()))
    assert second["data"] is context.clean_budget
    assert second["recipe"] is defense.config.ml
    assert second["models"] == [student, context.model]
    assert second["learning_rates"] == [defense.config.ml.learning_rate, defense.config.teacher_learning_rate]
    assert all(parameter.requires_grad for model in second["models"] for parameter in model.parameters())


def test_the_losses_of_the_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    spy, teacher, student = FitSpy(), classifier(), classifier(seed=5)
    monkeypatch.setattr(nt_ml, "fit", spy)
    nt_ml_with(student_start="scratch", temperature=3.0, alpha=4.0).purify(defender(teacher, new_model=lambda: student))
    images, labels = split(6, seed=7).images.float() / 255, torch.tensor([0, 1, 2, 3, 0, 1])
    with torch.no_grad():
        z_teacher, z_student = teacher(images), student(images)
        expected = non_target_loss(z_student, z_teacher, labels, 3.0, "mask")
        assert torch.equal(spy.calls[0]["loss"](images, labels), expected)
    total = spy.calls[1]["loss"](images, labels)
    by_student = functional.cross_entropy(z_student, labels) + 4 * divergence(z_teacher, z_student, 3.0)
    by_teacher = functional.cross_entropy(z_teacher, labels) + 4 * divergence(z_student, z_teacher, 3.0)
    assert torch.allclose(total, by_student + by_teacher)
    # Each model is a constant for the other: its gradient is that of its own loss.
    total.backward()
    for model, other_logits in ((student, z_teacher), (teacher, z_student)):
        copy = deepcopy(model)
        copy.zero_grad()
        logits = copy(images)
        (functional.cross_entropy(logits, labels) + 4 * divergence(other_logits, logits, 3.0)).backward()
        for ours, theirs in zip(model.parameters(), copy.parameters(), strict=True):
            assert ours.grad is not None
            assert theirs.grad is not None
            assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)


def test_non_target_training_leaves_the_teacher_and_none_returns_its_student() -> None:
    diary = Diary()
    context = defender(diary=diary)
    student = nt_ml_with(mutual="none").purify(context)
    assert same_state(state_of(context.model), state_of(classifier()))
    assert all(parameter.requires_grad for parameter in context.model.parameters())
    assert not same_state(state_of(student), state_of(classifier()))
    assert [stage for stage, _ in diary.observed] == ["student after NT"]
    assert same_state(diary.observed[0][1], state_of(student))
    assert {stage for stage, _ in diary.logged} == {"non-target training"}


def test_mutual_learning_teaches_both_and_returns_the_student() -> None:
    diary = Diary()
    context = defender(diary=diary)
    student = nt_ml_with().purify(context)
    assert student is not context.model
    observed = dict(diary.observed)
    assert list(observed) == ["student after NT", "teacher after ML"]
    assert same_state(observed["teacher after ML"], state_of(context.model))
    assert not same_state(observed["teacher after ML"], state_of(classifier()))
    assert not same_state(state_of(student), observed["student after NT"])


@pytest.mark.parametrize("change", [{"mutual": "ce_only"}, {"freeze_teacher": True}])
def test_a_teacher_that_does_not_learn_stays_with_its_statistics(change: dict[str, Any]) -> None:
    context = defender()
    student = nt_ml_with(**change).purify(context)
    assert same_state(state_of(context.model), state_of(classifier()))
    assert not same_state(state_of(student), state_of(context.model))


def test_ce_only_is_fine_tuning_of_the_student_of_non_target_training() -> None:
    context = defender()
    ml: dict[str, Any] = {"ml__learning_rate": 0.02}
    expected = nt_ml_with(mutual="none", **ml).purify(context)
    fit(
        ENGINE,
        context.clean_budget,
        nt_ml_with(**ml).config.ml,
        models=[expected],
        loss=lambda images, labels: functional.cross_entropy(expected(images), labels),
        augmentation=context.augmentation,
        seed=0,
        purpose="defense/mutual learning",
        log=lambda _: None,
    )
    assert same_state(state_of(nt_ml_with(mutual="ce_only", **ml).purify(defender())), state_of(expected))


def test_without_a_pull_teacher_and_student_learn_each_for_itself() -> None:
    context = defender()
    student = nt_ml_with(alpha=0.0).purify(context)
    assert not same_state(state_of(context.model), state_of(classifier()))
    assert same_state(state_of(student), state_of(nt_ml_with(mutual="ce_only").purify(defender())))


class ReadError(Exception):
    pass


def test_a_uniform_target_does_not_ask_the_teacher() -> None:
    def mute() -> Classifier:
        model = classifier()

        def refuse(images: Tensor) -> Tensor:
            raise ReadError

        cast(Any, model).forward = refuse
        return model

    settings: dict[str, Any] = {"student_start": "scratch", "mutual": "none"}
    nt_ml_with(target="uniform", **settings).purify(defender(mute()))
    with pytest.raises(ReadError):
        nt_ml_with(target="teacher", **settings).purify(defender(mute()))


def test_a_uniform_target_is_the_same_for_all_other_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = FitSpy()
    monkeypatch.setattr(nt_ml, "fit", spy)
    student = nt_ml_with(target="uniform", mutual="none").purify(defender())
    images, labels = split(2).images.float() / 255, torch.tensor([0, 1])
    with torch.no_grad():
        expected = -4 * (student(images) / 2).log_softmax(1)
        expected = (expected[0, 1:].sum() + expected[1, [0, 2, 3]].sum()) / 3 / 2
        assert torch.allclose(spy.calls[0]["loss"](images, labels), expected)


def test_a_student_from_scratch_is_a_new_model(monkeypatch: pytest.MonkeyPatch) -> None:
    spy = FitSpy()
    monkeypatch.setattr(nt_ml, "fit", spy)
    fresh = classifier(seed=3)
    assert nt_ml_with(student_start="scratch").purify(defender(new_model=lambda: fresh)) is fresh
    assert same_state(spy.calls[0]["before"][0], state_of(classifier(seed=3)))


@pytest.mark.parametrize("start", ["backdoored", "scratch"])
def test_mutual_learning_alone_takes_the_student_as_it_starts(start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spy, diary = FitSpy(), Diary()
    monkeypatch.setattr(nt_ml, "fit", spy)
    context = defender(poisoned_train=UNTOUCHABLE, new_model=lambda: classifier(seed=3), diary=diary)
    student = nt_ml_with(non_target_training=False, student_start=start).purify(context)
    (call,) = spy.calls
    assert call["data"] is context.clean_budget
    assert call["models"] == [student, context.model]
    assert student is not context.model
    assert same_state(call["before"][0], state_of(classifier(seed=0 if start == "backdoored" else 3)))
    assert same_state(call["before"][1], state_of(classifier()))
    assert [stage for stage, _ in diary.observed] == ["teacher after ML"]


def test_without_non_target_training_and_pull_it_is_fine_tuning() -> None:
    context, expected = defender(), classifier()
    defense = nt_ml_with(non_target_training=False, mutual="ce_only")
    fit(
        ENGINE,
        context.clean_budget,
        defense.config.ml,
        models=[expected],
        loss=lambda images, labels: functional.cross_entropy(expected(images), labels),
        augmentation=context.augmentation,
        seed=0,
        purpose="defense/mutual learning",
        log=lambda _: None,
    )
    assert same_state(state_of(defense.purify(context)), state_of(expected))


@pytest.mark.parametrize("start", ["backdoored", "scratch"])
def test_nothing_to_be_done_is_refused(start: str) -> None:
    with pytest.raises(UserError, match=r"non_target_training=false and defense\.mutual=none leave nothing to be done"):
        nt_ml_with(non_target_training=False, mutual="none", student_start=start).check(classifier(), (3, 8, 8))
    for mutual in ("mutual", "ce_only"):
        nt_ml_with(non_target_training=False, mutual=mutual, student_start=start).check(classifier(), (3, 8, 8))


def test_dropping_the_label_from_backdoored_weights_is_refused() -> None:
    with pytest.raises(UserError, match=r"use defense\.student_start=scratch or defense\.mode=mask"):
        nt_ml_with(mode="drop").check(classifier(), (3, 8, 8))
    nt_ml_with(mode="drop", student_start="scratch").check(classifier(), (3, 8, 8))
    nt_ml_with(mode="drop", non_target_training=False).check(classifier(), (3, 8, 8))
