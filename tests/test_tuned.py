"""Defenses tuned at a price: curves over their strengths against numbers by hand, and what tables say of the choice."""

from pathlib import Path
from typing import Any

import pytest
from table_records import entry, golden, metrics, record, write_sweep
from tuned_records import BEFORE, tuned_cell, tuned_sweep, tuning

from ntml_bench.records.cells import read_sweep
from ntml_bench.records.curves import Curve, curves_of, unpriced
from ntml_bench.records.statistic import Statistic
from ntml_bench.records.summary import Summary, summarise
from ntml_bench.records.view import DEFAULT_SECTIONS, legend

OF_TEST_IMAGES = "Its values were picked in a trial on test images, with the triggers known; its rivals' were not."
ALIKE = "The strengths of all defenses were chosen alike; what is not its strength stands as it was picked in a trial on test"


def summary_of(folder: Path) -> Summary:
    return summarise(read_sweep(folder))


def curves(folder: Path) -> dict[str, Curve]:
    summary = summary_of(folder)
    (block,) = summary.blocks
    return {curve.defense: curve for curve in curves_of(summary, block)}


def numbers(found: Statistic | None) -> tuple[float, float | None, int]:
    assert found is not None
    return found.mean, None if found.deviation is None else round(found.deviation, 6), found.n


def test_a_curve_is_the_mean_over_seeds_at_each_strength(tmp_path: Path) -> None:
    found = curves(tuned_sweep(tmp_path))
    assert list(found) == ["ft", "nt_ml"]
    ft = found["ft"]
    assert (ft.attack, ft.setting, ft.prices, [run.seed for run in ft.runs]) == ("badnets", "temperature", (1.0, 5.0), [0, 1])
    assert numbers(ft.start.lost) == (0, 0, 2)
    assert numbers(ft.start.attack_success_rate)[0] == 99
    weak, strong = ft.points[0.01], ft.points[0.1]
    assert list(ft.points) == [0.01, 0.1]
    # ACC before is 90 and 94: lost are 0 and 2, then 6 and 6.
    assert numbers(weak.lost) == (1, round(2**0.5, 6), 2)
    assert numbers(strong.lost) == (6, 0, 2)
    assert numbers(weak.attack_success_rate) == (75, round(50**0.5, 6), 2)
    assert numbers(strong.attack_success_rate) == (30, round(200**0.5, 6), 2)
    assert numbers(strong.robust_accuracy)[0] == 60


def test_what_is_taken_is_what_each_seed_affords(tmp_path: Path) -> None:
    found = curves(tuned_sweep(tmp_path))
    # ft falls by -1 and 0.5 at its weak strength, by 3 and 4 at its strong one.
    assert [numbers(found["ft"].taken[price].attack_success_rate)[0] for price in (1, 5)] == [75, 30]
    # At a price of 1 nt_ml leaves the model of seed 0 as it was, and takes its weak strength for seed 1 (1.5 = 1 + 0.5).
    taken = found["nt_ml"].taken[1]
    assert numbers(taken.attack_success_rate)[0] == (100 + 50) / 2
    assert numbers(taken.lost)[0] == (0 + 1) / 2
    assert [run.taken[1] for run in found["nt_ml"].runs] == [None, 0.01]


def test_strengths_that_several_prices_share_count_once(tmp_path: Path) -> None:
    several, one = curves(tuned_sweep(tmp_path / "a", (1, 2, 5))), curves(tuned_sweep(tmp_path / "b", (5,)))
    assert several["ft"].points == one["ft"].points
    assert several["ft"].points[0.01].lost.n == 2
    assert one["ft"].prices == (5.0,)


def test_an_untuned_defense_has_no_curve(tmp_path: Path) -> None:
    cell = entry("badnets", "ft", 0)
    plain = cell, record(cell, metrics(90, 5, 80), BEFORE[0])
    assert list(curves(tuned_sweep(tmp_path, (1,), more=[plain]))) == ["ft (tuning=price, temperature=tuned)", "nt_ml"]
    golden_summary = summary_of(write_sweep(tmp_path / "plain", "golden", *golden()))
    assert curves_of(golden_summary, golden_summary.blocks[0]) == []


