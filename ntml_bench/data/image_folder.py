"""A user's own data: a folder of images, `train/CLASS/*` and `test/CLASS/*`."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ntml_bench.data.base import DATASETS, Dataset, DatasetConfig, Split
from ntml_bench.data.image_files import decode, state
from ntml_bench.errors import UserError
from ntml_bench.schema import number

PARTS = ("train", "test")
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ImageFolderConfig(DatasetConfig):
    """`root`: the folder that holds `train` and `test`; `image_size`: every image is resized to that many pixels square."""

    root: str | None
    image_size: int = number(at_least=8, at_most=1024)


@DATASETS.register("image_folder")
class ImageFolder(Dataset[ImageFolderConfig]):
    """Every file in a class's folder is an image, hidden files apart; the classes are the sorted names of the folders."""

    Config = ImageFolderConfig

    def source(self) -> str:
        root = self._root()
        self._class_names(root)
        files = state(root, PARTS)
        return f"image folder v{VERSION}: {root}, files {files}, {self.config.image_size} px"

    def raw(self, download_dir: Path) -> tuple[Split, Split, tuple[str, ...]]:
        root = self._root()
        class_names = self._class_names(root)
        train, test = (self._split(root / part, class_names) for part in PARTS)
        return train, test, class_names

    def _root(self) -> Path:
        if self.config.root is None:
            raise UserError("dataset.root is null; image_folder needs the folder that holds train/CLASS/* and test/CLASS/*")
        root = Path(self.config.root).expanduser().resolve()
        if not root.is_dir():
            raise UserError(f"dataset.root is '{self.config.root}'; there is no folder {root}")
        missing = [part for part in PARTS if not (root / part).is_dir()]
        if missing:
            raise UserError(f"dataset.root: {root} has no folder '{missing[0]}'; it needs train/CLASS/* and test/CLASS/*")
        return root

    def _class_names(self, root: Path) -> tuple[str, ...]:
        train, test = ({entry.name for entry in (root / part).iterdir() if _is_class(entry)} for part in PARTS)
        if not train | test:
            raise UserError(f"dataset.root: {root / 'train'} holds no folder; it needs one for each class")
        if train != test:
            only = "; ".join(
                f"only in {part}: {', '.join(sorted(names))}"
                for part, names in zip(PARTS, (train - test, test - train), strict=True)
                if names
            )
            raise UserError(f"dataset.root: the classes of train and test in {root} differ ({only})")
        return tuple(sorted(train))

    def _split(self, folder: Path, class_names: tuple[str, ...]) -> Split:
        paths: list[Path] = []
        counts: list[int] = []
        for name in class_names:
            files = sorted(entry for entry in (folder / name).iterdir() if not entry.name.startswith("."))
            if not files:
                raise UserError(f"dataset.root: the class folder {folder / name} is empty")
            paths += files
            counts.append(len(files))
        labels = torch.arange(len(class_names)).repeat_interleave(torch.tensor(counts))
        return Split(decode(paths, self.config.image_size), labels)


def _is_class(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")
