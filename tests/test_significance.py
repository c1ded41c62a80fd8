"""What several seeds say of the defenses: marks, intervals, ranks, and the files and figures that show them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from figure_reports import report_of_folder
from rich.console import Console
from scipy import stats
from seeded import ATTACKS, MEANS, seeded
from table_records import entry, golden, metrics, record, write_sweep
from tuned_records import tuned_settings

from ntml_bench.records.cells import Cell, read_sweep
from ntml_bench.records.rivals import rivals_of
from ntml_bench.records.significance import rankings_of, significance_of
from ntml_bench.records.significance_view import findings, heading_of_ranking
from ntml_bench.records.statistic import statistic
from ntml_bench.records.summary import Summary, summarise
from ntml_bench.report.figures import drawings
from ntml_bench.table.render import render_sweep, written
from ntml_bench.table.terminal import print_table

DER, ASR = "defense_effectiveness_rating", "attack_success_rate"
SCIPY: Any = stats


def summary_of(tmp_path: Path, cells: list[dict[str, Any]], records: list[dict[str, Any]]) -> Summary:
    return summarise(read_sweep(write_sweep(tmp_path, "many", cells, records)))


def rated(tmp_path: Path, rates: dict[str, list[float]]) -> Summary:
    """One attack; ASR by defense and seed, accuracy and victim the same everywhere: DER falls as ASR rises."""
    cells, records = [], []
    for defense, values in rates.items():
        for seed, rate in enumerate(values):
            cells.append(entry("badnets", defense, seed))
            records.append(record(cells[-1], metrics(95, rate, 100 - rate), metrics(95, 100, 0)))
    return summary_of(tmp_path, cells, records)


def test_three_seeds_have_students_interval() -> None:
    found = statistic([10.0, 20.0, 30.0])
    assert found is not None
    assert found.interval is not None
    # 4.303 is Student's t of two degrees of freedom; the deviation is 10.
    assert found.interval == pytest.approx((20 - 4.303 * 10 / 3**0.5, 20 + 4.303 * 10 / 3**0.5), abs=0.01)
    assert found.unstable
    steady = statistic([10.0, 11.0, 12.0])
    assert steady is not None
    assert not steady.unstable
    two = statistic([10.0, 90.0])
    assert two is not None
    assert (two.interval, two.unstable) == (None, False)


def test_all_that_could_be_the_best_are_marked(tmp_path: Path) -> None:
    # Paired by seed: nt_ml is always 20 better than ft, but only on average better than nad.
    rates = {"ft": [25, 41, 30, 36, 52], "nad": [35, 5, 20, 40, 14], "nt_ml": [5, 20, 10, 16, 33]}
    (block,) = rated(tmp_path, {name: list(map(float, values)) for name, values in rates.items()}).blocks
    (row,) = block.rows
    assert row.best == "nt_ml"
    assert row.rivals == ("nad",)
    gains = np.array(rates["nad"]) - np.array(rates["nt_ml"])
    assert SCIPY.ttest_1samp(gains, 0, alternative="greater").pvalue > 0.05 / 2


def test_fewer_than_three_seeds_are_not_tested(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, *golden())
    assert all(row.rivals == () for row in summary.blocks[0].rows)
    assert significance_of(summary) == []
    for name in ("statistics.md", "statistics.json"):
        (tmp_path / name).write_text("of an earlier sweep")
    render_sweep(tmp_path / "sweeps" / "many", tmp_path)
    assert not list(tmp_path.glob("statistics.*"))
    assert "Fewer than 3 seeds: no intervals and no tests" in (tmp_path / "table.md").read_text()


def test_the_truly_best_is_marked_in_most_repetitions() -> None:
    draw = np.random.default_rng(0)
    names = ["a", "b", "c", "d"]
    kept, marked = 0, 0
    for _ in range(600):
        # All are equally good but a, which is better by a hair.
        values = draw.normal(50, 5, (4, 5)) + np.array([0.1, 0, 0, 0])[:, None]
        cells = [
            Cell(f"{i}{s}", "d", "m", "badnets", name, s, (), "done", defense_effectiveness_rating=float(values[i, s]))
            for i, name in enumerate(names)
            for s in range(5)
        ]
        best = names[int(values.mean(1).argmax())]
        found = {best, *rivals_of(best, names, cells)}
        kept += "a" in found
        marked += len(found)
    # Long-run 0.96 (5 % at most are lost); three standard errors below it.
    assert kept >= 0.935 * 600
    assert marked > 3 * 600


def test_ranks_are_over_attacks_and_seeds(tmp_path: Path) -> None:
    cells, records = seeded(range(5))
    summary = summary_of(tmp_path, cells, records)
    (block,) = summary.blocks
    by_rating, by_rate = rankings_of(block, summary.cells_of(block))
    assert (by_rating.blocks, by_rating.left_out, by_rating.best) == (20, 0, "nt_ml")
    rates = np.array(
        [
            [
                done["after"][ASR]
                for done in records
                if (done["attack"], done["seed"]) == (attack, seed) and done["defense"] != "none"
            ]
            for attack in ATTACKS
            for seed in range(5)
        ]
    )
    assert by_rate.mean_ranks == pytest.approx(SCIPY.rankdata(rates, axis=1).mean(0))
    assert by_rate.friedman is not None
    assert by_rate.friedman.p == pytest.approx(SCIPY.friedmanchisquare(*rates.T).pvalue)
    smaller, larger = sorted(SCIPY.wilcoxon(rates[:, 2], rates[:, index]).pvalue for index in (0, 1))
    assert sorted(by_rate.p_values.values()) == pytest.approx([2 * smaller, max(2 * smaller, larger)])


def test_blocks_that_lack_a_defense_are_left_out_and_counted(tmp_path: Path) -> None:
    cells, records = seeded(range(3))
    gone = [done for done in records if (done["attack"], done["seed"], done["defense"]) == ("sig", 1, "ft")]
    summary = summary_of(tmp_path, cells, [done for done in records if done not in gone])
    ranking, _ = rankings_of(summary.blocks[0], summary.cells_of(summary.blocks[0]))
    assert (ranking.blocks, ranking.left_out) == (11, 1)
    render_sweep(tmp_path / "sweeps" / "many", tmp_path)
    assert "over 11 (attack, seed) blocks, 1 incomplete left out" in (tmp_path / "statistics.md").read_text()


def test_the_files_say_what_the_tests_found(tmp_path: Path) -> None:
    cells, records = seeded(range(5))
    summary = render_sweep(write_sweep(tmp_path, "many", cells, records), tmp_path)
    assert {"statistics.md", "statistics.json"} <= {path.name for path in written(tmp_path, ("md", "csv"))}
    text = (tmp_path / "statistics.md").read_text().replace("\\", "")
    ranking, _ = rankings_of(summary.blocks[0], summary.cells_of(summary.blocks[0]))
    assert all(line.replace("<", "&lt;") in text for line in findings(ranking))
    assert "Not distinguishable from nt_ml, the best mean rank (Holm): none." in text
    (block,) = json.loads((tmp_path / "statistics.json").read_text())["blocks"]
    average = next(each for each in block["averages"] if (each["defense"], each["metric"]) == ("nt_ml", ASR))
    rates = [done["after"][ASR] for done in records if done["defense"] == "nt_ml"]
    assert average["mean"] == pytest.approx(np.mean(rates))
    assert average["bootstrap"][0] < average["mean"] < average["bootstrap"][1]
    table = (tmp_path / "table.md").read_text()
    low, high = next(
        each["interval"] for each in block["rows"] if (each["attack"], each["defense"], each["metric"]) == ("sig", "ft", ASR)
    )
    assert f"[{low:.1f}, {high:.1f}]" in table
    assert f"[{low:.1f}, {high:.1f}]" in (tmp_path / "table.html").read_text()
    assert "unstable" in table
    assert "the truly best one is marked with a probability of at least 95 %" in table


def test_blocks_that_all_rank_alike_are_json_too(tmp_path: Path) -> None:
    rated(tmp_path, {"ft": [50.0, 51.0, 52.0], "nad": [30.0, 31.0, 32.0], "nt_ml": [5.0, 6.0, 7.0]})
    render_sweep(tmp_path / "sweeps" / "many", tmp_path)
    (block,) = json.loads((tmp_path / "statistics.json").read_text())["blocks"]
    assert block["rankings"][0]["friedman"]["f"] is None


def test_a_log_file_holds_the_mark_of_what_is_unstable(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, *seeded(range(3)))
    console = Console(width=120, color_system=None, record=True)
    print_table(summary, console)
    assert "unstable" in console.export_text()


def test_the_diagram_has_every_defense_and_its_rank(tmp_path: Path) -> None:
    report = report_of_folder(write_sweep(tmp_path, "many", *seeded(range(3), means=MEANS)), looked_into=False)
    found = [drawing for drawing in drawings(report) if drawing.kind == "ranks"]
    assert [drawing.name for drawing in found] == ["ranks-der", "ranks-asr"]
    ranking, _ = rankings_of(report.summary.blocks[0], report.summary.cells)
    svg = found[0].svg()
    for name, rank in zip(ranking.defenses, ranking.mean_ranks, strict=True):
        assert name in svg
        assert f"{rank:.2f}" in svg
    assert f"CD {ranking.critical_difference:.2f}" in svg
    assert [path.name for path in found[0].write(tmp_path, pdf=True)] == ["ranks-der.png", "ranks-der.pdf"]
    few = report_of_folder(write_sweep(tmp_path, "few", *golden()), looked_into=False)
    assert not [drawing for drawing in drawings(few) if drawing.kind == "ranks"]


def test_defenses_at_several_prices_are_ranked_within_each(tmp_path: Path) -> None:
    plain, records = seeded(range(3))
    cells, done = [], []
    for price in (1.0, 5.0):
        for cell, found in zip(plain, records, strict=True):
            if cell["defense"] != "none":
                priced = entry(cell["attack"], cell["defense"], cell["seed"], settings={"defense": tuned_settings(price)})
                cells.append(priced)
                done.append({**found, **priced})
    undefended = [(cell, found) for cell, found in zip(plain, records, strict=True) if cell["defense"] == "none"]
    summary = summary_of(tmp_path, cells + [cell for cell, _ in undefended], done + [found for _, found in undefended])
    (block,) = summary.blocks
    alone = summary_of(tmp_path / "alone", plain, records)
    expected = rankings_of(alone.blocks[0], alone.cells)
    found = rankings_of(block, summary.cells)
    assert [(ranking.metric, ranking.price) for ranking in found] == [
        (ranking.metric, price) for price in ("1", "5") for ranking in expected
    ]
    # The same numbers at both prices: each has the ranks of one alone, under the names without a price.
    assert [replace(ranking, price=None) for ranking in found] == [*expected, *expected]
    assert heading_of_ranking(found[0]) == "Ranks by DER at a price of 1 point over 12 (attack, seed) blocks"
    assert "at a price of 5 points" in heading_of_ranking(found[-1])
