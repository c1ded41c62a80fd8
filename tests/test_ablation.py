"""Ablations: what varies, the table and the lines over it by hand, how the axis is chosen, what the files hold."""

import csv
from io import BytesIO, StringIO
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.container import ErrorbarContainer
from PIL import Image
from table_records import entry, golden, metrics, record, write_sweep

from ntml_bench.records.cells import read_sweep
from ntml_bench.records.summary import summarise
from ntml_bench.records.view import DEFAULT_SECTIONS, parse_sections
from ntml_bench.table.ablation.axis import axis_of
from ntml_bench.table.ablation.data import Ablation, ablation_of
from ntml_bench.table.ablation.drawing import figure_of
from ntml_bench.table.ablation.files import ablation_markdown
from ntml_bench.table.ablation.lines import MOST_LINES, Plot, plot_of
from ntml_bench.table.ablation.settings import Setting, short
from ntml_bench.table.main import main
from ntml_bench.table.render import render_sweep

ACC, ASR = "clean_accuracy", "attack_success_rate"
FILES = {"ablation.csv", "ablation.md", "ablation.png", "ablation.pdf"}
BUDGETS = (0.01, 0.05, 0.2)
BEFORE = metrics(96, 99, 1)
# defense: ASR at each budget, of seed 0 and of seed 1
RATES = {"ft": ((60, 64), (50, 40), (30, 31)), "nt_ml": ((9, 3), (5, 5), (2, 1))}


def by_budget(outputs: Path, seeds: tuple[int, ...] = (0, 1), done: int | None = None) -> Path:
    """The sweep of RATES on disk, in the order that Hydra gives it; the first `done` of its cells are."""
    cells, records = [], []
    for defense, rates in RATES.items():
        for budget, by_seed in zip(BUDGETS, rates, strict=True):
            for seed in seeds:
                cell = entry("badnets", defense, seed, settings={"clean_budget": budget})
                cells.append(cell)
                records.append(record(cell, metrics(94 + seed, by_seed[seed], 80), BEFORE, metrics(97, 1, 95)))
    return write_sweep(outputs, "budget", cells, records[:done])


def sweep_of(
    outputs: Path, changes: list[dict[str, Any]], defenses: tuple[str, ...] = ("nt_ml",), model: str = "resnet_tiny"
) -> Ablation:
    """An ablation of done cells, with these settings changed."""
    cells = [entry("badnets", name, settings=change, model=model) for change in changes for name in defenses]
    records = [record(cell, metrics(95, 5, 90), BEFORE) for cell in cells]
    found = ablation_of(summarise(read_sweep(write_sweep(outputs, "some", cells, records))))
    assert found is not None
    return found


def ablation(folder: Path) -> Ablation:
    found = ablation_of(summarise(read_sweep(folder)))
    assert found is not None
    return found


def plot(found: Ablation) -> Plot:
    drawn = plot_of(found)
    assert isinstance(drawn, Plot)
    return drawn


def test_the_table_over_a_setting_is_that_of_the_cells(tmp_path: Path) -> None:
    found = ablation(by_budget(tmp_path))
    assert found.settings == (Setting("clean_budget", ("0.01", "0.05", "0.2")),)
    (part,) = found.parts
    assert (part.attack, part.block.defenses, part.block.seeds) == ("badnets", ("ft", "nt_ml"), (0, 1))
    assert part.steps == (("0.01",), ("0.05",), ("0.2",))
    for row, index in zip(part.block.rows, range(3), strict=True):
        for name, rates in RATES.items():
            statistic = row.defenses[name].values[ASR]
            assert statistic is not None
            assert statistic.mean == pytest.approx(mean(rates[index]))
            assert statistic.deviation == pytest.approx(stdev(rates[index]))
        assert row.undefended.mean(ASR) == 99
        assert row.floor.mean(ASR) == 1
        assert row.best == "nt_ml"


