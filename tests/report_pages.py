"""Reports made by hand: a sweep in memory, with galleries and figures, and the page that is made of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from table_records import entry, metrics, record, write_failure, write_sweep

from ntml_bench.records.cells import read_sweep
from ntml_bench.records.manifest import SweepFolder
from ntml_bench.records.published.comparison import compare
from ntml_bench.records.published.reference import read_reference
from ntml_bench.records.summary import Block, summarise
from ntml_bench.report.data import Gallery, Report, ReportCell
from ntml_bench.report.figures.drawing import Drawing, Kind

ATTACKS = ("badnets", "blended", "sig", "lc", "wanet", "narcissus")
DEFENSES = ("none", "ft", "fp", "nad", "anp", "i_bau", "nt_ml")
NASTY = "<b onclick=\"x\">'ä' & </script><script>alert(1)</script> 鳥"


@dataclass(frozen=True, kw_only=True)
class Sketch(Drawing):
    """A figure that is quickly drawn."""

    def svg(self) -> str:
        return (
            f'<svg role="img" viewBox="0 0 240 120" aria-labelledby="{self.name}-title" style="max-width:400px">'
            f'<title id="{self.name}-title">a drawing</title><rect width="240" height="120" style="fill:var(--line)"/>'
            '<circle cx="120" cy="60" r="40" style="fill:var(--series-1)"/></svg>'
        )


def table_sweep(
    outputs: Path,
    seeds: Sequence[int] = (0,),
    *,
    attacks: Sequence[str] = ATTACKS,
    defenses: Sequence[str] = DEFENSES,
    unfinished: Mapping[tuple[str, str, int], str | None] | None = None,
    extra: Mapping[str, Any] | None = None,
    place: tuple[str, str] = ("digit_scenes", "resnet_tiny"),
    name: str = "table",
) -> Path:
    """Numbers that are all different; `unfinished`: cells with the error that they ended in, None where they are missing."""
    cells, records = [], []
    for row, attack in enumerate(attacks):
        before = metrics(95.25 - row, 99.5 - 3 * row, 0.5 + row)
        for column, defense in enumerate(defenses):
            for seed in seeds:
                cell = entry(attack, defense, seed, dataset=place[0], model=place[1], settings={"presets": "small"})
                cells.append(cell)
                error = (unfinished or {}).get((attack, defense, seed))
                if error is not None:
                    write_failure(outputs, cell, error)
                elif (attack, defense, seed) not in (unfinished or {}):
                    after = (
                        before
                        if defense == "none"
                        else metrics(
                            94.5 - row - 2.25 * column - seed, 5.75 + 13 * ((row + column) % 6), 40 + row * column + seed
                        )
                    )
                    done = record(cell, after, before, metrics(96.5 - row / 2, 1.25 + row, 80.5 - row))
                    environment = {"python": "3.11.7", "device": "cpu", "finished": f"2026-01-0{seed + 1}T00:00:00+00:00"}
                    records.append({**done, "environment": {**environment, "packages": {"torch": "2.15.0"}}, **(extra or {})})
    return write_sweep(outputs, name, cells, records)


def report_of(
    folder: Path, *, galleries: Sequence[Gallery] = (), reference: str | None = None, command: str | None = None
) -> Report:
    """The report of a sweep's folder, without exhibits."""
    sweep, opened = read_sweep(folder), SweepFolder.open(folder)
    entries = {entry["key"]: entry for entry in opened.entries}
    summary = summarise(sweep)
    return Report(
        summary=summary,
        comparison=compare(summary, read_reference(reference)) if reference else None,
        galleries=tuple(galleries),
        cells=tuple(ReportCell(cell, opened.record(entries[cell.key]), None, None) for cell in sweep.cells),
        command=command,
    )


def gallery(
    attack: str = "sig",
    *,
    classes: Sequence[str] = ("cat", "dog", "frog", "horse"),
    side: int = 32,
    channels: int = 3,
    seed: int = 0,
) -> Gallery:
    """Soft blobs, and a trigger that brightens some columns by 40."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 200, (len(classes), 4, 4, channels)).repeat(-(-side // 4), 1).repeat(-(-side // 4), 2)
    clean = coarse[:, :side, :side].astype(np.uint8)
    triggered = clean.copy()
    triggered[:, :, ::4] += 40
    return Gallery("digit_scenes", attack, "airplane", clean, triggered, tuple(classes), 500, 24.25, 0.912, 40.0)


def sketches(report: Report) -> list[Drawing]:
    """A figure of each block, and of each attack and each cell that is done."""
    found: list[Drawing] = []

    def sketch(kind: Kind, block: Block, attack: str | None = None, defense: str | None = None) -> None:
        title, name = f"{kind}: {attack}, {defense}", f"sketch-{len(found)}"
        place = {"dataset": block.dataset, "model": block.model, "attack": attack, "defense": defense}
        found.append(Sketch(name=name, kind=kind, title=title, alt="", draw=Figure, **place))

    for block in report.summary.blocks:
        done = [cell for cell in report.summary.cells_of(block) if cell.state == "done" and cell.seed == 0]
        sketch("plane", block)
        for attack in dict.fromkeys(cell.attack for cell in done):
            sketch("curves", block, attack)
        for cell in done:
            sketch("features", block, cell.attack, cell.defense)
    return found
