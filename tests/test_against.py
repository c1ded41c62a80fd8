"""A sweep held against a kept one: what is compared, what the verdict is, and how often it errs."""

import json
from collections.abc import Callable, Sequence
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from seeded import ATTACKS, MEANS, seeded
from table_records import write_kept, write_sweep

from ntml_bench.errors import UserError
from ntml_bench.records.against.cells import _outside
from ntml_bench.records.against.check import Check, check
from ntml_bench.records.against.columns import judged_columns
from ntml_bench.records.against.series import Series
from ntml_bench.records.against.view import brief, not_compared
from ntml_bench.records.cells import Metrics
from ntml_bench.report.main import main as report
from ntml_bench.statistics.intervals import prediction_reach
from ntml_bench.table.main import main

Made = tuple[list[dict[str, Any]], list[dict[str, Any]]]
KEPT = range(10)


def held(tmp_path: Path, ours: Made, kept: Made | None = None) -> Check:
    """The sweep `new` against the reference `many`, which has ten seeds unless it is given."""
    write_kept(tmp_path / "reference" / "many", "many", *(kept or seeded(KEPT)))
    return check(write_sweep(tmp_path, "new", *ours), tmp_path / "reference" / "many")


def table(tmp_path: Path, *arguments: str) -> int:
    return main(["new", "--outputs", str(tmp_path), "--against", "many", *arguments])


def changed(made: Made, change: Callable[[dict[str, Any]], None]) -> Made:
    """Cells and records after that change."""
    for each in (*made[0], *made[1]):
        change(each)
    return made


def versions(attack: int, defense: int) -> Callable[[dict[str, Any]], None]:
    """The change to these versions of the methods."""

    def change(each: dict[str, Any]) -> None:
        each["code"] = {"engine": 1, "attack": {"version": attack}, "defense": {"version": defense}}

    return change


def test_a_new_seed_of_the_same_kind_is_a_reproduction(tmp_path: Path) -> None:
    found = held(tmp_path, seeded([10]))
    assert found.verdict == "reproduced"
    # floor, none, ft, nad, nt_ml: ACC and ASR each.
    assert len(found.tested) == 10
    assert all((column.average.new, column.average.kept.n) == (1, 10) for column in found.tested)
    assert (found.compared, found.repeated) == (16, ())
    assert (
        "all 10 averages over attacks (ACC and ASR of 5 columns) within the 95 % interval of 10 kept seeds" in brief(found)[0]
    )


def test_the_interval_is_students_of_the_seeds_averages(tmp_path: Path) -> None:
    kept = seeded(KEPT)
    found = held(tmp_path, seeded([10, 11]), kept)
    column = next(one for one in found.tested if (one.average.column, one.average.metric[:3]) == ("nt_ml", "att"))
    rates = np.array(
        [
            [done["after"]["attack_success_rate"] for done in kept[1] if (done["defense"], done["seed"]) == ("nt_ml", seed)]
            for seed in KEPT
        ]
    )
    averages = rates.mean(1)
    assert rates.shape == (10, len(ATTACKS))
    assert column.average.kept.mean == pytest.approx(averages.mean())
    assert column.reach == pytest.approx(prediction_reach(averages.std(ddof=1), 10, 2, 0.05 / 10))


def test_a_shift_of_one_column_is_found_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = held(tmp_path, seeded([10], means={**MEANS, "nt_ml": (91.0, 41.0)}))
    assert found.verdict == "not reproduced"
    assert [(one.average.column, one.average.metric) for one in found.failed] == [("nt_ml", "attack_success_rate")]
    (column,) = found.failed
    words = f"nt_ml ASR average {column.average.value:.1f}, expected {column.low:.1f} to {column.high:.1f}"
    assert brief(found)[0] == f"not reproduced: {words}"
    assert table(tmp_path, "--brief") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == brief(found)[0]
    assert len(lines) == 3
    # It is far larger than what is said to be seen.
    assert column.detectable < 31


