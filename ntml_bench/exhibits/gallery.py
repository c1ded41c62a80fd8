"""A few test images with and without the trigger, and how far it takes an image on average."""

from math import isfinite
from typing import Any

import torch
from torch import Tensor

from ntml_bench.data import ImageData
from ntml_bench.evaluation import TriggeredTest
from ntml_bench.exhibits.choice import by_turns, sample
from ntml_bench.exhibits.distances import linf, psnr, ssim
from ntml_bench.store import Artifact

SHOWN = 8
MEASURED = 500


def gallery(data: ImageData, triggered: TriggeredTest) -> Artifact:
    """`clean` and `triggered` uint8 [K, H, W, C], the names of their classes, and mean distances over `images` images.

    PSNR is the mean over the images that are changed at all; None, as JSON has no infinity, where none is. `target` is None
    where it depends on an image's class.
    """
    others = data.test[triggered.indices]
    labels = others.labels.cpu()
    shown, measured = by_turns(labels, SHOWN), sample(labels, MEASURED, "gallery")
    before, after = (images[measured.to(images.device)] for images in (others.images, triggered.split.images))
    decibels = psnr(before, after)
    changed = decibels[decibels.isfinite()]
    record: dict[str, Any] = {
        "classes": [data.class_names[label] for label in labels[shown]],
        "target": None if triggered.target_class is None else data.class_names[triggered.target_class],
        "images": len(measured),
        "psnr": _mean(changed),
        "ssim": _mean(ssim(before, after)),
        "linf": _mean(linf(before, after)),
    }
    tensors = {"clean": _pixels(others.images, shown), "triggered": _pixels(triggered.split.images, shown)}
    return Artifact(record, tensors)


def _pixels(images: Tensor, index: Tensor) -> Tensor:
    return images[index.to(images.device)].permute(0, 2, 3, 1).contiguous().cpu()


def _mean(values: Tensor) -> float | None:
    mean = float(values.mean()) if len(values) else torch.nan
    return mean if isfinite(mean) else None
