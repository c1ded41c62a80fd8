"""`ntml-report --site`: the index says what the records say, leads to each report, and nothing that it is given stops it."""

import re
from pathlib import Path
from typing import Any

import pytest
from kept_tables import kept
from page_tree import Element, check_soundness, parse
from report_pages import NASTY
from table_records import entry, metrics, record, write_kept

from ntml_bench.records.cells import read_sweep
from ntml_bench.records.manifest import MANIFEST
from ntml_bench.records.summary import summarise
from ntml_bench.records.view import NO_NUMBER
from ntml_bench.report.main import main
from ntml_bench.report.site.tables import page_names

SMALL: dict[str, Any] = {"attacks": ("sig", "lc"), "defenses": ("none", "ft", "nt_ml")}
TIMES = "\N{MULTIPLICATION SIGN}"
RATING = "defense_effectiveness_rating"


def site_of(*folders: Path, to: Path) -> Element:
    """The index over those folders, written below `to`."""
    assert main(["--site", *map(str, folders), "--to", str(to)]) == 0
    return parse((to / "index.html").read_text(encoding="utf-8"))


def lines_of(index: Element) -> list[dict[str, Element]]:
    """The cells of each line by the head of their column."""
    table = index.one("table", class_="index")
    heads = [head.text for head in table.one("thead").all("th")]
    rows = table.one("tbody").all("tr")
    return [dict(zip(heads, [*row.all("th"), *row.all("td")], strict=True)) for row in rows]


def texts_of(line: dict[str, Element]) -> dict[str, str]:
    return {head: cell.text for head, cell in line.items()}


def test_a_line_says_what_the_records_say(tmp_path: Path) -> None:
    folder = kept(tmp_path / "reference" / "one", tmp_path / "made", seeds=(0, 1, 2))
    index = site_of(tmp_path / "reference", to=tmp_path / "site")
    check_soundness(index)
    (line,) = lines_of(index)
    (block,) = summarise(read_sweep(folder)).blocks
    average = block.average
    assert average is not None
    assert average.best is not None
    said = texts_of(line)
    assert (said["table"], said["data"], said["net"]) == ("one", "digit_scenes", "resnet_tiny")
    assert (said[f"attacks {TIMES} defenses"], said["seeds"], said["cells done"]) == (f"6 {TIMES} 6", "3", "126 of 126")
    assert said["ACC undefended"] == f"{average.undefended.mean('clean_accuracy'):.1f}"
    assert said["ASR undefended"] == f"{average.undefended.mean('attack_success_rate'):.1f}"
    assert said["date"] == "2026-01-03"
    leaders = [leader.text for leader in line["best by DER"].all("span", class_="leader")]
    assert {leader.split()[0] for leader in leaders} == {average.best, *average.rivals}
    for leader in leaders:
        found = average.defenses[leader.split()[0]].values[RATING]
        assert found is not None
        assert found.interval is not None
        low, high = found.interval
        assert leader.endswith(f"{found.mean:.1f} [{max(low, 0):.1f}, {min(high, 100):.1f}]")
    assert leaders[0].startswith(f"{average.best} ")
    assert float(line["best by DER"].all("data")[0]["value"]) == pytest.approx(average.defenses[average.best].mean(RATING))


def test_where_and_with_what_it_was_computed_is_said(tmp_path: Path) -> None:
    environment = {
        "device": "cpu",
        "half_precision": True,
        "threads": 1,
        "processor": "A fast one, 2 cores",
        "packages": {"ntml-bench": "0.1.0"},
        "finished": "2026-02-03T23:59:00+00:00",
    }
    extra = {"environment": environment, "code": {"engine": 4}}
    kept(tmp_path / "reference" / "cpu", tmp_path / "made", extra=extra, **SMALL)
    on_gpu = {**extra, "environment": {**environment, "device": "A GPU", "half_precision": False}}
    kept(tmp_path / "reference" / "gpu", tmp_path / "made on a GPU", extra=on_gpu, **SMALL)
    kept(tmp_path / "reference" / "old", tmp_path / "made before", extra={"environment": {}}, **SMALL)
    cpu, gpu, old = map(texts_of, lines_of(site_of(tmp_path / "reference", to=tmp_path / "site")))
    assert cpu["computed on"] == "CPU, bfloat16, 1 thread A fast one, 2 cores"
    assert gpu["computed on"] == "GPU, float32 A GPU"
    assert (cpu["version"], cpu["date"]) == ("0.1.0 engine 4", "2026-02-03")
    assert (old["computed on"], old["version"], old["date"]) == ("not recorded",) * 3


