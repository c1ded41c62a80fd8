"""Which cells a figure is about: those of a data set and model, by attack and by defense, of one seed."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ntml_bench.records.labels import option_of
from ntml_bench.records.summary import NONE, Block, Summary
from ntml_bench.report.data import Report, ReportCell
from ntml_bench.report.figures.names import Names


@dataclass(frozen=True)
class Place:
    """A block of the table, the cells that belong to it, and what tells its figures from those of other blocks."""

    block: Block
    cells: tuple[ReportCell, ...]
    names: Names
    labels: tuple[str, ...]
    """Data set and model where there are several, else nothing."""
    where: str
    """The same to be read behind a title."""

    def new_name(self, kind: str, *labels: str) -> str:
        return self.names.new(kind, *self.labels, *labels)

    @property
    def attacks(self) -> dict[str, list[ReportCell]]:
        """The cells by attack, in the order of the table, without those that have none."""
        attacked = [row.attack for row in self.block.rows if option_of(row.attack) != NONE]
        return {attack: [entry for entry in self.cells if entry.cell.attack == attack] for attack in attacked}


def places_of(report: Report, names: Names) -> Iterator[Place]:
    blocks = report.summary.blocks
    for block in blocks:
        cells = [each for each in report.cells if (each.cell.dataset, each.cell.model) == (block.dataset, block.model)]
        labels = (block.dataset, block.model) if len(blocks) > 1 else ()
        yield Place(block, tuple(cells), names, labels, f" ({', '.join(labels)})" if labels else "")


def datasets_of(summary: Summary) -> tuple[str, ...]:
    return tuple(dict.fromkeys(block.dataset for block in summary.blocks))


def by_defense(cells: Iterable[ReportCell], has: Callable[[ReportCell], object]) -> tuple[int | None, dict[str, ReportCell]]:
    """Cells of one seed, the first that any of them `has` it for, in the order of the table; the undefended model first."""
    found = [cell for cell in cells if has(cell)]
    seed = min((cell.cell.seed for cell in found), default=None)
    chosen = sorted((cell for cell in found if cell.cell.seed == seed), key=lambda cell: option_of(cell.cell.defense) != NONE)
    return seed, {cell.cell.defense: cell for cell in chosen}
