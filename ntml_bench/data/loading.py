"""From a data set's settings to the images of a cell: cached arrays, hold-out, limits, fingerprint."""

from pathlib import Path

import torch

from ntml_bench.data.base import Dataset, ImageData, Split, fingerprint
from ntml_bench.errors import UserError
from ntml_bench.seeding import generator, stratified
from ntml_bench.store import Artifact, Store, key_of

CACHE_VERSION = 1


def load(dataset: Dataset, data_dir: Path, seed: int) -> ImageData:
    """The images that a cell with this seed works with.

    All images come from the cache below `data_dir`/cache, or are made (downloads go to `data_dir`/downloads) and
    cached. Then `holdout` takes its share of the training images, which stand in for the test images, and `train_limit`
    and `test_limit` take their subsets; all three are stratified and drawn by `seed`.
    Raises UserError where the source is not usable, or does not have as many images as the limits ask for.
    """
    config = dataset.config
    everything = _cached(dataset, data_dir)
    train, test = everything.train, everything.test
    if config.holdout > 0:
        train, test = _held_out(train, config.holdout, everything.num_classes, seed)
    train = _limited(train, config.train_limit, "train_limit", "training", seed)
    test = _limited(test, config.test_limit, "test_limit", "test", seed)
    if config.train_limit is not None and len(train.labels.unique()) < everything.num_classes:
        raise UserError(
            f"dataset.train_limit is {config.train_limit}; that leaves a class of '{config.name}' without training images: "
            f"allowed: more images, at least the number of classes ({everything.num_classes})"
        )
    if train is everything.train and test is everything.test:
        return everything
    return ImageData(train, test, everything.class_names, fingerprint(train, test, everything.class_names))


def _held_out(train: Split, share: float, num_classes: int, seed: int) -> tuple[Split, Split]:
    count = round(share * len(train))
    if count < num_classes:
        raise UserError(
            f"dataset.holdout is {share:g}; of {len(train)} training images that holds out {count}, "
            f"allowed: 0, or at least one image for each of the {num_classes} classes"
        )
    held = torch.zeros(len(train), dtype=torch.bool)
    held[stratified(train.labels, count, generator(seed, "data/holdout"))] = True
    return train[~held], train[held]


def _limited(split: Split, limit: int | None, key: str, what: str, seed: int) -> Split:
    if limit is None or limit == len(split):
        return split
    if limit > len(split):
        raise UserError(f"dataset.{key} is {limit}; there are {len(split)} {what} images (null takes all)")
    return split[stratified(split.labels, limit, generator(seed, f"data/{key}"))]


def cache_dir(data_dir: Path) -> Path:
    """Where what is made once a machine is kept."""
    return data_dir / "cache"


def _cached(dataset: Dataset, data_dir: Path) -> ImageData:
    name, source = dataset.config.name, dataset.source()
    store = Store(cache_dir(data_dir))
    key = key_of({"name": name, "source": source, "version": CACHE_VERSION})

    def make() -> Artifact:
        train, test, class_names = dataset.raw(data_dir / "downloads")
        _check(train, test, class_names)
        tensors = {f"{part}_images": split.images for part, split in (("train", train), ("test", test))}
        tensors |= {f"{part}_labels": split.labels for part, split in (("train", train), ("test", test))}
        mark = fingerprint(train, test, class_names)
        return Artifact({"name": name, "source": source, "class_names": list(class_names), "fingerprint": mark}, tensors)

    return _opened(store.get_or_make(name, key, make))


def _opened(artifact: Artifact) -> ImageData:
    tensors, record = artifact.tensors, artifact.record
    train = Split(tensors["train_images"], tensors["train_labels"])
    test = Split(tensors["test_images"], tensors["test_labels"])
    return ImageData(train, test, tuple(record["class_names"]), record["fingerprint"])


def _check(train: Split, test: Split, class_names: tuple[str, ...]) -> None:
    """ValueError where a data set's code breaks the promise of `raw`."""
    for split in (train, test):
        images, labels = split.images, split.labels
        if images.dtype != torch.uint8 or images.ndim != 4 or labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
            raise ValueError(f"a split is images uint8 [N, C, H, W] and labels int64 [N], not {images.shape}, {labels.shape}")
        if len(labels) == 0 or labels.min() < 0 or labels.max() >= len(class_names):
            raise ValueError(f"labels are 0 to {len(class_names) - 1}, and there is at least one")
    if train.images.shape[1:] != test.images.shape[1:]:
        raise ValueError("training and test images differ in shape")
