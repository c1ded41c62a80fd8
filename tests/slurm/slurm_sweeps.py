"""A small sweep, what its jobs did, and how it is started beside a test."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from app_runner import SMALL
from cluster import Cluster
from heard_signals import heard_signals

SWEEP = (
    "-m",
    *SMALL,
    "attack=badnets,sig",
    "attack.poisoning_rate=0.05",
    "defense=none,i_bau,ft",
    "sweep=grid",
    "floor=true",
)
ON_SLURM = ("cluster=slurm", "imports=[witness]")

# A module for `imports`: what happens in the jobs, a line each.
WITNESS = """
import os
from contextlib import contextmanager
from ntml_bench.app import victims
from ntml_bench.store import Store

def tell(text):
    with open("witness.txt", "a") as file:
        file.write(f"{text}\\n")

if "SLURM_JOB_ID" in os.environ:
    fit, lock = victims.fit, Store.lock

    def told_fit(*arguments, **settings):
        if settings["checkpoint"] is not None:
            tell(f"trains {settings['checkpoint'].path.name}")
        fit(*arguments, **settings)

    @contextmanager
    def told_lock(self, name, key):
        if self.locked(name, key):
            tell(f"waits for {name}-{key}")
        with lock(self, name, key):
            yield

    victims.fit, Store.lock = told_fit, told_lock
"""


def witnessed(what: str, folder: Path = Path()) -> list[str]:
    """The lines of the jobs' witness that begin so, without that beginning."""
    lines = (folder / "witness.txt").read_text().splitlines()
    return [line.removeprefix(what).strip() for line in lines if line.startswith(what)]


def started_beside(*arguments: str) -> "subprocess.Popen[str]":
    """`ntml-bench` in a process of its own, in the working directory."""
    with heard_signals():
        return subprocess.Popen(
            [sys.executable, "-m", "ntml_bench.app.main", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ,
        )


def wait_for(what: Callable[[], object], beside: "subprocess.Popen[str]", seconds: float = 300) -> None:
    """Until it is so; an error when the process has ended before, or after that time."""
    deadline = time.monotonic() + seconds
    while not what():
        if beside.poll() is not None:
            raise AssertionError(f"the sweep ended too early: {beside.communicate()[0]}")
        assert time.monotonic() < deadline
        time.sleep(0.2)


def jobs(cluster: Cluster, state: str, node: str | None = None) -> list[str]:
    """The numbers of the jobs in that state, the oldest first."""
    where = ("--nodelist", node) if node else ()
    return cluster.command("squeue", "-h", "--array", "-S", "i", "-t", state, "-o", "%i", *where).split()
