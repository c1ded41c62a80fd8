"""`ntml-store prune`: what is chosen, and how it is removed beside runs that go on.

Two runs and a prune can meet; nothing of it may give a wrong number:

- What a sweep needs stands in its manifest, which is written before its first cell runs. Manifests are read again behind
  the confirmation; a sweep begun in the moment after that may have to train again what was removed.
- An artifact is removed under its lock, so never while somebody makes it, and by renaming it first, so that whoever
  reads it in this moment finds all of it, or nothing, or (between two of its files) takes it for damaged and makes it anew.
- Lock files stay. If one were removed, a process that had opened it before would hold a lock on a file without a name,
  another would make and lock a new file, and both would train at once. They are empty.
"""

import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

from filelock import Timeout

from ntml_bench.errors import UserError, unknown
from ntml_bench.files import storage
from ntml_bench.housekeeping.amounts import bytes_below
from ntml_bench.housekeeping.inventory import STAGING, Inventory, Item, Use, split
from ntml_bench.housekeeping.report import trainings
from ntml_bench.locks import held
from ntml_bench.store import LockedError, Store

IMPORT_LOCK = ".import.lock"
"""Below the outputs folder; held while an archive is unpacked."""


@dataclass(frozen=True)
class Choice:
    """What is asked for. `older_than`: seconds since anything of it was written."""

    sweeps: tuple[str, ...] = ()
    older_than: float | None = None
    unused: bool = False
    damaged: bool = False


@dataclass(frozen=True)
class Plan:
    """What would be removed, and what of the choice is left alone, a line each."""

    sweeps: tuple[Use, ...]
    items: tuple[Item, ...]
    staging: tuple[Path, ...]
    kept: tuple[str, ...]

    @property
    def size(self) -> int:
        return sum(part.size for part in (*self.sweeps, *self.items)) + sum(map(bytes_below, self.staging))

    @property
    def paths(self) -> set[Path]:
        return {item.path for item in self.items} | {use.folder for use in self.sweeps} | set(self.staging)

    def within(self, shown: "Plan") -> "Plan":
        """What is planned still, of what was shown."""
        paths = shown.paths
        return replace(
            self,
            sweeps=tuple(use for use in self.sweeps if use.folder in paths),
            items=tuple(item for item in self.items if item.path in paths),
            staging=tuple(path for path in self.staging if path in paths),
        )


def plan(inventory: Inventory, choice: Choice, now: float) -> Plan:
    """Raises UserError for a sweep that there is not, and where it is not known what some sweep needs."""
    everything = choice.older_than is not None and not (choice.sweeps or choice.unused or choice.damaged)
    before = now - (choice.older_than or 0.0)
    chosen, kept = _sweeps(inventory, choice.sweeps, before, everything=everything)
    items: dict[Path, Item] = {}
    if choice.sweeps or choice.unused or everything:
        unclear = [use for use in inventory.uses if use.problem and use not in chosen]
        if unclear:
            raise UserError(
                f"what the sweep '{unclear[0].name}' uses is not known, so nothing is removed: {unclear[0].problem}"
            )
        others = set().union(*(use.wanted for use in inventory.uses if use not in chosen))
        wanted = set().union(*(use.wanted for use in chosen)) - others
        items |= _paths(item for item in inventory.of_kind("artifact", "failure", "training") if item.artifact in wanted)
    if choice.unused:
        items |= _paths(item for item in _unused(inventory) if item.modified <= before)
    if choice.damaged:
        damaged = [item for item in inventory.artifacts.values() if item.damage] + inventory.of_kind("set aside")
        items |= _paths(item for item in damaged if item.modified <= before)
    busy = {item.artifact for item in items.values() if inventory.store.locked(*split(item.artifact))}
    kept += [f"{name} is being worked on" for name in sorted(busy)]
    free = tuple(item for item in items.values() if item.artifact not in busy)
    staging = [path for path in inventory.staging if choice.unused and path.stat().st_mtime <= before]
    return Plan(tuple(chosen), free, tuple(staging), tuple(kept))


def _sweeps(inventory: Inventory, names: Collection[str], before: float, *, everything: bool) -> tuple[list[Use], list[str]]:
    known = {use.name for use in inventory.uses}
    for name in names:
        if name not in known:
            raise unknown("sweep", name, known)
    chosen, kept = [], []
    for use in inventory.uses:
        if use.name not in names and not everything:
            continue
        newest = max([use.modified, *(inventory.artifacts[name].modified for name in use.cells if name in inventory.artifacts)])
        running = [name for name in use.wanted if inventory.store.locked(*split(name))]
        if running:
            kept.append(f"the sweep '{use.name}' is running ({running[0]} is being worked on)")
        elif newest <= before:
            chosen.append(use)
        elif not everything:
            kept.append(f"the sweep '{use.name}' is not as old as that")
    return chosen, kept


def _unused(inventory: Inventory) -> list[Item]:
    used = inventory.users
    stale, _ = trainings(inventory)
    left = inventory.of_kind("temporary")
    return stale + left + [item for item in inventory.of_kind("artifact", "failure", "training") if item.artifact not in used]


def _paths(items: Iterable[Item]) -> dict[Path, Item]:
    return {item.path: item for item in items}


def carry_out(found: Plan, store: Store, outputs: Path) -> tuple[int, list[str]]:
    """Remove what is planned; the bytes that were removed, and a line for each thing that was in use. Raises StorageError."""
    removed, busy = 0, []
    for item in found.items:
        try:
            with store.lock(*split(item.artifact), wait=False), storage("remove", item.path):
                _remove(item.path, store.root / f".removed-{item.artifact}-{uuid4().hex[:8]}")
        except LockedError:
            busy.append(f"{item.artifact} is being worked on")
            continue
        removed += item.size
    if found.sweeps or found.staging:
        try:
            with held(outputs / IMPORT_LOCK, wait=False):
                for path, size in _folders(found).items():
                    with storage("remove", path):
                        _remove(path, outputs / f"{STAGING}{uuid4().hex}")
                    removed += size
        except Timeout:
            busy.append("an archive is being imported")
    return removed, busy


def _folders(found: Plan) -> dict[Path, int]:
    return {use.folder: use.size for use in found.sweeps} | {path: bytes_below(path) for path in found.staging}


def _remove(path: Path, away: Path) -> None:
    try:
        path.replace(away)
    except FileNotFoundError:
        return  # somebody else did it
    if away.is_dir() and not away.is_symlink():
        shutil.rmtree(away)
    else:
        away.unlink()
