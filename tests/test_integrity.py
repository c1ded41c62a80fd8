"""An artifact that is not what was written is never used: it is set aside, said, and made anew."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from test_files import refuse

from ntml_bench.checkpoint import Checkpoint
from ntml_bench.files import StorageError
from ntml_bench.integrity import CHECKSUMS, DamagedError, seal
from ntml_bench.store import RECORD, TENSORS, Artifact, Store

FILES = (CHECKSUMS, RECORD, TENSORS)


class Maker:
    """Makes artifacts that all have the same content, and counts them."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> Artifact:
        self.made += 1
        return Artifact({"accuracy": 91.25}, {"weights": torch.arange(6.0)})


def sound(artifact: Artifact | None) -> bool:
    return (
        artifact is not None
        and artifact.record == {"accuracy": 91.25}
        and artifact.tensors.keys() == {"weights"}
        and torch.equal(artifact.tensors["weights"], torch.arange(6.0))
    )


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def lengthened(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def removed(path: Path) -> None:
    path.unlink()


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def anothers(path: Path) -> None:
    """The file of an artifact of the same shape."""
    other = Store(path.parents[1] / "elsewhere")
    other.get_or_make("thing", "b", lambda: Artifact({"accuracy": 19.52}, {"weights": torch.arange(6.0) + 1}))
    shutil.copyfile(other.path("thing", "b") / path.name, path)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", [cut, lengthened, flipped, emptied, removed, folder_instead, anothers])
def test_a_damaged_artifact_is_set_aside_and_made_anew(damage: Any, file: str, tmp_path: Path) -> None:
    said: list[str] = []
    store, maker = Store(tmp_path / "store", said.append), Maker()
    store.get_or_make("thing", "a", maker)
    damage(store.path("thing", "a") / file)
    if (damage, file) == (lengthened, CHECKSUMS):
        assert sound(store.load("thing", "a")), "white space behind the JSON changes nothing"
        return
    assert store.load("thing", "a") is None
    with pytest.raises(DamagedError):
        store.read("thing", "a")
    assert sound(store.get_or_make("thing", "a", maker))
    assert maker.made == 2
    assert sound(store.load("thing", "a"))
    (aside,) = store.root.glob(".damaged-thing-a-*")
    (line,) = said
    assert str(store.path("thing", "a")) in line
    assert aside.name in line
    assert len(line.splitlines()) == 1
    store.get_or_make("thing", "a", maker)
    assert maker.made == 2
    assert len(said) == 1


def test_the_whole_folder_of_another_artifact_is_not_taken_for_it(tmp_path: Path) -> None:
    store, maker = Store(tmp_path), Maker()
    store.get_or_make("thing", "b", lambda: Artifact({"accuracy": 10.0}, {"weights": torch.zeros(6)}))
    shutil.copytree(store.path("thing", "b"), store.path("thing", "a"))
    assert store.record("thing", "a") is None
    assert sound(store.get_or_make("thing", "a", maker))


def test_a_file_in_place_of_the_folder_is_set_aside_too(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.path("thing", "a").write_text("no folder")
    assert store.record("thing", "a") is None
    assert sound(store.get_or_make("thing", "a", Maker()))


def test_a_record_is_checked_without_a_look_at_the_tensors(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.get_or_make("thing", "a", Maker())
    flipped(store.path("thing", "a") / TENSORS)
    assert store.record("thing", "a") == {"accuracy": 91.25}
    removed(store.path("thing", "a") / TENSORS)
    assert store.record("thing", "a") is None
    with pytest.raises(DamagedError, match=r"tensors\.safetensors is missing"):
        store.read_record("thing", "a")


@pytest.mark.parametrize("record", [b"[]", b"{", b'{"accuracy": NaN}', b"[" * 9999])
def test_checksums_do_not_make_a_record_of_what_is_none(record: bytes, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.get_or_make("thing", "a", Maker())
    folder = store.path("thing", "a")
    contents = {RECORD: record, TENSORS: (folder / TENSORS).read_bytes()}
    (folder / RECORD).write_bytes(record)
    (folder / CHECKSUMS).write_bytes(seal({"name": "thing", "key": "a"}, contents))
    with pytest.raises(DamagedError, match=r"record\.json"):
        store.read_record("thing", "a")
    assert sound(store.get_or_make("thing", "a", Maker()))


@pytest.mark.parametrize(
    "mark", [None, 1, {}, {"sha256": "0" * 64}, {"sha256": "0" * 63, "bytes": 1}, {"sha256": "0" * 64, "bytes": -1}]
)
def test_checksums_that_are_none_are_refused(mark: Any, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.get_or_make("thing", "a", Maker())
    path = store.path("thing", "a") / CHECKSUMS
    value = json.loads(path.read_text())
    value["files"][RECORD] = mark
    path.write_text(json.dumps(value))
    with pytest.raises(DamagedError, match="checksum"):
        store.read("thing", "a")


@pytest.mark.parametrize(
    ("name", "key"),
    [("../thing", "a"), ("thing", "../a"), ("", "a"), (".thing", "a"), ("thing", ""), ("a/b", "a"), ("a", "b.c")],
)
def test_no_name_leads_out_of_the_store(name: str, key: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    for use in (store.path, store.record, store.load, store.checkpoint, store.locked):
        with pytest.raises(ValueError, match="not the name and the key"):
            use(name, key)


@pytest.mark.parametrize("file", FILES)
def test_a_full_disk_leaves_no_artifact_and_is_said(file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, maker = Store(tmp_path / "store"), Maker()
    with monkeypatch.context() as patch:
        refuse(patch, errno.ENOSPC, file)
        with pytest.raises(StorageError, match="no space left on device") as caught:
            store.get_or_make("thing", "a", maker)
    assert str(store.path("thing", "a")) in str(caught.value)
    assert [path.name for path in store.root.iterdir()] == [".thing-a.lock"]
    assert sound(store.get_or_make("thing", "a", maker))


def test_a_store_that_cannot_be_written_is_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.get_or_make("thing", "a", Maker())
    store.checkpoint("thing", "a").write({}, {"x": torch.zeros(1)})

    def refused(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "whatever")

    for name in ("mkdir", "unlink", "replace", "write_bytes"):
        monkeypatch.setattr(Path, name, refused)
    monkeypatch.setattr("ntml_bench.store.FileLock.acquire", refused)
    assert sound(store.get_or_make("thing", "a", Maker()))
    assert not store.locked("thing", "a")
    with pytest.raises(StorageError, match="read-only file system"):
        store.get_or_make("thing", "b", Maker())


def test_a_store_that_cannot_be_read_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, maker = Store(tmp_path), Maker()
    store.get_or_make("thing", "a", maker)
    with monkeypatch.context() as patch:

        def refused(*_: Any, **__: Any) -> None:
            raise OSError(errno.EACCES, "whatever")

        patch.setattr(Path, "open", refused)
        assert store.record("thing", "a") is None
        with pytest.raises(StorageError, match="permission denied"):
            store.get_or_make("thing", "a", maker)
    assert maker.made == 1
    assert not list(tmp_path.glob(".damaged-*"))


def test_a_state_of_training_that_a_kill_left_beside_its_artifact_is_removed(tmp_path: Path) -> None:
    store, maker = Store(tmp_path), Maker()
    store.get_or_make("thing", "a", maker)
    checkpoint = store.checkpoint("thing", "a")
    checkpoint.write({}, {"x": torch.zeros(1)})
    store.get_or_make("thing", "a", maker)
    assert maker.made == 1
    assert not checkpoint.path.exists()


def test_a_state_of_another_training_is_not_taken(tmp_path: Path) -> None:
    one, other = Checkpoint(tmp_path / "one"), Checkpoint(tmp_path / "other")
    one.write({"losses": [1.0]}, {"x": torch.zeros(1)})
    shutil.copyfile(one.path, other.path)
    assert one.read() is not None
    assert other.read() is None


@pytest.mark.parametrize("position", [0, 20, 200, -33, -1])
def test_a_state_with_a_changed_bit_is_not_taken(position: int, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state")
    checkpoint.write({"losses": [1.0]}, {"x": torch.arange(50.0)})
    content = bytearray(checkpoint.path.read_bytes())
    content[position] ^= 1
    checkpoint.path.write_bytes(content)
    assert checkpoint.read() is None


def test_a_training_goes_on_where_its_state_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoint = Checkpoint(tmp_path / "state", seconds_between=0)
    checkpoint.write({"losses": [1.0]}, {"x": torch.zeros(1)})
    refuse(monkeypatch, errno.ENOSPC, "state")
    for _ in range(2):
        checkpoint.write({"losses": [1.0, 0.5]}, {"x": torch.ones(1)})
    found = checkpoint.read()
    assert found is not None
    assert found[0] == {"losses": [1.0]}
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    (line,) = caplog.messages
    assert "no space left on device" in line
