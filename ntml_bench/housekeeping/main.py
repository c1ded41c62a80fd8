"""`ntml-store`: list what lies in the store and whose it is, remove what nobody needs, export a sweep, import one, write a
cell's images into folders."""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ntml_bench.errors import UserError
from ntml_bench.housekeeping.amounts import parse_age, parse_size, size_text
from ntml_bench.housekeeping.export import export_sweep
from ntml_bench.housekeeping.inventory import take_inventory
from ntml_bench.housekeeping.prune import Choice, Plan, carry_out, plan
from ntml_bench.housekeeping.receive import import_archive
from ntml_bench.housekeeping.report import report, text_of
from ntml_bench.records.find import find_sweep
from ntml_bench.store import Store


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 when done, 2 for a user's mistake, 130 for an interrupt."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except UserError as error:
        print(f"ntml-store: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nntml-store: interrupted", file=sys.stderr)
        return 130
    return 0


def _list(options: argparse.Namespace) -> None:
    found = report(take_inventory(options.outputs, verify=options.verify))
    print(json.dumps(found, indent=1) if options.json else text_of(found))


def _prune(options: argparse.Namespace) -> None:
    age = None if options.older_than is None else parse_age(options.older_than)
    choice = Choice(tuple(options.sweep or ()), age, options.unused, options.damaged)
    if choice == Choice():
        raise UserError("prune removes what --sweep, --unused, --damaged or --older-than chooses; none is given")
    if not (options.dry_run or options.yes or sys.stdin.isatty()):
        raise UserError("there is no terminal to ask on; --yes removes without a question, --dry-run only shows")
    now = time.time()
    found = plan(take_inventory(options.outputs, verify=choice.damaged), choice, now)
    print(_planned(found, options.outputs))
    if options.dry_run or not found.paths:
        return
    if not (options.yes or input("Remove this? [y/N] ").strip().lower() in ("y", "yes")):
        print("Nothing was removed.")
        return
    # A sweep may have begun while the question stood.
    inventory = take_inventory(options.outputs, verify=choice.damaged)
    removed, busy = carry_out(plan(inventory, choice, now).within(found), inventory.store, options.outputs)
    print("\n".join([f"Removed {size_text(removed)}.", *(f"Left alone: {line}." for line in busy)]))


def _planned(found: Plan, outputs: Path) -> str:
    lines = [f"{item.path.name}  {size_text(item.size)}" for item in found.items]
    lines += [f"{use.folder.relative_to(outputs)}/  {size_text(use.size)}" for use in found.sweeps]
    lines += [f"{path.name}/" for path in found.staging]
    lines += [f"Left alone: {line}." for line in found.kept]
    count = len(found.paths)
    return "\n".join([*lines, f"{count} {'entry' if count == 1 else 'entries'}, {size_text(found.size)}, to be removed."])


def _export(options: argparse.Namespace) -> None:
    folder = find_sweep(options.sweep, options.outputs)
    target = options.to or Path(f"{folder.resolve().name}.tar.gz")
    count = export_sweep(folder, target, Store(options.outputs / "store"), models=options.models)
    print(
        f"{target}: {size_text(target.stat().st_size)}, {f'{count} artifacts' if options.models else 'records without models'}"
    )


def _import(options: argparse.Namespace) -> None:
    found = import_archive(options.file, options.outputs, name=options.name, largest=parse_size(options.max_size))
    print(f"{found.folder}: imported; {found.new} artifacts are new in the store, {found.present} were there")
    print(f"Its table: ntml-table {found.folder.name}")


def _images(options: argparse.Namespace) -> None:
    # Here, because they import torch, which the other commands do without.
    from ntml_bench.app.settings import import_extensions
    from ntml_bench.app.stored import only, stored_cells
    from ntml_bench.housekeeping.images import write_images

    import_extensions(options.imports or [])
    chosen = {name: getattr(options, name) for name in ("dataset", "model", "attack", "seed")}
    cell = only(stored_cells(options.sweep, options.outputs, **chosen), lambda cell: cell.keys[0], "backdoored models")
    target = options.to or Path(f"{Path(options.sweep).name}-{cell.entry['attack']}-seed-{cell.entry['seed']}")
    data_dir = options.data_dir or options.outputs / "data"
    found = write_images(cell, target, data_dir, options.root, clean=options.clean)
    covers = f" and {found.covers} covers" if found.covers else ""
    print(f"{target}: {found.train} training images ({found.poisons} poisons{covers}), {found.triggered} triggered test images")


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--outputs", type=Path, default=Path("outputs"), help="where runs were written (default: outputs)")
    parser = argparse.ArgumentParser(prog="ntml-store", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, parents=[common], help=text, description=text)
        added.set_defaults(run={"list": _list, "prune": _prune, "export": _export, "import": _import, "images": _images}[name])
        return added

    shown = command("list", "sizes of the store by sweep, what no sweep uses, what is damaged or left over")
    shown.add_argument("--json", action="store_true", help="for programs, sizes in bytes")
    shown.add_argument("--verify", action="store_true", help="read every tensor, so that no damage is overlooked")

    pruned = command("prune", "remove what is chosen and nobody else needs; what is being worked on stays, and so do tables")
    pruned.add_argument("--sweep", nargs="+", metavar="NAME", help="sweeps: their folders, and what no other sweep uses")
    pruned.add_argument("--unused", action="store_true", help="what no sweep uses, and left-overs of runs that were killed")
    pruned.add_argument(
        "--damaged", action="store_true", help="what was set aside, and what a look at every file finds damaged"
    )
    pruned.add_argument("--older-than", metavar="AGE", help="only what is older (12h, 30d, 8w); alone: every sweep that is")
    pruned.add_argument("--dry-run", action="store_true", help="only show what would be removed")
    pruned.add_argument("--yes", action="store_true", help="do not ask")

    exported = command("export", "a finished sweep as one archive, with checksums of all that is in it")
    exported.add_argument("sweep", help="its name, or a folder with a manifest")
    exported.add_argument("--models", action="store_true", help="with all that its cells were made from")
    exported.add_argument("--to", type=Path, metavar="FILE.tar.gz", help="the archive (default: SWEEP.tar.gz)")

    imported = command("import", "check an archive and put its sweep into OUTPUTS/reference, its models into the store")
    imported.add_argument("file", type=Path, metavar="FILE.tar.gz")
    imported.add_argument("--as", dest="name", metavar="NAME", help="another name for the sweep")
    imported.add_argument(
        "--max-size", default="10GiB", metavar="SIZE", help="refuse what unpacks to more (default: %(default)s)"
    )

    images = command("images", "the poisoned training set and the triggered test set of a cell as folders of PNG, with tables")
    images.add_argument("sweep", help="its name, or a folder with a manifest")
    for name in ("attack", "dataset", "model"):
        images.add_argument(f"--{name}", metavar="NAME", help=f"the cell's {name}, where the sweep has several")
    images.add_argument("--seed", type=int, help="the cell's seed, where the sweep has several")
    images.add_argument("--to", type=Path, metavar="FOLDER", help="a new folder (default: SWEEP-ATTACK-seed-SEED)")
    images.add_argument("--clean", action="store_true", help="also the test images and the training images as they are")
    images.add_argument("--data-dir", type=Path, metavar="FOLDER", help="where the data are kept (default: OUTPUTS/data)")
    images.add_argument("--root", metavar="FOLDER", help="of a data set that is in a folder of your own: that folder")
    images.add_argument(
        "--imports", nargs="+", metavar="MODULE", help="modules that register an attack or a data set of your own"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
