"""What comes with a given victim in folders: test images with and without the trigger, and the poisoned training set."""

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ntml_bench.data.base import Split
from ntml_bench.data.class_folders import LITTER
from ntml_bench.data.image_files import decode_as_they_are, entries, shown, state
from ntml_bench.errors import UserError
from ntml_bench.models.weights import file_digest

TABLE = "train.csv"
"""In the folder of a poisoned training set."""
COLUMNS = ("file", "index", "given_label", "poison")
COVER, TRUE = "cover", "true_label"
"""Columns of the table that may be missing."""
MULTIPLIER = 0x5851F42D4C957F2D


@dataclass(frozen=True)
class Pairs:
    """Triggered images, uint8 [M, C, H, W], in the order of the `marks`, int64 [M], of their clean counterparts."""

    marks: Tensor
    triggered: Tensor

    @classmethod
    def read(cls, clean: str, triggered: str, shape: tuple[int, int, int]) -> "Pairs":
        """From two folders in which a clean image and its triggered one have the same name, but for the ending.

        Raises UserError. Of clean images that are the same the first one's counterpart counts.
        """
        one, other = (_files(f"attack.folders.{name}", path) for name, path in (("clean", clean), ("triggered", triggered)))
        alone = [name for name in other if name not in one]
        if alone:
            raise UserError(
                f"attack.folders: {len(alone)} of {len(other)} triggered images have no clean one of the same name in {clean}; "
                f"the first is {shown(alone[0])}"
            )
        marks = marks_of(decode_as_they_are([one[name] for name in other], shape, "attack.folders.clean"))
        images = decode_as_they_are(list(other.values()), shape, "attack.folders.triggered")
        order = marks.argsort(stable=True)
        first = torch.ones(len(order), dtype=torch.bool)
        first[1:] = marks[order][1:] != marks[order][:-1]
        return cls(marks[order][first], images[order][first])

    @property
    def state(self) -> dict[str, Tensor]:
        return {"marks": self.marks, "triggered": self.triggered}


def places_of(images: Tensor, marks: Tensor) -> tuple[Tensor, Tensor]:
    """Where images uint8 [N, C, H, W] stand among sorted `marks`, int64 [N], and whether they are there, bool [N]."""
    own = marks_of(images)
    places = torch.searchsorted(marks, own).clamp(max=len(marks) - 1)
    return places, marks[places] == own


def marks_of(images: Tensor) -> Tensor:
    """64 bits of each image uint8 [N, C, H, W], int64 [N]: the same for the same pixels, on every device."""
    count = images[0].numel() if len(images) else 1
    # A polynomial of the pixels; whole numbers of 64 bits overflow the same way everywhere.
    weights = torch.full((count,), MULTIPLIER, dtype=torch.int64).cumprod(0).to(images.device)
    parts = [(part.flatten(1).long() * weights).sum(1) for part in images.split(500)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64, device=images.device)


@dataclass(frozen=True)
class Poisons:
    """What of a training set was changed: `indices` int64 [P], sorted, `labels` int64 [P] as given, `is_poison` bool [P].

    `files` [P]: the images, in the same order; None of a list, which says no more than which images carry the trigger.
    `others`: the files and indices of the images that were not changed; `true_labels`: of all images that say it, by index.
    """

    indices: Tensor
    labels: Tensor
    is_poison: Tensor
    files: tuple[Path, ...] | None
    others: tuple[tuple[Path, int], ...]
    true_labels: tuple[tuple[int, int], ...]

    @classmethod
    def read(cls, path: str, target_class: int) -> "Poisons":
        """From a folder with a table (TABLE), or a list of indices, one a line. Raises UserError."""
        place = Path(path).expanduser()
        if place.is_dir():
            return _of_folder(place)
        if not place.is_file():
            raise UserError(f"attack.poisoned is '{path}'; there is no such file or folder")
        return _of_list(place, target_class)

    def check(self, train: Split, classes: int) -> None:
        """Raise UserError where they do not fit the clean training set (images uint8 [N, C, H, W])."""
        total, labels = len(train), train.labels.cpu()
        for index in (int(self.indices[-1]) if len(self.indices) else -1, max((i for _, i in self.others), default=-1)):
            if index >= total:
                raise UserError(f"attack.poisoned names the training image {index}; the data set has {total}: 0 to {total - 1}")
        if len(self.labels) and int(self.labels.max()) >= classes:
            raise UserError(f"attack.poisoned gives the label {int(self.labels.max())}; the data set has {classes} classes")
        for index, label in self.true_labels:
            if index < total and int(labels[index]) != label:
                raise UserError(
                    f"attack.poisoned says that the training image {index} is of class {label}; in the data set it is of class "
                    f"{int(labels[index])}: it was made from other images, or in another order (dataset.*, seed)"
                )

    def check_others(self, train: Split) -> None:
        """Raise UserError where an image that is said to be unchanged is another one than in the data set."""
        if not self.others:
            return
        files, indices = zip(*self.others, strict=True)
        shape = train.images.shape[1:]
        found = decode_as_they_are(files, (shape[0], shape[1], shape[2]), "attack.poisoned")
        clean = train.images[torch.tensor(indices, device=train.images.device)].cpu()
        differ = (found != clean).flatten(1).any(1).nonzero().flatten()
        if len(differ):
            first = int(differ[0])
            raise UserError(
                f"attack.poisoned: {shown(files[first])} is said to be unchanged, but it is not the training image "
                f"{indices[first]} of the data set ({len(differ)} such images)"
            )


