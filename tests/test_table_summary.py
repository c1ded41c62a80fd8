"""The table as data: numbers checked by hand, choices (best, averages, what is incomplete) checked one by one."""

from pathlib import Path
from statistics import mean, stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st
from table_records import entry, golden, metrics, record, write, write_artifact, write_failure, write_kept, write_sweep

from ntml_bench.errors import UserError
from ntml_bench.records.cells import Cell, Metrics, Sweep, read_sweep
from ntml_bench.records.statistic import Statistic, statistic
from ntml_bench.records.summary import Entry, Summary, best_defense, summarise
from ntml_bench.store import Store

ACC, ASR, RA, DER = "clean_accuracy", "attack_success_rate", "robust_accuracy", "defense_effectiveness_rating"


def summary_of(folder: Path) -> Summary:
    return summarise(read_sweep(folder))


def rounded(found: Statistic | None) -> tuple[float, float | None, int]:
    assert found is not None
    return round(found.mean, 3), None if found.deviation is None else round(found.deviation, 3), found.n


def test_numbers_of_the_hand_checked_sweep(tmp_path: Path) -> None:
    (block,) = summary_of(write_sweep(tmp_path, "golden", *golden())).blocks
    badnets, sig, none = block.rows
    assert block.seeds == (0, 1)
    assert block.defenses == ("ft", "nt_ml")
    assert block.needs == {"ft": ("clean_budget",), "nt_ml": ("clean_budget",)}
    # Mean of 96 and 98; deviation sqrt(((-1)^2 + 1^2) / 1).
    assert rounded(badnets.undefended.values[ACC]) == (97.0, 1.414, 2)
    assert rounded(badnets.undefended.values[ASR]) == (99.0, 1.414, 2)
    assert badnets.undefended.values[DER] is None
    assert rounded(badnets.defenses["ft"].values[ASR]) == (40.0, 14.142, 2)
    # Seed 0: (50 - 1 + 100) / 2 = 74.5; seed 1: (68 - 1 + 100) / 2 = 83.5.
    assert rounded(badnets.defenses["ft"].values[DER]) == (79.0, 6.364, 2)
    assert rounded(badnets.defenses["nt_ml"].values[DER]) == (97.0, 0.0, 2)
    assert badnets.best == "nt_ml"
    assert rounded(sig.defenses["ft"].values[DER]) == (81.5, 0.707, 2)
    assert rounded(sig.defenses["nt_ml"].values[DER]) == (70.75, 6.01, 2)
    assert sig.best == "ft"
    assert rounded(sig.floor.values[ASR]) == (20.0, None, 2)
    assert none.best is None
    assert none.undefended.values[ASR] is None


def test_averages_leave_out_the_row_without_an_attack(tmp_path: Path) -> None:
    (block,) = summary_of(write_sweep(tmp_path, "golden", *golden())).blocks
    average = block.average
    assert average is not None
    # ft: seeds' averages of ASR are (50 + 10) / 2 = 30 and (30 + 20) / 2 = 25.
    assert rounded(average.defenses["ft"].values[ASR]) == (27.5, 3.536, 2)
    assert rounded(average.defenses["ft"].values[ACC]) == (89.0, 2.121, 2)
    assert rounded(average.defenses["ft"].values[DER]) == (80.25, 2.828, 2)
    assert rounded(average.defenses["nt_ml"].values[DER]) == (83.875, 3.005, 2)
    assert rounded(average.undefended.values[ACC]) == (96.5, 0.707, 2)
    assert average.floor.mean(ASR) == 10.5
    assert average.best == "nt_ml"
    assert (average.defenses["ft"].planned, average.defenses["ft"].done) == (2, 2)


def test_a_single_run_has_no_deviation_anywhere(tmp_path: Path) -> None:
    (block,) = summary_of(write_sweep(tmp_path, "single", *golden(seeds=(0,)))).blocks
    assert block.average is not None
    entries = [place for row in (*block.rows, block.average) for place in (row.undefended, row.floor, *row.defenses.values())]
    assert all(found is None or found.deviation is None for place in entries for found in place.values.values())


