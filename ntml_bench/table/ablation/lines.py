"""The lines of an ablation's plot: which setting is on the axis, what a panel is, what a line is. Nothing is drawn here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ntml_bench.records.statistic import Statistic
from ntml_bench.records.summary import NONE, Entry, Row
from ntml_bench.table.ablation.data import Ablation, Part
from ntml_bench.table.ablation.settings import Setting

Kind = Literal["floor", "undefended", "defense"]
MOST_LINES = 8
"""Values of a second setting that a panel can show."""


@dataclass(frozen=True)
class Line:
    """What is done of one column of the table, by the value of the setting on the axis.

    `name` is a defense, `none` or `floor`; `second` the value of the other setting that varies, None where there is none or
    where the line is the same at all of its values.
    """

    name: str
    kind: Kind
    second: str | None
    points: tuple[tuple[str, Entry], ...]

    def statistics(self, metric: str) -> list[tuple[str, Statistic]]:
        """The points that have the metric."""
        return [(value, found) for value, entry in self.points if (found := entry.values.get(metric)) is not None]

    def constant(self, metric: str) -> float | None:
        """The one mean at all values, where it is one."""
        means = {round(found.mean, 9) for _, found in self.statistics(metric)}
        return means.pop() if len(means) == 1 else None


@dataclass(frozen=True)
class Panel:
    """One attack; with two settings one attack and one defense."""

    part: Part
    defense: str | None
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Plot:
    """What is drawn: `across` is the setting on the horizontal axis, `second` the other one."""

    across: Setting
    second: Setting | None
    panels: tuple[Panel, ...]


def plot_of(ablation: Ablation) -> Plot | str:
    """The plot of an ablation, or why there is none."""
    settings = ablation.settings
    if len(settings) > 2:
        names = ", ".join(setting.name for setting in settings)
        return f"{len(settings)} settings vary ({names}); a plot shows one or two"
    # Numbers make an axis, and the more of them the better.
    ranked = sorted(range(len(settings)), key=lambda index: (settings[index].numbers is None, -len(settings[index].values)))
    across, second = settings[ranked[0]], settings[ranked[1]] if len(ranked) > 1 else None
    if second and len(second.values) > MOST_LINES:
        return f"{second.name} has {len(second.values)} values beside those of {across.name}; a panel shows {MOST_LINES} lines"
    panels = [panel for part in ablation.parts for panel in _panels(part, ranked)]
    lines = [line for panel in panels for line in panel.lines]
    if all(len(line.points) < 2 for line in [line for line in lines if line.kind == "defense"] or lines):
        return f"no line over {across.name} has two points"
    return Plot(across, second, tuple(panels))


def _panels(part: Part, ranked: Sequence[int]) -> list[Panel]:
    def lines(name: str, kind: Kind, pick: Callable[[Row], Entry]) -> list[Line]:
        points: dict[str | None, list[tuple[str, Entry]]] = {}
        for step, row in zip(part.steps, part.block.rows, strict=True):
            if pick(row).done:
                second = step[ranked[1]] if len(ranked) > 1 else None
                points.setdefault(second, []).append((step[ranked[0]], pick(row)))
        return [Line(name, kind, second, tuple(found)) for second, found in points.items()]

    references = _merged(lines("floor", "floor", lambda row: row.floor))
    references += _merged(lines(NONE, "undefended", lambda row: row.undefended))
    defended = {name: lines(name, "defense", lambda row, name=name: row.defenses[name]) for name in part.block.defenses}
    if len(ranked) == 1 or not defended:
        return [Panel(part, None, (*references, *(line for found in defended.values() for line in found)))]
    return [Panel(part, name, (*references, *found)) for name, found in defended.items()]


def _merged(lines: list[Line]) -> list[Line]:
    """One line, where those at all values of the second setting are the same as far as they go."""
    merged: dict[str, Entry] = {}
    for line in lines:
        for value, entry in line.points:
            if merged.setdefault(value, entry).values != entry.values:
                return lines
    return [replace(lines[0], second=None, points=tuple(merged.items()))] if lines else []