def _of_list(place: Path, target_class: int) -> Poisons:
    lines = [line.strip() for line in place.read_text(errors="replace").splitlines()]
    lines = [line for line in lines if line and line != "index"]
    for line in lines:
        if not line.isdecimal():
            raise UserError(
                f"attack.poisoned: {place.name} has the line {line[:40]!r}; a list has one index of a training image a line"
            )
    indices = sorted(int(line) for line in lines)
    _check_unique(indices, place)
    found = torch.tensor(indices, dtype=torch.int64)
    return Poisons(found, torch.full_like(found, target_class), torch.ones(len(found), dtype=torch.bool), None, (), ())


def _of_folder(place: Path) -> Poisons:
    table = place / TABLE
    if not table.is_file():
        raise UserError(f"attack.poisoned: {place} has no {TABLE}, which says index, label and poison of each file")
    with table.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = list(csv.DictReader(file))
    missing = [name for name in COLUMNS if rows and name not in rows[0]]
    if missing or not rows:
        raise UserError(
            f"attack.poisoned: {table.name} lacks {', '.join(missing) or 'rows'}; its columns: {', '.join(COLUMNS)}"
        )
    changed, others, true = [], [], []
    for number, row in enumerate(rows, 2):
        index, label, poison, cover = (
            _whole(row.get(name) or "0", name, number) for name in ("index", "given_label", "poison", COVER)
        )
        relative = Path(str(row["file"]))
        path = place / relative
        if relative.is_absolute() or ".." in relative.parts or not path.is_file():
            raise UserError(
                f"attack.poisoned: line {number} of {table.name} names {row['file']!r}; there is no such file in {place}"
            )
        if poison or cover:
            changed.append((index, label, bool(poison), path))
        else:
            others.append((path, index))
        if row.get(TRUE):
            true.append((index, _whole(str(row[TRUE]), TRUE, number)))
    _check_unique([index for index, *_ in changed] + [index for _, index in others], table)
    changed.sort()
    columns = list(zip(*changed, strict=True)) or [(), (), (), ()]
    return Poisons(
        torch.tensor(columns[0], dtype=torch.int64),
        torch.tensor(columns[1], dtype=torch.int64),
        torch.tensor(columns[2], dtype=torch.bool),
        tuple(columns[3]),
        tuple(others),
        tuple(true),
    )


def _whole(text: str, name: str, number: int) -> int:
    if not text.isdecimal():
        raise UserError(f"attack.poisoned: line {number} of {TABLE} has {name} {text!r:.40}; allowed: a whole number from 0")
    return int(text)


def _check_unique(indices: Iterable[int], place: Path) -> None:
    seen: set[int] = set()
    for index in indices:
        if index in seen:
            raise UserError(f"attack.poisoned: {place.name} names the training image {index} twice")
        seen.add(index)


def content_digest(setting: str, path: str) -> str:
    """The SHA-256 of a file, or of names and contents of all files below a folder; UserError where they cannot be read."""
    place = Path(path).expanduser().absolute()
    if not place.is_dir():
        return file_digest(setting, path)
    return _folder_digest(setting, place, state(place.parent, [place.name]))


@lru_cache(maxsize=64)
def _folder_digest(setting: str, place: Path, state: str) -> str:
    digest = hashlib.sha256()
    for path in _walk(place):
        digest.update(f"{path.relative_to(place).as_posix()}\0{file_digest(setting, path)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _files(setting: str, path: str) -> dict[str, Path]:
    """The images below a folder by their path in it without the ending, sorted."""
    place = Path(path).expanduser().absolute()
    if not place.is_dir():
        raise UserError(f"{setting} is '{path}'; there is no such folder")
    found: dict[str, Path] = {}
    for file in _walk(place):
        name = file.relative_to(place).with_suffix("").as_posix()
        if name in found:
            raise UserError(f"{setting}: {shown(found[name])} and {shown(file)} have one name but for the ending")
        found[name] = file
    if not found:
        raise UserError(f"{setting} is '{path}'; the folder holds no image")
    return found


def _walk(place: Path) -> list[Path]:
    files: list[Path] = []
    for entry in entries(place):
        if entry.name.startswith(".") or entry.name.lower() in LITTER:
            continue
        path = Path(entry.path)
        files += _walk(path) if entry.is_dir() else [path]
    return files
