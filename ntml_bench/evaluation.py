"""The one evaluator: clean accuracy, attack success rate, robust accuracy on the test images. Only it reads them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ntml_bench.data.base import Split, to_float, to_uint8
from ntml_bench.engine import Engine

BATCH = 500
LARGEST = BATCH * 64 * 64
"""Pixels of a batch: one of 224 pixels a side would hold gigabytes of feature maps."""


@dataclass(frozen=True)
class TriggeredTest:
    """Triggered test images of the non-target classes: uint8 [M, C, H, W], with their true labels int64 [M].

    `targets` int64 [M]: what each is to be taken for; `target_class`: where that is one class, that class, else None.
    `indices` int64 [M]: which of the test images they are. `cross` uint8 [N, C, H, W] with their true labels: the test images
    under the triggers of others, of an attack whose triggers are each an image's own; else None.
    """

    split: Split
    target_class: int | None
    targets: Tensor
    indices: Tensor
    cross: Split | None = None


def batches(images: Tensor) -> Iterator[slice]:
    """The batches that images [N, C, H, W] go through a model in, without gradients."""
    size = min(BATCH, max(1, LARGEST // (images.shape[2] * images.shape[3])))
    return (slice(start, start + size) for start in range(0, len(images), size))


def triggered_test(test: Split, trigger: Callable[[Tensor], Tensor], targets: int | Tensor) -> TriggeredTest:
    """Put the trigger (float [0, 1] to the same) on every test image of another class than its target, rounded to 8 bits.

    `targets`: the class that all are to be taken for, or int64 [N], that of each test image. An image that is of its target
    class already could not tell whether the trigger works.
    """
    target_class = targets if isinstance(targets, int) else None
    each = torch.full_like(test.labels, targets) if isinstance(targets, int) else targets.to(test.labels.device)
    indices = (test.labels != each).nonzero().flatten()
    others = test[indices]
    return TriggeredTest(Split(_changed(others.images, trigger), others.labels), target_class, each[indices], indices)


def cross_test(test: Split, cross_trigger: Callable[[Tensor, Tensor], Tensor | None]) -> Split | None:
    """Each test image under the trigger of the one before it (of the last, the first), rounded to 8 bits; None where the
    attack has no such thing."""
    origins = test.images.roll(1, 0)
    if cross_trigger(to_float(test.images[:1]), to_float(origins[:1])) is None:
        return None
    return Split(_changed(test.images, cast(Callable[..., Tensor], cross_trigger), origins), test.labels)


def _changed(images: Tensor, change: Callable[..., Tensor], *more: Tensor) -> Tensor:
    result = torch.empty_like(images)
    with torch.inference_mode():
        for part in batches(images):
            result[part] = to_uint8(change(*(to_float(each[part]) for each in (images, *more))))
    return result


def evaluate(engine: Engine, model: nn.Module, test: Split, triggered: TriggeredTest | None) -> dict[str, float | None]:
    """ACC, ASR, RA in percent, and the mean probability (percent) of the true class on triggered images.

    The last three are None where there is no trigger. The model is put into eval mode.
    """
    probabilities = _probabilities(engine, model, test.images)
    metrics: dict[str, float | None] = {
        "clean_accuracy": _percent(probabilities.argmax(1) == test.labels),
        "attack_success_rate": None,
        "robust_accuracy": None,
        "true_class_probability": None,
    }
    if triggered is not None:
        labels = triggered.split.labels
        probabilities = _probabilities(engine, model, triggered.split.images)
        answers = probabilities.argmax(1)
        metrics["attack_success_rate"] = _percent(answers == triggered.targets)
        metrics["robust_accuracy"] = _percent(answers == labels)
        metrics["true_class_probability"] = _percent(probabilities.gather(1, labels[:, None]))
        if triggered.cross is not None:
            metrics["cross_accuracy"] = _percent(right(engine, model, triggered.cross))
    return metrics


def accuracy(engine: Engine, model: nn.Module, split: Split) -> float:
    """Share (0 to 1) of images that are classified right: for what a defense selects on its clean budget."""
    return float(right(engine, model, split).double().mean())


def right(engine: Engine, model: nn.Module, split: Split) -> Tensor:
    """Which images are classified right, bool [N]; the model is put into eval mode."""
    return _probabilities(engine, model, split.images).argmax(1) == split.labels


def defense_effectiveness_rating(before: dict[str, float | None], after: dict[str, float | None]) -> float | None:
    """DER in percent (Zhu et al., "Enhancing Fine-Tuning Based Backdoor Defense with Sharpness-Aware Minimization", ICCV 2023).

    (max(0, ASR_before - ASR_after) - max(0, ACC_before - ACC_after) + 1) / 2, rates as shares of 1; None without a trigger.
    """
    asr_before, asr_after = before["attack_success_rate"], after["attack_success_rate"]
    acc_before, acc_after = before["clean_accuracy"], after["clean_accuracy"]
    if asr_before is None or asr_after is None or acc_before is None or acc_after is None:
        return None
    return (max(0.0, asr_before - asr_after) - max(0.0, acc_before - acc_after) + 100.0) / 2


def _probabilities(engine: Engine, model: nn.Module, images: Tensor) -> Tensor:
    """Softmax outputs float32 [N, classes]; images uint8."""
    model.eval()
    parts = []
    with torch.inference_mode():
        for part in batches(images):
            with engine.autocast():
                logits = model(engine.images(images[part]))
            parts.append(logits.float().softmax(dim=1))
    return torch.cat(parts)


def _percent(values: Tensor) -> float:
    return 100.0 * float(values.double().mean())