@pytest.mark.parametrize(("seeds", "said"), [((0,), "single run"), ((0, 1), "2 seeds, no interval")])
def test_too_few_seeds_are_called_that(tmp_path: Path, seeds: tuple[int, ...], said: str) -> None:
    kept(tmp_path / "reference" / "one", tmp_path / "made", seeds=seeds, **SMALL)
    index = site_of(tmp_path / "reference", to=tmp_path / "site")
    best = texts_of(lines_of(index)[0])["best by DER"]
    assert said in best
    assert "[" not in best
    assert ("±" in best) == (len(seeds) == 2)
    ranking = index.one("section", id="rankings").one("details")
    assert said in ranking.one("summary").text
    assert "mean rank" not in ranking.one("thead").text


def test_the_ranking_of_a_table_holds_all_of_its_defenses(tmp_path: Path) -> None:
    folder = kept(tmp_path / "reference" / "one", tmp_path / "made", seeds=(0, 1, 2))
    index = site_of(tmp_path / "reference", to=tmp_path / "site")
    average = summarise(read_sweep(folder)).blocks[0].average
    assert average is not None
    means = {name: mean for name, entry in average.defenses.items() if (mean := entry.mean(RATING)) is not None}
    ranking = index.one("details", id="ranking-0")
    assert index.one("table", class_="index").all("a")[-1]["href"] == "#ranking-0"
    rows = ranking.one("tbody").all("tr")
    assert [row.one("th").text.split()[0] for row in rows] == sorted(means, key=lambda name: -means[name])
    assert [row.all("td")[0].text for row in rows] == ["1", "2", "3", "4", "5", "6"]
    for row in rows:
        name = row.one("th").text.split()[0]
        assert str(row.all("td")[1].children[0]).strip() == f"{means[name]:.1f}"
        assert ("among the best" in row.one("th").text) == (name == average.best or name in average.rivals)
    assert "mean rank" in ranking.one("thead").text


def test_every_line_leads_to_a_report_and_back_without_leaving_the_site(tmp_path: Path) -> None:
    kept(tmp_path / "reference" / "one", tmp_path / "made", **SMALL)
    site = tmp_path / "site"
    index = site_of(tmp_path / "reference", to=site)
    page = site / lines_of(index)[0]["table"].one("a")["href"]
    report = parse(page.read_text(encoding="utf-8"))
    check_soundness(report)
    assert report.one("h1").text == "one"
    assert report.one("header").one("a")["href"] == "../index.html"
    leads = {link["href"] for link in report.all("a") if not link["href"].startswith("#")}
    assert leads == {"../index.html"}
    assert sorted(path for path in site.rglob("*") if path.is_file()) == [site / "index.html", page]


def test_the_report_of_a_kept_table_has_no_empty_section(tmp_path: Path) -> None:
    kept(tmp_path / "reference" / "one", tmp_path / "made", **SMALL)
    site_of(tmp_path / "reference", to=tmp_path / "site")
    report = parse((tmp_path / "site" / "tables" / "one.html").read_text(encoding="utf-8"))
    sections = {section.get("id"): section for section in report.all("section") if section.get("id")}
    assert list(sections) == ["results", "seen", "made", "records"]
    assert sections["seen"].all("svg")
    linked = {link["href"] for link in report.one("nav").all("a")}
    assert linked == {f"#{name}" for name in sections}


