"""Files written whole or not at all, what a disk refuses, and JSON that is refused."""

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntml_bench import files
from ntml_bench.errors import UserError
from ntml_bench.files import DEEPEST_JSON, StorageError, parse_json, read_json, read_limited, write_file

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@given(VALUES)
@settings(deadline=None)
def test_what_json_says_is_read_as_it_was_meant(value: Any) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=40) | st.text(alphabet='{}[]":,0123456789eE+-.Natrufl\\sd', max_size=40).map(str.encode))
@settings(deadline=None)
def test_anything_else_is_a_value_or_a_value_error(content: bytes) -> None:
    try:
        value = parse_json(content)
    except ValueError:
        return
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": NaN}', "NaN is no number"),
        (b"[-Infinity]", "-Infinity is no number"),
        (b"[1e999]", "1e999 is beyond"),
        (b'["\\ud800"]', "surrogates"),
        (b"\xff", "decode"),
        (b"", "Expecting value"),
        (nested(DEEPEST_JSON + 1), "more than 64 deep"),
        (nested(100_000), "more than 64 deep"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "more than 64 deep"),
        (b"1" * 5000, "4300 digits"),
    ],
)
def test_json_that_is_none_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(content)


def test_json_within_the_bounds_is_not_refused() -> None:
    assert parse_json(nested(DEEPEST_JSON)) is not None
    assert parse_json(b'["\\ud83d\\ude00", "\\\\ud800"]') == ["\N{GRINNING FACE}", "\\ud800"]


def test_a_file_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(10**12)  # takes no room on the disk, and would take a terabyte of memory
    with pytest.raises(ValueError, match=r"large\.json has 1000000000000 bytes; at most 67108864 are read"):
        read_json(path)
    path.write_bytes(b"1234")
    assert read_limited(path, 4) == b"1234"
    with pytest.raises(ValueError, match="at most 3"):
        read_limited(path, 3)
    with pytest.raises(ValueError, match="not a file"):
        read_json(tmp_path)


def refuse(monkeypatch: pytest.MonkeyPatch, number: int, part: str) -> None:
    """Writing to a path that contains `part` fails after its first byte, as on a full disk or a read-only one."""
    genuine = Path.write_bytes

    def write_bytes(path: Path, content: bytes) -> int:
        if part in str(path):
            genuine(path, content[:1])
            raise OSError(number, "whatever")
        return genuine(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.ENOSPC, "no space left on device"), (errno.EROFS, "read-only"), (errno.EACCES, "permission")]
)
def test_what_the_disk_refuses_is_said_and_leaves_nothing(
    number: int, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder" / "file"
    write_file(path, b"old")
    with monkeypatch.context() as patch:
        refuse(patch, number, "file")
        with pytest.raises(StorageError, match=reason) as caught:
            write_file(path, b"new")
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, UserError)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_file(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*store/file: not a directory|file exists"):
        write_file(tmp_path / "store" / "file", b"")


def test_temporary_names_are_hidden_once() -> None:
    for name in ("file", ".file", "..file"):
        assert files.temporary_path(Path(name)).name.startswith(".file.tmp-")
