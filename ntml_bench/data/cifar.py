"""CIFAR-10 and CIFAR-100 (Krizhevsky, 2009), the original python versions, through torchvision.

Each has 50,000 + 10,000 images of 32x32; CIFAR-100 is taken with its 100 fine classes.
"""

import warnings
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from ntml_bench.data.base import DATASETS, Dataset, DatasetConfig, Split
from ntml_bench.data.downloads import fetch, given_root
from ntml_bench.data.image_files import state
from ntml_bench.errors import UserError

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class CifarConfig(DatasetConfig):
    """`root`: the folder that holds `cifar-10-batches-py` or `cifar-100-python` (null: downloaded)."""

    root: str | None


class Cifar(Dataset[CifarConfig]):
    """The original files only: torchvision's MD5 sums are checked before anything is unpickled."""

    Config = CifarConfig
    title: ClassVar[str]
    folder: ClassVar[str]

    @staticmethod
    @abstractmethod
    def reader() -> "type[CIFAR10]":
        """torchvision's class, imported only where files are read, since `source` is called on every run."""

    def source(self) -> str:
        root = given_root(self.config.root)
        if root is None:
            return f"{self.title} v{VERSION}: downloaded"
        if not (root / self.folder).is_dir():
            raise UserError(f"dataset.root: {root} has no folder '{self.folder}' (dataset.root=null downloads {self.title})")
        return f"{self.title} v{VERSION}: {root}, files {state(root, [self.folder])}"

    def raw(self, download_dir: Path) -> tuple[Split, Split, tuple[str, ...]]:
        reader = self.reader()
        root = given_root(self.config.root)
        if root is None:
            root = download_dir
            fetch(self.title, root, lambda: _problem(reader, download_dir), lambda: reader(download_dir, download=True))
        else:
            problem = _problem(reader, root)
            if problem is not None:
                raise UserError(f"dataset.root: {self.title} in {root} cannot be used: {problem}")
        with warnings.catch_warnings():
            # numpy deprecates how the arrays in these files of 2009 were pickled.
            warnings.simplefilter("ignore")
            train, test = (reader(root, train=is_train) for is_train in (True, False))
        return _split(train.data, train.targets), _split(test.data, test.targets), tuple(train.classes)


@DATASETS.register("cifar10")
class Cifar10(Cifar):
    """10 classes of 5,000 + 1,000 images."""

    title = "CIFAR-10"
    folder = "cifar-10-batches-py"

    @staticmethod
    def reader() -> "type[CIFAR10]":
        from torchvision.datasets import CIFAR10

        return CIFAR10


@DATASETS.register("cifar100")
class Cifar100(Cifar):
    """100 classes of 500 + 100 images."""

    title = "CIFAR-100"
    folder = "cifar-100-python"

    @staticmethod
    def reader() -> "type[CIFAR10]":
        from torchvision.datasets import CIFAR100

        return CIFAR100


def _split(pixels: object, targets: list[int]) -> Split:
    """From an array uint8 [N, 32, 32, 3]."""
    return Split(torch.as_tensor(pixels).permute(0, 3, 1, 2).contiguous(), torch.tensor(targets))


def _problem(reader: "type[CIFAR10]", root: Path) -> str | None:
    """What is missing or is not the original file, by name; None where all is well."""
    from torchvision.datasets.utils import check_integrity

    folder = root / reader.base_folder
    sums = dict([*reader.train_list, *reader.test_list])
    sums[reader.meta["filename"]] = reader.meta["md5"]
    missing = [name for name in sums if not (folder / name).is_file()]
    if missing:
        return f"missing in {folder}: {', '.join(missing)}"
    corrupt = [name for name, md5 in sums.items() if not check_integrity(folder / name, md5)]
    if corrupt:
        return f"corrupt (wrong MD5 sum) in {folder}: {', '.join(corrupt)}"
    return None
