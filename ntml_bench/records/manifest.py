"""What stands in the folder of a sweep: a manifest that names its cells, and records that are checked as they are read.

A manifest can come from somebody else: nothing that it says leads to a file outside of the sweep's folder and the store.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntml_bench.errors import UserError
from ntml_bench.files import StorageError, read_json, storage
from ntml_bench.integrity import DamagedError, Sealed
from ntml_bench.records.earlier import completed
from ntml_bench.store import Store

MANIFEST = "manifest.json"
RECORDS = "records"
STORES = (".", "../../store")
"""Where a manifest may say that the records are: `outputs/store` seen from `outputs/sweeps/NAME`, or nowhere else."""
KEPT = {"kept": "sweep"}
"""The owner in the checksums of a manifest with records beside it."""
ARTIFACT = re.compile(r"([a-z]+)-([0-9a-f]{16})")
"""The name of a folder in the store: what it is, and its key."""
NAMES = ("dataset", "model", "attack", "defense")
FITTED_BY = ("dataset", "presets")
"""Who may set an attack's or a defense's values otherwise than its own option: what belongs to a data set, to a family."""
LONGEST_COMMAND = 10_000
"""Characters."""


@dataclass(frozen=True)
class SweepFolder:
    """A manifest that was read, and where the records of its cells are."""

    folder: Path
    name: str
    entries: tuple[dict[str, Any], ...]
    store: Store
    objective: str | None
    """What the cells were chosen by, where a search made them."""
    kept: Sealed | None
    """Records beside the manifest, as `ntml-table --keep` leaves them."""
    command: str | None = None
    """What made the sweep, as it was typed; None where that was not written down, or not as one line of text."""

    @classmethod
    def open(cls, folder: Path) -> "SweepFolder":
        """Raises UserError where the folder holds no manifest, or none that can be used."""
        path = folder / MANIFEST
        try:
            kept = Sealed.open(folder, KEPT) if (folder / RECORDS).is_dir() else None
            manifest = _read(path) if kept is None else kept.json(MANIFEST)
            store = manifest.get("store", ".")
            if store not in STORES:
                raise ValueError(f"its store is {store!r:.80}; allowed: {', '.join(STORES)}")
            objective = manifest.get("objective")
            if not isinstance(objective, str | None):
                raise ValueError(f"its objective is {objective!r:.80}")
            name, entries = str(manifest["sweep"]), tuple(completed(_checked(entry)) for entry in manifest["cells"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} cannot be read as the manifest of a sweep ({type(error).__name__}: {error})") from None
        return cls(folder, name, entries, Store((folder / store).resolve()), objective, kept, _command(manifest))

    def record(self, entry: Mapping[str, Any]) -> dict[str, Any] | None:
        """The record of a done cell, beside the manifest or in the store; None where there is none.

        Raises DamagedError for one that is not what was written or that is another cell's, and StorageError.
        """
        kept = f"{RECORDS}/{entry['key']}.json"
        if self.kept is not None and kept in self.kept.marks:
            record = self.kept.json(kept)
        else:
            record = self.store.read_record("cell", entry["key"])
        if record is not None:
            for name in ("key", "seed", *NAMES):
                if record.get(name) != entry[name]:
                    raise DamagedError(f"it is of another cell: its {name} is {record.get(name)!r} instead of {entry[name]!r}")
        return record

    def failure(self, key: str) -> str | None:
        """What is written down of a cell that failed; None where nothing is."""
        path = failure_path(self.store, key)
        try:
            with storage("read", path):
                try:
                    return str(read_json(path)["error"])
                except FileNotFoundError:
                    return None
        except (ValueError, KeyError, TypeError, StorageError):
            return f"{path.name} cannot be read"


def failure_path(store: Store, key: str) -> Path:
    """Where the error and the traceback of a failed cell are."""
    return store.root / f"{store.path('cell', key).name}.failed.json"


def running_path(store: Store, key: str) -> Path:
    """Where it says who runs a cell, or ran it when it was killed."""
    return store.root / f".{store.path('cell', key).name}.running.json"


def _read(path: Path) -> Any:
    with storage("read", path):
        try:
            return read_json(path)
        except FileNotFoundError:
            raise UserError(f"{path.parent} holds no {MANIFEST}; it is not the folder of a sweep") from None


def _command(manifest: Mapping[str, Any]) -> str | None:
    command = manifest.get("command")
    readable = isinstance(command, str) and 0 < len(command) <= LONGEST_COMMAND and command.isprintable()
    return command if readable else None


def _checked(entry: Any) -> dict[str, Any]:
    """A cell of a manifest; ValueError or KeyError where it is none."""
    if not isinstance(entry, dict):
        raise ValueError(f"a cell is {entry!r:.80}")
    key, seed, needs = entry["key"], entry["seed"], entry.get("needs") or []
    if not isinstance(key, str) or not re.fullmatch(r"[0-9a-f]{16}", key):
        raise ValueError(f"the key of a cell is {key!r:.80}; allowed: 16 hex digits")
    if type(seed) is not int:
        raise ValueError(f"the seed of cell {key} is {seed!r:.80}")
    if not isinstance(needs, list) or not all(isinstance(need, str) for need in needs):
        raise ValueError(f"the needs of cell {key} are {needs!r:.80}")
    for name in NAMES:
        if not isinstance(entry[name], str):
            raise ValueError(f"the {name} of cell {key} is {entry[name]!r:.80}")
    _check_origin(entry)
    artifacts = entry.get("artifacts", [])
    if not isinstance(artifacts, list) or not all(isinstance(name, str) and ARTIFACT.fullmatch(name) for name in artifacts):
        raise ValueError(f"the artifacts of cell {key} are {artifacts!r:.80}")
    if not isinstance(entry.get("target_name"), str | None):
        raise ValueError(f"the name of the target of cell {key} is {entry['target_name']!r:.80}")
    if not isinstance(entry.get("targets"), list | None):
        raise ValueError(f"the targets of cell {key} are {entry['targets']!r:.80}")
    rate = entry.get("published_rate")
    if isinstance(rate, bool) or not isinstance(rate, int | float | None):
        raise ValueError(f"the published rate of cell {key} is {rate!r:.80}")
    if not isinstance(entry.get("settings") or {}, Mapping):
        raise ValueError(f"the settings of cell {key} are {entry['settings']!r:.80}")
    for group, setters in entry.get("fitted", {}).items():
        if group not in NAMES or not all(
            setter in FITTED_BY and isinstance(names, list) and all(isinstance(name, str) for name in names)
            for setter, names in setters.items()
        ):
            raise ValueError(f"the fitted settings of cell {key} are {entry['fitted']!r:.80}")
    return entry


def _check_origin(entry: Mapping[str, Any]) -> None:
    """Of what images and code a cell was made; manifests of before do not say it."""
    data, code = entry.get("data"), entry.get("code")
    if data is not None and not (isinstance(data["whole"], str) and isinstance(data["folder"], str | None)):
        raise ValueError(f"the data of cell {entry['key']} are {data!r:.80}")
    if code is not None:
        versions = [code["engine"], *(code[group]["version"] for group in ("attack", "defense"))]
        if not all(type(version) is int for version in versions):
            raise ValueError(f"the versions of cell {entry['key']} are {versions!r:.80}")
