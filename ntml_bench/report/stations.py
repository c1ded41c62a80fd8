"""The figures of the page by what they are about, so that those of one attack and one defense are shown at a time.

A figure of a whole block stands above the choice. The others are stations, one an attack: figures of the attack with all its
defenses, and figures of one defense.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from ntml_bench.records.summary import Block
from ntml_bench.records.view import heading_of
from ntml_bench.report.figures.drawing import Drawing, Kind
from ntml_bench.report.grid import Grid

ELSEWHERE = ("gallery", "price")
"""Kinds of figures that the page shows in its own way."""
FIRST = ("features", "confidence", "curves")
"""Kinds in the order of the page: what a defense did first, how it came about last."""
ANY = "*"
WIDE = 300
"""Points; a figure that is wider takes the whole width of the page, and scrolls on a phone."""
VIEW_BOX = re.compile(r'viewBox="\S+ \S+ (\S+) ')


@dataclass(frozen=True)
class Picture:
    """A figure and its words; `svg` is ours and goes into the page as it is. `choice`: an index a chooser, or ANY."""

    id: str
    kind: str
    title: str
    choice: str
    svg: Markup
    wide: bool


@dataclass(frozen=True)
class Station:
    """The figures of one attack."""

    id: str
    title: str
    choice: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Chooser:
    """A list to choose from, and what is chosen at first."""

    name: str
    options: tuple[str, ...]
    first: int


@dataclass(frozen=True)
class Stations:
    """`of_place`: the id of the figures by the id of the place in the table."""

    overviews: tuple[Picture, ...]
    stations: tuple[Station, ...]
    choosers: tuple[Chooser, ...]
    of_place: dict[str, str] = field(hash=False)

    @property
    def any(self) -> bool:
        return bool(self.overviews or self.stations)


def stations_of(drawings: Iterable[Drawing], grids: Sequence[Grid], blocks: Sequence[Block]) -> Stations:
    """Blocks and attacks in the order of the figures."""
    shown = [drawing for drawing in drawings if drawing.kind not in ELSEWHERE]
    about = {id(drawing): (_block(drawing, blocks), drawing.attack, drawing.defense) for drawing in shown}
    choosers = _choosers([about[id(drawing)] for drawing in shown if drawing.attack], blocks)

    def picture(number: int, drawing: Drawing) -> Picture:
        place = about[id(drawing)]
        words = (heading_of(blocks[place[0]]), place[1], place[2])
        svg = drawing.svg()
        return Picture(f"figure-{number}", drawing.kind, drawing.title, _choice(words, choosers), Markup(svg), _is_wide(svg))

    overviews: list[Picture] = []
    by_attack: dict[tuple[int, str], list[Picture]] = {}
    of_cell: dict[tuple[int, str, str], str] = {}
    for number, drawing in enumerate(shown):
        block, attack, defense = about[id(drawing)]
        made = picture(number, drawing)
        if attack is None:
            overviews.append(made)
        else:
            by_attack.setdefault((block, attack), []).append(made)
            if defense is not None:
                of_cell.setdefault((block, attack, defense), made.id)
    stations = [
        Station(
            id=f"attack-{number}",
            title=attack if len(blocks) == 1 else f"{attack}: {heading_of(blocks[block])}",
            choice=_choice((heading_of(blocks[block]), attack, None), choosers),
            pictures=tuple(sorted(pictures, key=lambda picture: FIRST.index(picture.kind) if picture.kind in FIRST else 0)),
        )
        for number, ((block, attack), pictures) in enumerate(by_attack.items())
    ]
    of_place = {
        place.id: of_cell[where]
        for grid in grids
        for row in grid.rows
        for place in row.places
        if (where := (grid.number, place.attack, place.defense)) in of_cell
    }
    return Stations(tuple(overviews), tuple(stations), choosers, of_place)


def overviews_of(drawings: Iterable[Drawing], kind: Kind) -> tuple[Picture, ...]:
    """The figures of that kind, for a section of their own: each of a whole block, so that none is chosen."""
    shown = [(drawing, drawing.svg()) for drawing in drawings if drawing.kind == kind]
    return tuple(
        Picture(f"figure-{kind}-{number}", kind, drawing.title, "", Markup(svg), _is_wide(svg))
        for number, (drawing, svg) in enumerate(shown)
    )


def _is_wide(svg: str) -> bool:
    box = VIEW_BOX.search(svg)
    return box is not None and float(box[1]) > WIDE


def _block(drawing: Drawing, blocks: Sequence[Block]) -> int:
    """The block that it belongs to; a figure of all models of a data set stands with the first."""
    wanted = [block for block in blocks if block.dataset == drawing.dataset and drawing.model in (None, block.model)]
    return blocks.index(wanted[0])


def _choosers(places: Sequence[tuple[int, str | None, str | None]], blocks: Sequence[Block]) -> tuple[Chooser, ...]:
    """Of data, attack and defense those that there are several of."""
    columns = {
        "data": [heading_of(blocks[block]) for block, _, _ in places],
        "attack": [attack for _, attack, _ in places],
        "defense": [defense for _, _, defense in places],
    }
    best = [row.best for block in blocks for row in (*([block.average] if block.average else []), *block.rows) if row.best]
    choosers = []
    for name, column in columns.items():
        options = tuple(dict.fromkeys(label for label in column if label is not None))
        if len(options) > 1:
            first = next((options.index(label) for label in best if name == "defense" and label in options), 0)
            choosers.append(Chooser(name, options, first))
    return tuple(choosers)


def _choice(words: tuple[str, str | None, str | None], choosers: Sequence[Chooser]) -> str:
    named: dict[str, str | None] = dict(zip(("data", "attack", "defense"), words, strict=True))
    return " ".join(ANY if (word := named[chooser.name]) is None else str(chooser.options.index(word)) for chooser in choosers)
