"""Tiny ImageNet, on a small archive with the names and the layout of the official one."""

import os
import zipfile
from collections.abc import Callable
from hashlib import md5
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import make_dataset
from PIL import Image
from torchvision.datasets import utils

from ntml_bench.data import tiny_imagenet
from ntml_bench.errors import UserError

WNIDS = ["n02124075", "n01443537", "n02012849"]
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def encoded(image: Image.Image, encoding: str = "PNG") -> bytes:
    """PNG under the name of a JPEG: Pillow looks at the content, and every pixel can be compared."""
    content = BytesIO()
    image.save(content, encoding)
    return content.getvalue()


def files() -> dict[str, bytes]:
    """Three classes of four training and two validation images; one is grey, one is a true JPEG."""
    contents = {
        "wnids.txt": "\n".join(WNIDS).encode() + b"\n",
        "words.txt": b"n00001740\tentity\nn01443537\tcrane, goldfish\nn02012849\tcrane\nn02124075\tEgyptian cat, cat\n",
        "val/val_annotations.txt": "".join(f"val_{i}.JPEG\t{WNIDS[2 - i // 2]}\t0\t32\t44\t62\n" for i in range(6)).encode(),
    }
    for label, wnid in enumerate(WNIDS):
        for index in range(4):
            image = Image.new("RGB", (64, 64), (label, index, 200))
            contents[f"train/{wnid}/images/{wnid}_{index}.JPEG"] = encoded(image)
        contents[f"train/{wnid}/{wnid}_boxes.txt"] = b"not read"
    for index in range(6):
        contents[f"val/images/val_{index}.JPEG"] = encoded(Image.new("L", (64, 64), 10 * index))
    contents[f"train/{WNIDS[1]}/images/{WNIDS[1]}_3.JPEG"] = encoded(Image.fromarray(PIXELS))
    contents[f"train/{WNIDS[2]}/images/{WNIDS[2]}_0.JPEG"] = encoded(Image.new("RGB", (64, 64), (128, 128, 128)), "JPEG")
    return contents


