"""What a sweep costs besides training, defending and evaluating; and how the time of a table grows.

Each sweep is a process of its own, as a user starts it, with one cell at a time (so that times add up) and W&B offline.
The work is small on purpose: 300 digits, one epoch of everything.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import linear_regression
from tempfile import TemporaryDirectory

from ntml_bench.bench.timing import Spread
from ntml_bench.errors import UserError

ATTACKS = ("badnets", "blended", "sig", "wanet")
DEFENSES = ("cheap_1", "cheap_2", "cheap_3", "cheap_4")
"""Fine-tuning for one epoch with four learning rates: what differs between two tables is their size alone."""
COUNTS = (1, 2, 4)
SQUARE = (4, 4)
"""Attacks and defenses of the sweep that gives the overhead a cell, and is run again with everything stored."""
ROUNDS = 2
"""Of all sweeps in turns; the fastest of each counts, because what else the machine does can only add to its time."""
SETTINGS = (
    "dataset=digits",
    "dataset.train_limit=300",
    "dataset.test_limit=100",
    "model=resnet_tiny",
    "attack.poisoning_rate=0.05",
    "training.epochs=1",
    "clean_budget=0.1",
    "tracking=offline",
    "workers=1",
)
APPLICATION = "from ntml_bench.app.main import main; main()"
IMPORTS = """
import hydra_plugins.ntml_bench, ntml_bench.app.main
from ntml_bench.app.imports import lasting_imports
with lasting_imports():
    import ntml_bench.app.session, ntml_bench.app.settings
"""
"""What every sweep imports before its first cell."""


@dataclass(frozen=True)
class SweepTime:
    """Seconds of one sweep. `wall`: of its whole process; `worked`: of the attacks, defenses and evaluations in it, as
    their records say."""

    cells: int
    wall: float
    worked: float


@dataclass(frozen=True)
class Overhead:
    """A sweep, and the seconds a cell that were neither start-up nor work."""

    sweep: SweepTime
    seconds_a_cell: float


@dataclass(frozen=True)
class Growth:
    """Sweeps with `counts` attacks (or defenses) and one of the other, each from an empty store; by a straight line
    through them the seconds that one more takes: of the process (`wall`), and what of it is not work (`overhead`)."""

    counts: tuple[int, ...]
    sweeps: tuple[SweepTime, ...]
    wall_of_one_more: float
    overhead_of_one_more: float


@dataclass(frozen=True)
class SweepOverhead:
    """`start_up_seconds`: until Python has imported what every sweep needs (the lowest counts). `stored`: the sweep of
    `empty_store` again."""

    settings: tuple[str, ...]
    start_up_seconds: Spread
    empty_store: Overhead
    stored: Overhead
    attacks: Growth
    defenses: Growth


def check_installed() -> None:
    """Raise UserError where a package is missing that sweeps need."""
    missing = [name for name in ("hydra", "omegaconf", "rich", "wandb") if not _importable(name)]
    if missing:
        raise UserError(f"sweeps need {', '.join(missing)}, not installed here; --only throughput does without")


def measure_overhead(say: Callable[[str], None]) -> SweepOverhead:
    """Some dozen short processes, in a temporary folder. RuntimeError where one of them fails."""
    start_ups: list[float] = []
    stored: list[SweepTime] = []
    made: dict[tuple[int, int], list[SweepTime]] = {SQUARE: []}
    for count in COUNTS:
        made |= {(count, 1): [], (1, count): []}
    with TemporaryDirectory(prefix="ntml-bench-") as name:
        folder = Path(name)
        _write_defenses(folder / "options")
        # Reads the program's files for the first time, and makes the data: no sweep after it does either.
        say("sweeps: warm-up")
        _sweep(folder, "warm_up", 1, 1)
        for number in range(1, ROUNDS + 1):
            say(f"sweeps: round {number} of {ROUNDS}")
            start_ups.append(_process(IMPORTS))
            for (attacks, defenses), times in made.items():
                times.append(_sweep(folder, f"round_{number}_{attacks}_by_{defenses}", attacks, defenses))
            stored.append(_sweep(folder, f"round_{number}_{SQUARE[0]}_by_{SQUARE[1]}", *SQUARE))
    start_up = Spread.of(start_ups)

    def overhead(sweep: SweepTime) -> Overhead:
        return Overhead(sweep, (sweep.wall - start_up.lowest - sweep.worked) / sweep.cells)

    return SweepOverhead(
        settings=SETTINGS,
        start_up_seconds=start_up,
        empty_store=overhead(_fastest(made[SQUARE])),
        stored=overhead(_fastest(stored)),
        attacks=growth_of(COUNTS, [_fastest(made[count, 1]) for count in COUNTS]),
        defenses=growth_of(COUNTS, [_fastest(made[1, count]) for count in COUNTS]),
    )


def _fastest(sweeps: Sequence[SweepTime]) -> SweepTime:
    return min(sweeps, key=lambda sweep: sweep.wall)


def growth_of(counts: Sequence[int], sweeps: Sequence[SweepTime]) -> Growth:
    wall = linear_regression(counts, [sweep.wall for sweep in sweeps]).slope
    overhead = linear_regression(counts, [sweep.wall - sweep.worked for sweep in sweeps]).slope
    return Growth(tuple(counts), tuple(sweeps), wall, overhead)


def worked_seconds(store: Path) -> float:
    """What the records of a store say was spent on its models and evaluations, each counted once."""
    total = 0.0
    for path in store.glob("*/record.json"):
        seconds = json.loads(path.read_text()).get("seconds", 0.0)
        if not path.parent.name.startswith("cell-"):  # a cell's record repeats those of its stages
            total += sum(seconds.values()) if isinstance(seconds, dict) else seconds
    return total


def _sweep(folder: Path, name: str, attacks: int, defenses: int) -> SweepTime:
    """Run a sweep whose outputs are `folder`/`name`, which may hold them already."""
    outputs = folder / name
    before = worked_seconds(outputs / "store")
    wall = _process(
        APPLICATION,
        "--multirun",
        f"--config-dir={folder / 'options'}",
        *SETTINGS,
        f"attack={','.join(ATTACKS[:attacks])}",
        f"defense={','.join(DEFENSES[:defenses])}",
        f"sweep={name}",
        f"outputs={outputs}",
        f"data_dir={folder / 'data'}",
    )
    return SweepTime(attacks * defenses, wall, worked_seconds(outputs / "store") - before)


def _process(code: str, *arguments: str) -> float:
    """Seconds that a Python process takes, from its start to its end."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        raise RuntimeError(f"a process of the benchmark failed ({' '.join(arguments) or code}):\n{done.stderr}")
    return seconds


def _write_defenses(options: Path) -> None:
    """The options of DEFENSES, for --config-dir."""
    (options / "defense").mkdir(parents=True)
    for number, name in enumerate(DEFENSES, start=1):
        text = f"defaults: [ft]\nrecipe:\n  epochs: 1\n  learning_rate: {number / 1000}\n"
        (options / "defense" / f"{name}.yaml").write_text(text)


def _importable(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False
