"""`ntml-store import`: an exported sweep, checked whole before anything of it is in its place.

Records go to `OUTPUTS/reference/NAME`, not to `OUTPUTS/sweeps`: what somebody else measured then never mixes with what is
measured here. A run of the same name leaves its own numbers in `sweeps`, which `ntml-table` prefers. Models go to the store
under their keys, where sweeps find them; what the store has already is kept. They are tensors and JSON; nothing
is run or unpickled. That a model is what its key says can only be believed, as any number of somebody else's.
"""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import Timeout

from ntml_bench.errors import UserError
from ntml_bench.files import StorageError, move_folder, read_json, storage
from ntml_bench.housekeeping.amounts import size_text
from ntml_bench.housekeeping.archive import FOLDER, FORMATS, STORE, TABLES, Archive, ArchiveError, Index
from ntml_bench.housekeeping.inventory import IMPORTED, STAGING, damage_of, split
from ntml_bench.housekeeping.prune import IMPORT_LOCK
from ntml_bench.integrity import CHECKSUMS, DamagedError
from ntml_bench.locks import held
from ntml_bench.records.cells import read_sweep
from ntml_bench.records.manifest import SweepFolder
from ntml_bench.store import Store, write_json
from ntml_bench.table.render import render_sweep


@dataclass(frozen=True)
class Received:
    """The sweep's folder; how many of its artifacts are new here, and how many the store had."""

    folder: Path
    new: int
    present: int


def import_archive(path: Path, outputs: Path, *, name: str | None, largest: int) -> Received:
    """Raises UserError, and then leaves nothing: for an archive that is damaged, made to deceive, or larger than `largest`
    or the disk's free space, and for a sweep whose name is taken by another."""
    with _locked(outputs), _staging(outputs) as staging:
        index = _unpacked(path, staging, outputs, largest)
        name = index.sweep if name is None else name
        _check_name(name)
        incoming, store = Store(staging / STORE), Store((outputs / "store").resolve())
        _check_content(path, staging / FOLDER, incoming, index)
        folder = outputs / "reference" / name
        _check_place(staging / FOLDER, folder, outputs / "sweeps" / name)
        new = [artifact for artifact in index.artifacts if store.place(*split(artifact), incoming.root / artifact)]
        _settle(staging / FOLDER, folder, index)
    return Received(folder, len(new), len(index.artifacts) - len(new))


def _unpacked(path: Path, staging: Path, outputs: Path, largest: int) -> Index:
    with storage("read", path):
        file = path.open("rb")
    with file:
        archive = Archive.opened(path, file)
        index = archive.index()
        if index.size > largest:
            raise UserError(
                f"{path} unpacks to {size_text(index.size)}, more than {size_text(largest)}; --max-size allows more"
            )
        free = shutil.disk_usage(outputs).free
        if index.size >= free:
            raise UserError(f"{path} unpacks to {size_text(index.size)}; {outputs} has {size_text(free)} left")
        archive.unpack(index, staging)
    return index


@contextmanager
def _locked(outputs: Path) -> Iterator[None]:
    with ExitStack() as stack:
        with storage("write to", outputs):
            outputs.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(held(outputs / IMPORT_LOCK, wait=False))
            except Timeout:
                raise UserError(f"another archive is being imported into {outputs}") from None
        yield


@contextmanager
def _staging(outputs: Path) -> Iterator[Path]:
    # The lock is held: what is there was left by an import, or a removal, that was killed.
    for left in outputs.glob(f"{STAGING}*/"):
        shutil.rmtree(left, ignore_errors=True)
    folder = outputs / f"{STAGING}{uuid4().hex}"
    try:
        with storage("write", folder):
            folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _check_name(name: str) -> None:
    special = any(character in '/\\:*?"<>|' or not character.isprintable() for character in name)
    if not 0 < len(name) <= 100 or special or name[0] in ". " or name[-1] in ". ":
        raise UserError(f"{name!r:.120} is no name for a folder; --as gives another")


def _check_content(path: Path, folder: Path, store: Store, index: Index) -> None:
    """What was unpacked is a finished sweep, and whole artifacts that its cells name."""
    try:
        sweep = SweepFolder.open(folder)
        problems = [cell.error or cell.state for cell in read_sweep(folder).cells if cell.state != "done"]
        if problems:
            raise UserError(f"{len(problems)} of its cells cannot be used: {problems[0]}")
        named = {name for entry in sweep.entries for name in (*entry.get("artifacts", []), f"cell-{entry['key']}")}
        for artifact in index.artifacts:
            if artifact not in named:
                raise UserError(f"no cell of it uses {artifact}")
            damage = damage_of(store, artifact, verify=True)
            if damage:
                raise UserError(f"{artifact}: {damage}")
    except (UserError, DamagedError) as error:
        if isinstance(error, StorageError):
            raise
        said = str(error).replace(str(folder), FOLDER)
        raise ArchiveError(f"{path} does not hold what it should ({said}); nothing was imported") from None


def _check_place(staged: Path, folder: Path, sweep: Path) -> None:
    """UserError where the name stands for other cells or other numbers already."""
    if folder.exists() and not _same_files(staged, folder):
        raise UserError(f"{folder} exists and holds something else; --as NAME gives the imported sweep another name")
    if sweep.exists() and not _same_sweep(staged, sweep):
        raise UserError(
            f"{sweep} is a sweep of the same name with other cells or numbers, and would come before the imported one; "
            "--as NAME gives it another name"
        )


def _same_files(one: Path, other: Path) -> bool:
    try:
        # The checksums are of all else that counts.
        return (one / CHECKSUMS).read_bytes() == (other / CHECKSUMS).read_bytes() and bool(SweepFolder.open(other))
    except (OSError, UserError):
        return False


def _same_sweep(one: Path, other: Path) -> bool:
    try:
        first, second = SweepFolder.open(one), SweepFolder.open(other)
        return first.entries == second.entries and all(first.record(entry) == second.record(entry) for entry in first.entries)
    except (UserError, DamagedError):
        return False


def _settle(staged: Path, folder: Path, index: Index) -> None:
    """Put the records in their place, last of all: what has its name here is there whole."""
    if folder.exists():
        known = read_json(folder / IMPORTED)["artifacts"] if (folder / IMPORTED).exists() else []
        write_json(folder / IMPORTED, _origin(index, known))
        return
    # Rendered from the records, whatever tables came along.
    for name in TABLES:
        (staged / name).unlink(missing_ok=True)
    render_sweep(staged, staged, FORMATS)
    write_json(staged / IMPORTED, _origin(index, []))
    move_folder(staged, folder)


def _origin(index: Index, known: list[str]) -> dict[str, Any]:
    return {"archive": index.digest, "artifacts": sorted({*known, *index.artifacts})}
