"""Keyed, atomic, locked storage of what a stage made: tensors as safetensors, the rest as JSON. Nothing is pickled.

An artifact is a folder `NAME-KEY`. It is written under a temporary name and renamed last, so a reader sees all of it
or nothing. A file lock beside it makes the second of two racing processes wait, and then read. Checksums in it say
whose it is and what its files hold: one that is damaged is never used, but set aside and made anew.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from filelock import FileLock, Timeout

from ntml_bench.checkpoint import Checkpoint
from ntml_bench.files import StorageError, move_folder, storage, temporary_path, write_file
from ntml_bench.integrity import CHECKSUMS, DamagedError, Sealed, seal
from ntml_bench.locks import held

if TYPE_CHECKING:
    from torch import Tensor

RECORD = "record.json"
TENSORS = "tensors.safetensors"
_LOGGER = logging.getLogger(__name__)


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


class LockedError(Exception):
    """Some process is at work on the artifact."""


class Store:
    """Artifacts below one folder; `warn` is told of those that were damaged."""

    def __init__(self, root: Path, warn: Callable[[str], None] = _LOGGER.warning) -> None:
        self.root = root
        self.warn = warn

    def path(self, name: str, key: str) -> Path:
        # Nothing that a manifest or an archive says may lead out of the store.
        if not re.fullmatch(r"[^./\\\0][^/\\\0]*", name) or not re.fullmatch(r"\w+", key):
            raise ValueError(f"{name!r} and {key!r} are not the name and the key of an artifact")
        return self.root / f"{name}-{key}"

    def record(self, name: str, key: str) -> dict[str, Any] | None:
        """The record alone, or None where there is no artifact that can be used."""
        with suppress(DamagedError, StorageError):
            return self.read_record(name, key)
        return None

    def load(self, name: str, key: str) -> Artifact | None:
        """Record and tensors (on the CPU), or None where there is no artifact that can be used."""
        with suppress(DamagedError, StorageError):
            return self.read(name, key)
        return None

    def read_record(self, name: str, key: str) -> dict[str, Any] | None:
        """The record alone; None where there is no artifact. Raises DamagedError, and StorageError where reading is refused.

        The tensors must be there, but are not read.
        """
        sealed = self._sealed(name, key)
        return None if sealed is None else sealed.json(RECORD)

    def read(self, name: str, key: str) -> Artifact | None:
        """Record and tensors (on the CPU); None where there is no artifact. Raises as `read_record`."""
        sealed = self._sealed(name, key)
        if sealed is None:
            return None
        from safetensors import SafetensorError  # here, so that reading records does not import torch
        from safetensors.torch import load

        # What is parsed are the very bytes that were checked.
        content = sealed.content(TENSORS)
        try:
            return Artifact(sealed.json(RECORD), load(content))
        except SafetensorError as error:
            raise DamagedError(f"{TENSORS} cannot be read ({error})") from None

    def arrays(self, name: str, key: str, limit: int) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Record and tensors as arrays of numpy, without torch; None where no artifact of at most `limit` bytes can be used."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        with suppress(DamagedError, StorageError, SafetensorError, KeyError, ValueError, TypeError):
            sealed = self._sealed(name, key)
            if sealed is not None:
                # What numpy has no type for is refused as it comes.
                return sealed.json(RECORD), load(sealed.content(TENSORS, limit))
        return None

    def _sealed(self, name: str, key: str) -> Sealed | None:
        path = self.path(name, key)
        with storage("read", path):
            try:
                path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        sealed = Sealed.open(path, _owner(name, key))
        sealed.require((RECORD, TENSORS))
        return sealed

    def get_or_make(self, name: str, key: str, make: Callable[[], Artifact]) -> Artifact:
        """The stored artifact, or the one that `make` returns, stored; of two processes at once one makes it.

        Raises StorageError where the store cannot be read or written.
        """
        try:
            found = self.read(name, key)
        except DamagedError:
            found = None  # looked at again below, where nobody else is about to put another in its place
        checkpoint = self.checkpoint(name, key)
        if found is None:
            with self.lock(name, key):
                found = self._read_or_set_aside(name, key)
                if found is None:
                    found = make()
                    self._write(name, key, found)
                    checkpoint.remove()
        if checkpoint.path.exists():
            checkpoint.remove()  # a kill between the artifact and its removal left it
        return found

    def place(self, name: str, key: str, folder: Path) -> bool:
        """Move a folder that holds this artifact into the store, unless there is a sound one; whether it was moved.

        Raises StorageError.
        """
        with self.lock(name, key):
            if self._read_or_set_aside(name, key) is not None:
                return False
            move_folder(folder, self.path(name, key))
            return True

    def checkpoint(self, name: str, key: str) -> Checkpoint:
        """Where the training that an artifact is made by leaves its state; removed when the artifact is written."""
        return Checkpoint(self._beside(name, key, "checkpoint"))

    @contextmanager
    def lock(self, name: str, key: str, *, wait: bool = True) -> Iterator[None]:
        """Held by one process at a time; the operating system frees it when that process ends, however it ends.

        Raises LockedError where it is held and `wait` is false.
        """
        with ExitStack() as stack:
            with storage("write to", self.root):
                self.root.mkdir(parents=True, exist_ok=True)
                try:
                    stack.enter_context(held(self._lock_path(name, key), warn=self.warn, wait=wait))
                except Timeout:
                    raise LockedError(f"{name}-{key}") from None
            yield

    def locked(self, name: str, key: str) -> bool:
        """Whether some process holds the lock now; no, where nobody could (a read-only folder)."""
        path = self._lock_path(name, key)
        try:
            if path.exists():
                with FileLock(path, timeout=0):
                    return False
            return False
        except Timeout:
            return True
        except OSError:
            return False

    def _lock_path(self, name: str, key: str) -> Path:
        return self._beside(name, key, "lock")

    def _beside(self, name: str, key: str, what: str) -> Path:
        return self.root / f".{self.path(name, key).name}.{what}"

    def _read_or_set_aside(self, name: str, key: str) -> Artifact | None:
        try:
            return self.read(name, key)
        except DamagedError as error:
            path = self.path(name, key)
            aside = self.root / f".damaged-{path.name}-{uuid4().hex[:8]}"
            with storage("set aside", path):
                path.replace(aside)
            self.warn(f"{path} is damaged: {error}. It is set aside as {aside.name}; another takes its place.")
            return None

    def _write(self, name: str, key: str, artifact: Artifact) -> None:
        from safetensors.torch import save

        target = self.path(name, key)
        # Left-overs of killed writers are removed here, where the lock says that nobody else writes this artifact.
        for stale in self.root.glob(f".{target.name}.tmp-*"):
            shutil.rmtree(stale, ignore_errors=True)
        # Copies, because a net may use one weight in two places, which safetensors refuses.
        tensors = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in artifact.tensors.items()}
        contents = {TENSORS: save(tensors), RECORD: _json(artifact.record)}
        contents[CHECKSUMS] = seal(_owner(name, key), contents)
        temporary = temporary_path(target)
        with storage("write", target):
            try:
                temporary.mkdir(parents=True)
                for file, content in contents.items():
                    (temporary / file).write_bytes(content)
                temporary.replace(target)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the whole new one. Raises StorageError."""
    write_file(path, _json(value))


def _json(value: Any) -> bytes:
    return (json.dumps(plain(value), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _owner(name: str, key: str) -> dict[str, str]:
    return {"name": name, "key": key}
