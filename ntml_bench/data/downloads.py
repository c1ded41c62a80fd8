"""Where a downloadable data set lies: in the user's folder as it is, or in the download folder, fetched when needed."""

import socket
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from ntml_bench.errors import UserError
from ntml_bench.locks import held

TIMEOUT = 30.0
"""Seconds without an answer after which a server counts as out of reach; urllib would wait for ever."""


def given_root(root: str | None, *, or_file: bool = False) -> Path | None:
    """The folder of `dataset.root`, absolute, or None where it is null; UserError where there is no such folder.

    `or_file`: it may be a file, too.
    """
    if root is None:
        return None
    folder = absolute(root)
    if not (folder.is_dir() or (or_file and folder.is_file())):
        what = "folder or file" if or_file else "folder"
        raise UserError(f"dataset.root is '{root}'; there is no {what} {folder} (null downloads the data set)")
    return folder


def absolute(root: str) -> Path:
    """The place that `dataset.root` means, which need not be there. Raises UserError where nobody could look."""
    try:
        place = Path(root).expanduser().resolve()
        place.is_dir()  # which may not be allowed, or make no sense
    except (OSError, RuntimeError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"dataset.root is {root!r}; it cannot be looked at: {said}") from None
    return place


def fetch(what: str, folder: Path, problem: Callable[[], str | None], download: Callable[[], object]) -> None:
    """Run `download` into `folder` unless `problem` finds nothing to complain of, and see that it then does not.

    Of two processes at once one downloads. Raises UserError where the download fails or leaves a problem.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder / ".download.lock"):
        before = problem()
        if before is None:
            return
        advice = f"dataset.root=FOLDER uses a copy of {what} that you have"
        try:
            with _timeout():
                download()
        except (OSError, RuntimeError, EOFError, HTTPException, tarfile.TarError, zipfile.BadZipFile) as error:
            raise UserError(f"{what} is not in {folder} ({before}), and the download failed: {error}. {advice}.") from None
        after = problem()
        if after is not None:
            raise UserError(f"{what} was downloaded to {folder}, but is not complete: {after}. {advice}.")


@contextmanager
def _timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
