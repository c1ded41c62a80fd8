"""Where triggered images lie among the clean ones in a model's features, before and after a defense."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ntml_bench.figures.canvas import LINE, SINGLE, SIZE, SMALL, Canvas, Key, Mark, flowed
from ntml_bench.figures.colours import QUIET, SERIES
from ntml_bench.records.labels import option_of
from ntml_bench.records.numbers import Metrics
from ntml_bench.records.summary import NONE
from ntml_bench.report.data import Exhibit, ReportCell
from ntml_bench.report.figures.drawing import Drawing
from ntml_bench.report.figures.places import Place, by_defense

MOST_POINTS = 160
"""Of a kind in a panel: more would neither be told apart nor fit into a page of many such figures."""
PLAIN: Mark = {"linestyle": "none", "markeredgecolor": "none"}
OTHERS = PLAIN | {"marker": "o", "markersize": 2.2, "color": QUIET, "alpha": 0.45}
TARGET = PLAIN | {"marker": "s", "markersize": 2.6, "color": "none", "markeredgecolor": SERIES[2], "markeredgewidth": 0.7}
TRIGGERED = PLAIN | {"marker": "x", "markersize": 3.0, "color": SERIES[6], "markeredgecolor": SERIES[6], "markeredgewidth": 0.8}
"""Pale, between and dark: they differ in shape and in grey print too."""


@dataclass(frozen=True)
class Panel:
    title: str
    exhibit: Exhibit
    metrics: Metrics


def features(place: Place) -> Iterator[Drawing]:
    """A figure a cell of the first seed that has been looked into."""
    for attack, cells in place.attacks.items():
        seed, found = by_defense(cells, _panels)
        for defense, entry in found.items():
            panels = _panels(entry)
            undefended = option_of(defense) == NONE
            yield Drawing(
                name=place.new_name("features", attack, defense),
                kind="features",
                dataset=place.block.dataset,
                model=place.block.model,
                attack=attack,
                defense=defense,
                title=f"Features under {attack}, {'undefended' if undefended else f'before and after {defense}'}{place.where}",
                alt=_alt(panels, attack, defense, seed),
                draw=lambda panels=panels, about=f"{attack}, {defense}", seed=seed: _figure(panels, about, seed),
            )


def _panels(entry: ReportCell) -> list[Panel]:
    """Of a model that no defense changed one panel, as a picture beside itself shows nothing."""
    found = []
    if entry.before and _drawable(entry.before):
        found.append(Panel("before", entry.before, entry.cell.before))
    if entry.after and _drawable(entry.after) and (option_of(entry.cell.defense) != NONE or not found):
        found.append(Panel("after", entry.after, entry.cell.after))
    return found


def _drawable(exhibit: Exhibit) -> bool:
    return len(exhibit.clean_map) > 0


def _figure(panels: Sequence[Panel], about: str, seed: int | None) -> Figure:
    across, gap = (SINGLE - 0.2 - 0.14) / 2, 0.08
    one_target = panels[0].exhibit.target_class is not None
    keys = [
        Key(OTHERS | {"markersize": 3}, "clean, other classes" if one_target else "clean"),
        *([Key(TARGET, "clean, target class")] if one_target else []),
        Key(TRIGGERED, "triggered, other classes" if one_target else "triggered"),
    ]
    to_the_right = "towards the target class" if one_target else "largest spread"
    legend = flowed(keys, SINGLE - 0.1)
    bottom = 0.36 + across + 0.24
    canvas = Canvas(SINGLE, bottom + LINE * len(legend) + 0.04)
    canvas.head(0.13, about, f"seed {seed}")
    for index, panel in enumerate(panels):
        left = 0.2 + index * (across + gap)
        canvas.write(left, 0.31, panel.title + _numbers(panel.metrics), size=SIZE)
        axes = canvas.panel(left, 0.36, across, across)
        _draw(axes, panel.exhibit)
        canvas.write(left + across / 2, 0.36 + across + 0.12, to_the_right, size=SMALL, across="center")
    canvas.write(0.14, 0.36 + across / 2, "largest other spread", size=SMALL, across="center", turned=True)
    canvas.legend(0.06, bottom, legend)
    return canvas.figure


def _numbers(metrics: Metrics) -> str:
    rate = metrics.attack_success_rate
    return "" if rate is None else f": ASR {rate:.1f} %"


def _draw(axes: Axes, exhibit: Exhibit) -> None:
    target = _of_target(exhibit)
    kinds = [(exhibit.clean_map[~target], OTHERS), (exhibit.clean_map[target], TARGET), (exhibit.triggered_map, TRIGGERED)]
    for points, mark in kinds:
        axes.plot(*_some(points).T, **mark, clip_on=False)
    low, high = _reach(np.concatenate([_some(points) for points, _ in kinds]))
    # A square of the same units both ways: a distance is a distance in every direction.
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[])


def _of_target(exhibit: Exhibit) -> NDArray[np.bool_]:
    """Which clean images are of the target class: none where each class has its own."""
    return exhibit.clean_labels == (-1 if exhibit.target_class is None else exhibit.target_class)


def _some(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most so many, evenly from all of them."""
    if len(points) <= MOST_POINTS:
        return points
    return points[np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int)]


def _reach(points: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    low, high = points.min(0).astype(float), points.max(0).astype(float)
    side = max(1.08 * float((high - low).max()), 1e-6)
    middle = (low + high) / 2
    return middle - side / 2, middle + side / 2


def progress(exhibit: Exhibit) -> float | None:
    """How far to the right triggered images lie on average, percent: 0 is where clean images of other classes do, 100 where
    those of the target class do. None where there are not all three, or the two are at one place."""
    target = _of_target(exhibit)
    others, targets, triggered = exhibit.clean_map[~target], exhibit.clean_map[target], exhibit.triggered_map
    if not (len(others) and len(targets) and len(triggered)):
        return None
    start, end = float(others[:, 0].mean()), float(targets[:, 0].mean())
    return None if start == end else 100 * (float(triggered[:, 0].mean()) - start) / (end - start)


def _alt(panels: Sequence[Panel], attack: str, defense: str, seed: int | None) -> str:
    names = {"before": "before any defense", "after": f"after {defense}"}
    found = [(names[panel.title], progress(panel.exhibit)) for panel in panels]
    ways = [f"{way:.0f} % {name}" for name, way in found if way is not None]
    rates = [
        f"{panel.metrics.attack_success_rate:.1f} % {names[panel.title]}"
        for panel in panels
        if panel.metrics.attack_success_rate is not None
    ]
    parts = [f"A map of clean and triggered test images by the model's features under {attack}, seed {seed}."]
    if ways:
        parts.append(
            "From the clean images of other classes (0 %) to those of the target class (100 %) "
            f"triggered images have gone {', '.join(ways)}."
        )
    if rates:
        parts.append(f"Attack success: {', '.join(rates)}.")
    parts.append(f"At most {MOST_POINTS} images of each kind are drawn.")
    return " ".join(parts)
