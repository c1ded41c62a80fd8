"""W&B online, against a local server: a run is never doubled; what a bad server costs is bounded, and nothing is lost to it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from app_runner import SMALL, bench, rows, workplace
from heard_signals import heard_signals
from table_records import golden, write_sweep
from wandb_files import read_runs
from wandb_place import CLOSED, alone, done, logged, server, tracker
from wandb_server import ANSWERS, DIES, FAILS, HANGS, REFUSES, TOO_MANY, WandbServer

from ntml_bench.table.render import render_sweep
from ntml_bench.tracking import Tracker, session

__all__ = ["alone", "server", "workplace"]
pytestmark = pytest.mark.usefixtures("alone")
TESTS = Path(__file__).parent
INIT, FINISH = 2.0, 2.0
BUSY = 15.0
"""Seconds that starting W&B's service twice and writing four runs may take on a machine with other work."""


def patient(folder: Path, mode: str = "online") -> Tracker:
    """For a server that answers: time-outs that a busy machine does not reach."""
    return tracker(mode, folder, pytest.fail, init_timeout=60.0, finish_timeout=60.0)


def whole(run: dict[str, Any]) -> bool:
    """Whether the server has that run of `done`, each step once."""
    steps = [row["_step"] for row in run["history"]]
    losses = [row["backdoor/loss"] for row in run["history"]]
    return steps == [0, 1, 2] and losses == [1.0, 0.5, 1 / 3] and run["summary"]["clean_accuracy"] == 94.75


def forget(folder: Path, key: str) -> None:
    """As if the process had been killed just before it left its marker."""
    (folder / "tracked" / key).unlink()


def sync(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "wandb", "sync", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, timeout=200)


def test_a_cell_is_a_whole_run_on_the_server(tmp_path: Path, server: WandbServer) -> None:
    patient(tmp_path).log_cell(done())
    ((run_id, run),) = server.runs.items()
    assert whole(run)
    assert run_id.startswith(done()["key"])
    assert (run["displayName"], run["groupName"], run["project"]) == ("badnets/nt_ml/seed0", "tiny", "test-project")
    assert json.loads(run["config"])["defense"]["value"]["temperature"] == 4
    assert run["complete"] == 1
    assert (tmp_path / "tracked" / done()["key"]).read_text() == "online\n"


@pytest.mark.parametrize("arrived", [0, 1, 3])
def test_a_second_logging_goes_on_where_the_first_was(tmp_path: Path, server: WandbServer, arrived: int) -> None:
    patient(tmp_path).log_cell(done())
    (run,) = server.runs.values()
    del run["history"][arrived:]
    run["summary"] = {}
    forget(tmp_path, done()["key"])
    patient(tmp_path).log_cell(done())
    assert len(server.runs) == 1
    assert whole(run)
    assert len(list(tmp_path.glob("wandb/*run-*/*.wandb"))) == 1


def test_what_is_on_disk_is_sent_by_the_same_command_online(tmp_path: Path, server: WandbServer) -> None:
    patient(tmp_path, "offline").log_cell(done())
    assert server.calls == []
    patient(tmp_path).log_cell(done())
    (run,) = server.runs.values()
    assert whole(run)
    assert not list(tmp_path.glob("wandb/offline-run-*")), "wandb sync would send it again"
    calls = len(server.calls)
    patient(tmp_path).log_cell(done())
    patient(tmp_path, "offline").log_cell(done())
    assert len(server.calls) == calls


@pytest.mark.slow
def test_sync_never_doubles_a_run(tmp_path: Path, server: WandbServer) -> None:
    key = done()["key"]
    patient(tmp_path, "offline").log_cell(done())
    forget(tmp_path, key)
    patient(tmp_path, "offline").log_cell(done())
    logged(tmp_path)
    sync(*tmp_path.glob("wandb/*run-*"))
    (run,) = server.runs.values()
    assert whole(run)
    run["summary"] = {}
    # It was synchronised, and is logged again: the history is there already, the summary may not be.
    forget(tmp_path, key)
    patient(tmp_path, "offline").log_cell(done())
    logged(tmp_path)
    sync(*tmp_path.glob("wandb/*run-*"))
    assert whole(run)
    patient(tmp_path).log_cell(done())
    assert whole(run)


BAD = {
    "nobody listens": None,
    "hangs": lambda call, count: HANGS,
    "refuses the key": lambda call, count: REFUSES,
    "fails": lambda call, count: FAILS,
    "too many requests": lambda call, count: TOO_MANY,
    "hangs at the uploads": lambda call, count: HANGS if call == "file_stream" else ANSWERS,
    "fails at the uploads": lambda call, count: FAILS if call == "file_stream" else ANSWERS,
    "hangs from the second cell on": lambda call, count: HANGS if count["complete"] else ANSWERS,
    "dies behind the first cell": lambda call, count: DIES if count["complete"] else ANSWERS,
    "dies at the uploads of the second cell": lambda call, count: (
        DIES if count["complete"] and call == "file_stream" else ANSWERS
    ),
}


def play(server: WandbServer, part: str) -> str:
    """Let the server play this part; the address to call."""
    act = BAD[part]
    if act is None:
        return CLOSED
    server.part = lambda call: act(call, {"complete": sum(run["complete"] for run in server.runs.values())})
    return server.url


