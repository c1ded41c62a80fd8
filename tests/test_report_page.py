"""The page of a report, read as a browser's parser would read it: what it says is what was measured, and nothing breaks it."""

import csv
import dataclasses
import json
from base64 import b64decode
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_tree import Element, check_soundness, parse
from PIL import Image
from report_pages import ATTACKS, DEFENSES, NASTY, gallery, report_of, sketches, table_sweep

from ntml_bench.records.cells import Sweep
from ntml_bench.records.rows import render_csv
from ntml_bench.records.summary import METRICS, Row, summarise
from ntml_bench.records.view import NO_NUMBER, SHORT, columns_of
from ntml_bench.report.data import Report
from ntml_bench.report.figures import drawings
from ntml_bench.report.heat import STEPS, Scale
from ntml_bench.report.images import shown_galleries
from ntml_bench.report.page import breakable, render_gallery, render_report
from ntml_bench.report.records import narrow_json
from ntml_bench.report.write import record_links

LARGEST = 5_000_000
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def page_of(report: Report) -> Element:
    return parse(render_report(report, sketches(report)))


def value_of(place: Element, metric: str) -> float | None:
    """What a place of the table says of a metric."""
    found = place.one("span", class_=SHORT[metric].lower()).one("data")["value"]
    return float(found) if found else None


def rows_of(page: Element, block: int = 0) -> dict[str, list[Element]]:
    """The places of each row by its name."""
    table = page.all("table", class_="heat")[block]
    lines = [line for line in table.all("tr") if line.all("td", class_="undefended")]
    return {line.all("th")[0].text: line.all("button", class_="place") for line in lines}


def check_row(places: list[Element], row: Row) -> None:
    entries = [row.floor, row.undefended, *row.defenses.values()]
    for place, entry in zip(places, entries, strict=True):
        for metric in METRICS:
            expected = entry.mean(metric)
            found = value_of(place, metric)
            assert (found is None) == (expected is None)
            if expected is not None:
                assert found == pytest.approx(expected, abs=1e-7)
                assert place.one("span", class_=SHORT[metric].lower()).one("data").text.rstrip("↓") == f"{expected:.1f}"


def test_every_place_of_the_table_says_what_the_summary_says(tmp_path: Path) -> None:
    report = report_of(table_sweep(tmp_path, (0, 1)))
    (block,) = report.summary.blocks
    rows = rows_of(page_of(report))
    assert list(rows) == [*ATTACKS, "average"]
    assert block.average is not None
    for row in (*block.rows, block.average):
        check_row(rows[row.attack], row)
    deviation = block.rows[0].defenses["ft"].values["clean_accuracy"]
    assert deviation is not None
    assert rows["badnets"][2].one("span", class_="acc").one("small").text == f"±{deviation.deviation:.1f}"


def test_the_table_says_what_cells_csv_says(tmp_path: Path) -> None:
    report = report_of(table_sweep(tmp_path))
    rows = rows_of(page_of(report))
    columns = [column.heading for column in columns_of(report.summary.blocks[0])]
    lines = list(csv.DictReader(render_csv(report.summary).splitlines()))
    assert len(lines) == len(ATTACKS) * len(DEFENSES)
    for line in lines:
        place = rows[line["attack"]][columns.index("none (undefended)" if line["defense"] == "none" else line["defense"])]
        for metric in METRICS:
            if line[metric]:
                assert value_of(place, metric) == pytest.approx(float(line[metric]), abs=0.0051)


def test_details_hold_all_that_is_known_of_a_number(tmp_path: Path) -> None:
    report = report_of(table_sweep(tmp_path, (0, 1)))
    page = page_of(report)
    place = rows_of(page)["sig"][3]
    details = page.one("div", id=place["popovertarget"])
    entry = report.summary.blocks[0].rows[2].defenses["fp"]
    numbers = {line.all("th")[0].text: [cell.text for cell in line.all("td")] for line in details.one("tbody").all("tr")}
    assert list(numbers) == ["ACC", "ASR", "RA", "DER"]
    for metric in METRICS:
        found = entry.values[metric]
        assert found is not None
        assert found.deviation is not None
        undefended = report.summary.blocks[0].rows[2].undefended.mean(metric)
        assert numbers[SHORT[metric]] == [
            f"{found.mean:.1f} ±{found.deviation:.1f}",
            NO_NUMBER if undefended is None else f"{undefended:.1f}",
        ]
    assert "mean over 2 seeds" in details.text
    links = [link["href"] for link in details.all("a") if link["href"].startswith("#record")]
    keys = [cell.key for cell in report.summary.cells if (cell.attack, cell.defense) == ("sig", "fp")]
    assert links == [f"#record-{key}" for key in keys]


