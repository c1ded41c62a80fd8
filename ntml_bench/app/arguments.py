"""The command line before Hydra sees it: flags that exclude each other, settings that Hydra ends in a traceback for."""

import os
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from ntml_bench.app.composition import config_folder
from ntml_bench.errors import UserError

COMMANDS = {
    "run": "--run",
    "multirun": "--multirun",
    "cfg": "--cfg",
    "info": "--info",
    "shell_completion": "--shell-completion",
}
SHELLS = ("bash", "fish", "zsh")
SETTING = "a setting is written key=value"


def checked(words: Sequence[str]) -> list[str]:
    """The words of a command line, the settings last: Hydra takes no settings on both sides of a flag. Raises UserError."""
    parser = get_args_parser()
    parser.error = _refuse  # pyright: ignore[reportAttributeAccessIssue]
    found, unknown = parser.parse_known_intermixed_args(list(words))
    if unknown:
        raise UserError(f"unknown flag {unknown[0]}; ntml-bench --hydra-help lists the flags, and {SETTING}")
    settings: list[str] = found.overrides
    _check_flags(found)
    if found.shell_completion:
        _check_completion(settings)
    else:
        for setting in settings:
            check_setting(setting)
    return list(words) if _in_one_place(parser, words) else [*_without(words, settings), *settings]


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message}; ntml-bench --hydra-help lists the flags, and {SETTING}")


def _in_one_place(parser: ArgumentParser, words: Sequence[str]) -> bool:
    return not parser.parse_known_args(list(words))[1]


def _without(words: Sequence[str], settings: Sequence[str]) -> list[str]:
    left = list(words)[::-1]  # from the end: a flag's value that reads like a setting stands before it
    for setting in settings:
        left.remove(setting)
    return left[::-1]


def _check_flags(found: Namespace) -> None:
    if found.experimental_rerun is not None:
        raise UserError("--experimental-rerun reads a pickle, which may run anything; the same command finds what is stored")
    given = [flag for name, flag in COMMANDS.items() if getattr(found, name)]
    if len(given) > 1 and not (found.help or found.hydra_help):
        advice = "; --cfg shows the config of one cell: leave -m away" if found.multirun and found.cfg else ""
        raise UserError(f"{' and '.join(given)} exclude each other{advice}")
    if found.resolve and found.cfg is None and not found.help:
        raise UserError("--resolve belongs to --cfg (ntml-bench --cfg job --resolve) or --help")


def _check_completion(words: Sequence[str]) -> None:
    name, _, shell = words[0].partition("=") if len(words) == 1 else ("", "", "")
    if name not in ("install", "uninstall", "query") or shell not in SHELLS:
        raise UserError(f"--shell-completion takes install=SHELL or uninstall=SHELL; SHELL is one of: {', '.join(SHELLS)}")
    if name == "query" and "COMP_LINE" not in os.environ and shell != "fish":
        raise UserError(f"query={shell} is what the completion asks itself; install={shell} prints what to put into the shell")


def check_setting(word: str) -> None:
    """Raise UserError for a setting that Hydra would not understand, or not in the way that its writer means."""
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException:
        raise UserError(_unreadable(word)) from None
    group = override.key_or_group
    # What Hydra says of a wrong name is put into words where it says it.
    is_group = bool(group) and ("/" in group or (config_folder("conf") / group).is_dir())
    if override.is_delete():
        if is_group:
            raise UserError(f"{word}: every cell has an option of {group}; {group}=NAME chooses another")
        return
    if not group:
        raise UserError(f"{word!r} names no setting; {SETTING}")
    if word.endswith("=") and word.count("=") == 1:
        raise UserError(f"{word} has no value (null is none, '.' this folder); {SETTING}")
    if is_group and override.package is None:
        if override.is_add() or override.is_force_add():
            raise UserError(f"{word}: {group} has an option already, which {word.lstrip('+')} changes")
        if not override.is_sweep_override() and (not isinstance(override.value(), str) or "${" in word):
            several = f", a sweep over several -m {group}=NAME,NAME" if isinstance(override.value(), list) else ""
            raise UserError(f"{word}: {group} takes the name of one option{several}; ntml-bench --help lists them")
    if override.is_sweep_override() and override.is_discrete_sweep() and not _choices(override):
        raise UserError(f"{word} names no value to sweep over")


def _choices(override: Override) -> bool:
    return next(iter(override.sweep_string_iterator()), None) is not None


def _unreadable(word: str) -> str:
    """What is wrong with a word that Hydra cannot read, and how it is typed."""
    key, equals, _ = word.partition("=")
    if not equals:
        groups = [path.parent.name for path in sorted(config_folder("conf").glob(f"*/{_plain(word)}.yaml"))]
        named = f" (did you mean {' or '.join(f'{group}={word}' for group in groups)}?)" if groups else ""
        return f"{word!r} is no setting{named}; {SETTING}"
    value = word.removeprefix(f"{key}=")
    if value.startswith("~"):
        return f"{word}: '~' is not your home here; {key}=$HOME{value[1:]} names it"
    typed = quoted(word)
    if typed is None or value.startswith(("[", "{")) or value.endswith(",") or (config_folder("conf") / key).is_dir():
        return f"{word!r} cannot be read; {SETTING}, lists as key=[one,two]"
    return f"the value of {key} has characters that need quotes: {typed}"


def _plain(word: str) -> str:
    return word if word.replace("_", "").isalnum() else "-"


def quoted(word: str) -> str | None:
    """`key=value` as a shell takes it, the value in quotes; None where that cannot be read either."""
    key, _, value = word.partition("=")
    for mark in ('"', "'"):
        inner = f"{key}={mark}{value.replace(mark, chr(92) + mark)}{mark}"
        try:
            override = OverridesParser.create().parse_override(inner)
        except HydraException:
            continue
        if override.key_or_group == key.lstrip("+") and override.value() == value:
            return shlex.quote(inner)
    return None
