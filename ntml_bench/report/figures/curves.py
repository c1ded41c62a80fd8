"""How the trainings went: the loss by epoch, of the model under an attack and of each defense."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from ntml_bench.figures.canvas import DOUBLE, SINGLE, SIZE, SMALL, Canvas
from ntml_bench.figures.colours import INK, QUIET, RULE, SERIES
from ntml_bench.figures.text import shortened, wrapped
from ntml_bench.records.labels import option_of
from ntml_bench.records.summary import NONE
from ntml_bench.records.view import split_label
from ntml_bench.report.data import ReportCell
from ntml_bench.report.figures.drawing import Drawing
from ntml_bench.report.figures.places import Place, by_defense

TRAINING = "victim"
"""What a record's history calls the training of the model that is attacked."""
OF_MODEL = "of the attacked model"
LEFT, RIGHT, HEAD, DOWN, HEIGHT = 0.34, 0.1, 0.36, 0.24, 1.0
NEXT_LINE = 0.1
FEW = 12
"""Epochs of a stage up to which each gets a mark."""
DECADE = 10.0


@dataclass(frozen=True)
class Stage:
    name: str
    epochs: tuple[float, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    title: str
    stages: tuple[Stage, ...]
    about: str = ""
    """What stands below the title in place of the names of the stages."""


def curves(place: Place) -> Iterator[Drawing]:
    """A figure an attack."""
    for attack, cells in place.attacks.items():
        seed, found = by_defense(cells, lambda cell: cell.record and cell.record.get("history"))
        panels = _panels(list(found.values()))
        if panels:
            yield Drawing(
                name=place.new_name("curves", attack),
                kind="curves",
                dataset=place.block.dataset,
                model=place.block.model,
                attack=attack,
                title=f"Training curves under {attack}, and of the defenses{place.where}",
                alt=_alt(panels, attack, seed),
                draw=lambda attack=attack, seed=seed, panels=panels: _figure(panels, attack, seed),
            )


def _panels(cells: Sequence[ReportCell]) -> list[Panel]:
    """The training of the model, then each defense's own stages."""
    panels: list[Panel] = []
    for entry in cells:
        stages = list(stages_of(entry.record or {}))
        training = [stage for stage in stages if stage.name == TRAINING or option_of(entry.cell.defense) == NONE]
        own = [stage for stage in stages if stage not in training]
        if training and not panels:
            panels.append(Panel("training", tuple(training), OF_MODEL))
        if own:
            panels.append(Panel(entry.cell.defense, tuple(own)))
    return panels


def stages_of(record: Mapping[str, Any]) -> Iterator[Stage]:
    """The stages of a record's history that have a loss, in their order."""
    history = [entry for entry in record.get("history") or [] if _number(entry.get("loss")) and _number(entry.get("epoch"))]
    for name in dict.fromkeys(str(entry.get("stage", "")) for entry in history):
        of_stage = [entry for entry in history if str(entry.get("stage", "")) == name]
        yield Stage(name, tuple(float(each["epoch"]) for each in of_stage), tuple(float(each["loss"]) for each in of_stage))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _figure(panels: Sequence[Panel], attack: str, seed: int | None) -> Figure:
    columns = len(panels) if len(panels) <= 2 else 3 if len(panels) in (3, 5, 6) else 4
    width = SINGLE if columns == 1 else DOUBLE
    lines = ceil(len(panels) / columns)
    across = (width - 0.14) / columns - LEFT - RIGHT
    heads = [_head(panel, across) for panel in panels]
    head = HEAD + NEXT_LINE * max(len(settings) for _, settings, _ in heads)
    canvas = Canvas(width, 0.2 + lines * (head + HEIGHT + DOWN) + 0.14)
    canvas.head(0.13, attack, f"training loss by epoch, seed {seed}")
    for index, (panel, (name, settings, stages)) in enumerate(zip(panels, heads, strict=True)):
        line, column = divmod(index, columns)
        left = 0.14 + column * (LEFT + across + RIGHT) + LEFT
        top = 0.2 + line * (head + HEIGHT + DOWN) + head
        canvas.write(left, top - head + 0.1, name, weight="bold")
        for row, text in enumerate([*settings, *stages]):
            y = top - head + 0.21 + NEXT_LINE * row
            canvas.write(left, y, text, size=SMALL, colour=INK if row < len(settings) else QUIET)
        _draw(canvas.panel(left, top, across, HEIGHT), panel.stages, (INK,) if panel.about else SERIES)
        if column == 0:
            canvas.write(0.11, top + HEIGHT / 2, "loss", across="center", turned=True)
    canvas.write(width / 2, canvas.height - 0.05, "epoch", across="center")
    return canvas.figure


def _head(panel: Panel, width: float) -> tuple[str, list[str], list[str]]:
    """The title's name, the lines of its settings, and those of the stages."""
    name, settings = split_label(panel.title)
    stages = panel.about or " | ".join(stage.name for stage in panel.stages)
    lines = [wrapped(text, SMALL, width + 0.08) for text in (", ".join(settings), stages)]
    return shortened(name, SIZE, width, "bold"), lines[0], lines[1]


def _draw(axes: Axes, stages: Sequence[Stage], colours: Sequence[str]) -> None:
    """The stages one after the other, a line between them: their losses are not the same function."""
    axes.grid(axis="y", color=RULE, linewidth=0.4)
    before = 0.0
    for index, stage in enumerate(stages):
        if index:
            axes.axvline(before + 0.5, color=QUIET, linewidth=0.6, linestyle=(0, (2, 2)), clip_on=False)
        axes.plot(
            [before + epoch for epoch in stage.epochs],
            stage.losses,
            color=colours[index % len(colours)],
            linewidth=1.1,
            marker="os^Dv"[index % 5] if len(stage.epochs) <= FEW else "",
            markersize=3,
            markeredgecolor="none",
            clip_on=False,
        )
        before += max(stage.epochs)
    axes.set_xlim(0, 1.02 * max(before, 1))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
    losses = [loss for stage in stages for loss in stage.losses]
    if min(losses) > 0 and max(losses) > DECADE * min(losses):
        axes.set_yscale("log")
        axes.set_ylim(min(losses) / 1.15, max(losses) * 1.15)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3) if max(losses) < 300 * min(losses) else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        spare = 0.06 * (max(losses) - min(losses)) or 0.1 * abs(losses[0]) or 0.1
        axes.set_ylim(min(losses) - spare, max(losses) + spare)
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.tick_params(labelsize=SMALL)


def _alt(panels: Sequence[Panel], attack: str, seed: int | None) -> str:
    def text(stage: Stage) -> str:
        if len(stage.losses) == 1:
            return f"{stage.name} {stage.losses[0]:.3g}"
        return f"{stage.name} from {stage.losses[0]:.3g} to {stage.losses[-1]:.3g}"

    parts = [f"{panel.title} ({', '.join(map(text, panel.stages))})" for panel in panels]
    return f"Training loss by epoch under {attack}, seed {seed}, first to last epoch: {'; '.join(parts)}."
