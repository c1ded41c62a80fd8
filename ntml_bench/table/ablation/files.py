"""`ablation.md`, `ablation.csv`, `ablation.png` and `ablation.pdf`: what a sweep's table is at each value of a setting."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ntml_bench.records.rows import csv_text
from ntml_bench.records.summary import METRICS, NONE, Entry, Summary
from ntml_bench.records.view import Sections, columns_of, heading_of, legend, shown_row, status, title_of
from ntml_bench.table.ablation.data import Ablation, Part, ablation_of
from ntml_bench.table.ablation.lines import plot_of
from ntml_bench.table.ablation.settings import short
from ntml_bench.table.markdown import cell_text, column_head, escaped, table_line

FILES = {"csv": ("ablation.csv",), "md": ("ablation.md",), "png": ("ablation.png", "ablation.pdf")}
"""By the format of the table that they go with."""


def render_ablation(summary: Summary, formats: Iterable[str], sections: Sections) -> dict[str, bytes | None]:
    """The files of these formats; None for one that the sweep has not: no setting varies, or it is no plot."""
    ablation = ablation_of(summary)
    return {
        name: None if ablation is None else _rendered(name, ablation, sections)
        for format_name in formats
        for name in FILES.get(format_name, ())
    }


def _rendered(name: str, ablation: Ablation, sections: Sections) -> bytes | None:
    if name == "ablation.csv":
        return ablation_csv(ablation).encode()
    if name == "ablation.md":
        return ablation_markdown(ablation, sections).encode()
    plot = plot_of(ablation)
    if isinstance(plot, str):
        return None
    # Imported here: matplotlib takes a third of a second.
    from ntml_bench.table.ablation.drawing import draw

    return draw(plot, ablation, sections, name.rpartition(".")[2])


def ablation_csv(ablation: Ablation) -> str:
    """A line a value and column of the table; means and sample standard deviations over `seeds` seeds."""
    numbers = [name for metric in METRICS for name in (metric, f"{metric}_deviation")]
    columns = ["dataset", "model", "attack", "defense", *(setting.name for setting in ablation.settings), "seeds", *numbers]
    return csv_text(columns, (line for part in ablation.parts for line in _csv_lines(part)))


def _csv_lines(part: Part) -> Iterator[list[str]]:
    block = part.block

    def line(name: str, values: tuple[str, ...], entry: Entry) -> list[str]:
        found = [entry.values.get(metric) for metric in METRICS]
        numbers = [number for each in found for number in ((each.mean, each.deviation) if each else (None, None))]
        texts = ["" if number is None else f"{number:.2f}" for number in numbers]
        return [block.dataset, block.model, part.attack, name, *values, str(entry.done), *texts]

    steps = list(zip(part.steps, block.rows, strict=True))
    for name in ("floor", NONE, *block.defenses):
        for values, row in steps:
            entry = {"floor": row.floor, NONE: row.undefended}.get(name) or row.defenses[name]
            if entry.planned:
                yield line(name, values, entry)


def ablation_markdown(ablation: Ablation, sections: Sections) -> str:
    """The whole document: a table an attack, a row a value."""
    summary, settings = ablation.summary, ablation.settings
    names = ", ".join(setting.name for setting in settings)
    lines = [f"# {escaped(summary.sweep)}: over {escaped(names)}", "", escaped(status(summary)), ""]
    if isinstance(reason := plot_of(ablation), str):
        lines += [f"There is no plot: {escaped(reason)}.", ""]
    for part in ablation.parts:
        lines += [f"## {escaped(part.attack)}: {escaped(heading_of(part.block))}", ""]
        for section in sections:
            lines += [f"**{title_of(section)}**", "", *_table(part, [setting.name for setting in settings], section), ""]
    # As a summary of its own, so that the legend speaks of what is shown.
    shown = replace(summary, blocks=tuple(part.block for part in ablation.parts))
    lines += [f"- {escaped(line)}" for line in legend(shown, sections, "bold")]
    if ablation.outside:
        lines.append(f"- {ablation.outside} of the sweep's cells have no such setting and stand in its table only.")
    return "\n".join(lines) + "\n"


def _table(part: Part, settings: list[str], section: tuple[str, ...]) -> list[str]:
    columns = columns_of(part.block)
    lines = [table_line([*map(escaped, settings), *map(column_head, columns)])]
    lines.append(table_line([*["---:"] * len(settings), *[":---:"] * len(columns)]))
    for values, row in zip(part.steps, part.block.rows, strict=True):
        lines.append(table_line([*(escaped(short(value)) for value in values), *map(cell_text, shown_row(row, section))]))
    return lines