def test_states_of_an_unfinished_sweep(tmp_path: Path) -> None:
    cells, records = golden()
    gone = {("badnets", "nt_ml", 0), ("badnets", "nt_ml", 1), ("sig", "ft", 1), ("badnets", "ft", 0), ("badnets", "ft", 1)}
    kept = [done for done in records if (done["attack"], done["defense"], done["seed"]) not in gone]
    folder = write_sweep(tmp_path, "part", cells, kept)
    by_place = {(cell["attack"], cell["defense"], cell["seed"]): cell for cell in cells}
    write_failure(tmp_path, by_place["badnets", "ft", 0], "ValueError: two\nlines")
    store = Store(tmp_path / "store")
    with store.lock("cell", by_place["badnets", "nt_ml", 0]["key"]):
        summary = summary_of(folder)
    states = {(cell.attack, cell.defense, cell.seed): cell.state for cell in summary.unfinished}
    assert states == {
        ("badnets", "ft", 0): "failed",
        ("badnets", "ft", 1): "missing",
        ("badnets", "nt_ml", 0): "running",
        ("badnets", "nt_ml", 1): "missing",
        ("sig", "ft", 1): "missing",
    }
    assert [cell.error for cell in summary.unfinished if cell.state == "failed"] == ["ValueError: two lines"]
    (block,) = summary.blocks
    badnets, sig, _ = block.rows
    assert badnets.defenses["ft"].state == "failed"
    assert badnets.defenses["nt_ml"].state == "running"
    assert badnets.best is None
    assert sig.defenses["ft"].state == "done 1 of 2"
    assert rounded(sig.defenses["ft"].values[ASR]) == (10.0, None, 1)
    assert sig.best == "nt_ml"
    assert block.average is not None
    nt_ml = block.average.defenses["nt_ml"]
    assert (nt_ml.done, nt_ml.planned, nt_ml.mean(ASR)) == (1, 2, 50.0)
    assert block.average.defenses["ft"].done == 0
    assert block.average.best is None


def test_undefended_column_stands_without_defense_none(tmp_path: Path) -> None:
    cells, records = golden()
    cells = [cell for cell in cells if cell["defense"] != "none"]
    records = [done for done in records if done["defense"] != "none"]
    (block,) = summary_of(write_sweep(tmp_path, "bare", cells, records)).blocks
    assert rounded(block.rows[0].undefended.values[ASR]) == (99.0, 1.414, 2)


def test_committed_records_are_read_without_a_store(tmp_path: Path) -> None:
    cells, records = golden()
    write_kept(tmp_path, "kept", cells, records)
    assert summary_of(tmp_path).unfinished == ()


def test_an_unreadable_record_is_a_failed_cell(tmp_path: Path) -> None:
    cells, records = golden()
    folder = write_sweep(tmp_path, "torn", cells, records)
    (tmp_path / "store" / f"cell-{cells[0]['key']}" / "record.json").write_text("{")
    (cell,) = summary_of(folder).unfinished
    assert (cell.key, cell.state) == (cells[0]["key"], "failed")
    assert "record cannot be read" in cell.error


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("record.json", "12.5", "12.6"),
        ("record.json", '"dataset"', '"dataseu"'),
        ("checksums.json", '"sha256": "', '"sha256": "0'),
    ],
)
def test_a_changed_record_is_a_failed_cell(tmp_path: Path, file: str, before: str, after: str) -> None:
    cells, records = golden()
    folder = write_sweep(tmp_path, "torn", cells, records)
    path = tmp_path / "store" / f"cell-{cells[0]['key']}" / file
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after, 1))
    (cell,) = summary_of(folder).unfinished
    assert (cell.key, cell.state) == (cells[0]["key"], "failed")
    assert f"record cannot be read ({file} " in cell.error


def test_the_record_of_another_cell_is_a_failed_cell(tmp_path: Path) -> None:
    cells, records = golden()
    folder = write_sweep(tmp_path, "swapped", cells, records[1:])
    write_artifact(tmp_path / "store", "cell", cells[0]["key"], records[1])
    (cell,) = summary_of(folder).unfinished
    assert (cell.key, cell.state) == (cells[0]["key"], "failed")
    assert "it is of another cell: its key is" in cell.error


@pytest.mark.parametrize("number", ["95", True, 10**400, [95.0]])
def test_a_rate_that_is_no_number_is_a_failed_cell(tmp_path: Path, number: object) -> None:
    cells, records = golden()
    records[0]["after"]["clean_accuracy"] = number
    (cell,) = summary_of(write_sweep(tmp_path, "odd", cells, records)).unfinished
    assert (cell.key, cell.state) == (cells[0]["key"], "failed")
    assert "is not a number" in cell.error