def test_a_jump_that_kept_runs_make_too_is_no_failure(tmp_path: Path) -> None:
    # Every third run has one column that jumps, another each time: outside every interval, and yet of the same kind.
    def jumping(seeds: Sequence[int]) -> Made:
        cells, records = seeded(seeds, means=dict.fromkeys(MEANS, (90.0, 50.0)))
        for done in records:
            if done["defense"] != "none":
                done["after"]["attack_success_rate"] = 50.0 + 0.01 * (done["seed"] % 7)
                if done["seed"] % 3 == 1 and done["defense"] == ("ft", "nad", "nt_ml")[done["seed"] // 3 % 3]:
                    done["after"]["attack_success_rate"] = 90.0
        return cells, records

    found = held(tmp_path, jumping([1]), jumping([0, 4, 7, 9, 2, 3]))
    assert [one.average.column for one in found.failed] == ["ft"]
    assert found.standing is not None
    assert found.standing.p > found.standing.smallest == pytest.approx(1 / 7)
    assert found.verdict == "reproduced"
    assert "but kept runs stand out among the others as much (p 0.29)" in brief(found)[0]


def test_equal_digits_are_counted_and_need_no_statistics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = held(tmp_path, seeded([3]))
    assert found.all_equal
    assert found.verdict == "reproduced"
    assert "all 16 cells equal the kept runs of their seeds" in brief(found)[0]
    # The kept run of that seed is no part of what it is held against.
    assert all(column.average.kept.n == 9 for column in found.tested)
    assert table(tmp_path, "--brief") == 0
    assert "16 of 16 with a kept seed equal it to the last digit" in capsys.readouterr().out


def test_one_digit_in_one_cell_is_seen(tmp_path: Path) -> None:
    ours = seeded([3])
    ours[1][-1]["after"]["robust_accuracy"] += 0.05
    found = held(tmp_path, ours)
    assert not found.all_equal
    assert sum(cell.equal for cell in found.repeated) == 15
    assert max(cell.largest for cell in found.repeated) == pytest.approx(0.05)
    # The averages decide then.
    assert found.verdict == "reproduced"


@pytest.mark.parametrize("seeds", [[0], [0, 1], [0, 1, 2]])
def test_few_kept_seeds_can_only_be_compared_digit_by_digit(tmp_path: Path, seeds: list[int]) -> None:
    same = held(tmp_path, seeded([0]), seeded(seeds))
    assert (same.verdict, same.tested) == ("reproduced", ())
    other = held(tmp_path, seeded([0], draw=1), seeded(seeds))
    assert other.verdict == "not decided"
    assert "fewer than 3 seeds besides the sweep's own" in brief(other)[0]
    assert table(tmp_path, "--brief") == 2


def test_other_settings_are_named_and_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = held(tmp_path, seeded([10], settings={"training": {"epochs": 3}}))
    assert (found.verdict, found.compared) == ("not comparable", 0)
    assert table(tmp_path, "--brief") == 2
    assert "training.epochs 3 (reference: 20)" in capsys.readouterr().out


def test_what_differs_keeps_its_own_cells_out_only(tmp_path: Path) -> None:
    def stronger(each: dict[str, Any]) -> None:
        if each["defense"] == "nad":
            each["settings"]["defense"]["temperature"] = 9.0

    found = held(tmp_path, changed(seeded([10]), stronger))
    assert (found.compared, found.verdict) == (12, "reproduced")
    assert {one.average.column for one in found.tested} == {"floor", "none", "ft", "nt_ml"}
    (line,) = not_compared(found)
    assert line.startswith("not compared: defense.temperature 9 (reference: 4): badnets x nad")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda each: each["data"].update(whole="fedcba9876543210"), "data fingerprint fedcba9876543210"),
        (versions(attack=1, defense=2), "defense code v2 (reference: v1)"),
        (versions(attack=2, defense=1), "attack code v2 (reference: v1)"),
    ],
)
def test_other_data_and_changed_methods_are_not_compared(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    found = held(tmp_path, changed(seeded([10]), change))
    assert found.verdict == "not comparable"
    assert words in brief(found)[0]


def test_names_of_settings_and_the_way_of_computing_do_not_matter(tmp_path: Path) -> None:
    settings = {"presets": "mine", "precision": "float32", "deterministic": True, "training": {"name": "mine"}}
    found = held(tmp_path, seeded([10], settings=settings))
    assert (found.verdict, found.compared) == ("reproduced", 16)


@pytest.mark.parametrize(
    ("ours", "kept", "words"),
    [
        (1, 2, "engine version 1 here, 2 in the reference"),
        (1, None, "'many' was made before sweeps said their engine version"),
        (None, 1, "'new' was made before sweeps said their engine version"),
    ],
)
def test_another_engine_is_refused(tmp_path: Path, ours: int | None, kept: int | None, words: str) -> None:
    def engine(number: int | None) -> Callable[[dict[str, Any]], None]:
        def change(each: dict[str, Any]) -> None:
            if number is None:
                each.pop("code", None)
            elif "code" in each:
                each["code"] = each["code"] | {"engine": number}

        return change

    found = held(tmp_path, changed(seeded([10]), engine(ours)), changed(seeded(KEPT), engine(kept)))
    assert found.verdict == "not comparable"
    assert words in found.refused
    assert table(tmp_path, "--brief") == 2


def test_the_files_hold_every_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held(tmp_path, seeded([10]))
    assert table(tmp_path) == 0
    out = capsys.readouterr().out
    assert "Bonferroni" in out
    target = tmp_path / "tables" / "new"
    content = json.loads((target / "against.json").read_text())
    assert content["verdict"] == "reproduced"
    # Four columns (none, ft, nad, nt_ml) under four attacks in ACC, ASR and RA.
    assert len(content["ranges"]) == 48
    assert content["runs"][0]["numbers"] == 48
    assert content["runs"][0]["expected"] == pytest.approx(48 * 2 / 11)
    text = (target / "against.md").read_text()
    for ranged in content["ranges"]:
        assert f"[{ranged['range'][0]:.1f}, {ranged['range'][1]:.1f}]" in text.replace("\\", "")
        (value,) = ranged["new"]
        low, high = ranged["range"]
        assert ranged["outside"] == int(not low <= value <= high)


def test_the_page_shows_the_check_where_it_is_asked_for(tmp_path: Path) -> None:
    found = held(tmp_path, seeded([10], attacks=ATTACKS[:2]))
    page = tmp_path / "tables" / "new" / "report.html"
    for arguments in ([], ["--against", "many"]):
        assert report(["new", "--outputs", str(tmp_path), *arguments]) == 0
        text = page.read_text()
        assert ("Does it reproduce? new against the kept many" in text) == bool(arguments)
    assert brief(found)[0] in unescape(text)
    assert text.count("<td>inside</td>") == len(found.tested)


def test_an_unfinished_sweep_is_compared_as_far_as_it_is(tmp_path: Path) -> None:
    cells, records = seeded([10])
    found = held(tmp_path, (cells, [done for done in records if (done["attack"], done["defense"]) != ("sig", "nad")]))
    assert (found.compared, found.ours.planned) == (15, 16)
    (column,) = [one for one in found.tested if (one.average.column, one.average.metric[:3]) == ("nad", "att")]
    assert column.average.attacks == ("badnets", "blended", "lc")


def test_mistakes_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held(tmp_path, seeded([10]))
    assert main(["new", "--outputs", str(tmp_path), "--against", "mani"]) == 2
    assert "unknown reference 'mani'. Did you mean 'many'?" in capsys.readouterr().err
    assert table(tmp_path, "--keep") == 2
    assert main(["new", "--outputs", str(tmp_path), "--brief"]) == 2
    assert "--brief goes with --against" in capsys.readouterr().err
    with pytest.raises(UserError, match="is the reference itself"):
        check(tmp_path / "reference" / "many", tmp_path / "reference" / "many")


def of(pair: np.ndarray) -> Metrics:
    return Metrics(float(pair[0]), float(pair[1]), None)


def simulated(draw: np.random.Generator, kept: int, new: int) -> list[Series]:
    """Six attacks by seven columns whose runs of one seed move together, as cells of one victim do."""
    seeds = kept + new
    common = draw.normal(0, 4, (seeds, 6, 1, 1))
    runs = 50 + common + draw.normal(0, 6, (seeds, 6, 7, 2))
    return [
        Series(
            *("d", "m", f"attack{attack}", f"column{column}"),
            ours={seed: of(runs[seed, attack, column]) for seed in range(kept, seeds)},
            kept={seed: of(runs[seed, attack, column]) for seed in range(kept)},
            test_images=2000,
        )
        for attack in range(6)
        for column in range(7)
    ]


@pytest.mark.parametrize(("kept", "new"), [(3, 1), (5, 1), (10, 1), (10, 3)])
def test_exchangeable_runs_are_reproduced_in_95_of_100_checks(kept: int, new: int) -> None:
    # The same arithmetic for many checks at once: averages of 14 columns that move together.
    draw = np.random.default_rng(kept)
    checks = 4000
    averages = draw.normal(0, 4, (checks, kept + new, 1)) + draw.normal(0, 6, (checks, kept + new, 14)) / 6**0.5
    early, late = averages[:, :kept], averages[:, kept:].mean(1)
    reach = prediction_reach(1.0, kept, new, 0.05 / 14) * early.std(1, ddof=1)
    reproduced = (np.abs(late - early.mean(1)) <= reach).all(1).mean()
    assert 0.945 <= reproduced <= 0.995
    # And a few through the whole of it.
    found = [all(column.inside for column in judged_columns(simulated(draw, kept, new))) for _ in range(12)]
    assert sum(found) >= 10


def test_each_kept_seed_left_out_is_reproduced_by_the_others(tmp_path: Path) -> None:
    verdicts = []
    for seed in KEPT:
        # Other digits, so that the averages decide.
        ours = changed(seeded([seed]), lambda each: each.get("after", {}).update(robust_accuracy=0.0))
        verdicts.append(held(tmp_path, ours).verdict)
    assert verdicts.count("reproduced") >= 9


def test_the_number_outside_is_as_exchangeable_as_the_runs() -> None:
    draw = np.random.default_rng(0)
    low = 0
    for _ in range(2000):
        # 40 cells of 11 runs that move together; the last run is like the others.
        outside = _outside(draw.normal(size=(11, 1)) + draw.normal(size=(11, 40)))
        low += (outside >= outside[-1]).mean() <= 2 / 11
    assert low / 2000 <= 2 / 11 + 0.02
    by_hand = _outside(np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [9.0, 4.0]]))
    assert by_hand.tolist() == [1, 0, 0, 2]
