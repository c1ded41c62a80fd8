"""Worker processes: the same numbers as in threads, whoever is killed."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from app_runner import SMALL, bench, rows, workplace
from heard_signals import heard_signals

from ntml_bench.app import runners

__all__ = ["workplace"]

# A defense that takes long enough to be killed in, and one that ends its own process the first time(s).
SLOW = """
import os, signal, time
from dataclasses import dataclass
from pathlib import Path
from ntml_bench.defenses import DEFENSES, Defense, DefenseConfig

@dataclass(frozen=True, kw_only=True)
class SlowConfig(DefenseConfig):
    seconds: float

@DEFENSES.register("slow")
class Slow(Defense[SlowConfig]):
    Config = SlowConfig
    needs = ()

    def purify(self, context):
        Path(f"at_work_{os.getpid()}").touch()
        time.sleep(self.config.seconds)
        return context.model

@dataclass(frozen=True, kw_only=True)
class DeadlyConfig(DefenseConfig):
    times: int

@DEFENSES.register("deadly")
class Deadly(Defense[DeadlyConfig]):
    Config = DeadlyConfig
    needs = ()

    def purify(self, context):
        before = len(list(Path.cwd().glob("death_*")))
        if before < self.config.times:
            Path(f"death_{before}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return context.model
"""
LOCAL = ("-m", "--config-dir", "my_conf", *SMALL, "imports=[toys]", "attack=badnets", "cluster=local", "sweep=workers")


@pytest.fixture(autouse=True)
def _one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers with one thread of torch each: more would collapse beside other tests."""
    monkeypatch.setattr(runners, "usable_cores", lambda: 1)


@pytest.fixture
def toys(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (workplace / "toys.py").write_text(SLOW)
    folder = workplace / "my_conf" / "defense"
    folder.mkdir(parents=True)
    (folder / "slow.yaml").write_text("name: slow\nseconds: 60.0\n")
    (folder / "deadly.yaml").write_text("name: deadly\ntimes: 1\n")
    monkeypatch.syspath_prepend(str(workplace))
    return workplace


@pytest.fixture
def started(toys: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `ntml-bench` in a process of its own, which does not outlive the test."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ntml_bench.app.main", *arguments]
        with heard_signals():
            processes.append(subprocess.Popen(command, cwd=toys, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def worker_at_work(folder: Path, deadline: float = 120) -> int:
    """The process that is in the slow defense."""
    end = time.monotonic() + deadline
    while not (found := list(folder.glob("at_work_*"))):
        assert time.monotonic() < end
        time.sleep(0.05)
    return int(found[0].name.removeprefix("at_work_"))


def gone(process: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while Path(f"/proc/{process}").exists() and "State:\tZ" not in Path(f"/proc/{process}/status").read_text():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.slow
def test_a_killed_worker_is_started_again_and_its_cell_with_it(toys: Path) -> None:
    outcome = bench(*LOCAL, "defense=none,deadly", "workers=1")
    assert outcome.code == 0, outcome.errors
    assert [row["state"] for row in rows("workers")] == ["done", "done"]
    assert len(list(toys.glob("death_*"))) == 1


@pytest.mark.slow
def test_a_cell_whose_worker_dies_each_time_fails_and_the_others_go_on(toys: Path) -> None:
    (toys / "my_conf" / "defense" / "deadly.yaml").write_text("name: deadly\ntimes: 9\n")
    outcome = bench(*LOCAL, "defense=deadly,none", "workers=1", "cluster.retries=1")
    assert outcome.code == 1
    assert re.search(r"badnets x deadly, seed 0: its worker process was killed by SIGKILL.*, 2 times", outcome.errors)
    assert len(list(toys.glob("death_*"))) == 2
    assert [row["state"] for row in rows("workers")] == ["failed", "done"]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(how: signal.Signals, toys: Path, started: Callable[..., subprocess.Popen[str]]) -> None:
    parent = started(*LOCAL, "defense=slow", "workers=1")
    worker = worker_at_work(toys)
    parent.send_signal(how)
    assert parent.wait(10) == (130 if how == signal.SIGTERM else -how)
    assert gone(worker, 10)


@pytest.mark.slow
@pytest.mark.parametrize("cluster", ["local", "threads"])
def test_an_interrupt_ends_everything_at_once_and_says_how_to_go_on(
    cluster: str, toys: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    parent = started(*LOCAL, f"cluster={cluster}", "defense=none,slow", "workers=1")
    worker = worker_at_work(toys)
    start = time.monotonic()
    parent.send_signal(signal.SIGINT)
    _, errors = parent.communicate(timeout=20)
    assert time.monotonic() - start < 10  # a second or two where nothing else runs
    assert parent.returncode == 130
    assert "interrupted; the same command goes on where it was" in errors
    assert "Traceback" not in errors
    assert gone(worker, 10)
    store = toys / "outputs" / "store"
    assert not list(store.glob(".*.tmp-*"))
    # What was done stays done.
    assert len(list(store.glob("victim-*"))) == 1


def test_a_single_cell_has_no_use_for_a_cluster(workplace: Path) -> None:
    outcome = bench(*SMALL, "cluster=local")
    assert outcome.code == 1
    assert "cluster=local is for sweeps: add -m" in outcome.errors


def test_an_unknown_cluster_and_a_wrong_setting_are_named(workplace: Path) -> None:
    assert "Did you mean 'local'?" in bench("-m", *SMALL, "cluster=locale").errors
    outcome = bench("-m", *SMALL, "cluster=local", "cluster.retries=-1")
    assert outcome.code == 1
    assert "cluster.retries is -1; allowed: at least 0" in outcome.errors