def test_what_was_kept_is_checked(tmp_path: Path) -> None:
    cells, records = golden()
    write_kept(tmp_path, "kept", cells, records)
    path = tmp_path / "records" / f"{cells[3]['key']}.json"
    path.write_text(path.read_text().replace("12.5", "12.0"))
    (cell,) = summary_of(tmp_path).unfinished
    assert (cell.key, cell.state) == (cells[3]["key"], "failed")
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace("badnets", "badnetz", 1))
    with pytest.raises(UserError, match=r"manifest\.json is not what its checksum says"):
        read_sweep(tmp_path)
    (tmp_path / "checksums.json").unlink()
    with pytest.raises(UserError, match=r"checksums\.json is missing"):
        read_sweep(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": "../../../etc/passwd0"}, "16 hex digits"),
        ({"key": "0123456789ABCDEF"}, "16 hex digits"),
        ({"key": "0123456789abcde."}, "16 hex digits"),
        ({"seed": "0"}, "seed of cell"),
        ({"seed": True}, "seed of cell"),
        ({"attack": 7}, "attack of cell"),
        ({"needs": "clean_budget"}, "needs of cell"),
        ({"settings": [1]}, "settings of cell"),
    ],
)
def test_a_cell_that_is_none_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    cells, records = golden()
    folder = write_sweep(tmp_path, "crafted", [*cells[1:], {**cells[0], **change}], records)
    with pytest.raises(UserError, match=message):
        read_sweep(folder)


@pytest.mark.parametrize("store", ["/etc", "..", "../../../store", "../../store/../../elsewhere", "", 3, None])
def test_a_store_elsewhere_is_refused(tmp_path: Path, store: object) -> None:
    cells, _ = golden()
    write(tmp_path / "manifest.json", {"sweep": "crafted", "store": store, "cells": cells})
    with pytest.raises(UserError, match=r"its store is .*allowed: \., \.\./\.\./store"):
        read_sweep(tmp_path)


def test_a_manifest_that_would_exhaust_the_stack_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"sweep": "deep", "cells": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(UserError, match="nested more than 64 deep"):
        read_sweep(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"sweep": "x"}', '{"sweep": "x", "store": "s", "cells": [{"key": 1}]}'])
def test_a_broken_manifest_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest\.json"):
        read_sweep(tmp_path)


def test_a_folder_without_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not the folder of a sweep"):
        read_sweep(tmp_path)


def test_a_cell_named_twice_counts_once(tmp_path: Path) -> None:
    cell = entry("badnets", "ft")
    done = record(cell, metrics(95, 5, 90), metrics(96, 99, 1))
    (block,) = summary_of(write_sweep(tmp_path, "twice", [cell, cell], [done])).blocks
    assert rounded(block.rows[0].defenses["ft"].values[ASR]) == (5.0, None, 1)


def place(accuracy: float, rating: float | None, *, planned: int = 1, done: int = 1) -> Entry:
    values = {ACC: statistic([accuracy]), DER: None if rating is None else statistic([rating])}
    return Entry(values, planned, done)


def test_the_best_defense() -> None:
    assert best_defense({"a": place(90, 70), "b": place(80, 90)}) == "b"
    assert best_defense({"a": place(90, 80), "b": place(91, 80)}) == "b"
    assert best_defense({"a": place(90, 80), "b": place(90, 80)}) == "a"
    assert best_defense({"a": place(90, 80), "b": place(99, 99, planned=3)}) == "a"
    assert best_defense({"a": place(90, None)}) is None
    assert best_defense({}) is None


@given(st.lists(st.floats(0, 100), max_size=8))
def test_statistic_is_mean_and_sample_deviation(values: list[float]) -> None:
    found = statistic(values)
    if not values:
        assert found is None
        return
    assert found is not None
    assert found.n == len(values)
    assert found.mean == pytest.approx(mean(values))
    if len(values) == 1:
        assert found.deviation is None
    else:
        assert found.deviation == pytest.approx(stdev(values), abs=1e-9)


@given(st.permutations(range(3)), st.lists(st.floats(0, 100), min_size=3, max_size=3))
def test_the_order_of_seeds_does_not_matter(order: list[int], rates: list[float]) -> None:
    def cell(seed: int) -> Cell:
        after = Metrics(90.0, rates[seed], 1.0)
        return Cell(str(seed), "d", "m", "badnets", "ft", seed, (), "done", Metrics(95.0, 99.0, 0.0), after, seconds=1.0)

    def asr(seeds: list[int]) -> Statistic | None:
        return summarise(Sweep("s", tuple(cell(seed) for seed in seeds))).blocks[0].rows[0].defenses["ft"].values[ASR]

    first, second = asr([0, 1, 2]), asr(list(order))
    assert first is not None
    assert second is not None
    assert first.mean == pytest.approx(second.mean)
    assert first.deviation == pytest.approx(second.deviation)
