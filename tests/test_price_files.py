"""The curves of tuned defenses as files, as a figure and on the page: there with the numbers by hand, and only where tuned."""

import csv
import re
from dataclasses import replace
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pytest
from figure_reports import report_of_folder
from matplotlib.axes import Axes
from page_tree import parse
from PIL import Image
from table_records import golden, write_sweep
from tuned_records import tuned_cell, tuned_sweep

from ntml_bench.figures.price import FAR, Panel, figure_of
from ntml_bench.figures.style import plain_style
from ntml_bench.records.cells import read_sweep
from ntml_bench.records.curves import Curve, attacked, curves_of
from ntml_bench.records.numbers import Metrics
from ntml_bench.records.summary import summarise
from ntml_bench.records.tuned_view import READING
from ntml_bench.report.figures import drawings
from ntml_bench.report.page import render_report
from ntml_bench.table.prices import render_prices
from ntml_bench.table.render import FORMATS, render_sweep, written

NAMES = {"price.csv", "price.md", "price.png"}


def curves(folder: Path) -> list[Curve]:
    summary = summarise(read_sweep(folder))
    return curves_of(summary, summary.blocks[0])


def axes_of(found: list[Curve]) -> Axes:
    """The one panel."""
    with plain_style():
        figure = figure_of([Panel("badnets", tuple(found))], "some")
        figure.canvas.draw()
    return figure.axes[1]


def lines_of(axes: Axes) -> list[list[tuple[float, float]]]:
    return [[(float(x), float(y)) for x, y in np.asarray(line.get_xydata())] for line in axes.lines]


def test_the_files_stand_beside_a_table_of_tuned_cells_only(tmp_path: Path) -> None:
    target = tmp_path / "out"
    render_sweep(tuned_sweep(tmp_path / "tuned"), target)
    assert {path.name for path in target.glob("price.*")} == NAMES
    assert {path.name for path in written(target, FORMATS)} >= NAMES
    # Another sweep of that name, which is not tuned, takes them away.
    render_sweep(write_sweep(tmp_path / "plain", "golden", *golden()), target)
    assert not list(target.glob("price.*"))
    assert not NAMES & {path.name for path in written(target, FORMATS)}


def test_only_files_of_the_wanted_formats_are_written(tmp_path: Path) -> None:
    render_sweep(tuned_sweep(tmp_path), tmp_path / "out", ("csv",))
    assert [path.name for path in (tmp_path / "out").glob("price.*")] == ["price.csv"]


def test_the_csv_holds_every_candidate_of_every_seed_once(tmp_path: Path) -> None:
    render_sweep(tuned_sweep(tmp_path), tmp_path / "out", ("csv",))
    rows = list(csv.DictReader(StringIO((tmp_path / "out" / "price.csv").read_text())))
    # Two defenses, two seeds, the undefended model and two strengths.
    assert len(rows) == 2 * 2 * 3
    names = ("attack", "defense", "seed", "setting", "value", "validation_images", "validation_accuracy", "fall")
    names += ("standard_error", "taken_at_prices", "clean_accuracy", "attack_success_rate", "robust_accuracy")
    assert [[row[name] for name in names] for row in rows[6:9]] == [
        ["badnets", "nt_ml", "0", "temperature", "", "40", "95.00", "", "", "1", "90.00", "100.00", "0.00"],
        ["badnets", "nt_ml", "0", "temperature", "0.01", "40", "92.50", "2.50", "0.50", "5", "91.00", "60.00", "30.00"],
        ["badnets", "nt_ml", "0", "temperature", "0.1", "40", "83.00", "12.00", "0.50", "", "80.00", "4.00", "70.00"],
    ]


