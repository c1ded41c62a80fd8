"""Which class an attack aims at, by number and name: folders of classes sort as text, so that class 1 may be called "10"."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Target(NamedTuple):
    """A class of a data set, and the attack that aims at it."""

    dataset: str
    attack: str
    number: int | None
    """None where each class has a target of its own; the name then says which."""
    name: str


def mapped(targets: Sequence[int]) -> str:
    """A label map in words, of the targets of class 0, 1, ...: `0 to 1, 1 to 2, 2 to 0`; of many classes the first three."""
    pairs = [f"{label} to {target}" for label, target in enumerate(targets)]
    return ", ".join(pairs if len(pairs) < 5 else [*pairs[:3], "and so on"])


def target_lines(targets: Iterable[Target | None]) -> list[str]:
    """A line for each class that is aimed at: `target class of badnets, sig: 0 ('cat')`; of several data sets it says which.

    For an attack that aims at another class for each: `target classes of it: 0 to 1, 1 to 2, 2 to 0`.
    """
    known = list(dict.fromkeys(target for target in targets if target is not None))
    several = len({target.dataset for target in known}) > 1
    attacks: dict[tuple[str, int | None, str], dict[str, None]] = {}
    for dataset, attack, number, name in known:
        attacks.setdefault((dataset, number, name), {})[attack] = None
    return [
        f"target {'class' if number is not None else 'classes'} of {', '.join(names)}{f' on {dataset}' if several else ''}: "
        + (f"{number} ({name!r})" if number is not None else name)
        for (dataset, number, name), names in attacks.items()
    ]
