"""Keyed, atomic, locked storage of what a stage made: tensors as safetensors, the rest as JSON. Nothing is pickled.

An artifact is a folder `NAME-KEY`. It is written under a temporary name and renamed last, so a reader sees all of it
or nothing. A file lock beside it makes the second of two racing processes wait, and then read.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from filelock import FileLock, Timeout

from ntml_bench.checkpoint import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

RECORD = "record.json"
TENSORS = "tensors.safetensors"


def key_of(settings: Mapping[str, Any]) -> str:
    """16 hex digits that depend on the values only, not on the order of keys (`schema.build` makes one value of 1 and 1.0)."""
    text = json.dumps(plain(settings), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """Settings as JSON values: dataclasses become dicts, tuples lists, paths strings."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


@dataclass(frozen=True)
class Artifact:
    """What a stage left: a JSON record and named tensors."""

    record: dict[str, Any]
    tensors: "dict[str, Tensor]"


class Store:
    """Artifacts below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str, key: str) -> Path:
        return self.root / f"{name}-{key}"

    def record(self, name: str, key: str) -> dict[str, Any] | None:
        """The record alone, or None where the artifact is not there."""
        path = self.path(name, key) / RECORD
        try:
            return json.loads(path.read_text())
        except FileNotFoundError:
            return None

    def load(self, name: str, key: str) -> Artifact | None:
        """Record and tensors (on the CPU), or None where the artifact is not there."""
        from safetensors.torch import load_file  # here, so that reading records does not import torch

        record = self.record(name, key)
        if record is None:
            return None
        return Artifact(record, load_file(self.path(name, key) / TENSORS))

    def get_or_make(self, name: str, key: str, make: Callable[[], Artifact]) -> Artifact:
        """The stored artifact, or the one that `make` returns, stored; of two processes at once one makes it."""
        found = self.load(name, key)
        if found is None:
            with self.lock(name, key):
                found = self.load(name, key)
                if found is None:
                    found = make()
                    self._write(self.path(name, key), found)
                    self.checkpoint(name, key).remove()
        return found

    def checkpoint(self, name: str, key: str) -> Checkpoint:
        """Where the training that an artifact is made by leaves its state; removed when the artifact is written."""
        return Checkpoint(self.root / f".{name}-{key}.checkpoint")

    @contextmanager
    def lock(self, name: str, key: str) -> Iterator[None]:
        """Held by one process at a time; the operating system frees it when that process ends, however it ends."""
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self._lock_path(name, key)):
            yield

    def locked(self, name: str, key: str) -> bool:
        """Whether some process holds the lock now."""
        if not self._lock_path(name, key).exists():
            return False
        try:
            with FileLock(self._lock_path(name, key), timeout=0):
                return False
        except Timeout:
            return True

    def _lock_path(self, name: str, key: str) -> Path:
        return self.root / f".{name}-{key}.lock"

    def _write(self, target: Path, artifact: Artifact) -> None:
        from safetensors.torch import save_file

        # Left-overs of killed writers are removed here, where the lock says that nobody else writes this artifact.
        for stale in self.root.glob(f".{target.name}.tmp-*"):
            shutil.rmtree(stale, ignore_errors=True)
        temporary = self.root / f".{target.name}.tmp-{uuid4().hex}"
        temporary.mkdir(parents=True)
        save_file({key: tensor.detach().cpu().contiguous() for key, tensor in artifact.tensors.items()}, temporary / TENSORS)
        write_json(temporary / RECORD, artifact.record)
        temporary.replace(target)


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{uuid4().hex}")
    temporary.write_text(json.dumps(plain(value), indent=1, sort_keys=True, allow_nan=False) + "\n")
    temporary.replace(path)
