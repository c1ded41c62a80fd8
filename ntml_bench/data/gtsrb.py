"""GTSRB, German traffic signs (Stallkamp et al., 2012), through torchvision: 39,209 + 12,630 images of 43 classes."""

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch

from ntml_bench.data.base import DATASETS, Dataset, DatasetConfig, Split
from ntml_bench.data.downloads import fetch, given_root
from ntml_bench.data.image_files import decode, state
from ntml_bench.errors import UserError
from ntml_bench.schema import number

VERSION = 1
TRAINING = Path("gtsrb/GTSRB/Training")
TEST = Path("gtsrb/GTSRB/Final_Test/Images")
TEST_LABELS = Path("gtsrb/GT-final_test.csv")

TRAINING_IMAGES = (
    *(210, 2220, 2250, 1410, 1980, 1860, 420, 1440, 1410, 1470, 2010, 1320, 2100, 2160, 780, 630, 420, 1110, 1200, 210, 360),
    *(330, 390, 510, 270, 1500, 600, 240, 540, 270, 450, 780, 240, 689, 420, 1200, 390, 210, 2070, 300, 360, 240, 240),
)  # fmt: skip
"""Training images of each class, as published: 39,209 in all."""

TEST_IMAGES = 12_630

CLASS_NAMES = (
    *(f"speed limit {speed}" for speed in (20, 30, 50, 60, 70, 80)),
    "end of speed limit 80",
    "speed limit 100",
    "speed limit 120",
    "no overtaking",
    "no overtaking by lorries",
    "priority at next crossing",
    "priority road",
    "give way",
    "stop",
    "no vehicles",
    "no lorries",
    "no entry",
    "danger",
    "bend left",
    "bend right",
    "double bend",
    "uneven road",
    "slippery road",
    "road narrows",
    "road works",
    "traffic lights",
    "pedestrians",
    "children",
    "bicycles",
    "snow",
    "wild animals",
    "end of all limits",
    "turn right",
    "turn left",
    "ahead only",
    "ahead or right",
    "ahead or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no overtaking",
    "end of no overtaking by lorries",
)


@dataclass(frozen=True, kw_only=True)
class GtsrbConfig(DatasetConfig):
    """`root`: the folder that holds `gtsrb` (null: downloaded); `image_size`: images are resized to that many pixels square."""

    root: str | None
    image_size: int = number(at_least=8, at_most=256)


@DATASETS.register("gtsrb")
class Gtsrb(Dataset[GtsrbConfig]):
    """Whole images (not the signs' bounding boxes), laid out as torchvision lays them out; all of them or an error."""

    Config = GtsrbConfig

    def source(self) -> str:
        root = given_root(self.config.root)
        if root is None:
            return f"GTSRB v{VERSION}: downloaded, {self.config.image_size} px"
        for part in (TRAINING, TEST, TEST_LABELS):
            if not (root / part).exists():
                raise UserError(f"dataset.root: {root} has no '{part}' (dataset.root=null downloads GTSRB)")
        return f"GTSRB v{VERSION}: {root}, files {state(root, ['gtsrb'])}, {self.config.image_size} px"

    def raw(self, download_dir: Path) -> tuple[Split, Split, tuple[str, ...]]:
        root = given_root(self.config.root)
        if root is None:
            root = download_dir
            fetch("GTSRB", root, lambda: _problem(download_dir), lambda: _download(download_dir))
        else:
            problem = _problem(root)
            if problem is not None:
                raise UserError(f"dataset.root: GTSRB in {root} cannot be used: {problem}")
        return self._split(_training_files(root)), self._split(_test_files(root)), CLASS_NAMES

    def _split(self, files: list[tuple[Path, int]]) -> Split:
        paths, labels = [path for path, _ in files], [label for _, label in files]
        return Split(decode(paths, self.config.image_size, self.remarks), torch.tensor(labels))


def _download(root: Path) -> None:
    """With torchvision, which takes a folder that is there for a whole one: what a killed extraction left goes first.

    The archives stay, and are not downloaded again where their MD5 sums are right.
    """
    from torchvision.datasets import GTSRB

    shutil.rmtree(root / "gtsrb" / "GTSRB", ignore_errors=True)
    for split in ("train", "test"):
        GTSRB(root, split=split, download=True)


def _training_files(root: Path) -> list[tuple[Path, int]]:
    """Sorted paths and labels; the label is the number that is the folder's name."""
    return [
        (path, label) for label in range(len(CLASS_NAMES)) for path in sorted((root / TRAINING / f"{label:05d}").glob("*.ppm"))
    ]


def _test_files(root: Path) -> list[tuple[Path, int]]:
    with (root / TEST_LABELS).open(newline="") as file:
        return [
            (root / TEST / row["Filename"], int(row["ClassId"]))
            for row in csv.DictReader(file, delimiter=";", skipinitialspace=True)
        ]


def _problem(root: Path) -> str | None:
    """What is missing, by name and number; None where all images are there."""
    counts = [len(list((root / TRAINING / f"{label:05d}").glob("*.ppm"))) for label in range(len(CLASS_NAMES))]
    wrong = [label for label, count in enumerate(counts) if count != TRAINING_IMAGES[label]]
    if wrong:
        first = wrong[0]
        return (
            f"{sum(counts)} of {sum(TRAINING_IMAGES)} training images are in {root / TRAINING}; {len(wrong)} of "
            f"{len(counts)} classes are not complete, the first is {first:05d} with {counts[first]} of {TRAINING_IMAGES[first]}"
        )
    if not (root / TEST_LABELS).is_file():
        return f"there is no {root / TEST_LABELS}"
    try:
        files = _test_files(root)
    except (KeyError, ValueError, TypeError, csv.Error):
        files = []
    if not files or not all(0 <= label < len(CLASS_NAMES) for _, label in files):
        return f"{root / TEST_LABELS} is not the table Filename;...;ClassId of the test images"
    if len(files) != TEST_IMAGES:
        return f"{root / TEST_LABELS} lists {len(files)} of {TEST_IMAGES} test images"
    there = {path.name for path in (root / TEST).glob("*.ppm")}
    missing = [path.name for path, _ in files if path.name not in there]
    if missing:
        return f"{len(missing)} of {len(files)} test images are missing in {root / TEST}, the first is {missing[0]}"
    return None