@pytest.mark.parametrize("part", BAD)
def test_a_bad_server_costs_bounded_seconds_and_no_data(
    tmp_path: Path, server: WandbServer, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", play(server, part))
    warnings: list[str] = []
    start = time.perf_counter()
    for seed in range(4):
        tracker("online", tmp_path, warnings.append, init_timeout=INIT, finish_timeout=FINISH).log_cell(done(seed=seed))
    took = time.perf_counter() - start
    print(f"{part}: {took:.1f} s for four cells; {warnings}")
    assert took < max(INIT, FINISH) + session.GRACE + BUSY
    assert len(warnings) == 1
    assert warnings[0].startswith("W&B: going on offline (")
    assert f"wandb sync {tmp_path}/wandb/offline-run-*" in warnings[0]
    sent = [run for run in server.runs.values() if run["complete"]]
    assert all(whole(run) for run in sent)
    assert len(sent) == (1 if "cell" in part else 0)
    runs = logged(tmp_path)
    assert len(list(tmp_path.glob("wandb/*run-*"))) == 4
    assert set(runs) == {f"badnets/nt_ml/seed{seed}" for seed in range(4)}
    on_disk = read_runs(tmp_path, "offline-run-*")
    assert len(on_disk) == 4 - len(sent)
    for run in on_disk.values():
        assert (len(run.history), run.summary["clean_accuracy"], run.exit_code) == (3, 94.75, 0)


def test_a_server_that_hangs_where_wandb_has_no_time_out_costs_bounded_seconds(
    tmp_path: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A table asks for an artifact while it is logged.
    monkeypatch.setattr(session, "GRACE", 1.0)
    server.part = lambda call: HANGS if call == "ArtifactType" else ANSWERS
    folder = write_sweep(tmp_path, "golden", *golden())
    summary = render_sweep(folder, tmp_path / "out")
    warnings: list[str] = []
    start = time.perf_counter()
    tracked = tracker("online", folder, warnings.append, init_timeout=30.0, finish_timeout=FINISH)
    tracked.log_table(summary, tmp_path / "out" / "table.png")
    assert time.perf_counter() - start < FINISH + 1.0 + BUSY
    assert len(warnings) == 1
    assert "no answer of W&B's service within 3 s" in warnings[0]
    assert len(list(folder.glob("wandb/offline-run-*/files/media/table/*.json"))) == 1


SWEEP = """
import sys
from pathlib import Path
from ntml_bench.tracking import Tracker, TrackingConfig
from wandb_place import config, done
tracker = Tracker(config("online", init_timeout=2.0, finish_timeout=2.0), Path(sys.argv[1]), "tiny", print)
for seed in range(4):
    tracker.log_cell(done(seed=seed))
"""


def process(folder: Path) -> "subprocess.Popen[str]":
    paths = os.pathsep.join(str(path) for path in (TESTS, TESTS.parent))
    with heard_signals():
        return subprocess.Popen(
            [sys.executable, "-c", SWEEP, str(folder)],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def services_of(pid: int) -> list[Path]:
    """The W&B services on this machine that serve the process of that number (none where there is no /proc)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"wandb-core" in arguments[0] and str(pid).encode() in arguments:
            found.append(path)
    return found


@pytest.mark.parametrize("part", ["hangs", "hangs at the uploads"])
def test_a_process_ends_soon_after_a_server_that_hangs(
    tmp_path: Path, server: WandbServer, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", play(server, part))
    running = process(tmp_path)
    output, errors = running.communicate(timeout=120)
    assert running.returncode == 0
    assert (output.count("\n"), errors) == (1, "")
    assert services_of(running.pid) == []
    assert len(read_runs(tmp_path, "offline-run-*")) == 4


@pytest.mark.parametrize("call", ["UpsertBucket", "file_stream"])
def test_an_interrupt_ends_a_process_that_waits_for_the_server(tmp_path: Path, server: WandbServer, call: str) -> None:
    server.part = lambda name: HANGS if name == call else ANSWERS
    running = process(tmp_path)
    deadline = time.monotonic() + 120
    while call not in server.calls:
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    start = time.monotonic()
    running.communicate(timeout=60)
    assert time.monotonic() - start < 10
    assert running.returncode != 0
    assert services_of(running.pid) == []


@pytest.mark.slow
def test_a_sweep_has_its_numbers_and_its_table_whatever_the_server_does(
    workplace: Path, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = ("-m", *SMALL, "attack=badnets,sig", "attack.poisoning_rate=0.05", "defense=none,i_bau", "sweep=grid")
    assert bench(*grid).code == 0
    numbers = rows("grid")
    for part in ("hangs", "hangs at the uploads"):
        shutil.rmtree(workplace / "outputs" / "sweeps" / "grid" / "tracked", ignore_errors=True)
        monkeypatch.setattr(Tracker, "server_given_up", False)
        monkeypatch.setenv("WANDB_BASE_URL", play(server, part))
        start = time.perf_counter()
        outcome = bench(*grid, "tracking=online", f"tracking.init_timeout={INIT}", f"tracking.finish_timeout={FINISH}")
        print(f"{part}: {time.perf_counter() - start:.1f} s")
        assert outcome.code == 0
        assert rows("grid") == numbers
        assert outcome.output.count("W&B:") == 1
        assert outcome.errors == ""
        logged(workplace / "outputs" / "sweeps" / "grid")
        assert len(read_runs(workplace / "outputs" / "sweeps" / "grid", "offline-run-*")) == 5
