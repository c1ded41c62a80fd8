"""Tiny ImageNet (Stanford's course CS231n): 100,000 + 10,000 images of 64x64 in 200 classes of ImageNet.

The labels of its test set are not public, so its validation set, 50 images a class, stands in for the test images.
A label is the position in `wnids.txt`, as in BackdoorBench, so that a target class means the same.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import is_zipfile

import torch

from ntml_bench.data.base import DATASETS, Dataset, DatasetConfig, Split
from ntml_bench.data.downloads import fetch, given_root
from ntml_bench.data.image_files import decode, state
from ntml_bench.data.zipped_files import ZippedFile, opened
from ntml_bench.errors import UserError
from ntml_bench.schema import number

VERSION = 1
TITLE = "Tiny ImageNet"
FOLDER = "tiny-imagenet-200"
ARCHIVE = "tiny-imagenet-200.zip"
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MD5 = "90528d7ca1a48142e341f4ef8d21d0de"

CLASSES_FILE, NAMES_FILE, LABELS_FILE = "wnids.txt", "words.txt", "val/val_annotations.txt"
PARTS = (CLASSES_FILE, NAMES_FILE, "train", "val/images", LABELS_FILE)

CLASSES = 200
TRAINING_IMAGES = 500
"""Of each class, as published."""
VALIDATION_IMAGES = 50

Place = Path | ZippedFile


@dataclass(frozen=True, kw_only=True)
class TinyImageNetConfig(DatasetConfig):
    """Where the images are, and their size.

    `root`: the folder that holds `tiny-imagenet-200` or its archive, or the archive itself, read without unpacking it
    (null: downloaded); `image_size`: images are resized to that many pixels square.
    """

    root: str | None
    image_size: int = number(at_least=8, at_most=256)


@DATASETS.register("tiny_imagenet")
class TinyImageNet(Dataset[TinyImageNetConfig]):
    """The layout and the file names of the official archive; all images or an error."""

    Config = TinyImageNetConfig

    def source(self) -> str:
        root = given_root(self.config.root, or_file=True)
        if root is None:
            return f"{TITLE} v{VERSION}: downloaded, {self.config.image_size} px"
        place = _place(root)
        if place.is_file():
            status = place.stat()
            files = f"{place}, {status.st_size} bytes of {status.st_mtime_ns}"
        else:
            files = f"{place}, files {state(place.parent, [FOLDER])}"
        return f"{TITLE} v{VERSION}: {files}, {self.config.image_size} px"

    def raw(self, download_dir: Path) -> tuple[Split, Split, tuple[str, ...]]:
        root = given_root(self.config.root, or_file=True)
        if root is None:
            place = download_dir / ARCHIVE
            fetch(TITLE, download_dir, lambda: _problem(place), lambda: _download(place))
        else:
            place = _place(root)
        if place.is_dir():
            return self._read(place)
        with opened(place, FOLDER) as folder:
            return self._read(folder)

    def _read(self, folder: Place) -> tuple[Split, Split, tuple[str, ...]]:
        wnids = _wnids(folder / CLASSES_FILE)
        class_names = _class_names(folder / NAMES_FILE, wnids)
        labels = _validation_labels(folder / LABELS_FILE, wnids)
        train = [folder / f"train/{wnid}/images/{wnid}_{index}.JPEG" for wnid in wnids for index in range(TRAINING_IMAGES)]
        test = [folder / f"val/images/{name}" for name in labels]
        _require("training", train, folder)
        _require("validation", test, folder)
        size = self.config.image_size
        train_labels = torch.arange(len(wnids)).repeat_interleave(TRAINING_IMAGES)
        test_labels = torch.tensor(list(labels.values()))
        remarks = self.remarks
        return Split(decode(train, size, remarks), train_labels), Split(decode(test, size, remarks), test_labels), class_names


def _place(root: Path) -> Path:
    """The unpacked folder or the archive that `dataset.root` means; UserError where neither is there or it is half there."""
    places = [root] if root.is_file() else [place for place in (root / FOLDER, root / ARCHIVE) if place.exists()]
    if not places:
        raise UserError(f"dataset.root: {root} has no '{FOLDER}' or '{ARCHIVE}' (dataset.root=null downloads {TITLE})")
    place = places[0]
    if place.is_file():
        if not is_zipfile(place):
            raise UserError(f"dataset.root: {place} is not a zip archive, or is cut off")
        return place
    missing = [part for part in PARTS if not (place / part).exists()]
    if missing:
        raise UserError(f"dataset.root: {place} has no '{missing[0]}'; it needs {', '.join(PARTS)}")
    return place


def _problem(archive: Path) -> str | None:
    """What is wrong with the downloaded archive; None where it is the published one."""
    from torchvision.datasets.utils import check_integrity

    if not archive.is_file():
        return f"there is no {archive}"
    return None if check_integrity(archive, MD5) else f"{archive} is corrupt (wrong MD5 sum)"


def _download(archive: Path) -> None:
    from torchvision.datasets.utils import download_url

    download_url(URL, archive.parent, archive.name, MD5)


def _lines(file: Place) -> list[str]:
    try:
        with file.open("rb") as content:
            return content.read().decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file}: {error}") from None


def _wnids(file: Place) -> list[str]:
    """The classes: WordNet's numbers, which are also the names of their folders."""
    wnids = _lines(file)
    # They become parts of paths, which must not lead out of the folder.
    wrong = [wnid for wnid in wnids if not re.fullmatch(r"n\d{8}", wnid, re.ASCII)]
    if wrong:
        raise UserError(f"{file}: '{wrong[0]}' is not the name of a class, n and eight digits")
    if len(wnids) != CLASSES or len(set(wnids)) != CLASSES:
        raise UserError(f"{file} lists {len(set(wnids))} of {CLASSES} classes in {len(wnids)} lines")
    return wnids


