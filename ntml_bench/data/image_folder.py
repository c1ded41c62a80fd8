"""A user's own data: a folder of images, `train/CLASS/*` and `test/CLASS/*`."""

from dataclasses import dataclass
from pathlib import Path

import torch

from ntml_bench.data.base import DATASETS, Dataset, DatasetConfig, Split
from ntml_bench.data.class_folders import ClassFolders
from ntml_bench.data.downloads import absolute
from ntml_bench.data.image_files import decode, entries, shown
from ntml_bench.errors import UserError
from ntml_bench.schema import number

PARTS = ("train", "test")
VERSION = 2
"""Counts changes in which files are images, and in what becomes of their pixels."""


@dataclass(frozen=True, kw_only=True)
class ImageFolderConfig(DatasetConfig):
    """`root`: the folder that holds `train` and `test`; `image_size`: every image is resized to that many pixels square."""

    root: str | None
    image_size: int = number(at_least=8, at_most=1024)


@DATASETS.register("image_folder")
class ImageFolder(Dataset[ImageFolderConfig]):
    """Every file in a class's folder is an image, hidden files and systems' litter apart; `pixels` says how each is read.

    The classes are the names of the folders, sorted as text.
    """

    Config = ImageFolderConfig

    def source(self) -> str:
        root = self._root()
        files = ClassFolders.read(root, PARTS).state
        return f"image folder v{VERSION}: {root}, files {files}, {self.config.image_size} px"

    def raw(self, download_dir: Path) -> tuple[Split, Split, tuple[str, ...]]:
        root = self._root()
        folders = ClassFolders.read(root, PARTS)
        if folders.remark is not None:
            self.remarks.append(folders.remark)
        train, test = (self._split(folders.files[part], root) for part in PARTS)
        return train, test, folders.class_names

    def _root(self) -> Path:
        if self.config.root is None:
            raise UserError("dataset.root is null; image_folder needs the folder that holds train/CLASS/* and test/CLASS/*")
        root = absolute(self.config.root)
        if not root.is_dir():
            raise UserError(f"dataset.root is '{self.config.root}'; there is no folder {root}")
        there = {entry.name for entry in entries(root) if entry.is_dir()}
        missing = [part for part in PARTS if part not in there]
        if missing:
            raise UserError(f"dataset.root: {root} has no folder '{missing[0]}'; it needs train/CLASS/* and test/CLASS/*")
        return root

    def _split(self, files: list[list[Path]], root: Path) -> Split:
        paths = [path for found in files for path in found]
        labels = torch.arange(len(files)).repeat_interleave(torch.tensor([len(found) for found in files]))
        try:
            return Split(decode(paths, self.config.image_size, self.remarks), labels)
        except UserError as error:
            advice = f"every file in the folder of a class is taken for an image: mend it, or move it out of {shown(root)}"
            raise UserError(f"{error}; {advice}") from None
