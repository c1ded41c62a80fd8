"""`ntml-report`: what it writes and where, and what it says of a mistake."""

from pathlib import Path

import pytest
from app_runner import SMALL, bench, workplace  # noqa: F401
from page_tree import parse
from report_pages import table_sweep

from ntml_bench.report.main import main


def test_a_sweep_becomes_a_page_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = table_sweep(tmp_path, attacks=("sig", "lc"), defenses=("none", "ft"))
    assert main(["table", "--outputs", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    target = tmp_path / "tables" / "table"
    figures = list((target / "figures").iterdir())
    assert printed == [str(target / "report.html"), f"{target / 'figures'}: {len(figures)} files"]
    assert sorted(path for path in target.rglob("*") if path.is_file()) == sorted([target / "report.html", *figures])
    assert {path.suffix for path in figures} == {".png"}
    page = parse(Path(printed[0]).read_text(encoding="utf-8"))
    assert page.one("h1").text == "table"
    links = [link["href"] for link in page.one("section", id="records").all("a")]
    assert len(links) == 4
    assert all((target / link).is_file() for link in links)
    elsewhere = tmp_path / "elsewhere"
    assert main([str(folder), "--outputs", str(tmp_path), "--to", str(elsewhere), "--pdf"]) == 0
    assert (elsewhere / "report.html").is_file()
    names = {path.name for path in figures}
    assert {path.name for path in (elsewhere / "figures").iterdir()} == names | {f"{Path(name).stem}.pdf" for name in names}


def test_an_unfinished_sweep_has_a_page_too(tmp_path: Path) -> None:
    table_sweep(tmp_path, attacks=("sig",), defenses=("none", "ft"), unfinished={("sig", "ft", 0): "E: went wrong"})
    assert main(["table", "--outputs", str(tmp_path)]) == 0
    assert "E: went wrong" in (tmp_path / "tables" / "table" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tabel"], "unknown sweep 'tabel'. Did you mean 'table'?"),
        ([], "one sweep is wanted, none was given"),
        (["table", "other"], "2 were given: table, other"),
        (["table", "--reference", "backdorbench"], "unknown reference 'backdorbench'. Did you mean 'backdoorbench'?"),
        (["table", "--config-dir", "conf"], "--config-dir goes with --attack"),
        (["--attack", "sig"], "--dataset is missing"),
        (["--dataset", "digits"], "--attack is missing"),
        (["--attack", "sgi", "--dataset", "digits"], "sig"),
        (["--attack", "sig", "--dataset", "digits", "attack.target_clas=1"], "Did you mean 'attack.target_class'?"),
        (["--attack", "sig", "--dataset", "digits", "--reference", "backdoorbench"], "--reference goes with a sweep"),
        (["--attack", "sig", "--dataset", "digits", "--against", "table"], "--against goes with a sweep"),
        (["table", "--against", "nothing"], "unknown reference 'nothing'"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    table_sweep(tmp_path / "outputs", attacks=("sig",), defenses=("none", "ft"))
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("ntml-report: ")
    assert said in shown.err
    assert shown.err.count("\n") == 1
    assert not list(tmp_path.rglob("*.html"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table_sweep(tmp_path, attacks=("sig",), defenses=("none", "ft"))
    (tmp_path / "file").write_text("")
    assert main(["table", "--outputs", str(tmp_path), "--to", str(tmp_path / "file")]) == 2
    assert f"cannot write {tmp_path / 'file' / 'report.html'}" in capsys.readouterr().err


@pytest.mark.usefixtures("workplace")
def test_an_attack_is_shown_without_training(capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["dataset.train_limit=300", "attack.poisoning_rate=0.05"]
    assert main(["--attack", "badnets", *settings[:1], "--dataset", "digits", *settings[1:]]) == 0
    page, *figures = map(Path, capsys.readouterr().out.splitlines())
    assert page == Path("outputs/gallery/digits_badnets.html")
    assert {path.name for path in figures} == {"digits_badnets.png"}
    assert all(path.is_file() for path in figures)
    tree = parse(page.read_text(encoding="utf-8"))
    assert tree.one("h1").text.startswith("badnets")
    assert len(tree.all("img")) >= 9
    assert not list(Path("outputs").rglob("victim-*"))


@pytest.mark.slow
@pytest.mark.usefixtures("workplace")
def test_what_a_sweep_left_to_look_at_is_on_its_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("-m", "attack=badnets,sig", "defense=none,ft", "defense.recipe.epochs=2", "sweep=small", *SMALL).code == 0
    capsys.readouterr()
    assert main(["small"]) == 0
    page = parse(Path(capsys.readouterr().out.splitlines()[0]).read_text(encoding="utf-8"))
    assert [one.text for one in page.one("section", id="attacks").all("h3")] == ["badnets", "sig"]
    titles = [one.text for one in page.one("section", id="seen").all("figcaption")]
    assert "Features under sig, before and after ft" in titles
    # `bench` runs in this process, whose own command line it set.
    assert page.one("pre", class_="command").raw.startswith("ntml-bench -m")
