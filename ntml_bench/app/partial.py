"""Settings of a sweep that not every chosen option has: `-m defense=none,ft defense.recipe.epochs=1`.

GROUP.KEY=VALUE holds for the cells whose option of the group has that key. Where none has it, it is a mistake. Hydra itself
would hold it against the default option of the group, which the sweep need not contain.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from ntml_bench.app.explain import unknown_setting
from ntml_bench.errors import UserError

GROUPS = ("dataset", "model", "attack", "defense", "training")
"""Whose options have settings of their own, which a cell is made from."""
SETTING = re.compile(rf"(({'|'.join(GROUPS)})\.[^=@]+)=(.+)", re.DOTALL)
WRAPPED = re.compile(r"([^=]+)=choice\((.+)\)", re.DOTALL)


def left_to_the_cells(words: Sequence[str], key: str) -> list[str] | None:
    """The words of a command line with that setting as a sweep of one value: Hydra then holds it against the cells alone.

    None where there is no such word, or it is a sweep already.
    """
    changed = [_wrapped(word) if word.partition("=")[0] == key else word for word in words]
    return None if changed == list(words) else changed


def _wrapped(word: str) -> str:
    found = SETTING.fullmatch(word)
    return f"{found[1]}=choice({found[3]})" if found and not WRAPPED.fullmatch(word) else word


def unwrapped(word: str) -> str:
    """The setting as it was typed: a search would take a choice of one value for something to be searched."""
    found = WRAPPED.fullmatch(word)
    return f"{found[1]}={found[2]}" if found and SETTING.fullmatch(word) and not _is_several(found[2]) else word


def _is_several(text: str) -> bool:
    return "," in text and text[0] not in "[{\"'"


def fitted(grid: Sequence[Sequence[str]], accepts: Callable[[Sequence[str], str], bool]) -> tuple[list[list[str]], list[str]]:
    """A grid of overrides, each cell without those that its options do not have; and a line for each that not all have.

    `accepts(overrides, key)`: whether a cell of these overrides has that setting; asked once for each option. Cells that
    become the same are one. Raises UserError for a setting that no cell has.
    """
    cells = [dict(_parted(word) for word in cell) for cell in grid]
    swept = {group for group in GROUPS if len({cell.get(group) for cell in cells}) > 1}
    verdicts: dict[str, dict[str, bool]] = {}
    for cell in cells:
        wanted = _settings(cell, swept)
        bare = [word for key, word in cell.items() if key not in wanted]
        for key, group in wanted.items():
            known = verdicts.setdefault(key, {})
            option = cell[group].partition("=")[2]
            if option not in known:
                known[option] = accepts([*bare, cell[key]], key)
    lines = []
    for key, known in verdicts.items():
        has, lacks = ([option for option, verdict in known.items() if verdict is wanted] for wanted in (True, False))
        if not has:
            raise UserError(unknown_setting(key))
        if lacks:
            lines.append(f"{key} holds for {', '.join(has)}; not for {', '.join(lacks)}, which {_have(lacks)} no such setting")
    if not lines:
        return [list(cell) for cell in grid], []
    kept = [
        tuple(word for key, word in cell.items() if _holds(verdicts.get(key), cell.get(key.partition(".")[0])))
        for cell in cells
    ]
    return [list(cell) for cell in dict.fromkeys(kept)], lines


def _parted(word: str) -> tuple[str, str]:
    return word.partition("=")[0], word


def _settings(cell: Mapping[str, str], swept: set[str]) -> dict[str, str]:
    """The settings of options that are swept, each with its group."""
    found = {key: SETTING.fullmatch(word) for key, word in cell.items()}
    return {key: match[2] for key, match in found.items() if match and match[2] in swept and match[2] in cell}


def _holds(known: Mapping[str, bool] | None, choice: str | None) -> bool:
    return known is None or choice is None or known[choice.partition("=")[2]]


def _have(options: Sequence[str]) -> str:
    return "has" if len(options) == 1 else "have"
