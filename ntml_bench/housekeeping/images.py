"""`ntml-store images`: the poisoned training set and the triggered test set of a cell as folders of PNG, with tables.

    train/CLASS/INDEX.png      under the labels that the attacker gave; train.csv says which are poisons, and what they were
    triggered/CLASS/INDEX.png  test images of other classes than the target class under the trigger, by their true class
    test/CLASS/INDEX.png       all test images as they are (with `clean`), and train_clean/... the training images

`attack=given` reads them again, and so does all that reads a folder for each class.
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from ntml_bench.app.stored import StoredCell
from ntml_bench.data.base import Split
from ntml_bench.data.class_folders import LITTER
from ntml_bench.errors import UserError
from ntml_bench.evaluation import triggered_test
from ntml_bench.files import storage, temporary_path
from ntml_bench.records.rows import csv_text

BATCH = 256
"""Files that a thread writes in one go."""


@dataclass(frozen=True)
class Written:
    """How many images of each kind."""

    train: int
    poisons: int
    covers: int
    triggered: int


def write_images(cell: StoredCell, target: Path, data_dir: Path, root: str | None = None, *, clean: bool) -> Written:
    """Write the images of a cell into the new folder `target`, all or none.

    Raises UserError where the cell has no attack, `target` exists, and where its images or its victim are missing.
    """
    if target.exists():
        raise UserError(f"{target} exists; --to names another folder")
    trigger = cell.trigger()
    data, poisoning = cell.data(data_dir, root), cell.poisoning
    poisoned = poisoning.apply(data.train)
    target_class = cell.attack().config.target_class
    triggered = triggered_test(data.test, trigger, target_class).split
    others = (data.test.labels != target_class).nonzero().flatten().tolist()
    changed = dict(zip(poisoning.indices.tolist(), poisoning.is_poison.tolist(), strict=True))
    names = folder_names(data.class_names)
    temporary = temporary_path(target)
    with storage("write", target):
        try:
            files = _write(temporary, "train", poisoned, range(len(poisoned)), names)
            rows = zip(files, data.train.labels.tolist(), poisoned.labels.tolist(), strict=True)
            _table(
                temporary / "train.csv",
                ("file", "index", "true_label", "given_label", "poison", "cover"),
                (
                    (file, index, true, given, int(changed.get(index, False)), int(not changed.get(index, True)))
                    for index, (file, true, given) in enumerate(rows)
                ),
            )
            files = _write(temporary, "triggered", triggered, others, names)
            _table(
                temporary / "triggered.csv",
                ("file", "index", "true_label", "target_class"),
                ((file, i, true, target_class) for file, i, true in zip(files, others, triggered.labels.tolist(), strict=True)),
            )
            if clean:
                for part, split in (("test", data.test), ("train_clean", data.train)):
                    files = _write(temporary, part, split, range(len(split)), names)
                    labels = enumerate(split.labels.tolist())
                    rows = ((file, index, label) for file, (index, label) in zip(files, labels, strict=True))
                    _table(temporary / f"{part}.csv", ("file", "index", "true_label"), rows)
            temporary.replace(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    poisons = sum(changed.values())
    return Written(len(poisoned), poisons, len(changed) - poisons, len(triggered))


def folder_names(class_names: Sequence[str]) -> tuple[str, ...]:
    """The names of the classes as those of folders that sort as the classes do; with numbers before them where they do not."""
    width = len(str(len(class_names) - 1))
    plain = all(re.fullmatch(r"\w[\w ()+-]*", name) and name.lower() not in LITTER for name in class_names)
    if plain and list(class_names) == sorted(class_names) and len({name.lower() for name in class_names}) == len(class_names):
        return tuple(class_names)
    slugs = [re.sub(r"[^\w+-]+", "_", name)[:60].strip("_") for name in class_names]
    return tuple(f"{number:0{width}}_{slug}" if slug else f"{number:0{width}}" for number, slug in enumerate(slugs))


def _write(root: Path, part: str, split: Split, indices: Sequence[int], names: Sequence[str]) -> list[str]:
    """The images as files under the name of their label's folder and their index; the paths of these from `root` on."""
    width = len(str(max(indices, default=0)))
    labels = split.labels.tolist()
    files = [f"{part}/{names[label]}/{index:0{width}}.png" for label, index in zip(labels, indices, strict=True)]
    for name in names:
        (root / part / name).mkdir(parents=True, exist_ok=True)

    def write_batch(start: int) -> None:
        for file, pixels in zip(files[start : start + BATCH], split.images[start : start + BATCH], strict=True):
            _image(pixels).save(root / file)

    with ThreadPoolExecutor() as threads:
        list(threads.map(write_batch, range(0, len(files), BATCH)))
    return files


def _image(pixels: Tensor) -> Image.Image:
    array = pixels.permute(1, 2, 0).contiguous().cpu().numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def _table(path: Path, columns: Sequence[str], rows: Iterator[tuple[object, ...]]) -> None:
    path.write_text(csv_text(columns, ([str(value) for value in row] for row in rows)), encoding="utf-8")
