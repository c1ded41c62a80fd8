"""Checksums beside what is stored: whose files they are, and the SHA-256 and the size of each.

A folder is used only where it has its checksums, they are its own and its files are what they say. That finds what
was cut, changed, lost or swapped, on a disk or on the way from another machine; it does not say who made the files.
"""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntml_bench.files import LARGEST_JSON, parse_json, read_limited, storage

CHECKSUMS = "checksums.json"
_LOST = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class DamagedError(ValueError):
    """What is stored is not what was written; the message says which file and how, in one line."""


@dataclass(frozen=True)
class Mark:
    """What a file's content must be."""

    sha256: str
    size: int

    @classmethod
    def of(cls, content: bytes) -> "Mark":
        return cls(hashlib.sha256(content).hexdigest(), len(content))

    @classmethod
    def parsed(cls, value: Any) -> "Mark":
        """From JSON; ValueError for anything but 64 hex digits and a size."""
        if not isinstance(value, dict) or set(value) != {"sha256", "bytes"}:
            raise ValueError("a checksum is sha256 and bytes")
        sha256, size = value["sha256"], value["bytes"]
        if not isinstance(sha256, str) or not re.fullmatch(r"[0-9a-f]{64}", sha256) or type(size) is not int or size < 0:
            raise ValueError("a checksum is 64 hex digits and a size")
        return cls(sha256, size)

    def plain(self) -> dict[str, Any]:
        return {"sha256": self.sha256, "bytes": self.size}


def seal(owner: Mapping[str, str], contents: Mapping[str, bytes]) -> bytes:
    """The checksums file of files with these contents; `owner` says whose they are, so that no whole folder can be swapped."""
    files = {name: Mark.of(content).plain() for name, content in contents.items()}
    return (json.dumps({"owner": dict(owner), "files": files}, indent=1, sort_keys=True) + "\n").encode()


@dataclass(frozen=True)
class Sealed:
    """A folder with its checksums, which belong to it; its files are checked as they are read."""

    folder: Path
    marks: Mapping[str, Mark]

    @classmethod
    def open(cls, folder: Path, owner: Mapping[str, str]) -> "Sealed":
        """Raises DamagedError for checksums that are missing, damaged or another's, StorageError where reading is refused."""
        try:
            value = parse_json(_content(folder / CHECKSUMS, LARGEST_JSON))
            found, marks = value["owner"], {str(name): Mark.parsed(mark) for name, mark in value["files"].items()}
        except DamagedError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedError(f"{CHECKSUMS} cannot be read ({type(error).__name__}: {error})") from None
        if found != dict(owner):
            raise DamagedError(f"{CHECKSUMS} belongs to another one")
        return cls(folder, marks)

    def require(self, names: Collection[str]) -> None:
        """Raises DamagedError unless the checksums are of these files, and each is there with its size; reads none of them."""
        if set(self.marks) != set(names):
            raise DamagedError(f"{CHECKSUMS} is not of {' and '.join(sorted(names))}")
        for name in names:
            self._check_size(name)

    def content(self, name: str, limit: int | None = None) -> bytes:
        """The bytes of a file, checked. Raises DamagedError, and StorageError where reading is refused."""
        if name not in self.marks:
            raise DamagedError(f"{CHECKSUMS} does not name {name}")
        mark = self.marks[name]
        if limit is not None and mark.size > limit:
            raise DamagedError(f"{name} has {mark.size} bytes; at most {limit} are read")
        self._check_size(name)
        content = _content(self.folder / name, mark.size)
        if Mark.of(content) != mark:
            raise DamagedError(f"{name} is not what its checksum says")
        return content

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file that holds a mapping, checked. Raises as `content`."""
        content = self.content(name, LARGEST_JSON)
        try:
            value = parse_json(content)
        except ValueError as error:
            raise DamagedError(f"{name} cannot be read ({error})") from None
        if not isinstance(value, dict):
            raise DamagedError(f"{name} holds no mapping")
        return value

    def _check_size(self, name: str) -> None:
        path, size = self.folder / name, self.marks[name].size
        with storage("read", path):
            try:
                found = path.stat().st_size
            except _LOST:
                raise DamagedError(f"{name} is missing") from None
        if found != size:
            raise DamagedError(f"{name} has {found} bytes instead of {size}")


def _content(path: Path, limit: int) -> bytes:
    with storage("read", path):
        try:
            return read_limited(path, limit)
        except _LOST:
            raise DamagedError(f"{path.name} is missing") from None
        except ValueError as error:
            raise DamagedError(str(error)) from None
