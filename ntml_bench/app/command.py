"""The command that made a sweep, as it was typed: written down beside the cells, where it may come into git."""

import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PROGRAM = "ntml-bench"
JOIN = " && "
"""Between the commands of a sweep that several made."""
PLACE = re.compile(r"(?:[+~]*[\w./@-]+\.root|[+]*outputs|[+]*data_dir)")
"""Settings that name a folder, wherever it is."""
ABSOLUTE = re.compile(r"""(?:^|[\s\[({,:='"])(?:file://)?(?:/|~\w*/|[A-Za-z]:[\\/])""")

_typed: list[str] | None = None


@contextmanager
def as_typed() -> Iterator[list[str]]:
    """The words of the command line; inside, `sys.argv` may be changed for Hydra, and the command stays as it was typed."""
    global _typed
    _typed = words = list(sys.argv)
    try:
        yield words
    finally:
        _typed, sys.argv = None, words


def typed_command(arguments: Sequence[str] | None = None) -> str | None:
    """The command line of this process; None where it is not ntml-bench that was started (a job of a cluster, a worker).

    Where somebody's folders are is nobody else's business: FOLDER stands in their place.
    """
    program, *words = arguments or _typed or sys.argv
    path = Path(program)
    if path.stem != PROGRAM and path.parts[-3:] != ("ntml_bench", "app", "main.py"):
        return None
    return shlex.join([PROGRAM, *map(_without_place, words)])


def joined(known: str | None, command: str | None) -> str | None:
    """Both commands, in their order; a command that is there already is not named again."""
    commands = known.split(JOIN) if known else []
    if command and command not in commands:
        commands.append(command)
    return JOIN.join(commands) or None


def _without_place(word: str) -> str:
    key, equals, value = word.partition("=")
    if not equals:
        return "FOLDER" if ABSOLUTE.match(word) else word
    return f"{key}=FOLDER" if PLACE.fullmatch(key) or ABSOLUTE.search(value) else word
