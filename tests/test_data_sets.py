"""The data sets that are files on disk, on small files in the true formats; and the YAML of every data set."""

import csv
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import CONF, make_dataset
from PIL import Image
from torchvision import datasets

from ntml_bench.data import DATASETS, gtsrb
from ntml_bench.errors import UserError

RNG = np.random.default_rng(0)


def test_every_data_set_has_a_yaml_that_builds() -> None:
    ours = [name for name in DATASETS if DATASETS[name].__module__.startswith("ntml_bench.data.")]
    options = sorted(path.stem for path in (CONF / "dataset").glob("*.yaml"))
    # One class may serve two options: the JPEG copy of CIFAR-10 is a folder of images.
    classes = {option: make_dataset(option).config.name for option in options}
    assert classes == {name: name for name in ours} | {"cifar10_jpeg": "image_folder"}
    for option in options:
        assert f"ntml-bench dataset={option}" in (CONF / "dataset" / f"{option}.yaml").read_text()


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "gtsrb", "image_folder", "tiny_imagenet"])
def test_no_such_root(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.root is '.*nowhere'; there is no folder"):
        make_dataset(name, root=str(tmp_path / "nowhere")).source()


ROOTS = [
    ("cifar10", "cifar-10-batches-py"),
    ("cifar100", "cifar-100-python"),
    ("gtsrb", "gtsrb/GTSRB/Training"),
    ("tiny_imagenet", "tiny-imagenet-200"),
]


@pytest.mark.parametrize(("name", "part"), ROOTS)
def test_another_folder_as_root(name: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path} has no .*'{part}'"):
        make_dataset(name, root=str(tmp_path)).source()


DOWNLOADS = [
    ("cifar10", datasets.CIFAR10, "download"),
    ("cifar100", datasets.CIFAR100, "download"),
    ("gtsrb", datasets.GTSRB, "download"),
    ("tiny_imagenet", datasets.utils, "download_url"),
]


@pytest.mark.parametrize(("name", "owner", "function"), DOWNLOADS)
def test_a_download_that_fails(
    name: str, owner: object, function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*arguments: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(owner, function, offline)
    dataset = make_dataset(name)
    dataset.source()
    with pytest.raises(UserError, match=r"is not in .*downloads \(.*no route to host\. dataset\.root=FOLDER uses a copy"):
        dataset.raw(tmp_path / "downloads")


def write_gtsrb(root: Path) -> None:
    """43 classes of two training images, 10 test images, in the layout of the official archives."""
    for label in range(43):
        folder = root / "gtsrb/GTSRB/Training" / f"{label:05d}"
        folder.mkdir(parents=True)
        (folder / f"GT-{label:05d}.csv").write_text("Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n")
        for index in range(2):
            pixels = np.full((30 + index, 40, 3), (label, 100 + index, 5), np.uint8)
            Image.fromarray(pixels).save(folder / f"00000_{index:05d}.ppm")
    images = root / "gtsrb/GTSRB/Final_Test/Images"
    images.mkdir(parents=True)
    with (root / "gtsrb/GT-final_test.csv").open("w", newline="") as file:
        table = csv.writer(file, delimiter=";")
        table.writerow(["Filename", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId"])
        for index in range(10):
            Image.fromarray(np.full((25, 25, 3), 20 * index, np.uint8)).save(images / f"{index:05d}.ppm")
            table.writerow([f"{index:05d}.ppm", 25, 25, 5, 5, 20, 20, 42 - index])


@pytest.fixture
def signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(gtsrb, "TRAINING_IMAGES", (2,) * 43)
    monkeypatch.setattr(gtsrb, "TEST_IMAGES", 10)
    write_gtsrb(tmp_path / "data")
    return tmp_path / "data"


def test_the_published_numbers_of_gtsrb() -> None:
    assert len(gtsrb.TRAINING_IMAGES) == len(gtsrb.CLASS_NAMES) == len(set(gtsrb.CLASS_NAMES)) == 43
    assert sum(gtsrb.TRAINING_IMAGES) == 39_209


def test_gtsrb_in_its_own_layout(signs: Path) -> None:
    train, test, names = make_dataset("gtsrb", root=str(signs), image_size=16).raw(signs)
    assert names[14] == "stop"
    assert train.images.shape == (86, 3, 16, 16)
    assert torch.equal(train.labels, torch.arange(43).repeat_interleave(2))
    assert train.images[2 * 17 + 1].flatten(1).unique(dim=1).flatten().tolist() == [17, 101, 5]
    assert test.labels.tolist() == list(range(42, 32, -1))
    assert test.images[3].unique().tolist() == [60]
    # The same images and labels as torchvision reads.
    official = datasets.GTSRB(signs, split="test")
    assert [label for _, label in official] == test.labels.tolist()


def test_gtsrb_names_what_is_missing(signs: Path) -> None:
    dataset = make_dataset("gtsrb", root=str(signs))
    (signs / "gtsrb/GTSRB/Final_Test/Images/00007.ppm").unlink()
    with pytest.raises(UserError, match=r"1 of 10 test images are missing in .*, the first is 00007\.ppm"):
        dataset.raw(signs)
    table = signs / "gtsrb/GT-final_test.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:4]))
    with pytest.raises(UserError, match=r"GT-final_test\.csv lists 3 of 10 test images"):
        dataset.raw(signs)
    table.write_text("<html>not found</html>")
    with pytest.raises(UserError, match="is not the table"):
        dataset.raw(signs)
    (signs / "gtsrb/GTSRB/Training/00031/00000_00001.ppm").unlink()
    with pytest.raises(UserError, match=r"85 of 86 training images .* 1 of 43 classes .* first is 00031 with 1 of 2"):
        dataset.raw(signs)


def test_gtsrb_names_a_file_that_is_cut_off(signs: Path) -> None:
    file = signs / "gtsrb/GTSRB/Training/00005/00000_00000.ppm"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(UserError, match=r"cannot decode the image .*00005/00000_00000\.ppm"):
        make_dataset("gtsrb", root=str(signs)).raw(signs)


def test_a_half_extracted_download_of_gtsrb_is_extracted_again(signs: Path, tmp_path: Path, monkeypatch) -> None:
    official = tmp_path / "official"
    official.mkdir()
    for archive, part in (("train", "GTSRB/Training"), ("test", "GTSRB/Final_Test"), ("labels", "GT-final_test.csv")):
        with zipfile.ZipFile(official / f"{archive}.zip", "w") as file:
            whole = signs / "gtsrb" / part
            for path in [whole] if whole.is_file() else whole.rglob("*"):
                file.write(path, path.relative_to(signs / "gtsrb"))

    def extract(self: datasets.GTSRB) -> None:
        if self._check_exists():
            return
        for archive in ["train"] if self._split == "train" else ["test", "labels"]:
            with zipfile.ZipFile(official / f"{archive}.zip") as file:
                file.extractall(self._base_folder)

    monkeypatch.setattr(datasets.GTSRB, "download", extract)
    (tmp_path / "downloads/gtsrb/GTSRB/Training/00000").mkdir(parents=True)
    train, test, _ = make_dataset("gtsrb", image_size=8).raw(tmp_path / "downloads")
    assert (len(train), len(test)) == (86, 10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("zebra", "ant", "Bee")):
            place = tmp_path / "images" / part / name
            place.mkdir(parents=True)
            for index in range(count):
                mode = ("RGB", "L", "RGBA")[index]
                colour = (50 * label, 50 * label, 50 * label, 255)[: len(mode)] if mode != "L" else 50 * label
                Image.new(mode, (20 + index, 10), colour).save(place / f"{index}.png")
    return tmp_path / "images"


def test_image_folder(folder: Path) -> None:
    (folder / "train/ant/.hidden").write_text("no image")
    (folder / "train/.cache").mkdir()
    train, test, names = make_dataset("image_folder", root=str(folder), image_size=8).raw(folder)
    assert names == ("Bee", "ant", "zebra")
    assert train.images.shape == (9, 3, 8, 8)
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert train.images.flatten(1).unique(dim=1).flatten().tolist() == [100] * 3 + [50] * 3 + [0] * 3


def test_image_folder_keeps_pixels_of_the_right_size(folder: Path) -> None:
    pixels = RNG.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "train/Bee/0.png")
    train, _, _ = make_dataset("image_folder", root=str(folder), image_size=12).raw(folder)
    assert torch.equal(train.images[0], torch.from_numpy(pixels).permute(2, 0, 1))


def test_source_notices_changed_files(folder: Path) -> None:
    dataset = make_dataset("image_folder", root=str(folder))
    seen = [dataset.source()]
    status = (folder / "test/ant/1.png").stat()
    os.utime(folder / "test/ant/1.png", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    seen.append(dataset.source())
    (folder / "test/ant/1.png").rename(folder / "test/ant/2.png")
    seen.append(dataset.source())
    (folder / "test/ant/2.png").unlink()
    seen.append(dataset.source())
    seen.append(make_dataset("image_folder", root=str(folder), image_size=9).source())
    assert len(set(seen)) == 5
    assert make_dataset("image_folder", root=str(folder), train_limit=3).source() == seen[3]


def test_image_folder_errors(folder: Path) -> None:
    dataset = make_dataset("image_folder", root=str(folder))
    with pytest.raises(UserError, match=r"dataset\.root is null"):
        make_dataset("image_folder").source()
    (folder / "train/ant/0.png").write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"cannot decode the image .*train/ant/0\.png"):
        dataset.raw(folder)
    for file in (folder / "test/zebra").iterdir():
        file.unlink()
    (folder / "train/ant/0.png").unlink()
    with pytest.raises(UserError, match=r"class folder .*test/zebra is empty"):
        dataset.raw(folder)
    (folder / "test/zebra").rename(folder / "test/gnu")
    with pytest.raises(UserError, match=r"differ \(only in train: zebra; only in test: gnu\)"):
        dataset.source()
    (folder / "test").rename(folder / "validation")
    with pytest.raises(UserError, match=r"has no folder 'test'; it needs train/CLASS"):
        dataset.source()
    (folder / "train").rename(folder / "unused")
    (folder / "train").mkdir()
    (folder / "test").mkdir()
    with pytest.raises(UserError, match="holds no folder; it needs one for each class"):
        dataset.source()
