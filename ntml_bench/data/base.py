"""What a data set is to the rest of the benchmark: uint8 tensors, held whole, with a fingerprint."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from math import sqrt
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from ntml_bench.registry import Registry
from ntml_bench.schema import number


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Random crop after zero padding of `crop_padding` pixels (0: none) and random horizontal flip."""

    crop_padding: int = number(at_least=0)
    horizontal_flip: bool


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Settings that every data set has; a data set's own schema adds to them.

    `train_limit` / `test_limit`: at most that many images, a seeded stratified subset (null: all).
    `holdout`: share of the training images that is taken out and stands in for the test images (0: the real test
    images), so that settings can be chosen without a look at the test set.
    """

    name: str
    train_limit: int | None = number(above=0)
    test_limit: int | None = number(above=0)
    holdout: float = number(at_least=0, at_most=0.9)
    augmentation: AugmentationConfig


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, C, H, W] in 0..255 and their labels int64 [N]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor) -> "Split":
        return Split(self.images[index], self.labels[index])

    def to(self, device: torch.device) -> "Split":
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class ImageData:
    """A loaded data set; `fingerprint` is a hash of every image and label in it, `whole` that of the set it was drawn from,
    `remarks` what a user should know of them.
    """

    train: Split
    test: Split
    class_names: tuple[str, ...]
    fingerprint: str
    whole: str
    remarks: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @cached_property
    def channel_statistics(self) -> tuple[Tensor, Tensor]:
        """Those of the training images, counted once for all models."""
        return channel_statistics(self.train)

    def to(self, device: torch.device) -> "ImageData":
        return replace(self, train=self.train.to(device), test=self.test.to(device))


C = TypeVar("C", bound=DatasetConfig)


class Dataset(ABC, Generic[C]):
    """Where images come from. A data set is one file with a subclass and one YAML file in `conf/dataset`.

    `Config` is the schema of its settings. `raw` gives the two splits; limits, hold-out, fingerprint and the cache
    are the same for all and are done by `ntml_bench.data.load`. What a user should know of the images (files that were
    skipped, images in which there is nothing to see), `raw` appends to `remarks`: each run says it, also from the cache.
    """

    Config: ClassVar[type[DatasetConfig]] = DatasetConfig

    def __init__(self, config: C) -> None:
        self.config = config
        self.remarks: list[str] = []

    @abstractmethod
    def source(self) -> str:
        """What the images are made from (a path, a recipe and its version), for the key of the array cache.

        Cheap: it is called on every run, `raw` only where the cache does not have the answer.
        Raises UserError, with the place and what is wrong, where the source is missing, corrupt or half there.
        """

    @abstractmethod
    def raw(self, download_dir: Path) -> tuple[Split, Split, tuple[str, ...]]:
        """Training split, test split, class names. Raises UserError as `source` does."""


DATASETS: Registry[Dataset] = Registry("dataset")


def fingerprint(train: Split, test: Split, class_names: tuple[str, ...]) -> str:
    """SHA-256 (first 16 hex digits) over both splits' images and labels and the names of the classes."""
    digest = hashlib.sha256("\0".join(class_names).encode())
    for tensor in (train.images, train.labels, test.images, test.labels):
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().cpu().numpy().data)
    return digest.hexdigest()[:16]


def to_float(images: Tensor) -> Tensor:
    """uint8 0..255 to float32 [0, 1]."""
    return images.float().div_(255)


def to_uint8(images: Tensor) -> Tensor:
    """Float [0, 1] to uint8 0..255, rounded to the nearest level, as an image file would hold it."""
    return images.mul(255).round_().clamp_(0, 255).to(torch.uint8)


def channel_statistics(split: Split) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, float32 [C], of images scaled to [0, 1]."""
    # Histograms of whole numbers: exact, and no float copy of the whole set.
    levels = torch.arange(256)
    means, deviations = [], []
    for channel in range(split.images.shape[1]):
        counts = torch.bincount(split.images[:, channel].flatten().cpu(), minlength=256)
        count, total, squares = (int((counts * levels**power).sum()) for power in range(3))
        means.append(total / (255 * count))
        deviations.append(max(sqrt(squares * count - total**2) / (255 * count), 1e-3))
    return torch.tensor(means), torch.tensor(deviations)
