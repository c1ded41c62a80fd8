"""What lies in the folders of classes: which files count, what is skipped with a word, what is refused by name."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_dataset
from PIL import Image

from ntml_bench.data import ImageData
from ntml_bench.data.base import Dataset
from ntml_bench.data.image_files import entries, shown, state, status_of
from ntml_bench.data.loading import load
from ntml_bench.errors import UserError

RNG = np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("train", "test"):
        for name in ("1", "10", "2"):
            place = tmp_path / "images" / part / name
            place.mkdir(parents=True)
            for index in range(2):
                Image.fromarray(RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(place / f"{index}.png")
    return tmp_path / "images"


def dataset(folder: Path) -> Dataset:
    return make_dataset("image_folder", root=str(folder), image_size=8)


def loaded(folder: Path) -> ImageData:
    return load(dataset(folder), folder.parent / "data", 0)


def refused(folder: Path) -> str:
    """What is said of the folder, before any file is opened."""
    with pytest.raises(UserError) as error:
        dataset(folder).source()
    return str(error.value)


def test_plain_folders_keep_their_fingerprint(folder: Path) -> None:
    for index, file in enumerate(sorted(folder.rglob("*.png"))):
        Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3) + index).save(file)
    data = loaded(folder)
    assert data.fingerprint == "f114f7cb47f7c546"
    assert data.remarks == ()


def test_litter_is_skipped_with_a_word_on_each_run(folder: Path) -> None:
    before = loaded(folder)
    source = dataset(folder).source()
    for place in ("train/1/Thumbs.db", "train/2/.DS_Store", "test/1/desktop.ini", "train/readme.txt"):
        (folder / place).write_text("no image")
    (folder / "train/10/.ipynb_checkpoints").mkdir()
    for _ in range(2):
        data = loaded(folder)
        (remark,) = data.remarks
        assert remark.startswith(f"5 files or folders are skipped (the first is {folder}/train/readme.txt)")
        assert data.fingerprint == before.fingerprint
    assert dataset(folder).source() != source
    (folder / "test/1/desktop.ini").unlink()
    assert loaded(folder).remarks[0].startswith("4 files")


def test_a_file_that_is_no_image_stops_with_advice(folder: Path) -> None:
    (folder / "test/2/labels.csv").write_text("a,b")
    with pytest.raises(UserError, match=r"image .*test/2/labels\.csv: cannot identify the image format; .* move it out of"):
        loaded(folder)


def test_a_folder_in_a_class(folder: Path) -> None:
    (folder / "train/10/more.png").mkdir()
    assert f"{folder}/train/10/more.png is a folder; the folder of a class holds images only" in refused(folder)


def test_an_empty_file(folder: Path) -> None:
    (folder / "train/10/empty.png").touch()
    assert f"{folder}/train/10/empty.png is empty (0 bytes)" in refused(folder)


def test_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "train/10/pipe.png")
    assert f"{folder}/train/10/pipe.png is no file that holds an image" in refused(folder)


def test_links_that_lead_nowhere(folder: Path) -> None:
    (folder / "train/10/gone.png").symlink_to("/nowhere/x.png")
    assert refused(folder).startswith(f"{folder}/train/10/gone.png is a link to /nowhere/x.png, which leads nowhere: No such")
    (folder / "train/10/gone.png").unlink()
    (folder / "train/1/self.png").symlink_to("self.png")
    assert f"{folder}/train/1/self.png is a link to self.png, which leads nowhere: Too many levels" in refused(folder)


def test_a_link_to_a_folder_around_it(folder: Path) -> None:
    (folder / "train/1/around").symlink_to(folder)
    assert f"{folder}/train/1/around is a folder" in refused(folder)
    with pytest.raises(UserError, match=f"{folder}/train/1/around is a link to a folder that holds it, {folder}"):
        state(folder, ["train"])


def test_what_may_not_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    def denied_images(path: Path, *arguments: Any, **named: Any) -> Any:
        return denied() if path.suffix == ".png" else opened(path, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", denied_images)
        with pytest.raises(UserError, match=r"cannot decode the image .*train/1/0\.png: Permission denied"):
            loaded(folder)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_dir", denied)
        assert "it cannot be looked at: Permission denied" in refused(folder)
    monkeypatch.setattr(os, "scandir", denied)
    assert refused(folder) == f"cannot read the folder {folder}: Permission denied"


@pytest.mark.parametrize("root", ["~nobody-of-that-name/images", "a\0b"])
def test_a_root_that_makes_no_sense(root: str) -> None:
    for name in ("image_folder", "gtsrb", "cifar10"):
        with pytest.raises(UserError, match=r"dataset\.root is .*; (it cannot be looked at|there is no folder)"):
            make_dataset(name, root=root).source()


@pytest.mark.parametrize("name", [b"b\xff\xfed", b"two\nlines"])
def test_a_class_whose_name_is_no_text(name: bytes, folder: Path) -> None:
    for part in ("train", "test"):
        os.rename(os.fsencode(folder / part / "10"), os.path.join(os.fsencode(folder / part), name))  # noqa: PTH104, PTH118
    said = refused(folder)
    assert "the name of the class folder" in said
    assert "rename it" in said
    assert said.isprintable()


def test_a_file_whose_name_is_no_text_is_an_image(folder: Path) -> None:
    for name in (b"b\xffd.png", b"two\nlines.png"):
        os.rename(os.fsencode(folder / "train/1/0.png"), os.path.join(os.fsencode(folder / "train/1"), name))  # noqa: PTH104, PTH118
        assert len(loaded(folder).train) == 6
        (file,) = [entry for entry in entries(folder / "train/1") if entry.name != "1.png"]
        assert status_of(file).st_size > 0
        assert shown(file.path).isprintable()
        os.rename(file.path, folder / "train/1/0.png")  # noqa: PTH104
