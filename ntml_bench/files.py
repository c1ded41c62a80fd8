"""Files that are written whole or not at all, JSON that is read strictly, and what the disk says put into words."""

import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from ntml_bench.errors import UserError

LARGEST_JSON = 64 * 2**20
"""Bytes; a record has some ten thousand. A larger file is refused before it is read."""
DEEPEST_JSON = 64
"""Containers within containers; a record has six. Deeper ones would end in a RecursionError somewhere."""


class StorageError(UserError):
    """A file or folder cannot be read or written (a full disk, a read-only folder); the message names it and the reason."""


@contextmanager
def storage(action: str, path: Path) -> Iterator[None]:
    """What the operating system refuses inside becomes a StorageError: cannot ACTION PATH, and why."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise StorageError(f"cannot {action} {path}: {reason}") from error


def temporary_path(path: Path) -> Path:
    """A hidden name beside `path`, on the same file system, that nobody else uses."""
    return path.with_name(f".{path.name.lstrip('.')}.tmp-{uuid4().hex}")


def write_file(path: Path, content: bytes) -> None:
    """Write so that a reader sees the old file or the whole new one. Raises StorageError, and then leaves nothing behind."""
    temporary = temporary_path(path)
    with storage("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def read_limited(path: Path, limit: int) -> bytes:
    """The bytes of a file that has `limit` at most; ValueError for a larger one and for what is no file, OSError as usual."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path.name} is not a file")
    with path.open("rb") as file:
        content = file.read(limit + 1) if status.st_size <= limit else b""
    if status.st_size > limit or len(content) > limit:
        raise ValueError(f"{path.name} has {status.st_size} bytes; at most {limit} are read")
    return content


def read_json(path: Path) -> Any:
    """What a JSON file says; ValueError for what `parse_json` refuses, OSError as usual."""
    return parse_json(read_limited(path, LARGEST_JSON))


def parse_json(content: bytes) -> Any:
    """JSON as its standard has it: no NaN, no number that is none, no half of a character, not nested beyond reason.

    ValueError for anything else.
    """
    text = content.decode()
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError(f"it is nested more than {DEEPEST_JSON} deep") from None
    _check_depth(value)
    if "\\ud" in text or "\\uD" in text:
        # Half of a pair cannot be written to any file or terminal later.
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:20]} is beyond the numbers of a computer")
    return value


def _check_depth(value: Any) -> None:
    layer = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST_JSON):
        layer = [item for container in layer for item in _items(container) if isinstance(item, dict | list)]
        if not layer:
            return
    raise ValueError(f"it is nested more than {DEEPEST_JSON} deep")


def _items(container: "dict[str, Any] | list[Any]") -> Iterable[Any]:
    return container.values() if isinstance(container, dict) else container
