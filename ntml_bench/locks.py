"""Locks between processes that say whom they wait for.

The operating system frees a lock when its process ends. A file system without flock knows no such locks: there the file itself
is the lock, and a process that was killed on another machine leaves it behind, for ever.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname

from filelock import FileLock, SoftFileLock, Timeout

from ntml_bench.files import temporary_path

SECONDS_OF_SILENCE = 10.0
"""A lock that is waited for longer is spoken of."""
SECONDS_BETWEEN_LINES = 300.0
_LOGGER = logging.getLogger(__name__)


@contextmanager
def held(path: Path, *, warn: Callable[[str], None] = _LOGGER.warning, wait: bool = True) -> Iterator[None]:
    """Hold the lock file at `path`; `warn` is told of a long wait, again every few minutes.

    Raises Timeout where another process holds it and `wait` is false, and OSError where nobody could.
    """
    lock = FileLock(path)
    _acquire(lock, path, warn, wait)
    holder = _holder_path(path)
    # Who waits reads it. It is only a help: where it cannot be written the lock is held all the same.
    with suppress(OSError):
        me = {"host": gethostname(), "process": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        holder.write_text(json.dumps(me))
    try:
        yield
    finally:
        with suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()


def _acquire(lock: FileLock, path: Path, warn: Callable[[str], None], wait: bool) -> None:
    start = time.monotonic()
    seconds = SECONDS_OF_SILENCE if wait else 0.0
    while True:
        try:
            lock.acquire(timeout=seconds)
            return
        except Timeout:
            if not path.exists():
                # A folder in which no file can be made looks to filelock like a lock that somebody holds.
                probe = temporary_path(path)
                probe.touch()
                probe.unlink()
            elif not wait:
                raise
            else:
                warn(_line(lock, path, time.monotonic() - start))
            seconds = SECONDS_BETWEEN_LINES if wait else 0.0


def _line(lock: FileLock, path: Path, seconds: float) -> str:
    line = f"waiting for {path} since {seconds:.0f} s: {_holder(path)} holds it"
    if isinstance(lock, SoftFileLock):
        line += "; this file system has no locks that end with their process: where that one is gone, remove the file"
    return line


def _holder(path: Path) -> str:
    try:
        found = json.loads(_holder_path(path).read_text())
        return f"process {found['process']} on {found['host']}, since {found['since']},"
    except (OSError, ValueError, KeyError, TypeError):
        pass
    with suppress(OSError, ValueError):
        # What filelock itself writes where the file is the lock.
        process, host, *_ = path.read_text().splitlines()
        since = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
        return f"process {int(process)} on {host}, since {since},"
    return "another process"


def _holder_path(path: Path) -> Path:
    return path.with_name(f"{path.name}-holder")