def test_published_numbers_stand_beside_ours_with_the_verdict(tmp_path: Path) -> None:
    folder = table_sweep(tmp_path, attacks=("badnets", "sig"), defenses=("none", "ft"), place=("cifar10", "preact_resnet18"))
    report = report_of(folder, reference="backdoorbench")
    page = page_of(report)
    assert report.comparison is not None
    line = next(line for line in report.comparison.lines if (line.attack, line.defense) == ("badnets", "ft"))
    assert line.published is not None
    published, difference = line.published_value("clean_accuracy"), line.difference("clean_accuracy")
    details = page.one("div", id=rows_of(page)["badnets"][2]["popovertarget"])
    assert details.one("tbody").all("tr")[0].all("td")[-1].text == f"{published:.1f} ({difference:+.1f})"
    assert f"Published numbers: {line.verdict}: {line.reason}" in details.text


def test_the_best_of_a_row_is_marked_in_words_and_by_a_sign(tmp_path: Path) -> None:
    report = report_of(table_sweep(tmp_path))
    rows = rows_of(page_of(report))
    for row in report.summary.blocks[0].rows:
        marked = [index for index, place in enumerate(rows[row.attack]) if "best of the row" in place.text]
        assert row.best is not None
        assert marked == [2 + list(row.defenses).index(row.best)]
        assert rows[row.attack][marked[0]].one("span", class_="star").text == "★"


def test_what_is_not_finished_is_shown_as_that(tmp_path: Path) -> None:
    folder = table_sweep(
        tmp_path, (0, 1), unfinished={("sig", "ft", 0): f"RuntimeError: {NASTY}", ("sig", "ft", 1): "X", ("lc", "nad", 1): None}
    )
    report = report_of(folder)
    page = page_of(report)
    rows = rows_of(page)
    assert rows["sig"][2].text == "failed"
    assert f"RuntimeError: {NASTY}" in page.one("div", id=rows["sig"][2]["popovertarget"]).text
    assert "1 of 2" in rows["lc"][4].text
    assert f"failed: sig: ft seed 0: RuntimeError: {NASTY}" in page.one("ul", class_="unfinished").text
    record = next(entry for entry in report.cells if entry.cell.error and entry.cell.seed == 0)
    assert NASTY in page.one("details", id=f"record-{record.cell.key}").text
    assert "missing" in page.one("div", id=rows["lc"][4]["popovertarget"]).text


def test_a_sweep_with_nothing_done_yet_has_a_page(tmp_path: Path) -> None:
    report = report_of(
        table_sweep(
            tmp_path, attacks=("sig",), defenses=("none", "ft"), unfinished={("sig", "ft", 0): None, ("sig", "none", 0): None}
        )
    )
    page = page_of(report)
    assert [place.text for place in rows_of(page)["sig"]] == [NO_NUMBER, "missing", "missing"]
    check_soundness(page)


def test_records_hold_the_numbers_and_the_settings(tmp_path: Path) -> None:
    folder = table_sweep(tmp_path)
    report = report_of(folder)
    links = record_links(report, folder, tmp_path / "tables" / "table")
    page = parse(render_report(report, (), links))
    assert len(page.all("details")) == len(report.cells)
    for entry in report.cells:
        record = page.one("details", id=f"record-{entry.cell.key}")
        lines = {line.all("th")[0].text: [cell.text for cell in line.all("td")] for line in record.one("tbody").all("tr")}
        assert lines["after the defense"][:2] == [
            f"{entry.cell.after.clean_accuracy:.2f}",
            f"{entry.cell.after.attack_success_rate:.2f}",
        ]
        assert entry.record is not None
        assert json.loads(record.one("pre").raw) == {key: value for key, value in entry.record.items() if key != "history"}
        path = tmp_path / "tables" / "table" / record.one("a")["href"]
        assert json.loads(path.resolve().read_text())["key"] == entry.cell.key


