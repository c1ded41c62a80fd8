"""`reference.md` and `reference.csv`: a line a cell."""

from pathlib import Path

from ntml_bench.files import write_file
from ntml_bench.records.published.comparison import ComparedBlock, Comparison, Line
from ntml_bench.records.published.reference import COMPARED
from ntml_bench.records.published.view import HEADINGS, differing, headline, note, numbers, preface, remarks
from ntml_bench.records.rows import csv_text
from ntml_bench.records.view import heading_of
from ntml_bench.table.markdown import escaped, table_line

COLUMNS = (
    *("dataset", "model", "attack", "defense", "poisoning_rate", "seeds"),
    *(name for metric in COMPARED for name in (metric, f"published_{metric}", f"{metric}_difference")),
    *("verdict", "note", "differing_settings"),
)


def write_comparison(comparison: Comparison, target: Path) -> list[Path]:
    """Write both files into `target`; their paths."""
    texts = {"reference.md": comparison_markdown(comparison), "reference.csv": comparison_csv(comparison)}
    for name, text in texts.items():
        write_file(target / name, text.encode())
    return [target / name for name in texts]


def comparison_markdown(comparison: Comparison) -> str:
    """The whole document."""
    lines = [f"# {escaped(comparison.summary.sweep)} beside the {escaped(comparison.reference.title)}", ""]
    lines += [escaped(headline(comparison)), "", *(f"- {escaped(line)}" for line in preface(comparison)), ""]
    for block in comparison.blocks:
        lines += [f"## {escaped(heading_of(block.block))}", ""]
        if texts := differing(block.differences):
            lines += ["Settings that differ:", "", *(f"- {escaped(text)}" for text in texts), ""]
        lines += [table_line(list(HEADINGS)), table_line(["---", "---", *[":---:"] * len(COMPARED), "---", "---"])]
        lines += [_markdown_line(line) for line in block.lines]
        lines.append("")
    if texts := remarks(comparison):
        lines += ["Remarks:", "", *(f"- {escaped(text)}" for text in texts), ""]
    return "\n".join(lines)


def _markdown_line(line: Line) -> str:
    cells = [numbers(line, metric, 2) for metric in COMPARED]
    return table_line([escaped(line.attack), escaped(line.defense), *cells, line.verdict, escaped(note(line))])


def comparison_csv(comparison: Comparison) -> str:
    """All lines in the order of the table."""
    return csv_text(COLUMNS, (_row(block, line) for block in comparison.blocks for line in block.lines))


def _row(block: ComparedBlock, line: Line) -> list[str]:
    values = []
    for metric in COMPARED:
        values += [line.ours.mean(metric), line.published_value(metric), line.difference(metric)]
    return [
        *(block.block.dataset, block.block.model, line.attack, line.defense),
        "" if line.poisoning_rate is None else f"{line.poisoning_rate:g}",
        str(line.ours.done),
        *("" if value is None else f"{value:.2f}" for value in values),
        *(line.verdict, note(line)),
        "; ".join(f"{difference.owner}: {difference.text}" for difference in line.differences),
    ]
