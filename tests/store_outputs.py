"""An outputs folder with two finished sweeps that share a backdoored model, as runs leave it but for the sizes."""

from pathlib import Path
from typing import Any

import torch
from table_records import entry, metrics, record, write

from ntml_bench.store import Artifact, Store, key_of

SWEEPS = {"one": ("none", "ft"), "two": ("none", "nt_ml")}
BYTES = {"victim": 4000, "purified": 2000, "evaluation": 10, "surrogate": 1000, "cell": 0}


def key(*parts: str) -> str:
    return key_of({"parts": parts})


def artifacts_of(attack: str, defense: str) -> list[str]:
    """What a cell names as its own, of which this project's small store has all but surrogates of most attacks."""
    names = [f"victim-{key(attack)}", f"surrogate-{key('surrogate')}", f"evaluation-{key(attack, 'none')}"]
    if defense != "none":
        names += [f"purified-{key(attack, defense)}", f"evaluation-{key(attack, defense)}"]
    return sorted(names)


def cells_of(sweep: str) -> list[dict[str, Any]]:
    return [{**entry("badnets", defense), "artifacts": artifacts_of("badnets", defense)} for defense in SWEEPS[sweep]]


def make(store: Store, artifact: str, content: dict[str, Any] | None = None) -> Path:
    """An artifact whose tensors have the size of its kind, and values of its own."""
    name, _, digits = artifact.rpartition("-")
    fill = int(digits[:6], 16) % 251
    tensors = {"values": torch.full((BYTES[name],), fill, dtype=torch.uint8)}
    store.get_or_make(name, digits, lambda: Artifact(content or {"made": artifact}, tensors))
    return store.path(name, digits)


def write_outputs(outputs: Path) -> Path:
    """Both sweeps with their artifacts (no surrogate: the attack trains none), their tables not rendered."""
    store = Store(outputs / "store")
    for sweep in SWEEPS:
        cells = cells_of(sweep)
        write(outputs / "sweeps" / sweep / "manifest.json", {"sweep": sweep, "store": "../../store", "cells": cells})
        for cell in cells:
            done = record(cell, metrics(90 + len(cell["defense"]), 5, 80), metrics(95, 99, 1))
            make(store, f"cell-{cell['key']}", done)
            for artifact in cell["artifacts"]:
                if not artifact.startswith("surrogate"):
                    make(store, artifact)
    return outputs


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that a folder holds, but for empty locks."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if not path.name.endswith(".lock")
    }
