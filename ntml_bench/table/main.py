"""`ntml-table`: render the table of a sweep again from its records, without training anything."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ntml_bench.errors import UserError, unknown
from ntml_bench.records.against.check import EXIT_CODES, Check, check, find_reference
from ntml_bench.records.find import find_sweep
from ntml_bench.records.keep import keep_sweep
from ntml_bench.records.published.comparison import compare
from ntml_bench.records.published.reference import read_reference, reference_names
from ntml_bench.records.view import DEFAULT_METRICS, parse_sections
from ntml_bench.table.against_files import write_check
from ntml_bench.table.comparison_files import write_comparison
from ntml_bench.table.render import FORMATS, render_sweep, written


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 when rendered (an unfinished sweep too), 2 for a user's mistake.

    With `--against`: 0 reproduced, 1 not, 2 where nothing can be compared or decided.
    """
    options = _parser().parse_args(arguments)
    try:
        sections = None if options.metrics is None else parse_sections(options.metrics)
        folder = find_sweep(options.sweep, options.outputs)
        # What was asked for is checked before anything is written.
        formats = _formats(options.format)
        reference = read_reference(options.reference) if options.reference is not None else None
        checked = _checked(options, folder)
        joined = [find_sweep(name, options.outputs) for name in options.join]
        if options.brief and checked is not None:
            return _brief(checked)
        if options.keep:
            kept = options.outputs / "reference" / folder.resolve().name
            keep_sweep(folder, kept, joined)
            folder = kept
        target = options.to or (folder if options.keep else options.outputs / "tables" / folder.resolve().name)
        summary = render_sweep(folder, target, formats, sections)
    except UserError as error:
        print(f"ntml-table: {error}", file=sys.stderr)
        return 2
    # Imported here so that --help is quick.
    from rich.console import Console

    from ntml_bench.table.against_terminal import print_check
    from ntml_bench.table.comparison_terminal import print_comparison
    from ntml_bench.table.terminal import print_table

    console = Console()
    comparison = compare(summary, reference) if reference else None
    # Before anything is printed: a reader that has seen enough, as `head` has, ends the command.
    paths = [
        *written(target, formats),
        *(write_comparison(comparison, target) if comparison else ()),
        *(write_check(checked, target) if checked else ()),
    ]
    if options.format is None:
        print_table(summary, console, sections)
        console.print()
        if comparison:
            print_comparison(comparison, console)
            console.print()
        if checked:
            print_check(checked, console)
            console.print()
    for path in paths:
        print(path)
    return EXIT_CODES[checked.verdict] if checked else 0


def _checked(options: argparse.Namespace, folder: Path) -> Check | None:
    if options.join and not options.keep:
        raise UserError("--join SWEEP goes with --keep: it adds cells to what is kept")
    if options.against is None:
        if options.brief:
            raise UserError("--brief goes with --against NAME")
        return None
    if options.keep:
        raise UserError("--keep replaces a reference, --against compares with one; give one of the two")
    return check(folder, find_reference(options.against, options.outputs))


def _brief(checked: Check) -> int:
    from rich.console import Console

    from ntml_bench.table.against_terminal import print_brief

    print_brief(checked, Console())
    return EXIT_CODES[checked.verdict]


def _formats(text: str | None) -> tuple[str, ...]:
    names = [name.strip() for name in (text or "all").split(",")]
    if "all" in names:
        return FORMATS
    for name in names:
        if name not in FORMATS:
            raise unknown("format", name, (*FORMATS, "all"))
    return tuple(dict.fromkeys(names))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ntml-table", description=__doc__)
    parser.add_argument(
        "sweep", help="name of a sweep (a folder in OUTPUTS/sweeps or OUTPUTS/reference), or any folder with a manifest"
    )
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="where runs were written (default: outputs)")
    parser.add_argument(
        "--format", help=f"some of {', '.join(FORMATS)}, all: only write these files; without it, print the table and write all"
    )
    parser.add_argument("--to", type=Path, metavar="DIR", help="folder for the files (default: OUTPUTS/tables/NAME)")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="copy the finished sweep's records and write its table to OUTPUTS/reference/NAME, which git does not ignore",
    )
    parser.add_argument(
        "--join",
        metavar="SWEEP",
        action="append",
        default=[],
        help="with --keep: add the cells of another sweep (a name or any folder with a manifest), seeds made elsewhere;"
        " as often as you like",
    )
    parser.add_argument(
        "--metrics",
        help="which of acc, asr, ra, der, rasr: a slash within a cell, a comma between sections"
        f" (default: {DEFAULT_METRICS}, and rasr where it was measured)",
    )
    parser.add_argument(
        "--reference",
        metavar="NAME[:MODEL]",
        help=f"published numbers to set beside ours, in reference.md and reference.csv; one of {', '.join(reference_names())};"
        " with :MODEL those of that model of theirs, whatever ours is",
    )
    parser.add_argument(
        "--against",
        metavar="NAME",
        help="a kept sweep of the same settings (a folder in OUTPUTS/reference, or any folder with a manifest) to check the"
        " reproduction against, in against.md and against.json; exit code 0: reproduced, 1: not, 2: nothing to compare",
    )
    parser.add_argument("--brief", action="store_true", help="with --against: only print the verdict, in three lines at most")
    return parser


if __name__ == "__main__":
    sys.exit(main())
