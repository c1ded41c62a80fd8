"""From a data set's settings to the images of a cell: cached arrays, hold-out, limits, fingerprint."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from ntml_bench.data.base import Dataset, DatasetConfig, ImageData, Split, fingerprint
from ntml_bench.errors import UserError
from ntml_bench.seeding import generator, stratified
from ntml_bench.source import source_marks
from ntml_bench.store import Artifact, Store, key_of

CACHE_VERSION = 1


def load(dataset: Dataset, data_dir: Path, seed: int) -> ImageData:
    """The images that a cell with this seed works with.

    All images come from the cache below `data_dir`/cache, or are made (downloads go to `data_dir`/downloads) and
    cached. Then `holdout` takes its share of the training images, which stand in for the test images, and `train_limit`
    and `test_limit` take their subsets; all three are stratified and drawn by `seed`.
    Raises UserError where the source is not usable, or does not have as many images as the limits ask for, and where there is
    one class only, or one that is left without images.
    """
    config = dataset.config
    everything = _cached(dataset, data_dir)
    if everything.num_classes < 2:
        raise UserError(
            f"dataset '{config.name}' has a single class ('{everything.class_names[0]}'): there is nothing to tell it from; "
            "allowed: two classes or more"
        )
    train, test, names = everything.train, everything.test, everything.class_names
    if config.holdout > 0:
        train, test = _held_out(train, config, names, seed)
    train = _limited(train, config, "train_limit", "training", names, seed)
    test = _limited(test, config, "test_limit", "test", names, seed)
    if train is everything.train and test is everything.test:
        return everything
    return replace(everything, train=train, test=test, fingerprint=fingerprint(train, test, names))


def _held_out(train: Split, config: DatasetConfig, class_names: tuple[str, ...], seed: int) -> tuple[Split, Split]:
    share = config.holdout
    count = round(share * len(train))
    if count < len(class_names):
        raise UserError(
            f"dataset.holdout is {share:g}; of {len(train)} training images that holds out {count}, "
            f"allowed: 0, or at least one image for each of the {len(class_names)} classes"
        )
    held = torch.zeros(len(train), dtype=torch.bool)
    held[stratified(train.labels, count, generator(seed, "data/holdout"))] = True
    for part, what in ((train[held], "held-out"), (train[~held], "training")):
        lost = _lost_class(train, part, class_names)
        if lost is not None:
            raise UserError(
                f"dataset.holdout is {share:g}; that leaves a class of '{config.name}' without {what} images: {lost}; allowed: "
                f"0, or a share that takes an image of each class, and leaves one (the smallest has {_smallest(train)})"
            )
    return train[~held], train[held]


def _limited(split: Split, config: DatasetConfig, key: str, what: str, class_names: tuple[str, ...], seed: int) -> Split:
    limit = getattr(config, key)
    if limit is None or limit == len(split):
        return split
    if limit > len(split):
        raise UserError(f"dataset.{key} is {limit}; there are {len(split)} {what} images (null takes all)")
    limited = split[stratified(split.labels, limit, generator(seed, f"data/{key}"))]
    lost = _lost_class(split, limited, class_names)
    if lost is not None:
        # As many that the share of the smallest class is a whole image.
        enough = -(-len(split) // _smallest(split))
        raise UserError(
            f"dataset.{key} is {limit}; that leaves a class of '{config.name}' without {what} images: {lost}; "
            f"allowed: more images, {enough} are enough, or null (all)"
        )
    return limited


def _lost_class(before: Split, after: Split, class_names: tuple[str, ...]) -> str | None:
    """The name, in quotes, of the first class of `before` that has no image in `after`."""
    lost = sorted(set(before.labels.tolist()) - set(after.labels.tolist()))
    return repr(class_names[lost[0]]) if lost else None


def _smallest(split: Split) -> int:
    """Images of the smallest class that has any."""
    return int(split.labels.unique(return_counts=True)[1].min())


def cache_dir(data_dir: Path) -> Path:
    """Where what is made once a machine is kept."""
    return data_dir / "cache"


def _cached(dataset: Dataset, data_dir: Path) -> ImageData:
    name, source = dataset.config.name, dataset.source()
    store = Store(cache_dir(data_dir))
    code = source_marks(type(dataset))
    key = key_of({"name": name, "source": source, "version": CACHE_VERSION} | ({"code": code} if code else {}))

    def make() -> Artifact:
        dataset.remarks = []
        train, test, class_names = dataset.raw(data_dir / "downloads")
        _check(train, test, class_names)
        tensors = {f"{part}_images": split.images for part, split in (("train", train), ("test", test))}
        tensors |= {f"{part}_labels": split.labels for part, split in (("train", train), ("test", test))}
        mark = fingerprint(train, test, class_names)
        record = {"name": name, "source": source, "class_names": list(class_names), "fingerprint": mark}
        return Artifact(record | {"remarks": [*dataset.remarks, *_missing(train, test, class_names)]}, tensors)

    return _opened(store.get_or_make(name, key, make))


def _opened(artifact: Artifact) -> ImageData:
    tensors, record = artifact.tensors, artifact.record
    train = Split(tensors["train_images"], tensors["train_labels"])
    test = Split(tensors["test_images"], tensors["test_labels"])
    # Arrays that were cached before there were remarks have none.
    mark, remarks = record["fingerprint"], tuple(record.get("remarks", ()))
    return ImageData(train, test, tuple(record["class_names"]), mark, mark, remarks)


def _missing(train: Split, test: Split, class_names: tuple[str, ...]) -> Iterator[str]:
    """A remark for each split in which classes have no image."""
    for what, split in (("training", train), ("test", test)):
        lost = sorted(set(range(len(class_names))) - set(split.labels.tolist()))
        if lost:
            yield f"{len(lost)} of {len(class_names)} classes have no {what} image, the first is {class_names[lost[0]]!r}"


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