def test_a_plain_grid_is_no_ablation_and_gets_no_such_file(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, "golden", *golden())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ablation.md").write_text("of another sweep of that name")
    assert ablation_of(summarise(read_sweep(folder))) is None
    render_sweep(folder, tmp_path / "out")
    assert not FILES & {path.name for path in (tmp_path / "out").iterdir()}


def test_named_variants_and_values_that_follow_an_option_do_not_vary(tmp_path: Path) -> None:
    cells = [entry("badnets", f"nt_ml ({name})", settings={"defense": {"mutual": name}}) for name in ("none", "ce_only")]
    cells += [entry("sig", "ft", settings={"defense": {"temperature": 9.0}})]
    assert ablation_of(summarise(read_sweep(write_sweep(tmp_path, "variants", cells, [])))) is None


def test_a_variant_is_a_column_of_its_own(tmp_path: Path) -> None:
    names = ("nt_ml", "nt_ml (frozen)")
    cells = [entry("badnets", name, settings={"clean_budget": value}) for name in names for value in (0.1, 0.2)]
    found = ablation(write_sweep(tmp_path, "variants", cells, []))
    assert found.parts[0].block.defenses == names


def test_a_method_without_the_setting_stays_outside(tmp_path: Path) -> None:
    cells = [entry("badnets", "nt_ml", settings={"defense": {"temperature": value}}) for value in (1, 2)]
    cells.append(entry("badnets", "ft"))  # has a temperature too, but not the one that varies
    found = ablation(write_sweep(tmp_path, "some", cells, [record(cell, metrics(95, 5, 90), BEFORE) for cell in cells]))
    assert found.outside == 1
    assert found.parts[0].block.defenses == ("nt_ml",)
    assert "1 of the sweep's cells have no such setting" in ablation_markdown(found, DEFAULT_SECTIONS)


def test_numbers_ascend_and_other_values_keep_their_order(tmp_path: Path) -> None:
    (setting,) = sweep_of(tmp_path, [{"defense": {"temperature": value}} for value in (10, 2.0, 0.5)]).settings
    assert setting == Setting("defense.temperature", ("0.5", "2", "10"))
    (setting,) = sweep_of(tmp_path / "modes", [{"defense": {"mode": value}} for value in ("mask", "drop", None)]).settings
    assert setting.values == ("mask", "drop", "null")
    assert setting.numbers is None


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=8, unique=True))
@example([1.0000000000000002e-06, 1e-06])
def test_the_axis_holds_every_value_and_is_logarithmic_for_wide_ranges(numbers: list[float]) -> None:
    setting = Setting("x", tuple(str(number) for number in sorted(numbers)))
    axis = axis_of(setting)
    assert list(axis.positions.values()) == sorted(numbers)
    assert axis.limits[0] < min(numbers) < max(numbers) < axis.limits[1]
    assert axis.kind == ("log" if max(numbers) / min(numbers) >= 20 else "linear")
    assert setting.values[0] in axis.labels


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (("0.01", "0.05", "0.2"), "log"),
        (("1", "2", "19"), "linear"),
        (("0", "0.1", "10"), "linear"),
        (("-1", "100"), "linear"),
        (("null", "1", "2"), "categories"),
        (("true", "false"), "categories"),
        (("mask", "drop"), "categories"),
        (('"1"', '"2"'), "categories"),
    ],
)
def test_the_kind_of_axis(values: tuple[str, ...], kind: str) -> None:
    assert axis_of(Setting("x", values)).kind == kind


def test_labels_that_have_no_room_are_left_out_and_the_others_do_not_touch() -> None:
    axis = axis_of(Setting("x", tuple(str(value) for value in (1000, 1001, 1002, 1500, 2000))))
    assert axis.labels == {"1000": "1000", "1500": "1500", "2000": "2000"}
    assert short("0.30000000000000004") == "0.3"
    assert short("mask_of_all") == "mask_of_all"