def test_two_tables_of_one_name_have_a_page_each(tmp_path: Path) -> None:
    first = kept(tmp_path / "ours" / "one", tmp_path / "made", **SMALL)
    second = kept(tmp_path / "theirs" / "one", tmp_path / "made there", place=("cifar10", "preact_resnet18"), **SMALL)
    kept(tmp_path / "theirs" / "other", tmp_path / "made elsewhere", **SMALL)
    index = site_of(tmp_path / "ours", tmp_path / "theirs", to=tmp_path / "site")
    lines = lines_of(index)
    pages = [line["table"].one("a")["href"] for line in lines]
    assert len(set(pages)) == 3
    for line, page in zip(lines, pages, strict=True):
        report = parse((tmp_path / "site" / page).read_text(encoding="utf-8"))
        assert report.one("dl", class_="facts").all("dd")[0].text == line["data"].text
    assert [line["table"].all("small")[0].text for line in lines[:2]] == [str(first), str(second)]
    assert not lines[2]["table"].all("small")


def test_a_table_that_is_given_twice_is_shown_once(tmp_path: Path) -> None:
    folder = kept(tmp_path / "reference" / "one", tmp_path / "made", **SMALL)
    assert len(lines_of(site_of(tmp_path / "reference", folder, to=tmp_path / "site"))) == 1


def test_names_of_pages_are_apart_on_every_disk() -> None:
    folders = [Path(f"/{parent}/{name}") for parent, name in (("a", "t"), ("b", "T"), ("c", "t-2"), ("d", "t"))]
    assert page_names(folders) == ["t.html", "T-2.html", "t-2-2.html", "t-3.html"]


def test_a_table_of_two_data_sets_has_a_line_each(tmp_path: Path) -> None:
    cells = [entry("sig", defense, dataset=name) for name in ("digits", "gtsrb") for defense in ("none", "ft")]
    records = [record(cell, metrics(90, 5 if cell["dataset"] == "digits" else 45, 80), metrics(95, 99, 1)) for cell in cells]
    write_kept(tmp_path / "both", "both", cells, records)
    index = site_of(tmp_path / "both", to=tmp_path / "site")
    check_soundness(index)
    lines = list(map(texts_of, lines_of(index)))
    assert [line["data"] for line in lines] == ["digits", "gtsrb"]
    assert [line["cells done"] for line in lines] == ["2 of 2", "2 of 2"]
    # A lone attack stands for itself: (94 - 5 + 100) / 2 and (54 - 5 + 100) / 2.
    assert [line["best by DER"].split("single")[0].strip() for line in lines] == ["ft 94.5", "ft 74.5"]
    assert len(index.all("details")) == 2


def test_a_table_without_attack_or_defense_has_a_line_without_numbers(tmp_path: Path) -> None:
    cells = [entry("none", "none")]
    write_kept(tmp_path / "clean", "clean", cells, [record(cells[0], metrics(90))])
    index = site_of(tmp_path / "clean", to=tmp_path / "site")
    check_soundness(index)
    said = texts_of(lines_of(index)[0])
    assert [said[name] for name in ("ACC undefended", "ASR undefended", "best by DER")] == [NO_NUMBER] * 3


def test_what_cannot_be_read_is_named_and_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = tmp_path / "reference"
    for name in ("one", "two", "three"):
        kept(reference / name, tmp_path / f"made {name}", **SMALL)
    (reference / "two" / MANIFEST).write_text('{"sweep": "<b>"}')
    (reference / "three" / MANIFEST).unlink()
    (reference / "notes").mkdir()
    (reference / ".one.tmp-1" / "records").mkdir(parents=True)
    index = site_of(reference, to=tmp_path / "site")
    shown = capsys.readouterr()
    assert [line["table"].text for line in lines_of(index)] == ["one"]
    remarks = [remark.text for remark in index.one("div", id="left-out").all("li")]
    printed = shown.err.splitlines()
    for name, remark, line in zip(("three", "two"), remarks, printed, strict=True):
        assert remark.startswith(f"{reference / name}: ")
        assert line.startswith(f"ntml-report: {reference / name} is left out: ")
        assert "manifest" in remark
    assert shown.out.splitlines() == [str(tmp_path / "site" / "index.html"), f"{tmp_path / 'site' / 'tables'}: 1 files"]


