"""`ntml-store list`: an inventory as plain values, and as text."""

from collections.abc import Iterable, Sequence
from typing import Any

from ntml_bench.housekeeping.amounts import bytes_below, size_text
from ntml_bench.housekeeping.inventory import Inventory, Item, Use

PLACES = {"data cache": "data/cache", "downloads": "data/downloads", "tables": "tables"}
"""Below the outputs folder, beside store and sweeps."""


def report(inventory: Inventory) -> dict[str, Any]:
    """Sizes in bytes. `only` is what no other sweep uses, `shared` what others use too."""
    artifacts, users = inventory.artifacts, inventory.users
    damaged = [item for item in artifacts.values() if item.damage]
    stale, unfinished = trainings(inventory)
    return {
        "outputs": str(inventory.outputs),
        "store": _amount(inventory.items),
        "sweeps": [_of_sweep(use, inventory) for use in inventory.uses],
        "of no sweep": _amount(item for name, item in artifacts.items() if name not in users),
        "damaged": [{"artifact": item.artifact, "bytes": item.size, "why": item.damage} for item in damaged],
        "set aside": _amount(inventory.of_kind("set aside")),
        "interrupted trainings": _amount(unfinished),
        "left-overs": {
            "temporary": _amount(inventory.of_kind("temporary")),
            "states of finished trainings": _amount(stale),
            "half imported or removed": {"count": len(inventory.staging), "bytes": sum(map(bytes_below, inventory.staging))},
            "lock files": inventory.locks,
            "not ours": [path.name for path in inventory.foreign],
        },
        "elsewhere": {name: bytes_below(inventory.outputs / place) for name, place in PLACES.items()},
    }


def trainings(inventory: Inventory) -> tuple[list[Item], list[Item]]:
    """The states of trainings that are over (a kill left them), and of those that can go on."""
    states = inventory.of_kind("training")
    stale = [item for item in states if item.artifact in inventory.artifacts]
    return stale, [item for item in states if item not in stale]


def text_of(found: dict[str, Any]) -> str:
    """The report for people."""
    rows = [("sweep", "done", "artifacts", "only its own", "shared", "W&B", "")]
    for sweep in found["sweeps"]:
        name = f"{sweep['name']} (imported)" if sweep["imported"] else sweep["name"]
        own, shared = sweep["only"], sweep["shared"]
        sizes = (size_text(own["bytes"]), size_text(shared["bytes"]), size_text(sweep["tracking_bytes"]))
        done = f"{sweep['done']} of {sweep['cells']}"
        rows.append((name, done, str(own["count"] + shared["count"]), *sizes, sweep["problem"]))
    left, elsewhere = found["left-overs"], found["elsewhere"]
    lines = _aligned(rows) if found["sweeps"] else ["no sweeps"]
    facts = {
        "store": _said(found["store"]),
        "of no sweep": _said(found["of no sweep"]),
        "damaged": str(len(found["damaged"])),
        "set aside as damaged": _said(found["set aside"]),
        "trainings to go on": _said(found["interrupted trainings"]),
        "temporary left-overs": _said(left["temporary"]),
        "states of finished trainings": _said(left["states of finished trainings"]),
        "half imported or removed": _said(left["half imported or removed"]),
        "lock files": str(left["lock files"]),
        "not ours": ", ".join(left["not ours"]) or "0",
        **{name: size_text(size) for name, size in elsewhere.items()},
    }
    lines += ["", *_aligned(list(facts.items()))]
    lines += [f"damaged: {entry['artifact']}: {entry['why']}" for entry in found["damaged"]]
    return "\n".join(lines)


def _of_sweep(use: Use, inventory: Inventory) -> dict[str, Any]:
    present = [inventory.artifacts[name] for name in use.wanted if name in inventory.artifacts]
    only = [item for item in present if inventory.users[item.artifact] == {use.name}]
    return {
        "name": use.name,
        "imported": use.imported,
        "cells": len(use.cells),
        "done": sum(name in inventory.artifacts for name in use.cells),
        "only": _amount(only),
        "shared": _amount(item for item in present if item not in only),
        "folder_bytes": use.size,
        "tracking_bytes": use.tracking,
        "problem": use.problem,
    }


def _amount(items: Iterable[Item]) -> dict[str, int]:
    sizes = [item.size for item in items]
    return {"count": len(sizes), "bytes": sum(sizes)}


def _said(amount: dict[str, int]) -> str:
    return f"{amount['count']}, {size_text(amount['bytes'])}" if amount["count"] else "0"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
