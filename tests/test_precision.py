"""What `precision=auto` means: measured once and kept, but by the processor alone where the digits count."""

from itertools import accumulate, count
from pathlib import Path

import pytest
import torch

from ntml_bench import precision
from ntml_bench.engine import Engine
from ntml_bench.precision import Seconds

CPU = torch.device("cpu")


class Measurements:
    """A machine that is measured: what it says, and how often it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.says: Seconds = {"bfloat16": 1.0, "float32": 2.0}
        self.asked = 0
        monkeypatch.setattr(precision, "measured_here", self._measured)
        monkeypatch.setattr(precision, "has_bfloat16", lambda _: True)

    def _measured(self) -> Seconds:
        self.asked += 1
        return self.says


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Measurements:
    return Measurements(monkeypatch)


def chosen(folder: Path, *, deterministic: bool = False) -> str:
    return precision.automatic(CPU, deterministic, folder)[0]


def test_the_faster_one_is_taken(machine: Measurements, tmp_path: Path) -> None:
    assert precision.automatic(CPU, False, tmp_path / "one") == (
        "bfloat16",
        "measured: bfloat16 1000.00 ms, float32 2000.00 ms",
    )
    machine.says = {"bfloat16": 2.0, "float32": 1.0}
    assert chosen(tmp_path / "other") == "float32"


def test_the_first_measurement_stays(machine: Measurements, tmp_path: Path) -> None:
    assert chosen(tmp_path) == "bfloat16"
    machine.says = {"bfloat16": 2.0, "float32": 1.0}
    assert chosen(tmp_path) == "bfloat16"
    assert machine.asked == 1


def test_another_processor_and_another_torch_are_measured_anew(
    machine: Measurements, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen(tmp_path)
    machine.says = {"bfloat16": 2.0, "float32": 1.0}
    with monkeypatch.context() as patch:
        patch.setattr(precision, "processor", lambda: "another")
        assert chosen(tmp_path) == "float32"
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "99.0")
        assert chosen(tmp_path) == "float32"
    assert chosen(tmp_path) == "bfloat16"


def test_where_nothing_can_be_written_the_process_decides(machine: Measurements, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert chosen(tmp_path / "file") == "bfloat16"


def test_no_measurement_decides_a_deterministic_run(
    machine: Measurements, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.says = {"bfloat16": 2.0, "float32": 1.0}
    assert chosen(tmp_path, deterministic=True) == "bfloat16"
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: False)
    assert chosen(tmp_path, deterministic=True) == "float32"
    # Without instructions for it bfloat16 is never worth a try.
    machine.says = {"bfloat16": 1.0, "float32": 2.0}
    assert chosen(tmp_path) == "float32"
    assert machine.asked == 0


def test_the_engine_computes_in_it(machine: Measurements, tmp_path: Path) -> None:
    machine.says = {"bfloat16": 2.0, "float32": 1.0}
    engine = Engine.create("cpu", "auto", deterministic=False, cache_dir=tmp_path)
    assert not engine.half
    assert engine.chosen_by.startswith("measured: ")
    assert Engine.create("cpu", "bfloat16", deterministic=False, cache_dir=tmp_path).half


def test_a_measurement_takes_turns_and_keeps_the_best() -> None:
    # Warm-ups of both, then five rounds: bfloat16 takes 9, 3, 5, 7, 8 and float32 4, 6, 2, 8, 9.
    took = iter((50, 50, 9, 4, 3, 6, 5, 2, 7, 8, 8, 9))
    moments = accumulate((step for pair in zip(count(0, 0), took, strict=False) for step in pair), initial=0)
    next(moments)
    assert precision.measure(clock=lambda: float(next(moments))) == {"bfloat16": 3, "float32": 2}


def test_a_real_measurement() -> None:
    before = torch.random.get_rng_state()
    found = precision.measure()
    assert set(found) == {"bfloat16", "float32"}
    assert all(0 < value < 10 for value in found.values())
    assert torch.equal(before, torch.random.get_rng_state())