def zipped(path: Path, contents: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../outside.txt", "never read")
        for name, content in contents.items():
            archive.writestr(f"tiny-imagenet-200/{name}", content)
    return path


@pytest.fixture(autouse=True)
def counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_imagenet, "CLASSES", 3)
    monkeypatch.setattr(tiny_imagenet, "TRAINING_IMAGES", 4)
    monkeypatch.setattr(tiny_imagenet, "VALIDATION_IMAGES", 2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder that holds the unpacked images."""
    for name, content in files().items():
        path = tmp_path / "data" / "tiny-imagenet-200" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "data"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return zipped(tmp_path / "tiny-imagenet-200.zip", files())


def test_the_unpacked_folder(root: Path, tmp_path: Path) -> None:
    train, test, names = make_dataset("tiny_imagenet", root=str(root)).raw(tmp_path / "unused")
    assert names == ("Egyptian cat", "crane (n01443537)", "crane (n02012849)")
    assert train.images.shape == (12, 3, 64, 64)
    assert train.images.dtype == torch.uint8
    assert train.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert train.images[6].flatten(1).unique(dim=1).flatten().tolist() == [1, 2, 200]
    assert torch.equal(train.images[7], torch.from_numpy(PIXELS).permute(2, 0, 1))
    assert train.images[8].unique().tolist() == [128]
    assert test.labels.tolist() == [2, 2, 1, 1, 0, 0]
    assert test.images.shape == (6, 3, 64, 64)
    assert [image.unique().tolist() for image in test.images] == [[0], [10], [20], [30], [40], [50]]
    assert not (tmp_path / "unused").exists()


def test_the_archive_gives_the_same_and_is_not_unpacked(root: Path, archive: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    for size in (64, 16):
        sources = {name: make_dataset("tiny_imagenet", root=str(name), image_size=size) for name in (root, archive, tmp_path)}
        splits = {name: dataset.raw(tmp_path / "unused") for name, dataset in sources.items()}
        assert len({dataset.source() for dataset in sources.values()}) == 2
        train, test, names = splits[root]
        assert train.images.shape == (12, 3, size, size)
        # `tmp_path` is the folder that holds the archive.
        for other in (archive, tmp_path):
            assert splits[other][2] == names
            for one, same in ((train, splits[other][0]), (test, splits[other][1])):
                assert torch.equal(one.images, same.images)
                assert torch.equal(one.labels, same.labels)
    assert sorted(tmp_path.rglob("*")) == before


def test_source_notices_changes(root: Path, archive: Path) -> None:
    seen = []
    for given, file in ((root, root / "tiny-imagenet-200/val/images/val_3.JPEG"), (archive, archive)):
        dataset = make_dataset("tiny_imagenet", root=str(given))
        seen.append(dataset.source())
        os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
        seen.append(dataset.source())
        seen.append(make_dataset("tiny_imagenet", root=str(given), image_size=32).source())
    assert len(set(seen)) == 6


def test_the_download(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = archive.read_bytes()
    seen: list[tuple[str, str]] = []

    def download(url: str, folder: Path, name: str, checksum: str) -> None:
        seen.append((url, checksum))
        (folder / name).write_bytes(content)

    monkeypatch.setattr(utils, "download_url", download)
    downloads = tmp_path / "downloads"
    dataset = make_dataset("tiny_imagenet")
    assert dataset.source() == "Tiny ImageNet v1: downloaded, 64 px"
    with pytest.raises(UserError, match=r"was downloaded to .*, but is not complete: .*zip is corrupt \(wrong MD5 sum\)"):
        dataset.raw(downloads)
    monkeypatch.setattr(tiny_imagenet, "MD5", md5(content).hexdigest())
    # What a download that was killed left behind.
    (downloads / "tiny-imagenet-200.zip").write_bytes(content[:1000])
    assert len(dataset.raw(downloads)[0]) == len(dataset.raw(downloads)[0]) == 12
    published = "90528d7ca1a48142e341f4ef8d21d0de"
    assert seen == [(tiny_imagenet.URL, published), (tiny_imagenet.URL, md5(content).hexdigest())]


def without(*names: str) -> Callable[[dict[str, bytes]], object]:
    return lambda contents: [contents.pop(name) for name in names]


def instead(name: str, old: bytes, new: bytes) -> Callable[[dict[str, bytes]], object]:
    return lambda contents: contents.update({name: contents[name].replace(old, new, 1)})


def cut(name: str) -> Callable[[dict[str, bytes]], object]:
    return lambda contents: contents.update({name: contents[name][:100]})


TRAINING_FILE = "train/n01443537/images/n01443537_2.JPEG"
LABELS = "val/val_annotations.txt"
MISTAKES = [
    (without(TRAINING_FILE), r"1 of 12 training images are missing in .*tiny-imagenet-200, the first is .*n01443537_2\.JPEG$"),
    (without("val/images/val_1.JPEG", "val/images/val_4.JPEG"), r"2 of 6 validation images are missing .*/val_1\.JPEG$"),
    (instead("wnids.txt", b"n01443537\n", b""), r"wnids\.txt lists 2 of 3 classes in 2 lines"),
    (instead("wnids.txt", b"n01443537", b"n02124075"), r"wnids\.txt lists 2 of 3 classes in 3 lines"),
    (instead("wnids.txt", b"n01443537", b"../../../n1"), r"wnids\.txt: '\.\./\.\./\.\./n1' is not the name of a class"),
    (instead("wnids.txt", b"n", b"\xff"), r"cannot read .*wnids\.txt: .*can't decode"),
    (instead("words.txt", b"n02012849", b"n02012850"), r"words\.txt has no words for 1 of 3 classes, the first is n02012849"),
    (instead(LABELS, b"n01443537", b"n01443538"), r"val_annotations\.txt, line 3: 'n01443538' is not a class of wnids\.txt"),
    (instead(LABELS, b"\tn01443537", b""), r"val_annotations\.txt, line 3: '0' is not a class"),
    (instead(LABELS, b"val_3", b"../val_3"), r"val_annotations\.txt, line 4: '\.\./val_3\.JPEG' is not the name of"),
    (instead(LABELS, b"val_3", b"val_2"), r"lists 5 of 6 validation images; the first wrong class is n01443537 with 1 of 2"),
    (instead(LABELS, b"n01443537", b"n02124075"), r"lists 6 of 6 validation images; the first wrong class is n02124075 with 3"),
    (cut(TRAINING_FILE), r"cannot decode the image .*tiny-imagenet-200/train/n01443537/images/n01443537_2\.JPEG: "),
    (instead(TRAINING_FILE, b"\x89PNG", b"GNP\x89"), r"n01443537_2\.JPEG: cannot identify the image format$"),
]


@pytest.mark.parametrize("place", ["folder", "archive"])
@pytest.mark.parametrize(("mistake", "message"), MISTAKES)
def test_a_mistake_is_named(
    mistake: Callable[[dict[str, bytes]], object], message: str, place: str, root: Path, tmp_path: Path
) -> None:
    contents = files()
    mistake(contents)
    if place == "archive":
        given = zipped(tmp_path / "mistaken.zip", contents)
    else:
        given = root
        for name in files():
            if name in contents:
                (root / "tiny-imagenet-200" / name).write_bytes(contents[name])
            else:
                (root / "tiny-imagenet-200" / name).unlink()
    with pytest.raises(UserError, match=message):
        make_dataset("tiny_imagenet", root=str(given)).raw(tmp_path / "unused")


@pytest.mark.parametrize("name", ["wnids.txt", "words.txt", LABELS])
def test_a_table_that_is_missing(name: str, root: Path, tmp_path: Path) -> None:
    contents = files()
    del contents[name]
    archive = zipped(tmp_path / "mistaken.zip", contents)
    with pytest.raises(UserError, match=rf"there is no .*mistaken\.zip/tiny-imagenet-200/{name}$"):
        make_dataset("tiny_imagenet", root=str(archive)).raw(root)
    (root / "tiny-imagenet-200" / name).unlink()
    with pytest.raises(UserError, match=rf"tiny-imagenet-200 has no '{name}'; it needs wnids\.txt, words\.txt, train"):
        make_dataset("tiny_imagenet", root=str(root)).source()


def test_a_damaged_archive(archive: Path) -> None:
    dataset = make_dataset("tiny_imagenet", root=str(archive))
    content = archive.read_bytes()
    name = f"tiny-imagenet-200/{TRAINING_FILE}".encode()
    # The first place of the name is the header before the content of that file.
    damaged = content.index(name) + len(name) + 10
    archive.write_bytes(content[:damaged] + b"damage" + content[damaged + 6 :])
    with pytest.raises(UserError, match=rf"cannot read {archive}/tiny-imagenet-200/{TRAINING_FILE}: "):
        dataset.raw(archive.parent)
    # The directory at the end points to it.
    directory = content.rindex(b"PK\x01\x02")
    archive.write_bytes(content[:directory] + b"XXXX" + content[directory + 4 :])
    with pytest.raises(UserError, match=f"cannot read the archive {archive}: "):
        dataset.raw(archive.parent)
    archive.write_bytes(content[:-100])
    with pytest.raises(UserError, match=f"{archive} is not a zip archive, or is cut off"):
        dataset.source()
