"""CIFAR-10 (Krizhevsky, 2009), the original python version, through torchvision: 50,000 + 10,000 images of 32x32."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from ntml_bench.data.base import DATASETS, Dataset, DatasetConfig, Split
from ntml_bench.data.downloads import fetch, given_root
from ntml_bench.data.image_files import state
from ntml_bench.errors import UserError

FOLDER = "cifar-10-batches-py"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Cifar10Config(DatasetConfig):
    """`root`: the folder that holds `cifar-10-batches-py` (null: downloaded)."""

    root: str | None


@DATASETS.register("cifar10")
class Cifar10(Dataset[Cifar10Config]):
    """The original files only: torchvision's MD5 sums are checked before anything is unpickled."""

    Config = Cifar10Config

    def source(self) -> str:
        root = given_root(self.config.root)
        if root is None:
            return f"CIFAR-10 v{VERSION}: downloaded"
        if not (root / FOLDER).is_dir():
            raise UserError(f"dataset.root: {root} has no folder '{FOLDER}' (dataset.root=null downloads CIFAR-10)")
        return f"CIFAR-10 v{VERSION}: {root}, files {state(root, [FOLDER])}"

    def raw(self, download_dir: Path) -> tuple[Split, Split, tuple[str, ...]]:
        from torchvision.datasets import CIFAR10

        root = given_root(self.config.root)
        if root is None:
            root = download_dir
            fetch("CIFAR-10", root, lambda: _problem(download_dir), lambda: CIFAR10(download_dir, download=True))
        else:
            problem = _problem(root)
            if problem is not None:
                raise UserError(f"dataset.root: CIFAR-10 in {root} cannot be used: {problem}")
        with warnings.catch_warnings():
            # numpy deprecates how the arrays in these files of 2009 were pickled.
            warnings.simplefilter("ignore")
            train, test = (CIFAR10(root, train=is_train) for is_train in (True, False))
        return _split(train.data, train.targets), _split(test.data, test.targets), tuple(train.classes)


def _split(pixels: object, targets: list[int]) -> Split:
    """From an array uint8 [N, 32, 32, 3]."""
    return Split(torch.as_tensor(pixels).permute(0, 3, 1, 2).contiguous(), torch.tensor(targets))


def _problem(root: Path) -> str | None:
    """What is missing or is not the original file, by name; None where all is well."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    sums = dict([*CIFAR10.train_list, *CIFAR10.test_list])
    sums[CIFAR10.meta["filename"]] = CIFAR10.meta["md5"]
    missing = [name for name in sums if not (root / FOLDER / name).is_file()]
    if missing:
        return f"missing in {root / FOLDER}: {', '.join(missing)}"
    corrupt = [name for name, md5 in sums.items() if not check_integrity(root / FOLDER / name, md5)]
    if corrupt:
        return f"corrupt (wrong MD5 sum) in {root / FOLDER}: {', '.join(corrupt)}"
    return None