@given(JSON)
def test_json_on_narrow_lines_says_the_same(value: object) -> None:
    assert json.loads(narrow_json(value)) == value


@given(st.floats(0, 90), st.floats(1, 100), st.lists(st.floats(-50, 150), min_size=2))
def test_a_higher_number_is_never_paler(low: float, span: float, values: list[float]) -> None:
    scale = Scale(low, low + span)
    steps = [scale.step(value) for value in sorted(values)]
    assert steps == sorted(steps)
    assert 0 <= steps[0] <= steps[-1] <= STEPS
    assert (scale.step(low), scale.step(low + span)) == (0, STEPS)


def nasty(report: Report, word: str = NASTY) -> Report:
    """The same report with that word in every label, every name and the command."""
    cells = tuple(
        dataclasses.replace(
            entry,
            cell=dataclasses.replace(
                entry.cell, dataset=word, attack=f"{entry.cell.attack} {word}", defense=f"{entry.cell.defense} {word}"
            ),
        )
        for entry in report.cells
    )
    summary = summarise(Sweep(word, tuple(entry.cell for entry in cells)))
    galleries = tuple(dataclasses.replace(found, dataset=word, attack=word, target=word) for found in report.galleries)
    return dataclasses.replace(report, summary=summary, cells=cells, command=word, galleries=galleries)


def test_no_name_breaks_the_page(tmp_path: Path) -> None:
    folder = table_sweep(tmp_path, attacks=("sig", "lc"), defenses=("none", "ft"), extra={"notes": {NASTY: NASTY}})
    report = nasty(report_of(folder, galleries=[gallery(classes=[NASTY, "b"])]))
    text = render_report(report, sketches(report))
    page = parse(text)
    check_soundness(page)
    plain = " ".join(NASTY.split())
    assert page.one("h1").text == plain
    assert page.one("pre", class_="command").raw == NASTY
    assert list(rows_of(page)) == [f"sig {plain}", f"lc {plain}", "average"]
    assert page.all("figcaption")[0].text == plain
    assert page.all("img")[0]["alt"] == f"{NASTY} as it is"
    assert json.loads(page.all("details")[0].one("pre").raw)["notes"] == {NASTY: NASTY}
    assert "alert(1)" not in page.one("script").raw
    assert not page.all("b")
    check_soundness(parse(render_gallery(report.galleries[0])))


def test_a_page_with_the_real_figures_is_sound_and_small(tmp_path: Path) -> None:
    classes = ("cat", "dog", "deer", "frog", "horse", "ship", "bird", "truck")
    galleries = [gallery(attack, classes=classes, seed=seed) for seed, attack in enumerate(ATTACKS)]
    report = report_of(table_sweep(tmp_path), galleries=galleries, command="ntml-bench -cn digits_table")
    drawn = list(drawings(report))
    assert {drawing.kind for drawing in drawn} >= {"plane", "curves"}
    text = render_report(report, drawn)
    assert len(report.cells) == 42
    assert len(text.encode()) < LARGEST
    page = parse(text)
    check_soundness(page)
    # As an image that is shown by itself, a gallery is not drawn again.
    assert len(page.all("svg")) == sum(drawing.kind != "gallery" for drawing in drawn)


def test_a_sweep_of_two_data_sets_has_two_tables(tmp_path: Path) -> None:
    first = report_of(table_sweep(tmp_path / "one", attacks=("sig", "lc"), defenses=("none", "ft")))
    second = report_of(
        table_sweep(tmp_path / "two", attacks=("sig", "lc"), defenses=("none", "ft"), place=("digits", "resnet_tiny"))
    )
    cells = (*first.cells, *second.cells)
    report = dataclasses.replace(first, summary=summarise(Sweep("both", tuple(entry.cell for entry in cells))), cells=cells)
    page = page_of(report)
    check_soundness(page)
    for number, block in enumerate(report.summary.blocks):
        for row in block.rows:
            check_row(rows_of(page, number)[row.attack], row)
    assert [select["name"] for select in page.all("select")] == ["data", "attack", "defense"]