def test_lines_by_hand(tmp_path: Path) -> None:
    drawn = plot(ablation(by_budget(tmp_path)))
    (panel,) = drawn.panels
    assert [(line.name, line.kind) for line in panel.lines] == [
        ("floor", "floor"),
        ("none", "undefended"),
        ("ft", "defense"),
        ("nt_ml", "defense"),
    ]
    floor, undefended, ft, _ = panel.lines
    assert (floor.constant(ASR), undefended.constant(ASR), undefended.constant(ACC)) == (1, 99, 96)
    assert [(value, found.mean) for value, found in ft.statistics(ASR)] == [("0.01", 62), ("0.05", 45), ("0.2", 30.5)]
    assert ft.constant(ASR) is None


def test_what_the_attack_changes_moves_the_undefended_line(tmp_path: Path) -> None:
    cells = [entry("badnets", "ft", settings={"attack": {"poisoning_rate": rate}}) for rate in (0.01, 0.1)]
    records = [record(cell, metrics(90, 5, 80), metrics(95, rate, 2)) for cell, rate in zip(cells, (40, 99), strict=True)]
    (panel,) = plot(ablation(write_sweep(tmp_path, "rates", cells, records))).panels
    undefended = next(line for line in panel.lines if line.kind == "undefended")
    assert undefended.constant(ASR) is None
    assert [(value, found.mean) for value, found in undefended.statistics(ASR)] == [("0.01", 40), ("0.1", 99)]


def test_two_settings_are_an_axis_and_lines(tmp_path: Path) -> None:
    changes = [{"clean_budget": budget, "defense": {"alpha": alpha}} for budget in (0.01, 0.1, 0.2) for alpha in (1, 5)]
    drawn = plot(sweep_of(tmp_path, changes, ("ft", "nt_ml")))
    assert drawn.second is not None
    assert (drawn.across.name, drawn.second.name) == ("clean_budget", "defense.alpha")
    assert [panel.defense for panel in drawn.panels] == ["ft", "nt_ml"]
    lines = [(line.name, line.second, len(line.points)) for line in drawn.panels[0].lines]
    # The undefended model is the same for both values of alpha.
    assert lines == [("none", None, 3), ("ft", "1", 3), ("ft", "5", 3)]


def test_the_undefended_model_of_each_second_value_where_they_differ(tmp_path: Path) -> None:
    cells, records = [], []
    for budget in (0.01, 0.1, 0.2):
        for rate in (0.05, 0.1):
            cell = entry("badnets", "ft", settings={"clean_budget": budget, "attack": {"poisoning_rate": rate}})
            cells.append(cell)
            records.append(record(cell, metrics(90, 5, 80), metrics(95, 1000 * rate, 2)))
    (panel,) = plot(ablation(write_sweep(tmp_path, "both", cells, records))).panels
    undefended = [(line.second, line.constant(ASR)) for line in panel.lines if line.kind == "undefended"]
    assert undefended == [("0.05", 50), ("0.1", 100)]


def test_why_there_is_no_plot(tmp_path: Path) -> None:
    three = [{"defense": {"a": a, "b": b, "c": c}} for a in (1, 2) for b in (1, 2) for c in (1, 2)]
    assert plot_of(sweep_of(tmp_path / "a", three)) == (
        "3 settings vary (defense.a, defense.b, defense.c); a plot shows one or two"
    )
    scattered = [{"defense": {"a": value, "b": 10.0 + value}} for value in range(3)]
    assert plot_of(sweep_of(tmp_path / "b", scattered)) == "no line over defense.a has two points"
    many = [{"defense": {"a": a, "b": b}} for a in range(MOST_LINES + 1) for b in range(MOST_LINES + 1)]
    assert "a panel shows 8 lines" in str(plot_of(sweep_of(tmp_path / "c", many)))


