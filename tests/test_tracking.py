"""W&B for real: offline files are read back; a server that is not there, a key that is missing, a package that is missing."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from table_records import entry, golden, metrics, record, write_sweep
from wandb_files import LoggedRun, read_runs

from ntml_bench.errors import UserError
from ntml_bench.schema import build
from ntml_bench.table.delimited import COLUMNS
from ntml_bench.table.render import render_sweep
from ntml_bench.tracking import Tracker, TrackingConfig
from ntml_bench.tracking import tracker as tracker_module

REPOSITORY = Path(__file__).parent.parent
CLOSED = "http://127.0.0.1:9"


class Terminal(StringIO):
    """A terminal on which nobody answers."""

    def isatty(self) -> bool:
        return True

    def readline(self, size: int = -1, /) -> str:
        raise AssertionError("W&B asked for a key")


def config(mode: str, init_timeout: float = 2.0) -> TrackingConfig:
    return TrackingConfig(mode, "test-project", None, mode, init_timeout, 5.0)


def done(defense: str = "nt_ml", seed: int = 0) -> dict[str, Any]:
    before, after = metrics(96.5, 99.25, 0.5), metrics(94.75, 3.125, 90)
    return record(entry("badnets", defense, seed), before if defense == "none" else after, before, metrics(97, 1.5, 95))


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No account, no key, no settings of whoever runs the tests; nothing left behind in the process."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", CLOSED)
    monkeypatch.setattr(Tracker, "server_given_up", False)
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


def logged(folder: Path) -> dict[str, LoggedRun]:
    """The runs on disk, by name. W&B's service writes the end of a file about a millisecond after a run is finished."""
    sys.modules["wandb"].teardown()
    return read_runs(folder)


@pytest.mark.parametrize("name", ["offline", "online", "none"])
def test_options_are_complete(name: str) -> None:
    values = OmegaConf.to_container(OmegaConf.load(REPOSITORY / "conf" / "tracking" / f"{name}.yaml"))
    assert isinstance(values, dict)
    settings = build(TrackingConfig, {str(key): value for key, value in values.items()}, "tracking")
    assert (settings.name, settings.mode) == (name, name)
    with pytest.raises(UserError, match=r"tracking\.mode is 'ofline'"):
        build(TrackingConfig, {**{str(key): value for key, value in values.items()}, "mode": "ofline"}, "tracking")


def test_offline_files_hold_the_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    warnings: list[str] = []
    tracker = Tracker(config("offline"), tmp_path / "sweep", "tiny", warnings.append)
    first, second = done(), done("none")
    tracker.log_cell(first)
    start = time.perf_counter()
    tracker.log_cell(second)
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
    tracker = Tracker(config("offline"), tmp_path / "sweep", "tiny")
    tracker.log_cell(cell)
    assert tracker.is_logged(cell["key"])
    assert (tmp_path / "sweep" / "tracked" / cell["key"]).read_text() == "offline\n"
    assert len(list((tmp_path / "sweep" / "wandb").glob("offline-run-*"))) == 1
    other = Tracker(config("offline"), tmp_path / "other", "other")
    assert not other.is_logged(cell["key"])
    other.log_cell(cell)
    (here,), (there,) = logged(tmp_path / "sweep").values(), logged(tmp_path / "other").values()
    assert here.run_id != there.run_id


def test_the_table_becomes_a_run(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, "golden", *golden())
    summary = render_sweep(folder, tmp_path / "out")
    tracker = Tracker(config("offline"), folder, "golden")
    for _ in range(2):
        tracker.log_table(summary, tmp_path / "out" / "table.png")
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
    }.items():
        monkeypatch.setenv(name, value)
    Tracker(config("offline"), tmp_path / "sweep", "tiny").log_cell(done())
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
    tracker = Tracker(config("offline"), tmp_path, "tiny", warnings.append)

    def fail(*arguments: object, **keywords: object) -> None:
        raise RuntimeError("no space\nleft")

    with monkeypatch.context() as patch:
        patch.setattr(tracker_module, "open_run", fail)
        tracker.log_cell(done())
    assert warnings == ["W&B: badnets/nt_ml/seed0 was not logged (RuntimeError: no space left)"]
    assert not tracker.is_logged(done()["key"])
    tracker.log_cell(done())
    assert tracker.is_logged(done()["key"])


def test_a_broken_record_is_one_line_and_closes_its_run(tmp_path: Path) -> None:
    warnings: list[str] = []
    tracker = Tracker(config("offline"), tmp_path, "tiny", warnings.append)
    tracker.log_cell({**done(), "history": [{"epoch": 0}]})
    assert len(warnings) == 1
    tracker.log_cell(done(seed=1))
    assert tracker.is_logged(done(seed=1)["key"])
    assert len(warnings) == 1


def test_uploads_that_do_not_end_are_left_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stuck:
        summary: dict[str, float] = {}  # noqa: RUF012

        def define_metric(self, *arguments: object, **keywords: object) -> None: ...

        def log(self, *arguments: object) -> None: ...

        def finish(self, exit_code: int = 0) -> None:
            raise TimeoutError

    warnings: list[str] = []
    tracker = Tracker(config("online"), tmp_path, "tiny", warnings.append)
    with monkeypatch.context() as patch:
        patch.setattr(tracker_module, "open_run", lambda *arguments, **keywords: Stuck())
        tracker.log_cell(done())
    assert tracker.is_logged(done()["key"])
    assert len(warnings) == 1
    assert Tracker.server_given_up


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
from ntml_bench.tracking import Tracker, TrackingConfig
tracker = Tracker(TrackingConfig("none", "p", None, "none", 1.0, 1.0), Path({str(tmp_path)!r}) / "sweep", "s")
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
from ntml_bench.tracking import Tracker, TrackingConfig
Tracker(TrackingConfig("online", "p", None, "online", 1.0, 1.0), Path({str(tmp_path)!r}), "s", print).log_cell({done()!r})
"""
    start = time.perf_counter()
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert time.perf_counter() - start < 20
    assert finished.stdout.count("\n") == 1
    assert finished.stderr == ""
