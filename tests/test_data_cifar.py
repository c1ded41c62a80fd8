"""CIFAR-10 and CIFAR-100, on small files in their own format."""

import pickle
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import make_dataset
from torchvision import datasets

from ntml_bench.errors import UserError

FILES = {
    "cifar10": ("cifar-10-batches-py", [f"data_batch_{number}" for number in range(1, 6)], "test_batch", "batches.meta"),
    "cifar100": ("cifar-100-python", ["train"], "test", "meta"),
}
CLASSES = {"cifar10": 10, "cifar100": 100}


@pytest.fixture(params=FILES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of 100 training and 20 test images, with their sums in place of the published ones."""
    base, training, test, meta = FILES[name]
    reader: Any = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    folder = tmp_path / "data" / base
    folder.mkdir(parents=True)

    def write(file: str, content: object) -> list[str]:
        data = pickle.dumps(content, protocol=2)
        (folder / file).write_bytes(data)
        return [file, md5(data).hexdigest()]

    def batch(file: str, start: int, count: int) -> list[str]:
        data = np.arange(start, start + count)[:, None] + np.zeros((count, 3072))
        data[:, 1024:2048] = 100
        data[:, 1] = 7
        fine = [index % CLASSES[name] for index in range(start, start + count)]
        labels = {"labels": fine} if name == "cifar10" else {"coarse_labels": [0] * count, "fine_labels": fine}
        return write(file, {"data": data.astype(np.uint8), **labels})

    each = 100 // len(training)
    monkeypatch.setattr(reader, "train_list", [batch(file, each * index, each) for index, file in enumerate(training)])
    monkeypatch.setattr(reader, "test_list", [batch(test, 100, 20)])
    names = {"coarse_label_names": ["all"], reader.meta["key"]: [f"class {label}" for label in range(CLASSES[name])]}
    checksum = write(meta, names)[1]
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": checksum})
    return folder


def test_in_its_own_format(name: str, folder: Path, tmp_path: Path) -> None:
    train, test, names = make_dataset(name, root=str(folder.parent)).raw(tmp_path / "unused")
    assert train.images.shape == (100, 3, 32, 32)
    assert test.images.shape == (20, 3, 32, 32)
    assert train.images.dtype == torch.uint8
    assert len(names) == CLASSES[name]
    assert names[3] == "class 3"
    assert torch.equal(train.labels, torch.arange(100) % CLASSES[name])
    # Planes of red, green, blue, each row by row.
    assert train.images[57, 0, 0].tolist() == [57, 7, *[57] * 30]
    assert train.images[57, 1].unique().tolist() == [100]
    assert not (tmp_path / "unused").exists()


def test_it_is_found_where_it_was_downloaded(name: str, folder: Path) -> None:
    assert len(make_dataset(name).raw(folder.parent)[0]) == 100


def test_missing_and_corrupt_files_are_named(name: str, folder: Path) -> None:
    _, training, _, meta = FILES[name]
    dataset = make_dataset(name, root=str(folder.parent))
    before = dataset.source()
    batch = folder / training[-1]
    batch.write_bytes(batch.read_bytes()[:-1])
    assert dataset.source() != before
    with pytest.raises(UserError, match=rf"corrupt \(wrong MD5 sum\) in .*: {batch.name}$"):
        dataset.raw(folder)
    batch.unlink()
    (folder / meta).unlink()
    with pytest.raises(UserError, match=rf"missing in .*: {batch.name}, {meta}$"):
        dataset.raw(folder)


def test_the_folder_is_the_one_that_torchvision_reads(name: str) -> None:
    dataset: Any = make_dataset(name)
    assert dataset.folder == dataset.reader().base_folder == FILES[name][0]


def test_the_key_of_the_array_cache_stays() -> None:
    assert make_dataset("cifar10").source() == "CIFAR-10 v1: downloaded"
    assert make_dataset("cifar100").source() == "CIFAR-100 v1: downloaded"
