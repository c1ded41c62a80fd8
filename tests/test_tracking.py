"""W&B on disk: offline files are read back; a key, a server or the package itself that is missing."""

import json
import os
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pytest
from builders import yaml_values
from table_records import golden, write_sweep
from wandb_place import alone, config, done, logged, tracker

from ntml_bench.errors import UserError
from ntml_bench.records.rows import COLUMNS
from ntml_bench.schema import build
from ntml_bench.table.render import render_sweep
from ntml_bench.tracking import Tracker, TrackingConfig, session
from ntml_bench.tracking import tracker as tracker_module

__all__ = ["alone"]
pytestmark = pytest.mark.usefixtures("alone")


class Terminal(StringIO):
    """A terminal on which nobody answers."""

    def isatty(self) -> bool:
        return True

    def readline(self, size: int = -1, /) -> str:
        raise AssertionError("W&B asked for a key")


@pytest.mark.parametrize("name", ["offline", "online", "none", "agent"])
def test_options_are_complete(name: str) -> None:
    values = yaml_values("tracking", name)
    settings = build(TrackingConfig, values, "tracking")
    agent = name == "agent"
    assert (settings.name, settings.mode, settings.agent) == (name, "online" if agent else name, agent)
    with pytest.raises(UserError, match=r"tracking\.mode is 'ofline'"):
        build(TrackingConfig, values | {"mode": "ofline"}, "tracking")


def test_offline_files_hold_the_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    warnings: list[str] = []
    tracked = tracker("offline", tmp_path / "sweep", warnings.append)
    first, second = done(), done("none")
    tracked.log_cell(first)
    start = time.perf_counter()
    tracked.log_cell(second)
    assert time.perf_counter() - start < 1.0
    assert warnings == []
    assert capfd.readouterr() == ("", "")

    runs = logged(tmp_path / "sweep")
    run = runs["badnets/nt_ml/seed0"]
    assert run.summary["clean_accuracy"] == first["after"]["clean_accuracy"] == 94.75
    assert run.summary["attack_success_rate"] == first["after"]["attack_success_rate"] == 3.125
    assert run.summary["robust_accuracy"] == 90
    assert run.summary["before/attack_success_rate"] == 99.25
    assert run.summary["floor/attack_success_rate"] == 1.5
    assert run.summary["defense_effectiveness_rating"] == first["defense_effectiveness_rating"]
    assert (run.project, run.group, run.job_type) == ("test-project", "tiny", "defense")
    assert set(run.tags) == {"digit_scenes", "resnet_tiny", "badnets", "nt_ml", "seed-0"}
    assert run.run_id.startswith(first["key"])
    assert run.config["defense"] == {"name": "nt_ml", "temperature": 4.0}
    assert [(row["backdoor/epoch"], row["backdoor/loss"]) for row in run.history] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert run.metrics["backdoor/*"] == "backdoor/epoch"
    assert run.exit_code == 0
    undefended = runs["badnets/none/seed0"]
    assert undefended.job_type == "undefended"
    assert "defense_effectiveness_rating" not in undefended.summary


def test_a_cell_is_logged_once_a_sweep(tmp_path: Path) -> None:
    cell = done()
    Tracker(config("offline"), tmp_path / "sweep", "tiny").log_cell(cell)
    again = Tracker(config("offline"), tmp_path / "sweep", "tiny")
    again.log_cell(cell)
    assert again.is_logged(cell["key"])
    assert (tmp_path / "sweep" / "tracked" / cell["key"]).read_text() == "offline\n"
    assert len(list((tmp_path / "sweep" / "wandb").glob("offline-run-*"))) == 1
    other = Tracker(config("offline"), tmp_path / "other", "other")
    assert not other.is_logged(cell["key"])
    other.log_cell(cell)
    (here,), (there,) = logged(tmp_path / "sweep").values(), logged(tmp_path / "other").values()
    assert here.run_id != there.run_id


def test_what_a_killed_process_left_of_a_run_is_replaced(tmp_path: Path) -> None:
    folder, cell = tmp_path / "sweep", done()
    tracked = tracker("offline", folder, pytest.fail)
    tracked.log_cell(cell)
    logged(folder)
    marker = folder / "tracked" / cell["key"]
    marker.unlink()  # as if it had been killed just before
    (left,) = (folder / "wandb").glob("offline-run-*")
    (file,) = left.glob("*.wandb")
    file.write_bytes(file.read_bytes()[:200])
    tracked.log_cell(cell)
    (run,) = logged(folder).values()
    assert len(list(folder.glob("wandb/*run-*/*.wandb"))) == 1
    assert (len(run.history), run.summary["clean_accuracy"], run.exit_code) == (3, 94.75, 0)
    assert marker.is_file()


def test_the_table_becomes_a_run(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, "golden", *golden())
    summary = render_sweep(folder, tmp_path / "out")
    tracked = Tracker(config("offline"), folder, "golden")
    for _ in range(2):
        tracked.log_table(summary, tmp_path / "out" / "table.png")
    (path,) = (folder / "wandb").glob("offline-run-*/files/media/table/*.json")
    table = json.loads(path.read_text())
    assert table["columns"] == list(COLUMNS)
    assert table["data"][2][2:9] == ["badnets", "ft", 0, 95.0, 50.0, 45.0, 74.5]
    assert table["data"][-1][6] is None
    assert len(list((folder / "wandb").glob("offline-run-*/files/media/images/*.png"))) == 1
    run = logged(folder)["table/golden"]
    assert (run.job_type, run.summary["done"]) == ("table", 18)


