"""Which class an attack aims at, by number and name: folders of classes sort as text, so that class 1 may be called "10"."""

from collections.abc import Iterable
from typing import NamedTuple


class Target(NamedTuple):
    """A class of a data set, and the attack that aims at it."""

    dataset: str
    attack: str
    number: int
    name: str


def target_lines(targets: Iterable[Target | None]) -> list[str]:
    """A line for each class that is aimed at: `target class of badnets, sig: 0 ('cat')`; of several data sets it says which."""
    known = list(dict.fromkeys(target for target in targets if target is not None))
    several = len({target.dataset for target in known}) > 1
    attacks: dict[tuple[str, int, str], dict[str, None]] = {}
    for dataset, attack, number, name in known:
        attacks.setdefault((dataset, number, name), {})[attack] = None
    return [
        f"target class of {', '.join(names)}{f' on {dataset}' if several else ''}: {number} ({name!r})"
        for (dataset, number, name), names in attacks.items()
    ]
