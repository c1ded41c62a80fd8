"""`ntml-status`: states told apart by what is on disk and by locks that live or died with their process."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from table_records import entry, metrics, record, write, write_failure, write_sweep

from ntml_bench.records.manifest import failure_path, running_path
from ntml_bench.records.status import CellStatus, seconds_left, status_of
from ntml_bench.status.main import main
from ntml_bench.store import Store

RUNNER = {"host": "node7", "process": 4711, "since": "2026-01-02T03:04:05+00:00"}
HOLD = """
import sys, time
from pathlib import Path
from ntml_bench.status.main import main
from ntml_bench.store import Store
with Store(Path(sys.argv[1])).lock("cell", sys.argv[2]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """badnets: none done, ft failed, nt_ml begun by somebody; sig: all missing."""
    cells = [entry(attack, defense) for attack in ("badnets", "sig") for defense in ("none", "ft", "nt_ml")]
    folder = write_sweep(tmp_path, "half", cells, [record(cells[0], metrics(90, 1, 89), metrics(95, 99, 1), seconds=60.0)])
    write_failure(tmp_path, cells[1], "the defense broke")
    write(running_path(Store(tmp_path / "store"), cells[2]["key"]), RUNNER)
    return folder


def states(folder: Path) -> dict[str, str]:
    return {f"{cell.attack} {cell.defense}": cell.state for cell in status_of(folder).cells}


def test_each_state_is_told_from_what_is_on_disk(sweep: Path) -> None:
    status = status_of(sweep)
    assert status.counts == {"done": 1, "running": 0, "failed": 1, "abandoned": 1, "missing": 3}
    done, failed, abandoned, *_ = status.cells
    assert (done.state, done.seconds) == ("done", 60.0)
    assert (failed.state, failed.error) == ("failed", "the defense broke")
    assert failed.traceback is not None
    assert "Traceback" in json.loads(Path(failed.traceback).read_text())["traceback"]
    assert (abandoned.state, abandoned.host, abandoned.process) == ("abandoned", "node7", 4711)
    assert status.seconds_spent == 60.0


def test_a_cell_runs_as_long_as_its_process_lives(sweep: Path, tmp_path: Path) -> None:
    key = next(cell.key for cell in status_of(sweep).cells if cell.state == "abandoned")
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "store"), key], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert states(sweep)["badnets nt_ml"] == "running"
        (cell,) = (cell for cell in status_of(sweep).cells if cell.state == "running")
        assert (cell.host, cell.since) == ("node7", RUNNER["since"])
        holder.send_signal(signal.SIGSTOP)  # it does nothing any more, but it is there
        assert states(sweep)["badnets nt_ml"] == "running"
    finally:
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()
    assert states(sweep)["badnets nt_ml"] == "abandoned"


def cell(defense: str, state: str, seconds: float | None = None) -> CellStatus:
    return CellStatus("badnets", defense, 0, "digits", "net", "0" * 16, state, seconds)


def test_the_time_left_is_that_of_cells_of_the_same_defense() -> None:
    done = [cell("ft", "done", 10.0), cell("ft", "done", 20.0), cell("nt_ml", "done", 60.0)]
    assert seconds_left(done) == 0.0
    assert seconds_left([*done, cell("ft", "missing"), cell("nt_ml", "running")]) == 15.0 + 60.0
    assert seconds_left([*done, cell("anp", "failed")]) == 30.0
    assert seconds_left([cell("ft", "missing")]) is None


def test_the_command_prints_the_grid_and_what_wants_attention(sweep: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["half", "--outputs", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "Sweep half: 6 cells: 1 done, 1 failed, 1 abandoned, 3 missing" in output
    assert "FAILED badnets x ft, seed 0: the defense broke (traceback: " in output
    assert "by process 4711 on node7, which is gone" in output
    assert "Time spent: 1 min 00 s; 5 min 00 s left" in output


def test_json_holds_the_same(sweep: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["half", "--outputs", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"]["abandoned"] == 1
    assert [cell["state"] for cell in found["cells"]][:3] == ["done", "failed", "abandoned"]
    assert found["cells"][1]["error"] == "the defense broke"


def test_an_unknown_sweep_is_named(sweep: Path, tmp_path: Path, capsys: Any) -> None:
    assert main(["haf", "--outputs", str(tmp_path)]) == 2
    assert "Did you mean 'half'?" in capsys.readouterr().err


def test_a_failure_that_cannot_be_read_is_a_failure(sweep: Path, tmp_path: Path) -> None:
    failed = next(cell for cell in status_of(sweep).cells if cell.state == "failed")
    failure_path(Store(tmp_path / "store"), failed.key).write_text("{")
    assert states(sweep)["badnets ft"] == "failed"