def _class_names(file: Place, wnids: Sequence[str]) -> tuple[str, ...]:
    """The first of each class's words, with the class's number behind it where two classes have the same."""
    words = {wnid: text for wnid, _, text in (line.partition("\t") for line in _lines(file))}
    missing = [wnid for wnid in wnids if not words.get(wnid, "").strip()]
    if missing:
        raise UserError(f"{file} has no words for {len(missing)} of {len(wnids)} classes, the first is {missing[0]}")
    first = [words[wnid].split(",")[0].strip() for wnid in wnids]
    return tuple(name if first.count(name) == 1 else f"{name} ({wnid})" for name, wnid in zip(first, wnids, strict=True))


def _validation_labels(file: Place, wnids: Sequence[str]) -> dict[str, int]:
    """File names of the validation images and their labels, in the order of the table."""
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    labels: dict[str, int] = {}
    for row, line in enumerate(_lines(file), start=1):
        # File, class, and four numbers of a box.
        name, wnid, *_ = [*line.split("\t"), ""]
        if not re.fullmatch(r"val_\d+\.JPEG", name, re.ASCII):
            raise UserError(f"{file}, line {row}: '{name}' is not the name of a validation image, val_NUMBER.JPEG")
        if wnid not in label_of:
            raise UserError(f"{file}, line {row}: '{wnid}' is not a class of {CLASSES_FILE}")
        labels[name] = label_of[wnid]
    counts = torch.bincount(torch.tensor(list(labels.values()), dtype=torch.int64), minlength=len(wnids)).tolist()
    wrong = [label for label, count in enumerate(counts) if count != VALIDATION_IMAGES]
    if wrong:
        raise UserError(
            f"{file} lists {len(labels)} of {len(wnids) * VALIDATION_IMAGES} validation images; "
            f"the first wrong class is {wnids[wrong[0]]} with {counts[wrong[0]]} of {VALIDATION_IMAGES}"
        )
    return labels


def _require(what: str, files: Sequence[Place], folder: Place) -> None:
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise UserError(f"{len(missing)} of {len(files)} {what} images are missing in {folder}, the first is {missing[0]}")