def test_no_plot_is_said_in_the_table_and_an_older_one_is_removed(tmp_path: Path) -> None:
    (tmp_path / "ablation.png").write_bytes(b"of another sweep of that name")
    sweep_of(tmp_path, [{"defense": {"a": a, "b": a, "c": a}} for a in (1, 2)])
    render_sweep(tmp_path / "sweeps" / "some", tmp_path)
    assert {path.name for path in tmp_path.glob("ablation.*")} == {"ablation.csv", "ablation.md"}
    assert "There is no plot: 3 settings vary" in (tmp_path / "ablation.md").read_text()


def test_the_csv_by_hand(tmp_path: Path) -> None:
    render_sweep(by_budget(tmp_path), tmp_path, ("csv",))
    lines = (tmp_path / "ablation.csv").read_text().splitlines()
    assert lines[0] == (
        "dataset,model,attack,defense,clean_budget,seeds,clean_accuracy,clean_accuracy_deviation,"
        "attack_success_rate,attack_success_rate_deviation,robust_accuracy,robust_accuracy_deviation,"
        "defense_effectiveness_rating,defense_effectiveness_rating_deviation"
    )
    rows = [line.split(",", 3)[3] for line in lines[1:]]
    assert len(rows) == 4 * 3
    assert rows[0] == "floor,0.01,2,97.00,,1.00,,95.00,,,"
    assert rows[3] == "none,0.01,2,96.00,0.00,99.00,0.00,1.00,0.00,,"
    # ft at 0.05: ACC 94, 95; ASR 50, 40, deviation sqrt(25 + 25); DER (49 - 2 + 100) / 2 and (59 - 1 + 100) / 2.
    assert rows[7] == "ft,0.05,2,94.50,0.71,45.00,7.07,80.00,0.00,76.25,3.89"


def test_the_markdown_by_hand(tmp_path: Path) -> None:
    render_sweep(by_budget(tmp_path, seeds=(0,)), tmp_path, ("md",), parse_sections("acc/asr"))
    text = (tmp_path / "ablation.md").read_text()
    assert "## badnets: digit\\_scenes, resnet\\_tiny, 1 seed (0): single runs, no deviations" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows == [
        "| clean\\_budget | floor<br><sub>clean model</sub> | none<br><sub>undefended</sub> | ft<br><sub>[B]</sub> "
        "| nt\\_ml<br><sub>[B]</sub> |",
        "| ---: | :---: | :---: | :---: | :---: |",
        "| 0.01 | 97.0 / 1.0 | 96.0 / 99.0 | 94.0 / 60.0 | **94.0 / 9.0** |",
        "| 0.05 | 97.0 / 1.0 | 96.0 / 99.0 | 94.0 / 50.0 | **94.0 / 5.0** |",
        "| 0.2 | 97.0 / 1.0 | 96.0 / 99.0 | 94.0 / 30.0 | **94.0 / 2.0** |",
    ]
    assert "nt\\_ml is a reconstruction" in text


def test_the_best_of_one_defense_is_not_marked(tmp_path: Path) -> None:
    found = sweep_of(tmp_path, [{"defense": {"temperature": value}} for value in (1, 2)])
    assert "**95.0" not in ablation_markdown(found, DEFAULT_SECTIONS)


def test_error_bars_are_sample_standard_deviations_and_absent_for_one_seed(tmp_path: Path) -> None:
    found = ablation(by_budget(tmp_path))
    _, asr = figure_of(plot(found), found, DEFAULT_SECTIONS).axes
    bars = [container for container in asr.containers if isinstance(container, ErrorbarContainer)]
    assert len(bars) == 2
    for container, rates in zip(bars, RATES.values(), strict=True):
        segments = container.lines[2][0].get_segments()
        for (low, high), budget, values in zip(segments, BUDGETS, rates, strict=True):
            assert low[0] == high[0] == budget
            assert low[1] == pytest.approx(mean(values) - stdev(values))
            assert high[1] == pytest.approx(mean(values) + stdev(values))
    single = ablation(by_budget(tmp_path / "single", seeds=(0,)))
    figure = figure_of(plot(single), single, DEFAULT_SECTIONS)
    assert any("1 seed (0): single runs, no error bars" in text.get_text() for text in figure.texts)
    for container in figure.axes[1].containers:
        assert isinstance(container, ErrorbarContainer)
        assert all(segment.size == 0 or segment[0][1] != segment[0][1] for segment in container.lines[2][0].get_segments())


