"""Which groups of a sweep can be held against the reference's, and why the others cannot."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ntml_bench.records.against.runs import Group, Runs
from ntml_bench.records.labels import Labels

ABSENT = "absent"


@dataclass(frozen=True)
class Pair:
    """The same settings on both sides."""

    ours: Group
    theirs: Group


@dataclass(frozen=True)
class Difference:
    """A setting that is not the reference's; `theirs` or `ours` is `absent` where a side has no such setting."""

    key: str
    ours: str
    theirs: str


@dataclass(frozen=True)
class Unpaired:
    """A place that is not compared: for these differences, or, without any, as the reference has nothing of these names."""

    labels: Labels
    differences: tuple[Difference, ...]


def refusal(ours: Runs, theirs: Runs) -> str:
    """Why the two sides cannot be compared at all; empty where they can."""
    if None in theirs.engines:
        return f"'{theirs.name}' was made before sweeps said their engine version, and is no reference"
    if None in ours.engines:
        return f"'{ours.name}' was made before sweeps said their engine version; run it again (what is stored is not repeated)"
    if len(ours.engines | theirs.engines) > 1:
        said = [", ".join(map(str, sorted(filter(None, side.engines)))) for side in (ours, theirs)]
        return f"engine version {said[0]} here, {said[1]} in the reference: the code that both go through has changed"
    return ""


def paired(ours: Runs, theirs: Runs) -> tuple[list[Pair], list[Unpaired]]:
    """Each group of ours, in the order of the table."""
    pairs, unpaired = [], []
    for group in ours.groups:
        candidates = [(_differences(group, other), other) for other in theirs.groups if other.options == group.options]
        if not candidates:
            unpaired.append(Unpaired(group.labels, ()))
            continue
        # Of several, the one that is nearest says best what is different.
        differences, nearest = min(candidates, key=lambda candidate: len(candidate[0]))
        if differences:
            unpaired.append(Unpaired(group.labels, tuple(differences)))
        else:
            pairs.append(Pair(group, nearest))
    return pairs, unpaired


def differences_of(unpaired: Iterable[Unpaired]) -> list[Difference]:
    """All of them, each once."""
    return list(dict.fromkeys(difference for place in unpaired for difference in place.differences))


def _differences(ours: Group, theirs: Group) -> Sequence[Difference]:
    keys = dict.fromkeys((*ours.compared, *theirs.compared))
    return [
        Difference(key, ours.compared.get(key, ABSENT), theirs.compared.get(key, ABSENT))
        for key in keys
        if ours.compared.get(key) != theirs.compared.get(key)
    ]
