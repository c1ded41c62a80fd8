"""load: cache, hold-out, limits, fingerprint."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from ntml_bench.data.base import AugmentationConfig, Dataset, DatasetConfig, ImageData, Split
from ntml_bench.data.loading import load
from ntml_bench.errors import UserError
from ntml_bench.store import RECORD, TENSORS

TRAIN, TEST = 200, 60


@dataclass(frozen=True, kw_only=True)
class NumberedConfig(DatasetConfig):
    version: int


class Numbered(Dataset[NumberedConfig]):
    """Image i holds the number i; 5 classes, the test images count on from the training images. Not registered."""

    made: ClassVar[int] = 0

    def source(self) -> str:
        return f"numbered {self.config.version}"

    def raw(self, download_dir: Path) -> tuple[Split, Split, tuple[str, ...]]:
        type(self).made += 1
        numbers = torch.arange(TRAIN + TEST)
        images = numbers.view(-1, 1, 1, 1).expand(-1, 3, 4, 4).to(torch.uint8)
        everything = Split(images, numbers % 5)
        return everything[numbers[:TRAIN]], everything[numbers[TRAIN:]], tuple("abcde")


@pytest.fixture(autouse=True)
def _count_from_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Numbered, "made", 0)


def numbered(tmp_path: Path, seed: int = 0, **changes: Any) -> ImageData:
    values: dict[str, Any] = {"train_limit": None, "test_limit": None, "holdout": 0.0, "version": 1} | changes
    augmentation = AugmentationConfig(crop_padding=0, horizontal_flip=False)
    return load(Numbered(NumberedConfig(name="numbered", augmentation=augmentation, **values)), tmp_path, seed)


def numbers(split: Split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


def test_the_cache_gives_what_was_made(tmp_path: Path) -> None:
    first, second = numbered(tmp_path), numbered(tmp_path, seed=5)
    assert Numbered.made == 1
    assert first.fingerprint == second.fingerprint
    assert torch.equal(first.train.images, second.train.images)
    assert torch.equal(first.test.labels, second.test.labels)
    assert second.class_names == tuple("abcde")
    assert numbers(second.train) == list(range(TRAIN))
    assert not (tmp_path / "downloads").exists()
    numbered(tmp_path, version=2)
    assert Numbered.made == 2


@pytest.mark.parametrize("damage", ["cut", "flipped bit", "no tensors", "no record", "cut record", "other record", "no bytes"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, damage: str) -> None:
    before = numbered(tmp_path)
    (folder,) = (tmp_path / "cache").glob("numbered-*")
    tensors, record = folder / TENSORS, folder / RECORD
    data = bytearray(tensors.read_bytes())
    match damage:
        case "cut":
            tensors.write_bytes(data[:-100])
        case "flipped bit":
            data[-100] ^= 1
            tensors.write_bytes(data)
        case "no tensors":
            tensors.unlink()
        case "no record":
            record.unlink()
        case "cut record":
            record.write_text(record.read_text()[:20])
        case "other record":
            record.write_text(json.dumps({"state": "done"}))
        case "no bytes":
            tensors.write_bytes(b"")
    after = numbered(tmp_path)
    assert Numbered.made == 2
    assert after.fingerprint == before.fingerprint
    numbered(tmp_path)
    assert Numbered.made == 2


def test_limits_are_seeded_stratified_subsets(tmp_path: Path) -> None:
    whole = numbered(tmp_path)
    data = numbered(tmp_path, train_limit=50, test_limit=10)
    assert data.train.labels.bincount().tolist() == [10] * 5
    assert data.test.labels.bincount().tolist() == [2] * 5
    assert set(numbers(data.train)) <= set(range(TRAIN))
    assert set(numbers(data.test)) <= {number % 256 for number in range(TRAIN, TRAIN + TEST)}
    assert all(number % 5 == label for number, label in zip(numbers(data.train), data.train.labels.tolist(), strict=True))
    assert data.fingerprint == numbered(tmp_path, train_limit=50, test_limit=10).fingerprint
    others = [
        numbered(tmp_path, seed=1, train_limit=50, test_limit=10),
        numbered(tmp_path, train_limit=51, test_limit=10),
        whole,
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 4
    assert numbered(tmp_path, train_limit=TRAIN, test_limit=TEST).fingerprint == whole.fingerprint
    assert Numbered.made == 1


def test_holdout_replaces_the_test_images(tmp_path: Path) -> None:
    data = numbered(tmp_path, holdout=0.25)
    assert (len(data.train), len(data.test)) == (150, 50)
    assert sorted(numbers(data.train) + numbers(data.test)) == list(range(TRAIN))
    assert data.test.labels.bincount().tolist() == [10] * 5
    assert numbers(data.test) != numbers(numbered(tmp_path, holdout=0.25, seed=1).test)
    limited = numbered(tmp_path, holdout=0.25, train_limit=100, test_limit=50)
    assert numbers(limited.test) == numbers(data.test)
    assert set(numbers(limited.train)) < set(numbers(data.train))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_limit": 201}, r"dataset\.train_limit is 201; there are 200 training images"),
        ({"test_limit": 61}, r"dataset\.test_limit is 61; there are 60 test images"),
        ({"holdout": 0.5, "train_limit": 101}, r"dataset\.train_limit is 101; there are 100 training images"),
        ({"holdout": 0.5, "test_limit": 101}, r"dataset\.test_limit is 101; there are 100 test images"),
        ({"train_limit": 4}, r"dataset\.train_limit is 4; that leaves a class of 'numbered' without"),
        ({"holdout": 0.02}, r"dataset\.holdout is 0\.02; of 200 training images that holds out 4, allowed: 0, or"),
    ],
)
def test_limits_that_cannot_be(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        numbered(tmp_path, **changes)


def uneven(monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...], test_sizes: tuple[int, ...]) -> None:
    """Classes of these sizes, in place of five even ones."""

    def raw(self: Numbered, download_dir: Path) -> tuple[Split, Split, tuple[str, ...]]:
        splits = [torch.arange(len(counts)).repeat_interleave(torch.tensor(counts)) for counts in (sizes, test_sizes)]
        train, test = (Split(torch.zeros(len(labels), 3, 4, 4, dtype=torch.uint8), labels) for labels in splits)
        return train, test, tuple("abcde"[: len(sizes)])

    monkeypatch.setattr(Numbered, "raw", raw)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"holdout": 0.9}, r"holdout is 0\.9; that leaves a class of 'numbered' without training images: 'b'; .* has 3\)"),
        ({"holdout": 0.1}, r"holdout is 0\.1; that leaves a class of 'numbered' without held-out images: 'b'"),
        ({"train_limit": 10}, r"train_limit is 10; .* without training images: 'b'; allowed: more images, 35 are enough"),
        ({"test_limit": 6}, r"test_limit is 6; .* without test images: 'b'; allowed: more images, 51 are enough"),
    ],
)
def test_no_class_is_lost(changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uneven(monkeypatch, (101, 3), (50, 1))
    with pytest.raises(UserError, match=message):
        numbered(tmp_path, **changes)
    assert len(numbered(tmp_path, train_limit=35, test_limit=51).train.labels.unique()) == 2


def test_a_single_class_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uneven(monkeypatch, (10,), (10,))
    with pytest.raises(UserError, match=r"'numbered' has a single class \('a'\)"):
        numbered(tmp_path)


def test_classes_without_images_are_remarked_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uneven(monkeypatch, (5, 0, 5), (4, 4, 0))
    for _ in range(2):
        assert numbered(tmp_path).remarks == (
            "1 of 3 classes have no training image, the first is 'b'",
            "1 of 3 classes have no test image, the first is 'c'",
        )


def test_a_data_set_that_breaks_its_promise_is_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def floats(self: Numbered, download_dir: Path) -> tuple[Split, Split, tuple[str, ...]]:
        split = Split(torch.rand(4, 3, 2, 2), torch.zeros(4, dtype=torch.int64))
        return split, split, ("a",)

    monkeypatch.setattr(Numbered, "raw", floats)
    with pytest.raises(ValueError, match="uint8"):
        numbered(tmp_path)
    assert not list((tmp_path / "cache").glob("numbered-*"))


def test_class_labels_beyond_the_names_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def beyond(self: Numbered, download_dir: Path) -> tuple[Split, Split, tuple[str, ...]]:
        split = Split(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.arange(4))
        return split, split, ("a", "b")

    monkeypatch.setattr(Numbered, "raw", beyond)
    with pytest.raises(ValueError, match="labels are 0 to 1"):
        numbered(tmp_path)
