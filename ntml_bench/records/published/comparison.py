"""Our table beside a reference, cell by cell: both numbers, what differs in the settings, and a verdict."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ntml_bench.records.cells import Cell, Metrics
from ntml_bench.records.labels import METHOD_GROUPS, flat_settings, option_of, value_text
from ntml_bench.records.published.reference import Option, Place, Reference
from ntml_bench.records.summary import NONE, Block, Entry, Row, Summary
from ntml_bench.records.view import SHORT

RECIPE = "recipe"
"""The owner of differences that are neither the attack's nor the defense's: data, model, training."""
ROUNDING = 1e-9
Verdict = Literal[
    "within tolerance", "outside tolerance", "settings differ", "not comparable", "not measured", "no published number"
]


@dataclass(frozen=True)
class Difference:
    """A setting that is not the published one; `owner`: RECIPE, or the label of the attack or the defense."""

    owner: str
    text: str


@dataclass(frozen=True)
class Line:
    """One cell of the table, over its seeds.

    `ours`: percent, and how many seeds are done; `published`: percent, None where the leaderboard has no such result.
    `reason`: the verdict's, in a few words. `names`: the options behind the labels, by group.
    """

    attack: str
    defense: str
    names: Mapping[str, str]
    poisoning_rate: float | None
    ours: Entry
    published: Metrics | None
    differences: tuple[Difference, ...]
    verdict: Verdict
    reason: str

    def published_value(self, metric: str) -> float | None:
        return None if self.published is None else getattr(self.published, metric)

    def difference(self, metric: str) -> float | None:
        """Points, ours less published."""
        ours, published = self.ours.mean(metric), self.published_value(metric)
        return None if ours is None or published is None else ours - published


@dataclass(frozen=True)
class ComparedBlock:
    """A block of the table and its lines, row by row, the undefended model first."""

    block: Block
    lines: tuple[Line, ...]

    @property
    def differences(self) -> dict[str, list[str]]:
        """Texts by owner, each once, of the lines with a published number."""
        found: dict[str, list[str]] = {}
        for line in self.lines:
            for difference in line.differences if line.published else ():
                texts = found.setdefault(difference.owner, [])
                if difference.text not in texts:
                    texts.append(difference.text)
        return found


@dataclass(frozen=True)
class Comparison:
    """All that a rendering shows."""

    summary: Summary
    reference: Reference
    blocks: tuple[ComparedBlock, ...]

    @property
    def lines(self) -> list[Line]:
        return [line for block in self.blocks for line in block.lines]

    def count(self, verdict: Verdict) -> int:
        return sum(line.verdict == verdict for line in self.lines)

    def options(self) -> Iterator[tuple[str, Option]]:
        """What the reference says of the options that have a published number here, each once, group by group."""
        for group in METHOD_GROUPS:
            for name in dict.fromkeys(line.names[group] for line in self.lines if line.published):
                yield name, self.reference.option(group, name)


def compare(summary: Summary, reference: Reference) -> Comparison:
    """The cells of a sweep beside the reference's results for the same data set, attack, defense and poisoning rate.

    And for the same model, unless the reference was read for one of its own.
    """
    blocks = []
    for block in summary.blocks:
        inside = summary.cells_of(block)
        lines = []
        for row in block.rows:
            lines += _lines(row, [cell for cell in inside if cell.attack == row.attack], reference)
        blocks.append(ComparedBlock(block, tuple(lines)))
    return Comparison(summary, reference, tuple(blocks))


def _lines(row: Row, cells: Sequence[Cell], reference: Reference) -> Iterator[Line]:
    # Each cell of the row has measured the undefended model, too.
    yield _line(row.attack, NONE, row.undefended, cells, reference)
    for defense, entry in row.defenses.items():
        if entry.planned:
            yield _line(row.attack, defense, entry, [cell for cell in cells if cell.defense == defense], reference)


def _line(attack: str, defense: str, ours: Entry, cells: Sequence[Cell], reference: Reference) -> Line:
    done = [cell for cell in cells if cell.state == "done"]
    one = (done or cells)[0]
    names = {group: _name(one, group, reference) for group in METHOD_GROUPS}
    if defense == NONE:
        names["defense"] = NONE
    rate = (one.settings.get("attack") or {}).get("poisoning_rate")
    published_names = {group: reference.option(group, name).stands_for or name for group, name in names.items()}
    if reference.model is not None:
        published_names["model"] = reference.model
    place = Place(**published_names)
    published, missing = reference.find(place, rate)
    found = [difference for cell in done for difference in _differences(cell, names, reference)] if published else []
    differences = tuple(sorted(dict.fromkeys(found), key=lambda difference: (RECIPE, attack, defense).index(difference.owner)))
    barred = [name for group, name in names.items() if reference.option(group, name).not_comparable]

    def line(verdict: Verdict, reason: str = "") -> Line:
        return Line(attack, defense, names, rate, ours, published, differences, verdict, reason)

    if published is None:
        return line("no published number", missing)
    if not ours.done:
        return line("not measured", ours.state)
    if barred:
        return line("not comparable", ", ".join(barred))
    if differences:
        return line("settings differ", ", ".join(dict.fromkeys(difference.owner for difference in differences)))
    judged = line("within tolerance")
    exceeded = [
        SHORT[metric] for metric, allowed in reference.tolerance.items() if not _within(judged.difference(metric), allowed)
    ]
    return line("outside tolerance", ", ".join(exceeded)) if exceeded else judged


def _within(difference: float | None, allowed: float) -> bool:
    return difference is not None and abs(difference) <= allowed + ROUNDING


def _name(cell: Cell, group: str, reference: Reference) -> str:
    """The config option where the reference knows it (a data set can be read by another's class), else what it configures."""
    option = option_of(getattr(cell, group))
    if option in reference.options[group]:
        return option
    return str((cell.settings.get(group) or {}).get("name", option))


def _differences(cell: Cell, names: Mapping[str, str], reference: Reference) -> Iterator[Difference]:
    owners = {"attack": cell.attack, "defense": cell.defense}
    if reference.model not in (None, names["model"]):
        yield Difference(RECIPE, f"model {names['model']} (published {reference.model})")
    for group, name in names.items():
        if text := reference.option(group, name).differs:
            yield Difference(owners.get(group, RECIPE), text)
    ours = flat_settings(cell.settings) | _recorded(cell)
    for key, value in reference.settings_of(names).items():
        if key == "clean_budget" and (names["defense"] == NONE or "clean_budget" not in cell.needs):
            continue
        group, _, inside = key.partition(".")
        found, published = ours.get(key, "not recorded"), value_text(value)
        if found != published:
            owner = owners["defense"] if key == "clean_budget" else owners.get(group, RECIPE)
            yield Difference(owner, f"{inside or key} {found} (published {published})")


def _recorded(cell: Cell) -> dict[str, str]:
    """What the run wrote down of itself, by the key that the published settings have for it."""
    recorded: dict[str, Any] = {"data.training_images": cell.training_images, "data.test_images": cell.test_images}
    return {key: value_text(value) for key, value in recorded.items() if value is not None}
