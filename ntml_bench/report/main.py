"""`ntml-report`: a page that shows a sweep (its table, its attacks, what each defense did), one attack without training, or a
site of all kept tables."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ntml_bench.errors import UserError
from ntml_bench.records.against.check import check, find_reference
from ntml_bench.records.find import find_sweep
from ntml_bench.records.published.reference import reference_names


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 when written (for an unfinished sweep too), 2 for a user's mistake."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        make = _site if options.site else _gallery if options.attack or options.dataset else _report
        lines = make(options)
    except UserError as error:
        print(f"ntml-report: {error}", file=sys.stderr)
        return 2
    for line in lines:
        print(line)
    return 0


def _report(options: argparse.Namespace) -> list[str]:
    if len(options.what) != 1:
        given = f"{len(options.what)} were given: {', '.join(options.what)}" if options.what else "none was given"
        raise UserError(f"one sweep is wanted, {given}; an attack alone is shown by --attack NAME --dataset NAME")
    folder = find_sweep(options.what[0], options.outputs)
    if options.config_dir is not None:
        raise UserError("--config-dir goes with --attack; the cells of a sweep hold their settings")
    # Imported here so that --help and a mistake are quick.
    from ntml_bench.report.read import read_report
    from ntml_bench.report.write import write_report

    checked = None if options.against is None else check(folder, find_reference(options.against, options.outputs))
    report = read_report(folder) if options.reference is None else read_report(folder, options.reference)
    report = replace(report, check=checked)
    target = options.to or options.outputs / "tables" / folder.resolve().name
    page, *figures = write_report(report, folder, target, pdf=options.pdf)
    return [str(page), *(f"{place}: {count} files" for place, count in Counter(path.parent for path in figures).items())]


def _site(options: argparse.Namespace) -> list[str]:
    for name in ("attack", "dataset", "against", "config_dir", "pdf"):
        if getattr(options, name):
            raise UserError(f"--{name.replace('_', '-')} does not go with --site, which is made of tables and their pages")
    from ntml_bench.report.read import REFERENCE
    from ntml_bench.report.site.write import write_site

    folders = [Path(name) for name in options.what] or [options.outputs / "reference"]
    written = write_site(folders, options.to or options.outputs / "site", options.reference or REFERENCE)
    for one in written.left_out:
        print(f"ntml-report: {one.folder} is left out: {one.reason}", file=sys.stderr)
    return [str(written.index), f"{written.pages[0].parent}: {len(written.pages)} files"]


def _gallery(options: argparse.Namespace) -> list[str]:
    if not (options.attack and options.dataset):
        raise UserError(
            f"--{'dataset' if options.attack else 'attack'} is missing; a gallery wants both --attack and --dataset"
        )
    for name in ("reference", "against"):
        if getattr(options, name) is not None:
            raise UserError(f"--{name} goes with a sweep, not with a gallery")
    from ntml_bench.report.alone import gallery_of
    from ntml_bench.report.write import write_gallery

    more = [] if options.config_dir is None else ["--config-dir", str(options.config_dir)]
    gallery = gallery_of(options.attack, options.dataset, [*options.what, *more])
    target = options.to or options.outputs / "gallery"
    return [str(path) for path in write_gallery(gallery, target, f"{options.dataset}_{options.attack}", pdf=options.pdf)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ntml-report",
        description=__doc__,
        usage="%(prog)s [options] SWEEP\n       %(prog)s [options] --attack NAME --dataset NAME [SETTING=VALUE ...]\n"
        "       %(prog)s [options] --site [FOLDER ...]",
    )
    parser.add_argument(
        "what",
        nargs="*",
        metavar="SWEEP",
        help="name of a sweep (a folder in OUTPUTS/sweeps or OUTPUTS/reference), or any folder with a manifest;"
        " with --attack: settings, as ntml-bench takes them; with --site: folders of kept tables, or tables themselves"
        " (default: OUTPUTS/reference)",
    )
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="where runs were written (default: outputs)")
    parser.add_argument(
        "--to",
        type=Path,
        metavar="DIR",
        help="folder for the files (default: OUTPUTS/tables/NAME, OUTPUTS/gallery, OUTPUTS/site)",
    )
    parser.add_argument(
        "--site", action="store_true", help="write an index page over all kept tables, to sort, and the report of each"
    )
    parser.add_argument("--pdf", action="store_true", help="write the figures as PDF too, beside PNG")
    parser.add_argument("--attack", metavar="NAME", help="show this attack alone, without training")
    parser.add_argument("--dataset", metavar="NAME", help="the data set that it is shown on")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="options of your own, with --attack")
    parser.add_argument(
        "--reference",
        metavar="NAME[:MODEL]",
        help="whose published numbers stand beside ours, where there are any for these settings;"
        f" one of {', '.join(reference_names())}; with :MODEL those of that model of theirs, whatever ours is",
    )
    parser.add_argument(
        "--against",
        metavar="NAME",
        help="a kept sweep of the same settings (a folder in OUTPUTS/reference, or any folder with a manifest) to show the"
        " check of the reproduction against, as ntml-table --against makes it",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