def test_variables_of_the_shell_do_not_change_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "WANDB_MODE": "disabled",
        "WANDB_DISABLED": "true",
        "WANDB_SWEEP_ID": "abc",
        "WANDB_RUN_ID": "mine",
        "WANDB_RESUME": "must",
        "WANDB_DIR": str(tmp_path / "elsewhere"),
        "WANDB_SERVICE": "3-1-unix-nowhere",
    }.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    Tracker(config("offline"), tmp_path / "sweep", "tiny").log_cell(done())
    assert dict(os.environ) == before
    (run,) = logged(tmp_path / "sweep").values()
    assert run.summary["clean_accuracy"] == 94.75
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("key", ["", "a" * 40])
def test_online_falls_back_within_seconds_and_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stderr", Terminal())
    warnings: list[str] = []
    start = time.perf_counter()
    for seed in (0, 1):
        Tracker(config("online"), tmp_path / "sweep", "tiny", warnings.append).log_cell(done(seed=seed))
    assert time.perf_counter() - start < 15
    assert len(warnings) == 1
    assert "going on offline" in warnings[0]
    runs = logged(tmp_path / "sweep")
    assert runs["badnets/nt_ml/seed1"].summary["attack_success_rate"] == 3.125
    assert (tmp_path / "sweep" / "tracked" / done()["key"]).read_text() == "offline\n"


def test_a_failure_is_one_line_and_loses_no_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    tracked = tracker("offline", tmp_path, warnings.append)

    def fail(*arguments: object, **keywords: object) -> None:
        raise RuntimeError("no space\nleft")

    with monkeypatch.context() as patch:
        patch.setattr(tracker_module, "write_run", fail)
        tracked.log_cell(done())
    assert warnings == ["W&B: badnets/nt_ml/seed0 was not logged (RuntimeError: no space left)"]
    assert not tracked.is_logged(done()["key"])
    tracked.log_cell(done())
    assert tracked.is_logged(done()["key"])


def test_a_broken_record_is_one_line_and_no_run(tmp_path: Path) -> None:
    warnings: list[str] = []
    tracked = tracker("offline", tmp_path, warnings.append)
    tracked.log_cell({**done(), "history": [{"epoch": 0}]})
    assert len(warnings) == 1
    assert not list(tmp_path.glob("wandb/*run-*"))
    tracked.log_cell(done(seed=1))
    assert tracked.is_logged(done(seed=1)["key"])
    assert len(warnings) == 1


def test_a_service_that_crashed_costs_one_cell(tmp_path: Path) -> None:
    warnings: list[str] = []
    tracked = tracker("offline", tmp_path, warnings.append)
    tracked.log_cell(done(seed=0))
    session._kill_service()
    tracked.log_cell(done(seed=1))
    tracked.log_cell(done(seed=2))
    assert [line.partition(" (")[0] for line in warnings] == ["W&B: badnets/nt_ml/seed1 was not logged"]
    assert {"badnets/nt_ml/seed2"} <= set(logged(tmp_path))


def test_a_service_that_hangs_costs_one_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    tracked = tracker("offline", tmp_path, warnings.append)
    tracked.log_cell(done(seed=0))
    monkeypatch.setattr(session, "GRACE", 0.5)
    monkeypatch.setattr(tracker_module, "LOCAL", session.Limits(init=0.5, finish=0.5))
    service = session._service()
    assert service is not None
    service.send_signal(signal.SIGSTOP)
    start = time.perf_counter()
    tracked.log_cell(done(seed=1))
    assert time.perf_counter() - start < 15
    monkeypatch.undo()
    tracked.log_cell(done(seed=2))
    reason = "TimeoutError: no answer of W&B's service within 1 s"
    assert warnings == [f"W&B: badnets/nt_ml/seed1 was not logged ({reason})"]
    assert {"badnets/nt_ml/seed2"} <= set(logged(tmp_path))


def test_wandb_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="tracking=none"):
        Tracker(config("offline"), tmp_path, "tiny")
    monkeypatch.undo()


def test_mode_none_needs_no_wandb(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["wandb"] = None
from pathlib import Path
from ntml_bench.tracking import Tracker, TrackingConfig, session
tracker = Tracker({config("none")!r}, Path({str(tmp_path)!r}) / "sweep", "s")
tracker.log_cell({done()!r})
print(tracker.is_logged("x"), (Path({str(tmp_path)!r}) / "sweep").exists())
"""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "False False\n"


def test_a_process_says_one_line_and_ends_soon_after_a_server_that_never_was(tmp_path: Path) -> None:
    # The root logger prints, as Hydra's does: W&B's own messages must not pass through it.
    code = f"""
import logging
from pathlib import Path
logging.basicConfig(level=logging.INFO)
from ntml_bench.tracking import Tracker, TrackingConfig, session
Tracker({config("online")!r}, Path({str(tmp_path)!r}), "s", print).log_cell({done()!r})
"""
    start = time.perf_counter()
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert time.perf_counter() - start < 20
    assert finished.stdout.count("\n") == 1
    assert finished.stderr == ""