def test_a_damaged_record_is_a_cell_that_is_not_done(tmp_path: Path) -> None:
    folder = kept(tmp_path / "reference" / "one", tmp_path / "made", attacks=("sig",), defenses=("none", "ft", "fp"))
    broken = next(cell.key for cell in read_sweep(folder).cells if cell.defense == "fp")
    (folder / "records" / f"{broken}.json").write_text("{}")
    index = site_of(tmp_path / "reference", to=tmp_path / "site")
    assert texts_of(lines_of(index)[0])["cells done"] == "2 of 3"
    rows = index.one("details", id="ranking-0").one("tbody").all("tr")
    assert [[row.all("td")[0].text, row.one("th").text.split()[0]] for row in rows] == [["1", "ft"], [NO_NUMBER, "fp"]]
    assert "its record cannot be read" in (tmp_path / "site" / "tables" / "one.html").read_text()


def test_no_name_breaks_the_index(tmp_path: Path) -> None:
    cells = [entry("sig", name, dataset=f"data {NASTY}", model=f"net {NASTY}") for name in ("none", f"ft {NASTY}")]
    environment = {"device": NASTY, "half_precision": True, "threads": 1, "packages": {"ntml-bench": NASTY}, "finished": NASTY}
    records = [record(cell, metrics(90, 5, 80), metrics(95, 99, 1)) | {"environment": environment} for cell in cells]
    odd = "odd #?%&'\"<b> 鳥"
    write_kept(tmp_path / "kept" / odd, NASTY, cells, records)
    write_kept(tmp_path / "kept" / "same", NASTY, cells, records)
    broken = tmp_path / "kept" / "<script>alert(1)"
    broken.mkdir()
    (broken / MANIFEST).write_text("{}")
    index = site_of(tmp_path / "kept", to=tmp_path / "site")
    check_soundness(index)
    plain = " ".join(NASTY.split())
    said = texts_of(lines_of(index)[0])
    assert said["table"].startswith(plain)
    assert said["data"] == f"data {plain}"
    assert f"ft {plain}" in said["best by DER"]
    assert plain in said["computed on"]
    assert said["version"] == plain
    assert "<script>alert(1)" in index.one("div", id="left-out").text
    assert not index.all("b")
    assert "alert(1)" not in index.one("script").raw
    names = {path.name for path in (tmp_path / "site" / "tables").iterdir()}
    assert names == {f"{odd}.html", "same.html"}
    (link,) = {line["table"].one("a")["href"] for line in lines_of(index)} - {"tables/same.html"}
    assert re.fullmatch(r"tables/[\w.%-]+", link)


def test_without_folders_it_is_the_reference_of_the_outputs(tmp_path: Path) -> None:
    kept(tmp_path / "reference" / "one", tmp_path / "made", **SMALL)
    assert main(["--site", "--outputs", str(tmp_path)]) == 0
    assert (tmp_path / "site" / "tables" / "one.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["kept", "empty"], "empty holds no kept table"),
        (["kept", "nowhere"], "nowhere is not a folder"),
        (["broken"], "no table can be read: broken: broken/manifest.json cannot be read"),
        (["kept", "--against", "kept"], "--against does not go with --site"),
        (["kept", "--attack", "sig"], "--attack does not go with --site"),
        (["kept", "--dataset", "digits"], "--dataset does not go with --site"),
        (["kept", "--pdf"], "--pdf does not go with --site"),
        (["kept", "--config-dir", "conf"], "--config-dir does not go with --site"),
        (["kept", "--reference", "backdorbench"], "unknown reference 'backdorbench'. Did you mean 'backdoorbench'?"),
        ([], "outputs/reference is not a folder"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    kept(Path("kept"), Path("made"), **SMALL)
    Path("empty/inner").mkdir(parents=True)
    Path("broken").mkdir()
    (Path("broken") / MANIFEST).write_text("[]")
    assert main(["--site", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"ntml-report: {said}")
    assert shown.err.count("\n") == 1
    assert not list(tmp_path.rglob("*.html"))


def test_a_site_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept(tmp_path / "reference" / "one", tmp_path / "made", **SMALL)
    (tmp_path / "file").write_text("")
    assert main(["--site", str(tmp_path / "reference"), "--to", str(tmp_path / "file")]) == 2
    assert f"cannot write {tmp_path / 'file' / 'tables' / 'one.html'}" in capsys.readouterr().err
