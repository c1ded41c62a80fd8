"""What lies below an outputs folder: artifacts, whose they are, what is damaged, and what runs left behind."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ntml_bench.errors import UserError
from ntml_bench.files import StorageError, read_json, storage
from ntml_bench.housekeeping.amounts import bytes_below
from ntml_bench.integrity import DamagedError, Sealed
from ntml_bench.records.manifest import ARTIFACT, MANIFEST, SweepFolder
from ntml_bench.store import TENSORS, Store

IMPORTED = "imported.json"
"""In the folder of a sweep that came in an archive: the artifacts that came with it."""
STAGING = ".staging-"
"""How folders below the outputs folder begin that are on their way in (an archive) or out (a sweep)."""
SET_ASIDE = re.compile(rf"\.damaged-{ARTIFACT.pattern}-\w+")
TEMPORARY = re.compile(rf"\.{ARTIFACT.pattern}(?:\.checkpoint|\.failed\.json)?\.tmp-\w+|\.removed-{ARTIFACT.pattern}-\w+")
TRAINING = re.compile(rf"\.{ARTIFACT.pattern}\.checkpoint")
LOCK = re.compile(rf"\.{ARTIFACT.pattern}\.lock(?:-holder)?")
FAILURE = re.compile(rf"{ARTIFACT.pattern}\.failed\.json")


@dataclass(frozen=True)
class Item:
    """A file or folder of the store. `artifact` is the one that it is, or that it was left by."""

    path: Path
    kind: str
    """artifact, failure, training, set aside, temporary."""
    artifact: str
    size: int
    modified: float
    damage: str = ""
    """One line; of an artifact that is not what was written."""


@dataclass(frozen=True)
class Use:
    """A sweep and what it uses. `problem`: why that is not known."""

    name: str
    folder: Path
    imported: bool
    cells: tuple[str, ...]
    wanted: frozenset[str]
    size: int
    tracking: int
    modified: float
    problem: str = ""


@dataclass(frozen=True)
class Inventory:
    """All of it. Artifacts that a sweep would use but that are not made are in `wanted` only."""

    outputs: Path
    store: Store
    uses: tuple[Use, ...]
    items: tuple[Item, ...]
    locks: int
    foreign: tuple[Path, ...]
    """In the store, but nothing of ours."""
    staging: tuple[Path, ...]

    @cached_property
    def artifacts(self) -> Mapping[str, Item]:
        return {item.artifact: item for item in self.items if item.kind == "artifact"}

    @cached_property
    def users(self) -> Mapping[str, frozenset[str]]:
        """The names of the sweeps that want an artifact; an artifact that none wants is not in it."""
        found: dict[str, set[str]] = {}
        for use in self.uses:
            for name in use.wanted:
                found.setdefault(name, set()).add(use.name)
        return {name: frozenset(users) for name, users in found.items()}

    def of_kind(self, *kinds: str) -> list[Item]:
        return [item for item in self.items if item.kind in kinds]


def take_inventory(outputs: Path, *, verify: bool = False) -> Inventory:
    """Look at everything; with `verify` the tensors are read too, so that no damage is overlooked. Raises UserError."""
    if not outputs.is_dir():
        raise UserError(f"{outputs} is not a folder; --outputs names the folder that runs were written to")
    with storage("read", outputs):
        store = Store((outputs / "store").resolve())
        uses = [_use(path.parent, imported=False) for path in sorted((outputs / "sweeps").glob(f"[!.]*/{MANIFEST}"))]
        uses += [_use(path.parent, imported=True) for path in sorted((outputs / "reference").glob(f"[!.]*/{IMPORTED}"))]
        items, foreign, locks = [], [], 0
        for path in sorted(store.root.iterdir()) if store.root.is_dir() else []:
            item = _item(path, store, verify)
            if item is not None:
                items.append(item)
            elif LOCK.fullmatch(path.name):
                locks += 1
            elif path.exists():
                foreign.append(path)
        staging = tuple(sorted(outputs.glob(f"{STAGING}*/")))
    return Inventory(outputs, store, tuple(uses), tuple(items), locks, tuple(foreign), staging)


def split(artifact: str) -> tuple[str, str]:
    """The name and the key of an artifact."""
    name, _, key = artifact.rpartition("-")
    return name, key


def damage_of(store: Store, artifact: str, *, verify: bool) -> str:
    """Why an artifact cannot be used, in one line; nothing where it can. Without `verify` the tensors are not read."""
    try:
        if store.read_record(*split(artifact)) is None:
            return "it is gone"
        if verify:
            name, key = split(artifact)
            Sealed.open(store.path(name, key), {"name": name, "key": key}).content(TENSORS)
    except (DamagedError, StorageError) as error:
        return " ".join(str(error).split())
    return ""


def _item(path: Path, store: Store, verify: bool) -> Item | None:
    patterns = {"artifact": ARTIFACT, "failure": FAILURE, "training": TRAINING, "set aside": SET_ASIDE, "temporary": TEMPORARY}
    for kind, pattern in patterns.items():
        found = pattern.fullmatch(path.name)
        if found:
            name, key = [group for group in found.groups() if group]
            artifact = f"{name}-{key}"
            damage = damage_of(store, artifact, verify=verify) if kind == "artifact" else ""
            try:
                return Item(path, kind, artifact, bytes_below(path), path.lstat().st_mtime, damage)
            except FileNotFoundError:
                return None
    return None


def _use(folder: Path, *, imported: bool) -> Use:
    cells: tuple[str, ...] = ()
    wanted: set[str] = set()
    problem = ""
    try:
        entries = SweepFolder.open(folder).entries
        cells = tuple(dict.fromkeys(f"cell-{entry['key']}" for entry in entries))
        if imported:
            # A kept table needs no store; an imported one keeps the models that came with it.
            wanted = {name for name in read_json(folder / IMPORTED)["artifacts"] if ARTIFACT.fullmatch(name)}
        else:
            wanted = {*cells, *(name for entry in entries for name in entry.get("artifacts", []))}
            if not all("artifacts" in entry for entry in entries):
                problem = f"{folder / MANIFEST} does not say which artifacts its cells use; run the sweep once more"
    except (UserError, ValueError, KeyError, TypeError) as error:
        problem = " ".join(str(error).split())
    size, tracking = bytes_below(folder), bytes_below(folder / "wandb")
    return Use(folder.name, folder, imported, cells, frozenset(wanted), size, tracking, folder.stat().st_mtime, problem)
