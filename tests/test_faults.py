"""Two sweeps on one store under faults: killed processes, a full disk, a disk that is read-only; then the same table.

`make test-faults` injects 60 faults and prints what it did; CI makes do with a few (FAULTS=3), and the suite leaves
them out, for time. Faults of the disk need the right to mount a file system in memory (root on Linux).
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from app_runner import SMALL, rows, workplace
from heard_signals import heard_signals

__all__ = ["workplace"]

FAULTS = int(os.environ.get("NTML_FAULTS", "0"))
# Few faults come fast, and small sweeps last until then.
MANY = FAULTS > 3
LONGEST_WAIT = 8 if MANY else 4  # seconds between two
ATTACKS = ("badnets", "blended", "sig")[: 3 if MANY else 2]
DEFENSES = ("none", "quick_1", "quick_2", "quick_3")[: 4 if MANY else 3]
GRID = (
    "-m",
    "--config-dir=options",
    *SMALL,
    "training.epochs=40",
    f"attack={','.join(ATTACKS)}",
    "attack.poisoning_rate=0.05",
    f"defense={','.join(DEFENSES)}",
    "floor=true",
    "workers=1",
    "imports=[witness]",
)
CELLS = len(ATTACKS) * len(DEFENSES)
SWEEPS = {"one": "cluster=local", "other": "cluster=threads"}
# Writes down each time that something is made, and whether it was there; and has a state written behind every epoch.
WITNESS = """
from pathlib import Path
from ntml_bench import checkpoint
from ntml_bench.store import Store

checkpoint.SECONDS_BETWEEN = 0.0
original = Store.get_or_make

def witnessed(self, name, key, make):
    def noted():
        again = self.record(name, key) is not None
        with Path("witness.log").open("a") as log:
            log.write(f"{name}-{key} {'again' if again else 'made'}\\n")
        return make()
    return original(self, name, key, noted)

if original.__name__ != "witnessed":
    Store.get_or_make = witnessed
"""


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of 40 MB at `folder`, where that is permitted."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


class Sweep:
    """A sweep in processes of its own, begun again whenever it ended before it was complete."""

    def __init__(self, name: str, cluster: str, folder: Path) -> None:
        self.name = name
        self.command = [sys.executable, "-m", "ntml_bench.app.main", *GRID, cluster, f"sweep={name}"]
        self.folder = folder
        self.ends: Counter[int] = Counter()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def complete(self) -> bool:
        return self.ends[0] > 0

    def tend(self) -> None:
        """Start it, unless it runs or is complete."""
        if self.process is not None and (code := self.process.poll()) is not None:
            self.ends[code] += 1
            self.process = None
        if self.process is None and not self.complete:
            with (self.folder / f"{self.name}.log").open("ab") as log, heard_signals():
                self.process = subprocess.Popen(self.command, cwd=self.folder, stdout=log, stderr=log)
            # Before it counts its cores: a thread a core would collapse where two sweeps share them with other tests.
            os.sched_setaffinity(self.process.pid, {min(os.sched_getaffinity(0))})

    def processes(self) -> list[int]:
        """The sweep's own process first, then its workers."""
        if self.process is None or self.process.poll() is not None:
            return []
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        with suppress(OSError):
            return [self.process.pid, *map(int, children.read_text().split())]
        return [self.process.pid]


class Faults:
    """Injects them, one at a time, and counts."""

    def __init__(self, sweeps: list[Sweep], disk: Path | None, rng: random.Random) -> None:
        self.sweeps = sweeps
        self.disk = disk
        self.rng = rng
        self.counts: Counter[str] = Counter()

    @property
    def injected(self) -> int:
        return sum(self.counts.values())

    def inject(self) -> None:
        if self.disk is not None and self.rng.random() < 0.2:
            self._disk(self.disk)
            return
        processes = [process for sweep in self.sweeps for process in sweep.processes()]
        if processes:
            how = self.rng.choice([signal.SIGKILL, signal.SIGTERM])
            with suppress(ProcessLookupError):
                os.kill(self.rng.choice(processes), how)
                self.counts[how.name] += 1

    def _disk(self, disk: Path) -> None:
        if self.rng.random() < 0.5:
            filler = disk / ".filler"
            with suppress(OSError), filler.open("wb") as file:
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            time.sleep(self.rng.uniform(0.5, 3))
            filler.unlink()
            self.counts["no space left"] += 1
        else:
            # Refused while a file is open for writing: then another time.
            if subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=False, capture_output=True).returncode == 0:
                time.sleep(self.rng.uniform(0.5, 3))
                subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
                self.counts["read-only"] += 1


@pytest.mark.slow
@pytest.mark.skipif(FAULTS == 0, reason="make test-faults")
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs the cores of a process to be chosen (Linux)")
def test_the_table_after_faults_is_that_of_an_undisturbed_sweep(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workplace / "witness.py").write_text(WITNESS)
    options = workplace / "options" / "defense"
    options.mkdir(parents=True)
    for number in (1, 2, 3):
        text = f"defaults: [ft]\nrecipe:\n  epochs: 5\n  learning_rate: {number / 1000}\n"
        (options / f"quick_{number}.yaml").write_text(text)
    monkeypatch.syspath_prepend(str(workplace))
    store = workplace / "outputs" / "store"
    with small_disk(store) as mounted:
        sweeps = [Sweep(name, cluster, workplace) for name, cluster in SWEEPS.items()]
        seed = random.randrange(1 << 30)
        faults = Faults(sweeps, store if mounted else None, random.Random(seed))
        try:
            disturb(sweeps, faults)
        finally:
            for sweep in sweeps:
                if sweep.process is not None:
                    sweep.process.kill()
                    sweep.process.wait()
        made = Counter((workplace / "witness.log").read_text().split("\n")[:-1])
        again = [line for line in made if line.endswith(" again")]
        ends = {sweep.name: dict(sweep.ends) for sweep in sweeps}
        print(f"\nseed {seed}: faults {dict(faults.counts)}; sweeps ended with {ends}")
        print(f"{len(made)} stages made, begun {sum(made.values())} times; done again: {len(again)}")
        assert faults.injected >= FAULTS, "the sweeps were complete before"
        assert not again, "something that was done was done again"
        tables = {name: rows(name) for name in SWEEPS}
    calm_sweep = Sweep("calm", "outputs=calm/outputs", workplace)
    calm_sweep.tend()
    assert calm_sweep.process is not None
    assert calm_sweep.process.wait(600) == 0
    calm = rows("calm", workplace / "calm")
    assert len(calm) == CELLS
    assert all(row["state"] == "done" for row in calm)
    for name, table in tables.items():
        assert table == calm, name


def disturb(sweeps: list[Sweep], faults: Faults) -> None:
    """Faults at random moments, as many as wanted; then the sweeps may end in peace."""
    end = time.monotonic() + 300 + 20 * FAULTS
    while not all(sweep.complete for sweep in sweeps):
        assert time.monotonic() < end, "the sweeps do not come to an end"
        for sweep in sweeps:
            sweep.tend()
        time.sleep(0.1)
        if faults.injected < FAULTS and any(sweep.processes() for sweep in sweeps):
            time.sleep(faults.rng.uniform(0.5, LONGEST_WAIT))
            faults.inject()