@pytest.mark.parametrize(
    ("label", "without"),
    [
        ("ft", "ft"),
        ("ft (price=1)", "ft"),
        ("ft (frozen, price=1)", "ft (frozen)"),
        ("ft (price=0.5, steps=[1,2])", "ft (steps=[1,2])"),
        ("ft (selling_price=1)", "ft (selling_price=1)"),
    ],
)
def test_a_price_is_no_part_of_a_curve_s_name(label: str, without: str) -> None:
    assert unpriced(label) == without


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"price": "1"}, "is not a number"),
        ({"price": None}, "is missing"),
        ({"accuracy_before": True}, "is not a number"),
        ({"validation_images": 0}, "no validation images"),
        ({"setting": 3}, "is not a setting"),
        ({"chosen": 0.5}, "none of its strengths"),
        ({"chosen": [0.01]}, "is not the value of a setting"),
        ({"candidates": [], "chosen": None}, "no strengths"),
        ({"candidates": 3}, "TypeError"),
        ({"candidates": [{"value": 0.01}]}, "KeyError"),
        ({"candidates": [{**tuning("ft", 0, 1)["candidates"][0], "fall": "1"}]}, "is not a number"),
        (
            {"candidates": [{**tuning("ft", 0, 1)["candidates"][0], "after": {**metrics(90), "robust_accuracy": [1]}}]},
            "is not a number",
        ),
        ({"candidates": [{**tuning("ft", 0, 1)["candidates"][0], "value": {}}]}, "is not the value of a setting"),
    ],
)
def test_a_tuning_that_makes_no_sense_is_a_failed_cell(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    cell, done = tuned_cell("ft", 0, 1)
    done["tuning"] = done["tuning"] | change
    (found,) = summary_of(write_sweep(tmp_path, "odd", [cell], [done])).cells
    assert (found.state, found.tuning) == ("failed", None)
    assert "record cannot be read" in found.error
    assert said in found.error


@pytest.mark.parametrize("absent", [True, False])
def test_a_record_that_says_nothing_of_tuning_is_read(tmp_path: Path, absent: bool) -> None:
    cell = entry("badnets", "ft", 0)
    done = record(cell, metrics(90, 5, 80), BEFORE[0])
    (found,) = summary_of(write_sweep(tmp_path, "old", [cell], [done if absent else {**done, "tuning": None}])).cells
    assert (found.state, found.tuning) == ("done", None)


def test_the_legend_says_how_the_strengths_were_chosen(tmp_path: Path) -> None:
    text = " ".join(legend(summary_of(tuned_sweep(tmp_path)), DEFAULT_SECTIONS, "bold"))
    assert "Tuned at a price of 1 or 5 points" in text
    assert "accuracy on 40 validation images (a share of 0.3 of the clean budget, on which it does not train)" in text
    assert "No strength was affordable in 1 of 8 cells" in text
    plain = " ".join(legend(summary_of(write_sweep(tmp_path / "plain", "golden", *golden())), DEFAULT_SECTIONS, "bold"))
    assert "Tuned at" not in plain


def test_only_where_all_are_tuned_values_were_chosen_alike(tmp_path: Path) -> None:
    def said(folder: Path) -> str:
        return " ".join(legend(summary_of(folder), DEFAULT_SECTIONS, "bold"))

    cell, none = entry("badnets", "ft", 0), entry("badnets", "none", 0)
    undefended = none, record(none, BEFORE[0])
    alike = said(tuned_sweep(tmp_path / "all", more=[undefended]))
    assert ALIKE in alike
    assert OF_TEST_IMAGES not in alike
    mixed = said(tuned_sweep(tmp_path / "mixed", more=[(cell, record(cell, metrics(90, 5, 80), BEFORE[0]))]))
    plain = said(write_sweep(tmp_path / "plain", "golden", *golden()))
    for text in (mixed, plain):
        assert OF_TEST_IMAGES in text
        assert ALIKE not in text
