"""What the store holds to look at, checked as it is read: what is not as it should be is not shown, whoever made it."""

from collections.abc import Mapping
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntml_bench.report.data import Exhibit, Gallery
from ntml_bench.store import Store

LARGEST = 64 * 2**20
"""Bytes; a gallery of large images has a few million."""
MOST_IMAGES, LARGEST_SIDE, MOST_PLACES = 64, 1024, 10_000
LONGEST_NAME = 200
Record = Mapping[str, Any]
Arrays = Mapping[str, Any]


def read_gallery(store: Store, key: str, dataset: str, attack: str) -> Gallery | None:
    """The gallery of that key, under these labels; None where there is none that can be shown."""
    found = store.arrays("gallery", key, LARGEST)
    try:
        return None if found is None else gallery_from(*found, dataset, attack)
    except (ValueError, KeyError, TypeError):
        return None


def read_exhibit(store: Store, key: str) -> Exhibit | None:
    """The exhibit of that key; None where there is none that can be shown."""
    found = store.arrays("exhibit", key, LARGEST)
    try:
        return None if found is None else exhibit_from(*found)
    except (ValueError, KeyError, TypeError):
        return None


def gallery_from(record: Record, arrays: Arrays, dataset: str, attack: str) -> Gallery:
    """ValueError, KeyError or TypeError for what is no gallery."""
    names = record["classes"]
    if not isinstance(names, list):
        raise ValueError("the classes are no list")
    clean, triggered = (_pixels(arrays[name], len(names)) for name in ("clean", "triggered"))
    if clean.shape != triggered.shape:
        raise ValueError("the images are of two sizes")
    return Gallery(
        dataset=dataset,
        attack=attack,
        target=None if record["target"] is None else _name(record["target"]),
        clean=clean,
        triggered=triggered,
        classes=tuple(map(_name, names)),
        images=_count(record["images"]),
        # JSON has no infinity.
        psnr=inf if record["psnr"] is None else _number(record["psnr"], -1000, 1000),
        ssim=_number(record["ssim"], -1, 1 + 1e-6),
        linf=_number(record["linf"], 0, 255),
    )


def exhibit_from(record: Record, arrays: Arrays) -> Exhibit:
    """ValueError, KeyError or TypeError for what is no exhibit."""
    probability = _floats(arrays["true_class_probability"], 1)
    if probability.min() < 0 or probability.max() > 100.01:
        raise ValueError("a probability is 0 to 100")
    found = Exhibit(
        clean_map=_floats(arrays["clean_map"], 2),
        clean_labels=_labels(arrays["clean_labels"]),
        triggered_map=_floats(arrays["triggered_map"], 2),
        triggered_labels=_labels(arrays["triggered_labels"]),
        true_class_probability=probability,
        target_class=None if record["target_class"] is None else _count(record["target_class"]),
    )
    if len(found.clean_map) != len(found.clean_labels):
        raise ValueError("there are other labels than clean images")
    if not len(found.triggered_map) == len(found.triggered_labels) == len(probability):
        raise ValueError("there are other labels than triggered images")
    return found


def _pixels(images: NDArray[Any], count: int) -> NDArray[np.uint8]:
    if images.dtype != np.uint8 or images.ndim != 4 or not 0 < count <= MOST_IMAGES or len(images) != count:
        raise ValueError("images are uint8 [K, height, width, channels]")
    height, width, channels = images.shape[1:]
    if channels not in (1, 3) or not (0 < height <= LARGEST_SIDE and 0 < width <= LARGEST_SIDE):
        raise ValueError(f"an image is {height}x{width} with {channels} channels")
    return images


def _floats(values: NDArray[Any], dimensions: int) -> NDArray[np.float32]:
    """[N], or [N, 2]."""
    fits = values.ndim == dimensions and values.shape[1:] in ((), (2,)) and 0 < len(values) <= MOST_PLACES
    if values.dtype != np.float32 or not fits or not np.isfinite(values).all():
        raise ValueError("places and probabilities are finite float32")
    return values


def _labels(values: NDArray[Any]) -> NDArray[np.int64]:
    if values.dtype != np.int64 or values.ndim != 1 or len(values) > MOST_PLACES or (values < 0).any():
        raise ValueError("labels are int64 from 0")
    return values


def _name(value: Any) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_NAME:
        raise ValueError("the name of a class is a short text")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError("a count is a whole number")
    return value


def _number(value: Any, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"a number is {least} to {most}")
    return float(value)
