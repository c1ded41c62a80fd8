"""`ntml-store export`: a finished sweep as one archive, with its models where that is asked for.

What a sweep leaves to look at is small and goes with the records. It is no result, so what of it is missing or damaged stays
behind.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ntml_bench.errors import UserError
from ntml_bench.housekeeping.archive import FOLDER, FORMATS, STORE, write_archive
from ntml_bench.housekeeping.inventory import damage_of, split
from ntml_bench.integrity import CHECKSUMS, DamagedError, Mark, Sealed
from ntml_bench.records.keep import keep_sweep
from ntml_bench.records.manifest import SweepFolder
from ntml_bench.store import Store
from ntml_bench.table.render import render_sweep

Members = dict[str, tuple[Mark, Callable[[], bytes]]]
OPTIONAL = "surrogate-"
"""Named for every attack of a recipe, made by some of them only."""
SHOWN = ("gallery-", "exhibit-")
"""To be looked at."""


def export_sweep(folder: Path, target: Path, store: Store, *, models: bool) -> int:
    """Write the sweep in `folder` to the archive `target`, with its artifacts of `store`; how many there are.

    With `models` all that its cells were made from; otherwise only what is there to be looked at.

    Raises UserError for a sweep that is not finished, for models that are missing or damaged, and where nothing can be written.
    """
    if target.exists():
        raise UserError(f"{target} exists; --to names another file")
    with tempfile.TemporaryDirectory() as place:
        kept = Path(place) / FOLDER
        keep_sweep(folder, kept)
        render_sweep(kept, kept, FORMATS)
        members: Members = {}
        for path in kept.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                members[f"{FOLDER}/{path.relative_to(kept).as_posix()}"] = (Mark.of(content), lambda content=content: content)
        sweep = SweepFolder.open(folder)
        artifacts = _shown(sweep, store) | (_artifacts(sweep, store) if models else {})
        for name, (sealed, checksums) in artifacts.items():
            members[f"{STORE}/{name}/{CHECKSUMS}"] = (Mark.of(checksums), lambda checksums=checksums: checksums)
            for file, mark in sealed.marks.items():
                members[f"{STORE}/{name}/{file}"] = (mark, partial(_content, sealed, file))
        write_archive(target, folder.resolve().name, members)
    return len(artifacts)


def _artifacts(sweep: SweepFolder, store: Store) -> dict[str, tuple[Sealed, bytes]]:
    if any("artifacts" not in entry for entry in sweep.entries):
        raise UserError(f"the manifest of '{sweep.name}' does not say which models its cells use; run the sweep once more")
    names = {name for entry in sweep.entries for name in (*entry["artifacts"], f"cell-{entry['key']}")}
    found = {}
    for name in sorted(names):
        if not name.startswith(SHOWN) and ((store.root / name).exists() or not name.startswith(OPTIONAL)):
            found[name] = _opened(store, name)
    return found


def _shown(sweep: SweepFolder, store: Store) -> dict[str, tuple[Sealed, bytes]]:
    names = {name for entry in sweep.entries for name in entry.get("artifacts", []) if name.startswith(SHOWN)}
    return {name: _opened(store, name) for name in sorted(names) if not damage_of(store, name, verify=True)}


def _opened(store: Store, artifact: str) -> tuple[Sealed, bytes]:
    name, key = split(artifact)
    try:
        if store.read_record(name, key) is None:
            raise DamagedError("it is not in the store")
        path = store.path(name, key)
        return Sealed.open(path, {"name": name, "key": key}), (path / CHECKSUMS).read_bytes()
    except (DamagedError, FileNotFoundError) as error:
        raise UserError(f"{artifact} cannot be exported: {error}. The same command as before makes it anew.") from None


def _content(sealed: Sealed, file: str) -> bytes:
    try:
        return sealed.content(file)
    except DamagedError as error:
        raise UserError(f"{sealed.folder.name} cannot be exported: {error}. Run the sweep again to make it anew.") from None