def test_the_markdown_holds_means_and_by_how_many_seeds_a_strength_is_taken(tmp_path: Path) -> None:
    render_sweep(tuned_sweep(tmp_path), tmp_path / "out", ("md",))
    text = (tmp_path / "out" / "price.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    assert ["nt\\_ml", "none", "price 1: 1 of 2", "95.0 ± 0.0", "", "", "0.0 ± 0.0", "99.0 ± 1.4", "1.0 ± 1.4"] in rows
    strong = ["93.5 ± 0.7", "1.5 ± 0.7"]
    assert strong not in rows
    weak = next(row for row in rows if row[:2] == ["ft", "temperature=0.01"])
    # It falls by -1.0 and 0.5 of 95, ACC lost is 0 and 2.
    assert weak[2:] == ["price 1: 2 of 2", "95.2 ± 1.1", "-0.2 ± 1.1", "0.5", "1.0 ± 1.4", "75.0 ± 7.1", "20.0 ± 7.1"]
    assert "Tuned at a price of 1 or 5 points" in text
    assert "reconstruction" in text


def test_a_curve_goes_from_the_undefended_model_to_the_strongest(tmp_path: Path) -> None:
    ft, nt_ml = curves(tuned_sweep(tmp_path))
    axes = axes_of([ft, nt_ml])
    drawn = lines_of(axes)
    assert [(0.0, 99.0), (1.0, 75.0), (6.0, 30.0)] in drawn
    # Of nt_ml the strengths lose -1 and 1, then 10 and 24.
    assert [(0.0, 99.0), (0.0, 55.0), (17.0, 3.0)] in drawn
    assert drawn.count([(1.0, 75.0)]) == drawn.count([(6.0, 30.0)]) == 1  # what ft is taken at, at 1 and at 5
    assert [(0.5, 75.0)] in drawn  # nt_ml at 1: one seed undefended, one at the weak strength
    assert axes.get_xlim()[0] < 0
    assert axes.get_xlim()[1] > 17


def test_a_collapse_presses_nothing_into_a_corner(tmp_path: Path) -> None:
    ft, _ = curves(tuned_sweep(tmp_path, (1,)))
    lost = Metrics(10.0, 0.0, 10.0)
    runs = []
    for run in ft.runs:
        first, last = run.choice.candidates
        runs.append(replace(run, choice=replace(run.choice, candidates=(first, replace(last, after=lost)))))
    axes = axes_of([replace(ft, runs=tuple(runs))])
    right = axes.get_xlim()[1]
    assert right < FAR
    line = next(line for line in lines_of(axes) if len(line) == 3)
    assert line[-1][0] == pytest.approx(right)
    # On the straight way from (1, 75) to (82, 0).
    assert line[-1][1] == pytest.approx(75 * (82 - right) / 81)
    assert all(x <= right for drawn in lines_of(axes) for x, _ in drawn)


def test_cells_without_an_attack_are_in_the_files_and_not_in_the_figure(tmp_path: Path) -> None:
    cell, done = tuned_cell("ft", 0, 1, "none")
    for found in (done["before"], done["after"], *(each["after"] for each in done["tuning"]["candidates"])):
        found.update(attack_success_rate=None, robust_accuracy=None)
    folder = write_sweep(tmp_path, "clean", [cell], [done])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "price.png").write_text("of an earlier sweep")
    render_sweep(folder, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").glob("price.*")} == {"price.csv", "price.md"}
    assert attacked(curves(folder)) == {}
    assert not [drawing for drawing in drawings(report_of_folder(folder, looked_into=False)) if drawing.kind == "price"]


@pytest.mark.parametrize("count", [1, 2, 6])
def test_the_image_is_as_wide_as_a_column_or_two_of_a_paper(tmp_path: Path, count: int) -> None:
    attacks = ("badnets", "blended", "sig", "lc", "wanet", "narcissus")[:count]
    sweep = tuned_sweep(tmp_path, (1, 2, 5), attacks=attacks)
    first, second = (render_prices(summarise(read_sweep(sweep)), ["png"])["price.png"] for _ in range(2))
    assert first is not None
    assert Image.open(BytesIO(first)).size[0] == round(300 * (3.35 if count == 1 else 7.0))
    assert second == first


def test_the_page_has_a_section_where_defenses_were_tuned(tmp_path: Path) -> None:
    report = report_of_folder(tuned_sweep(tmp_path / "tuned", attacks=("badnets", "sig")), looked_into=False)
    found = list(drawings(report))
    (drawing,) = [drawing for drawing in found if drawing.kind == "price"]
    assert "badnets, ft: at 1 1.0 lost, ASR 75.0; at 5 6.0 lost, ASR 30.0" in drawing.alt
    paths = drawing.write(tmp_path / "figures", pdf=True)
    assert [path.name for path in paths] == ["price.png", "price.pdf"]
    assert not re.search("#[0-9a-f]{6}", drawing.svg())  # but names of colours, for light and for dark
    page = parse(render_report(report, found))
    (section,) = page.all("section", id="same-price")
    assert len(section.all("svg")) == 1
    assert READING in section.text
    assert page.all("a", href="#same-price")
    ids = [element["id"] for element in page.all() if "id" in element.attributes]
    assert len(set(ids)) == len(ids)
    # It stands there only, not again among what each defense did.
    assert drawing.title not in page.one("section", id="seen").text
    plain = report_of_folder(write_sweep(tmp_path / "plain", "golden", *golden()), looked_into=False)
    page = parse(render_report(plain, list(drawings(plain))))
    assert not page.all("section", id="same-price")
    assert not page.all("a", href="#same-price")
