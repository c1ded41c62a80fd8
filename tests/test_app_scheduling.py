"""Where and beside how many others a deterministic cell runs changes no byte of what it makes."""

import json
from pathlib import Path
from typing import Any

import pytest
from app_runner import SMALL, bench, made, rows, workplace
from small_cells import settings_of

from ntml_bench.app import runners

__all__ = ["workplace"]

GRID = (
    "-m",
    *SMALL,
    "attack=badnets,wanet",
    "defense=none,ft,i_bau",
    "defense.recipe.epochs=2",
    "defense.rounds=1",
    "floor=true",
    "sweep=same",
)


@pytest.mark.slow
def test_the_number_and_kind_of_workers_change_no_byte(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "usable_cores", lambda: 2)
    places = {"one": ("workers=1",), "two": ("workers=2",), "processes": ("cluster=local", "workers=2")}
    for place, how in places.items():
        outcome = bench(*GRID, *how, f"outputs={place}/outputs", f"data_dir={workplace}/data")
        assert outcome.code == 0, outcome.errors
    one, *others = (workplace / place for place in places)
    for other in others:
        assert rows("same", one) == rows("same", other)
        assert made(one) == made(other)
    # Two backdoored models and a clean one, whoever trained them.
    assert len(list((one / "outputs" / "store").glob("victim-*"))) == 3
    for record in workplace.glob("*/outputs/store/cell-*/record.json"):
        assert json.loads(record.read_text())["environment"]["threads"] == 1


@pytest.mark.parametrize(
    ("settings", "threads"),
    [
        (("deterministic=true",), [1, 1]),
        (("deterministic=true", "workers=1"), [1]),
        (("deterministic=true", "workers=3", "cluster=local"), [1, 1, 1]),
        (("workers=1",), [8]),
        (("workers=4", "cluster=local"), [2] * 4),
        ((), [4, 4]),
    ],
)
def test_threads_of_a_cell(settings: tuple[str, ...], threads: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "usable_cores", lambda: 8)
    found: list[Any] = list(runners.runners_of(settings_of(*settings), single=False))
    assert [runner.threads for runner in found] == threads
    (alone,) = runners.runners_of(settings_of(*settings), single=True)
    assert isinstance(alone, runners.ThisProcess)
    assert alone.threads == (1 if "deterministic=true" in settings else 8)
