"""The order of cells: nobody waits for a model that somebody else is training while there is other work."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntml_bench.app.schedule import Schedule, Task, tasks_of
from ntml_bench.store import Artifact, Store


class FakeCell:
    """As much of a cell as a schedule sees."""

    def __init__(
        self, store: Store, victim: str, defense: str, needs_floor: bool = False, candidates: tuple[str, ...] = ()
    ) -> None:
        self.store = store
        self.name = f"{victim} x {defense}"
        self.key = f"{victim}_{defense}"
        self.needs_floor = needs_floor
        self.searched = False
        self.stages = SimpleNamespace(keys=SimpleNamespace(victim=victim, clean="clean", candidates=candidates))

    def record(self) -> Any:
        return self.store.record("cell", self.key)


Grid = Callable[..., list[Any]]


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    store = Store(tmp_path)
    return lambda victims, defenses, **settings: [FakeCell(store, v, d, **settings) for v in victims for d in defenses]


def store_model(cell: Any, key: str) -> None:
    cell.store.get_or_make("victim", key, lambda: Artifact({}, {}))


def taken(schedule: Schedule) -> str:
    task = schedule.take()
    assert task is not None
    return task.name


def test_a_cell_of_each_model_comes_before_the_others(grid: Grid) -> None:
    tasks = tasks_of(grid(("a", "b"), ("none", "ft", "nad"), needs_floor=True))
    assert [task.name for task in tasks] == ["clean model", "a x none", "b x none", "a x ft", "a x nad", "b x ft", "b x nad"]


def test_a_clean_model_that_is_stored_is_no_task(grid: Grid) -> None:
    cells = grid(("a",), ("none",), needs_floor=True)
    store_model(cells[0], "clean")
    assert [task.name for task in tasks_of(cells)] == ["a x none"]


def test_a_model_under_way_is_not_waited_for(grid: Grid) -> None:
    cells = grid(("a", "b"), ("none", "ft"))
    schedule = Schedule(cells)
    first = schedule.take()
    assert first is not None
    assert first.name == "a x none"
    assert taken(schedule) == "b x none"
    # b's cells would wait as much as a's; when a's model is there its cells are free.
    store_model(cells[0], "a")
    schedule.finished(first)
    assert taken(schedule) == "a x ft"
    assert taken(schedule) == "b x ft"  # nothing else is left
    assert schedule.take() is None


def test_two_prices_of_one_defense_are_not_run_at_once(grid: Grid) -> None:
    """The second would wait for each strength of the first."""
    cells = [cell for name in ("ft", "nad") for cell in grid(("a",), (f"{name}_1", f"{name}_2"), candidates=(f"{name}_weak",))]
    store_model(cells[0], "a")
    schedule = Schedule(cells)
    first = schedule.take()
    assert first is not None
    assert first.name == "a x ft_1"
    assert taken(schedule) == "a x nad_1"
    schedule.finished(first)
    assert taken(schedule) == "a x ft_2"
    assert taken(schedule) == "a x nad_2"  # nothing else is left


def test_what_another_process_trains_or_runs_comes_last(grid: Grid) -> None:
    cells = grid(("a", "b", "c"), ("none",))
    store = cells[0].store
    with store.lock("victim", "a"), store.lock("cell", cells[1].key):
        schedule = Schedule(cells)
        assert [taken(schedule) for _ in cells] == ["c x none", "a x none", "b x none"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), unique=True), st.booleans())
def test_every_cell_is_handed_out_once(names: list[tuple[str, str]], floor: bool) -> None:
    cells: list[Any] = [FakeCell(Store(Path("nowhere")), victim, defense, floor) for victim, defense in names]
    schedule = Schedule(cells)
    seen: list[Task] = []
    while (task := schedule.take()) is not None:
        seen.append(task)
        schedule.finished(task)
    assert sorted(task.name for task in seen if not task.clean) == sorted(cell.name for cell in cells)
    assert sum(task.clean for task in seen) == (1 if floor and cells else 0)