def test_the_figure_shows_the_metrics_that_are_asked_for(tmp_path: Path) -> None:
    found = ablation(by_budget(tmp_path))
    axes = figure_of(plot(found), found, parse_sections("ra/der")).axes
    assert [each.get_ylabel() for each in axes] == ["RA (%)", "DER (%)"]
    acc, asr = figure_of(plot(found), found, DEFAULT_SECTIONS).axes
    assert (acc.get_xscale(), acc.get_xlabel()) == ("log", "clean_budget")
    assert [label.get_text() for label in acc.get_xticklabels()] == ["0.01", "0.05", "0.2"]
    assert asr.get_ylim() == (-3, 103)
    low, high = acc.get_ylim()
    assert high - low >= 10


def test_categories_are_not_joined(tmp_path: Path) -> None:
    found = sweep_of(tmp_path, [{"defense": {"mode": value}} for value in ("mask", "drop")])
    acc, _ = figure_of(plot(found), found, DEFAULT_SECTIONS).axes
    (container,) = acc.containers
    assert isinstance(container, ErrorbarContainer)
    assert container.lines[0].get_linestyle() == "None"
    assert [label.get_text() for label in acc.get_xticklabels()] == ["mask", "drop"]


def test_pictures_are_written_with_the_table_and_are_the_same_twice(tmp_path: Path) -> None:
    folder = by_budget(tmp_path, done=9)
    for name in ("a", "b"):
        render_sweep(folder, tmp_path / name, ("png",))
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"table.png", "ablation.png", "ablation.pdf"}
    for name in ("ablation.png", "ablation.pdf"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    image = Image.open(BytesIO((tmp_path / "a" / "ablation.png").read_bytes()))
    assert image.width > 1200
    assert image.height > 500
    assert (tmp_path / "a" / "ablation.pdf").read_bytes().startswith(b"%PDF")


def test_a_nasty_name_is_drawn_as_it_is(tmp_path: Path) -> None:
    found = sweep_of(tmp_path, [{"clean_budget": value} for value in (0.1, 0.2)], ("$x^{", "a_b$"), model="$\\frac")
    assert figure_of(plot(found), found, DEFAULT_SECTIONS).legends
    render_sweep(tmp_path / "sweeps" / "some", tmp_path, ("png",))


def test_an_unfinished_ablation_says_so(tmp_path: Path) -> None:
    render_sweep(by_budget(tmp_path, done=9), tmp_path)
    text = (tmp_path / "ablation.md").read_text()
    assert "9 of 12 cells done, 3 missing" in text
    assert "1 of 2" in text
    rows = list(csv.DictReader(StringIO((tmp_path / "ablation.csv").read_text())))
    assert [row["seeds"] for row in rows if row["defense"] == "nt_ml"] == ["2", "1", "0"]
    assert rows[-1]["clean_accuracy"] == ""


def test_the_command_lists_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_budget(tmp_path)
    assert main(["budget", "--outputs", str(tmp_path), "--format", "csv,png"]) == 0
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert names == ["cells.csv", "table.png", "ablation.csv", "ablation.png", "ablation.pdf"]
    assert main(["budget", "--outputs", str(tmp_path), "--keep", "--format", "csv,md"]) == 0
    kept = {path.name for path in (tmp_path / "reference" / "budget").iterdir()}
    assert kept == {"manifest.json", "checksums.json", "records", "cells.csv", "table.md", "ablation.csv", "ablation.md"}
