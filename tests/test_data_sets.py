"""The data sets that are files on disk, on small files in the true formats; and the YAML of every data set."""

import csv
import os
import pickle
import zipfile
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torchvision import datasets

from ntml_bench.data import DATASETS, Dataset, gtsrb
from ntml_bench.errors import UserError
from ntml_bench.schema import build

CONF = Path(__file__).parents[1] / "conf" / "dataset"
RNG = np.random.default_rng(0)


def make(name: str, **changes: Any) -> Dataset:
    values = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert isinstance(values, dict)
    return DATASETS[name](build(DATASETS[name].Config, {str(key): value for key, value in values.items()} | changes, "dataset"))


def test_every_data_set_has_a_yaml_that_builds() -> None:
    ours = [name for name in DATASETS if DATASETS[name].__module__.startswith("ntml_bench.data.")]
    assert ours == sorted(path.stem for path in CONF.glob("*.yaml"))
    for name in ours:
        assert make(name).config.name == name
        assert f"ntml-bench dataset={name}" in (CONF / f"{name}.yaml").read_text()


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Batches of 20 images with their sums in place of the published ones."""
    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)

    def write(name: str, content: object) -> list[str]:
        data = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(data)
        return [name, md5(data).hexdigest()]

    def batch(name: str, start: int) -> list[str]:
        data = np.arange(start, start + 20)[:, None] + np.zeros((20, 3072))
        data[:, 1024:2048] = 100
        data[:, 1] = 7
        return write(name, {"data": data.astype(np.uint8), "labels": [(start + i) % 10 for i in range(20)]})

    monkeypatch.setattr(datasets.CIFAR10, "train_list", [batch(f"data_batch_{i + 1}", 20 * i) for i in range(5)])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [batch("test_batch", 100)])
    name, checksum = write("batches.meta", {"label_names": [f"class {i}" for i in range(10)]})
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": checksum})
    return tmp_path / "data"


def test_cifar10_in_its_own_format(cifar: Path, tmp_path: Path) -> None:
    train, test, names = make("cifar10", root=str(cifar)).raw(tmp_path / "unused")
    assert train.images.shape == (100, 3, 32, 32)
    assert test.images.shape == (20, 3, 32, 32)
    assert train.images.dtype == torch.uint8
    assert names[3] == "class 3"
    assert torch.equal(train.labels, torch.arange(100) % 10)
    # Planes of red, green, blue, each row by row.
    assert train.images[57, 0, 0].tolist() == [57, 7, *[57] * 30]
    assert train.images[57, 1].unique().tolist() == [100]
    assert not (tmp_path / "unused").exists()


def test_cifar10_is_found_where_it_was_downloaded(cifar: Path) -> None:
    assert len(make("cifar10").raw(cifar)[0]) == 100


def test_cifar10_names_missing_and_corrupt_files(cifar: Path) -> None:
    dataset = make("cifar10", root=str(cifar))
    before = dataset.source()
    batch = cifar / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-1])
    assert dataset.source() != before
    with pytest.raises(UserError, match=r"corrupt \(wrong MD5 sum\) in .*: data_batch_3$"):
        dataset.raw(cifar)
    batch.unlink()
    (cifar / "cifar-10-batches-py" / "batches.meta").unlink()
    with pytest.raises(UserError, match=r"missing in .*: data_batch_3, batches\.meta$"):
        dataset.raw(cifar)


@pytest.mark.parametrize("name", ["cifar10", "gtsrb", "image_folder"])
def test_no_such_root(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.root is '.*nowhere'; there is no folder"):
        make(name, root=str(tmp_path / "nowhere")).source()


@pytest.mark.parametrize(("name", "part"), [("cifar10", "cifar-10-batches-py"), ("gtsrb", "gtsrb/GTSRB/Training")])
def test_another_folder_as_root(name: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path} has no .*'{part}'"):
        make(name, root=str(tmp_path)).source()


@pytest.mark.parametrize(("name", "cls"), [("cifar10", datasets.CIFAR10), ("gtsrb", datasets.GTSRB)])
def test_a_download_that_fails(name: str, cls: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(self: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(cls, "download", offline)
    dataset = make(name)
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
    train, test, names = make("gtsrb", root=str(signs), image_size=16).raw(signs)
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
    dataset = make("gtsrb", root=str(signs))
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
        make("gtsrb", root=str(signs)).raw(signs)


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
    train, test, _ = make("gtsrb", image_size=8).raw(tmp_path / "downloads")
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
    train, test, names = make("image_folder", root=str(folder), image_size=8).raw(folder)
    assert names == ("Bee", "ant", "zebra")
    assert train.images.shape == (9, 3, 8, 8)
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert train.images.flatten(1).unique(dim=1).flatten().tolist() == [100] * 3 + [50] * 3 + [0] * 3


def test_image_folder_keeps_pixels_of_the_right_size(folder: Path) -> None:
    pixels = RNG.integers(0, 256, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "train/Bee/0.png")
    train, _, _ = make("image_folder", root=str(folder), image_size=12).raw(folder)
    assert torch.equal(train.images[0], torch.from_numpy(pixels).permute(2, 0, 1))


def test_source_notices_changed_files(folder: Path) -> None:
    dataset = make("image_folder", root=str(folder))
    seen = [dataset.source()]
    status = (folder / "test/ant/1.png").stat()
    os.utime(folder / "test/ant/1.png", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    seen.append(dataset.source())
    (folder / "test/ant/1.png").rename(folder / "test/ant/2.png")
    seen.append(dataset.source())
    (folder / "test/ant/2.png").unlink()
    seen.append(dataset.source())
    seen.append(make("image_folder", root=str(folder), image_size=9).source())
    assert len(set(seen)) == 5
    assert make("image_folder", root=str(folder), train_limit=3).source() == seen[3]


def test_image_folder_errors(folder: Path) -> None:
    dataset = make("image_folder", root=str(folder))
    with pytest.raises(UserError, match=r"dataset\.root is null"):
        make("image_folder").source()
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
