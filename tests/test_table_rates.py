"""An attack that poisons far more or fewer images than its publication says so in its row, and is paired as before."""

from pathlib import Path
from typing import Any

import pytest
from seeded import seeded
from table_records import entry, metrics, record, write_kept, write_sweep
from test_table_render import printed

from ntml_bench.errors import UserError
from ntml_bench.records.against.check import check
from ntml_bench.records.cells import read_sweep
from ntml_bench.records.summary import summarise
from ntml_bench.report.main import main as report
from ntml_bench.table.render import render_sweep

LINE = "Poisons, as a share of the training images, more than 10 times off the publication's: narcissus 8 % (published 0.05 %)."


def cells_of(rate: Any, published: Any, attack: str = "narcissus", **settings: Any) -> list[dict[str, Any]]:
    changes = {"attack": {"poisoning_rate": rate, **settings}}
    cells = [entry(attack, defense, settings=changes) for defense in ("none", "ft")]
    return [{**cell, "published_rate": published} for cell in cells]


def sweep_of(outputs: Path, cells: list[dict[str, Any]]) -> Path:
    return write_sweep(outputs, "rates", cells, [record(cell, metrics(95, 5, 90), metrics(96, 99, 1)) for cell in cells])


@pytest.mark.parametrize(
    ("rate", "published", "heading"),
    [
        (0.08, 0.0005, "narcissus (8 %)"),
        (0.0051, 0.0005, "narcissus (0.51 %)"),
        (0.005, 0.0005, "narcissus"),
        (0.0099, 0.1, "narcissus (0.99 %)"),
        (0.01, 0.1, "narcissus"),
        (0.1, None, "narcissus"),
        (0.0, 0.1, "narcissus"),
    ],
)
def test_a_row_says_a_rate_of_more_than_ten_times_off(tmp_path: Path, rate: float, published: float, heading: str) -> None:
    ((row,),) = [block.rows for block in summarise(read_sweep(sweep_of(tmp_path, cells_of(rate, published)))).blocks]
    assert (row.attack, row.heading) == ("narcissus", heading)


def test_every_rendering_says_it(tmp_path: Path) -> None:
    folder = sweep_of(tmp_path, [*cells_of(0.1, 0.1, "badnets"), *cells_of(0.08, 0.0005)])
    render_sweep(folder, tmp_path, ("md", "tex", "html", "csv", "png"))
    shown = {name: (tmp_path / name).read_text() for name in ("table.md", "table.tex", "table.html", "cells.csv")}
    assert "| narcissus (8 %) |" in shown["table.md"]
    assert r"narcissus (8 \%) &" in shown["table.tex"]
    assert ">narcissus (8 %)</th>" in shown["table.html"]
    assert LINE in shown["table.md"]
    assert "narcissus,none" in shown["cells.csv"]
    assert all("badnets (" not in text for text in shown.values())
    lines = printed(folder, tmp_path, width=120).splitlines()
    (line,) = [number for number, text in enumerate(lines) if text.startswith("narcissus ") and "96.0/99.0" in text]
    assert lines[line + 1].startswith("8 %")
    assert report(["rates", "--outputs", str(tmp_path)]) == 0
    assert "8 %" in (tmp_path / "tables" / "rates" / "report.html").read_text()


def test_an_ablation_of_the_rate_says_it_once(tmp_path: Path) -> None:
    rows = summarise(read_sweep(sweep_of(tmp_path, [*cells_of(0.08, 0.0005), *cells_of(0.05, 0.0005)]))).blocks[0].rows
    assert [row.heading for row in rows] == ["narcissus (poisoning_rate=0.08)", "narcissus (poisoning_rate=0.05)"]


def test_an_ablation_of_something_else_says_both(tmp_path: Path) -> None:
    cells = [*cells_of(0.08, 0.0005, rounds=1), *cells_of(0.08, 0.0005, rounds=2)]
    rows = summarise(read_sweep(sweep_of(tmp_path, cells))).blocks[0].rows
    assert [row.heading for row in rows] == ["narcissus (rounds=1, 8 %)", "narcissus (rounds=2, 8 %)"]


def test_a_manifest_that_does_not_say_what_is_published_is_read_as_before(tmp_path: Path) -> None:
    cells = [{key: value for key, value in cell.items() if key != "published_rate"} for cell in cells_of(0.08, None)]
    sweep = read_sweep(sweep_of(tmp_path, cells))
    assert [row.heading for row in summarise(sweep).blocks[0].rows] == ["narcissus"]


@pytest.mark.parametrize("nonsense", ["0.1", True, [0.1]])
def test_a_published_rate_that_is_no_number_is_refused(tmp_path: Path, nonsense: Any) -> None:
    with pytest.raises(UserError, match="the published rate of cell"):
        read_sweep(sweep_of(tmp_path, cells_of(0.08, nonsense)))


def test_a_kept_sweep_that_does_not_say_it_is_paired_with_one_that_does(tmp_path: Path) -> None:
    write_kept(tmp_path / "reference" / "many", "many", *seeded(range(10)))
    cells, records = seeded([10])
    for each in (*cells, *records):
        each["published_rate"] = 0.0001
    found = check(write_sweep(tmp_path, "new", cells, records), tmp_path / "reference" / "many")
    assert found.compared == 16
    assert found.verdict == "reproduced"
