"""Processes found by their environment, in /proc: also those whose parents are gone."""

import contextlib
import os
from pathlib import Path


def started_with(variable: str) -> list[int]:
    """All that run and had `NAME=VALUE` in their environment when they began, but for this process and those it runs in."""
    mine, pid = set(), os.getpid()
    while pid:
        mine.add(pid)
        pid = _parent(pid)
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [pid for pid in pids if pid not in mine and variable in environment(pid)]


def environment(pid: int) -> list[str]:
    """`NAME=VALUE` each; none of a process that ended, or is a zombie."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def open_files(pid: int) -> list[str]:
    try:
        return [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return []


def kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