def test_large_images_are_shown_reduced_so_that_the_page_stays_small() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (8, 224, 224, 3)).astype(np.uint8)
    large = dataclasses.replace(gallery(classes=["c"] * 8), clean=noise, triggered=255 - noise)
    shown = shown_galleries([large] * 6)
    assert (
        sum(len(uri) for one in shown for triple in one.triples for uri in (triple.clean, triple.triggered, triple.difference))
        < LARGEST
    )
    assert all("reduced to" in one.reduced for one in shown)
    assert "reduced to" in parse(render_gallery(large)).one("main").text
    assert "reduced to" not in parse(render_gallery(gallery())).one("main").text


@pytest.mark.parametrize("channels", [1, 3])
def test_a_gallery_shows_the_very_pixels(channels: int) -> None:
    found = gallery(channels=channels)
    (shown,) = shown_galleries([found])
    for triple, clean, triggered in zip(shown.triples, found.clean, found.triggered, strict=True):
        for uri, expected in ((triple.clean, clean), (triple.triggered, triggered)):
            pixels = np.asarray(Image.open(BytesIO(b64decode(uri.removeprefix("data:image/png;base64,")))))
            assert np.array_equal(pixels.reshape(expected.shape), expected)
    page = parse(render_gallery(found))
    assert {"24.2 dB", "0.912"} <= {str(cell.children[0]) for cell in page.all("dd")}
    assert f"{shown.factor}" in page.one("p", class_="row-names").text


def test_what_was_written_down_of_the_making_is_shown(tmp_path: Path) -> None:
    report = report_of(table_sweep(tmp_path, (0, 1)), command="ntml-bench -m 'attack=a,b'")
    made = page_of(report).one("section", id="made")
    assert made.one("pre").raw == "ntml-bench -m 'attack=a,b'"
    lines = {
        line.one("dt").text: line.one("dd").text for line in made.all("div") if line.all("dt") and len(line.all("dt")) == 1
    }
    assert lines["training.epochs"] == "20"
    assert lines["torch"] == "2.15.0"
    assert lines["finished"] == "2026-01-01 00:00 UTC to 2026-01-02 00:00 UTC"
    # 84 cells of 2 s; the 12 attacked models of 1 s each are shared.
    assert lines["defenses"] == "2 min 48 s"
    assert lines["training of the attacked models"] == "12.0 s"
    assert "Family of values: small." in made.text
    assert "nt_ml is a reconstruction" in made.text


def test_lists_of_a_machine_are_words(tmp_path: Path) -> None:
    environment = {"device": "cpu", "cpu_instructions": ["avx2", "fma3"], "cpu_limits": {}, "variables": {"A": 1, "B": "x"}}
    folder = table_sweep(tmp_path, attacks=("sig",), defenses=("none", "ft"), extra={"environment": environment})
    made = page_of(report_of(folder)).one("section", id="made")
    lines = {line.one("dt").text: line.one("dd").text for line in made.all("div") if len(line.all("dt")) == 1}
    told = {name: lines[name] for name in ("cpu instructions", "cpu limits", "variables")}
    assert told == {"cpu instructions": "avx2, fma3", "cpu limits": "none", "variables": "A=1, B=x"}


def test_labels_break_at_dots_but_not_within_a_number() -> None:
    assert breakable("a_b=0.01") == "a_<wbr>b=<wbr>0.01"
    assert breakable("dataset.holdout") == "dataset.<wbr>holdout"


def test_the_summary_of_a_page_counts_the_sweep(tmp_path: Path) -> None:
    report = report_of(table_sweep(tmp_path, (0, 1)))
    facts = {line.one("dt").text: line.one("dd").text for line in page_of(report).one("dl", class_="facts").all("div")}
    assert facts == {"data": "digit_scenes", "model": "resnet_tiny", "attacks": "6", "defenses": "6", "seeds": "0, 1"}
