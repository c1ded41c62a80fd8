"""A figure with its name and its words: as SVG for the page, as PNG for slides and, on request, as PDF for a paper."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from matplotlib.figure import Figure

from ntml_bench.figures.image import image_of
from ntml_bench.figures.style import plain_style
from ntml_bench.files import write_file
from ntml_bench.report.figures.svg import inline_svg

Kind = Literal["gallery", "price", "plane", "ranks", "curves", "confidence", "features"]


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A figure. What it is about: a data set; a model, an attack and a defense by their labels, or None for all of them."""

    name: str
    """Stem of its files, and what the ids in its SVG begin with: no other drawing of the report has it."""
    kind: Kind
    dataset: str
    model: str | None = None
    attack: str | None = None
    defense: str | None = None
    title: str
    alt: str
    """What one would see, with the numbers that matter."""
    draw: Callable[[], Figure] = field(repr=False, compare=False)
    """Makes the figure, in inches of a paper; to be called in `plain_style`."""

    def svg(self) -> str:
        """An `<svg>` to stand in a page that gives the names of `colours` their values."""
        with plain_style():
            return inline_svg(self.draw(), self.name, self.title, self.alt)

    def write(self, folder: Path, *, pdf: bool = False) -> list[Path]:
        """Write NAME.png and, for its fonts take seconds, NAME.pdf only where that is asked for. Raises StorageError."""
        with plain_style():
            figure = self.draw()
            paths = []
            for ending in ("png", "pdf") if pdf else ("png",):
                paths.append(folder / f"{self.name}.{ending}")
                write_file(paths[-1], image_of(figure, ending))
        return paths
