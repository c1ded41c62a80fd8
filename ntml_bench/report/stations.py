"""The figures of the page, cell by cell, so that one cell's are shown at a time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from markupsafe import Markup

from ntml_bench.report.grid import Grid
from ntml_bench.table.summary import Block
from ntml_bench.table.view import heading_of

ELSEWHERE = ("gallery",)
"""Kinds of figures that the page shows in its own way."""
WHOLE = "all"


class Drawing(Protocol):
    """What the page asks of a figure; its place by labels, None where it is of all of them."""

    @property
    def kind(self) -> str: ...
    @property
    def dataset(self) -> str: ...
    @property
    def model(self) -> str | None: ...
    @property
    def attack(self) -> str | None: ...
    @property
    def defense(self) -> str | None: ...
    @property
    def title(self) -> str: ...
    def svg(self) -> str: ...


@dataclass(frozen=True)
class Picture:
    """A figure and its words; `svg` is ours and goes into the page as it is."""

    kind: str
    title: str
    svg: Markup


@dataclass(frozen=True)
class Station:
    """All figures of one place of the table. `choice`: what it is chosen by, an index a chooser."""

    id: str
    title: str
    choice: str
    drawings: tuple[Picture, ...]


@dataclass(frozen=True)
class Chooser:
    """A list to choose from."""

    name: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Stations:
    """`of_place`: the id of the figures by the id of the place in the table."""

    stations: tuple[Station, ...]
    choosers: tuple[Chooser, ...]
    of_place: dict[str, str] = field(hash=False)


def stations_of(drawings: Iterable[Drawing], grids: Sequence[Grid], blocks: Sequence[Block]) -> Stations:
    """In the order of the figures."""
    by_place: dict[tuple[int, str, str], list[Drawing]] = {}
    for drawing in drawings:
        if drawing.kind not in ELSEWHERE:
            where = (_index(drawing, blocks), drawing.attack or WHOLE, drawing.defense or WHOLE)
            by_place.setdefault(where, []).append(drawing)
    names = [[heading_of(blocks[place[0]]) for place in by_place], [p[1] for p in by_place], [p[2] for p in by_place]]
    options = [tuple(dict.fromkeys(column)) for column in names]
    shown = range(0 if len(options[0]) > 1 else 1, len(options))
    stations, of_place = [], {}
    for number, (place, found) in enumerate(by_place.items()):
        words = [names[group][number] for group in shown]
        identity = f"seen-{number}"
        stations.append(
            Station(
                id=identity,
                title=" × ".join(words),
                choice=" ".join(str(options[group].index(names[group][number])) for group in shown),
                drawings=tuple(Picture(drawing.kind, drawing.title, Markup(drawing.svg())) for drawing in found),
            )
        )
        of_place |= {spot: identity for spot in _spots(grids[place[0]], place[1], place[2])}
    labels = ("data", "attack", "defense")
    return Stations(tuple(stations), tuple(Chooser(labels[group], options[group]) for group in shown), of_place)


def _index(drawing: Drawing, blocks: Sequence[Block]) -> int:
    """The block that it belongs to; a figure of all models of a data set stands with the first."""
    wanted = [block for block in blocks if block.dataset == drawing.dataset and drawing.model in (None, block.model)]
    return blocks.index(wanted[0])


def _spots(grid: Grid, attack: str, defense: str) -> list[str]:
    return [
        place.id
        for row in grid.rows
        for place in row.places
        if place.sources and (place.attack, place.defense) == (attack, defense)
    ]
