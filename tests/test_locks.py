"""Whoever waits for a lock says for whom, and how to break one that nobody holds any more."""

import fcntl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from filelock import Timeout

from ntml_bench import locks
from ntml_bench.files import StorageError
from ntml_bench.locks import held
from ntml_bench.store import Store

HOLD = """
import sys
from pathlib import Path
from ntml_bench.store import Store
with Store(Path(sys.argv[1])).lock("victim", "key"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "SECONDS_OF_SILENCE", 0.2)
    monkeypatch.setattr(locks, "SECONDS_BETWEEN_LINES", 0.4)


@pytest.fixture
def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that has no such locks."""

    def refused(*_: object) -> None:
        raise OSError(38, "Function not implemented")  # ENOSYS

    monkeypatch.setattr(fcntl, "flock", refused)


def test_a_wait_for_another_process_names_it_and_is_not_repeated_at_each_look(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None
    assert holder.stdout is not None
    holder.stdout.readline()
    lines: list[str] = []
    let_go = threading.Timer(0.9, holder.stdin.close)
    let_go.start()
    with Store(tmp_path, lines.append).lock("victim", "key"):
        pass
    holder.wait()
    holder.stdout.close()
    assert 1 <= len(lines) <= 3
    assert f"process {holder.pid} on " in lines[0]
    assert ".victim-key.lock" in lines[0]
    assert ", since 2" in lines[0]
    assert "remove" not in lines[0], "this lock ends with its process"
    assert not list(tmp_path.glob("*-holder"))


def test_a_short_wait_is_silent(tmp_path: Path) -> None:
    lines: list[str] = []
    with held(tmp_path / "lock", warn=lines.append):
        pass
    assert lines == []


@pytest.mark.usefixtures("without_flock")
@pytest.mark.filterwarnings("ignore:flock not supported")
def test_a_lock_that_another_machine_left_behind_is_named_with_how_to_break_it(tmp_path: Path) -> None:
    path = tmp_path / ".victim-key.lock"
    path.write_text("4711\nelsewhere\n")
    lines: list[str] = []

    def warn(line: str) -> None:
        lines.append(line)
        path.unlink()  # as the message says

    with Store(tmp_path, warn).lock("victim", "key"):
        assert path.exists()
    assert len(lines) == 1
    assert "process 4711 on elsewhere, since 2" in lines[0]
    assert str(path) in lines[0]
    assert "remove the file" in lines[0]
    assert not path.exists()


def test_who_does_not_wait_is_told_at_once(tmp_path: Path) -> None:
    with held(tmp_path / "lock"), pytest.raises(Timeout), held(tmp_path / "lock", wait=False):
        pytest.fail("it is held")


def test_a_folder_without_files_is_no_lock_that_is_waited_for() -> None:
    with pytest.raises(StorageError, match="/proc"), Store(Path("/proc/self")).lock("victim", "key"):
        pytest.fail("nothing can be held there")
