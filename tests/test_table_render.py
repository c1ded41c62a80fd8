"""The renderings: byte for byte against files that were checked by hand, and what each must hold in every state.

After a wanted change of a rendering: NTML_WRITE_GOLDEN=1 pytest tests/test_table_render.py, then read the difference.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
from io import BytesIO, StringIO
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from table_records import entry, golden, metrics, record, write_failure, write_sweep

from ntml_bench.errors import UserError
from ntml_bench.records.view import parse_sections
from ntml_bench.table.main import main
from ntml_bench.table.render import FILES, FORMATS, render_sweep
from ntml_bench.table.terminal import print_table

GOLDEN_FOLDER = Path(__file__).parent / "golden"
NASTY = r"a_b & 100% <script>alert(1)</script> | $x^2$ {c} ~ \end # *"


def unfinished_sweep(outputs: Path) -> Path:
    cells, records = golden()
    folder = write_sweep(outputs, "part", cells, records[3:])
    write_failure(outputs, cells[0], "RuntimeError: " + NASTY)
    return folder


def wide_sweep(outputs: Path, seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    """The real table's shape, with the widest numbers."""
    cells, records = [], []
    for attack in ("badnets", "blended", "sig", "lc", "wanet", "narcissus"):
        for defense in ("none", "ft", "fp", "nad", "anp", "i_bau", "nt_ml"):
            for seed in seeds:
                cell = entry(attack, defense, seed)
                cells.append(cell)
                before = metrics(99.5, 100, 0)
                after = before if defense == "none" else metrics(85 - 20 * seed, 100 - 40 * seed, 10)
                records.append(record(cell, after, before, metrics(99, 20, 80)))
    return write_sweep(outputs, "wide", cells, records)


def printed(folder: Path, target: Path, *, width: int = 80, terminal: bool = False) -> str:
    file = StringIO()
    console = Console(file=file, width=width, force_terminal=terminal, color_system=None)
    print_table(render_sweep(folder, target, ("csv",)), console)
    return file.getvalue()


@pytest.mark.parametrize("name", ["cells.csv", "table.md", "table.tex", "table.html", "terminal.txt"])
def test_renderings_are_the_checked_ones(tmp_path: Path, name: str) -> None:
    folder = write_sweep(tmp_path, "golden", *golden())
    render_sweep(folder, tmp_path / "out", ("csv", "md", "tex", "html"))
    (tmp_path / "out" / "terminal.txt").write_text(printed(folder, tmp_path / "out"))
    found = (tmp_path / "out" / name).read_text()
    if os.environ.get("NTML_WRITE_GOLDEN"):
        (GOLDEN_FOLDER / name).write_text(found)
    assert found == (GOLDEN_FOLDER / name).read_text()


def test_csv_has_the_promised_columns_and_rows(tmp_path: Path) -> None:
    render_sweep(write_sweep(tmp_path, "golden", *golden()), tmp_path, ("csv",))
    text = (tmp_path / "cells.csv").read_text()
    assert text.splitlines()[0] == (
        "dataset,model,attack,defense,seed,clean_accuracy,attack_success_rate,robust_accuracy,defense_effectiveness_rating,"
        "undefended_clean_accuracy,undefended_attack_success_rate,seconds,state,key"
    )
    rows = list(csv.DictReader(StringIO(text)))
    assert len(rows) == 18
    third = rows[2]
    assert [third[name] for name in ("attack", "defense", "seed", "state", "seconds")] == [
        "badnets",
        "ft",
        "0",
        "done",
        "12.50",
    ]
    assert [float(third[name]) for name in ("clean_accuracy", "attack_success_rate", "robust_accuracy")] == [95, 50, 45]
    assert third["defense_effectiveness_rating"] == "74.50"
    assert third["undefended_attack_success_rate"] == "100.00"
    assert rows[-1]["attack_success_rate"] == ""


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_takes_an_unfinished_sweep_with_nasty_names(tmp_path: Path, name: str) -> None:
    cells, records = golden()
    for cell in (*cells, *records):
        cell["dataset"], cell["attack"] = NASTY, cell["attack"].replace("badnets", NASTY)
    folder = write_sweep(tmp_path, "part", cells, records[3:])
    write_failure(tmp_path, cells[0], "RuntimeError: " + NASTY)
    render_sweep(folder, tmp_path, (name,))
    content = (tmp_path / FILES[name]).read_bytes()
    if name == "png":
        assert Image.open(BytesIO(content)).width > 1000
    elif name != "csv":
        text = content.decode()
        assert "15 of 18 cells done, 1 failed, 2 missing" in text
        assert ("<script>" not in text) or name == "tex"


def test_latex_escapes_and_keeps_its_columns(tmp_path: Path) -> None:
    render_sweep(wide_sweep(tmp_path), tmp_path, ("tex",))
    text = (tmp_path / "table.tex").read_text()
    assert r"nt\_ml" in text
    assert not re.search(r"(?<!\\)_", "\n".join(line for line in text.splitlines() if not line.startswith("%")))
    rows = [line for line in text.splitlines() if " & " in line]
    assert {line.count(" & ") for line in rows} == {8}
    assert all(line.endswith(r"\\") for line in rows)
    assert text.count(r"\begin{") == text.count(r"\end{")
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
@pytest.mark.parametrize("make", ["wide", "nasty"])
def test_latex_compiles_and_fits_two_columns(tmp_path: Path, make: str) -> None:
    cells, records = golden()
    for cell in (*cells, *records):
        cell["attack"] = cell["attack"].replace("badnets", "[1ex] " + NASTY)
    folder = wide_sweep(tmp_path) if make == "wide" else write_sweep(tmp_path, "part", cells, records[3:])
    write_failure(tmp_path, cells[0], "RuntimeError: " + NASTY)
    render_sweep(folder, tmp_path, ("tex",))
    head = r"\documentclass[twocolumn]{article}\usepackage{booktabs,graphicx}\usepackage[margin=0.75in]{geometry}"
    (tmp_path / "paper.tex").write_text(head + r"\begin{document}\input{table}\input{table}Text.\end{document}")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_markdown_rows_have_one_width(tmp_path: Path) -> None:
    render_sweep(unfinished_sweep(tmp_path), tmp_path, ("md",))
    rows = [line for line in (tmp_path / "table.md").read_text().splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1


def test_html_is_self_contained(tmp_path: Path) -> None:
    render_sweep(unfinished_sweep(tmp_path), tmp_path, ("html",))
    text = (tmp_path / "table.html").read_text()
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"<(script|link|img)|https?:|url\(", text)


@pytest.mark.parametrize("name", ["table.md", "table.tex", "table.html"])
def test_the_caption_says_what_the_numbers_are(tmp_path: Path, name: str) -> None:
    render_sweep(write_sweep(tmp_path, "golden", *golden()), tmp_path)
    text = (tmp_path / name).read_text().replace("\\", "")
    for words in (
        "reconstruction from the abstract",
        "2 seeds (0, 1)",
        "digit_scenes, resnet_tiny",
        "all 18 cells done",
        "ASR:",
    ):
        assert words in text


def test_a_table_without_nt_ml_does_not_speak_of_it(tmp_path: Path) -> None:
    cell = entry("badnets", "ft")
    folder = write_sweep(tmp_path, "small", [cell], [record(cell, metrics(95, 5, 90), metrics(96, 99, 1))])
    render_sweep(folder, tmp_path)
    assert "reconstruction" not in (tmp_path / "table.md").read_text()
    assert "±" not in (tmp_path / "table.md").read_text()


def test_family_and_recipe_stand_in_the_legend(tmp_path: Path) -> None:
    settings = {"presets": "small", "training": {"name": "one_cycle_24", "epochs": 24, "batch_size": 128}}
    cell = entry("badnets", "ft", settings=settings)
    folder = write_sweep(tmp_path, "small", [cell], [record(cell, metrics(95, 5, 90), metrics(96, 99, 1))])
    render_sweep(folder, tmp_path)
    line = "Values of the methods: small. Recipe of the trainings: one_cycle_24 (24 epochs of batch 128)."
    assert line in (tmp_path / "table.md").read_text().replace("\\", "")


def test_the_legend_names_values_that_are_not_the_methods_own(tmp_path: Path) -> None:
    cells = [entry(attack, "ft", seed, settings={"presets": "small"}) for attack in ("badnets", "sig") for seed in (0, 1)]
    ablation = entry("badnets", "ft", settings={"presets": "small", "defense": {"epochs": 3}})
    for cell, fitted in zip(
        [*cells, ablation],
        [
            {"attack": {"dataset": ["trigger_size"]}, "defense": {"dataset": ["recipe.epochs", "recipe.batch_size"]}},
            {"attack": {"dataset": ["trigger_size", "margin"]}, "defense": {"presets": ["tolerance"]}},
            {},
            {"defense": {"dataset": ["recipe.batch_size"], "presets": ["tolerance"]}},
            {"defense": {"dataset": ["recipe.momentum"]}},
        ],
        strict=True,
    ):
        cell["fitted"] = fitted
    folder = write_sweep(tmp_path, "small", [*cells, ablation], [])
    render_sweep(folder, tmp_path)
    said = (
        "Values of the methods: small; of this family: ft (tolerance); fitted to the data set: "
        "badnets (trigger_size, margin), ft (recipe.epochs, recipe.batch_size, recipe.momentum)."
    )
    assert said in (tmp_path / "table.md").read_text().replace("\\", "")


@pytest.mark.parametrize(
    ("environments", "said"),
    [
        (["cpu/True/1", "cpu/True/1"], ""),
        (["NVIDIA H100/True/2", "NVIDIA H200/True/16"], ""),
        (["cpu/True/1", None], ""),
        (["cpu/True/1", "cpu/False/2"], "CPU, bfloat16, 1 thread (1 cell); CPU, float32, 2 threads (1 cell)."),
        (["NVIDIA H100/True/2", "cpu/True/2"], "GPU, bfloat16 (1 cell); CPU, bfloat16, 2 threads (1 cell)."),
    ],
)
def test_the_legend_says_what_the_cells_were_computed_with_where_that_differs(
    environments: list[str | None], said: str, tmp_path: Path
) -> None:
    cells = [entry("badnets", defense) for defense in ("ft", "nt_ml")]
    records = [record(cell, metrics(95, 5, 90), metrics(96, 99, 1)) for cell in cells]
    for done, text in zip(records, environments, strict=True):
        if text is not None:
            device, half, threads = text.split("/")
            done["environment"] = {"device": device, "half_precision": half == "True", "threads": int(threads)}
    render_sweep(write_sweep(tmp_path, "mixed", cells, records), tmp_path)
    text = (tmp_path / "table.md").read_text().replace("\\", "")
    assert ("Cells were computed in different ways" in text) == bool(said)
    assert said in text


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"ft": {"badnets": (0, 1), "sig": (0, 1)}, "nad": {"badnets": (0, 1), "sig": (0, 1)}}, ""),
        ({"ft": {"badnets": (0, 1), "sig": (0, 1)}, "nad": {"badnets": (1,), "sig": (1,)}}, "nad (1)."),
        ({"ft": {"badnets": (0, 1), "sig": (1,)}, "nad": {"badnets": (0, 1), "sig": (0, 1)}}, "ft on sig (1)."),
        ({"ft": {"badnets": (2, 10), "sig": (2,)}, "nad": {"badnets": (10,), "sig": (10,)}}, "ft on sig (2); nad (10)."),
    ],
)
def test_the_legend_says_which_columns_are_of_fewer_seeds(
    made: dict[str, dict[str, tuple[int, ...]]], said: str, tmp_path: Path
) -> None:
    cells = [
        entry(attack, defense, seed) for defense, attacks in made.items() for attack, seeds in attacks.items() for seed in seeds
    ]
    records = [record(cell, metrics(95, 5, 90), metrics(96, 99, 1)) for cell in cells]
    render_sweep(write_sweep(tmp_path, "joined", cells, records), tmp_path)
    text = (tmp_path / "table.md").read_text().replace("\\", "")
    assert ("Of fewer seeds than the others" in text) == bool(said)
    assert said in text


def test_two_families_are_no_table(tmp_path: Path) -> None:
    cells = [entry("badnets", "ft", settings={"presets": name}) for name in ("small", "paper")]
    folder = write_sweep(tmp_path, "both", cells, [])
    with pytest.raises(UserError, match="a table holds one family of values"):
        render_sweep(folder, tmp_path)


def test_the_extension_is_called_one(tmp_path: Path) -> None:
    cell = entry("badnets", "nt_ml_selective")
    folder = write_sweep(tmp_path, "small", [cell], [record(cell, metrics(95, 5, 90), metrics(96, 99, 1))])
    render_sweep(folder, tmp_path)
    text = (tmp_path / "table.md").read_text().replace("\\", "")
    assert "nt_ml_selective is an extension of nt_ml of our own" in text
    assert "reconstruction" not in text


def test_the_full_table_fits_a_log_file(tmp_path: Path) -> None:
    text = printed(wide_sweep(tmp_path), tmp_path)
    assert max(map(len, text.splitlines())) <= 120
    assert "…" not in text
    # One strip a section: the six defenses stand beside each other.
    assert text.count("narcissus") == 2
    assert "65.0↓/60.0" in text


@pytest.mark.parametrize("width", [40, 60, 100])
def test_a_narrow_terminal_gets_all_columns_below_each_other(tmp_path: Path, width: int) -> None:
    text = printed(wide_sweep(tmp_path), tmp_path, width=width, terminal=True)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert text.count("65.0↓/60.0") == 42  # 36 cells and 6 averages
    assert "…" not in text


def test_an_old_log_file_gets_plain_letters(tmp_path: Path) -> None:
    class Ascii(StringIO):
        encoding = "ascii"

    file = Ascii()
    print_table(render_sweep(wide_sweep(tmp_path), tmp_path, ("csv",)), Console(file=file, width=120))
    file.getvalue().encode("ascii")


def test_an_ablation_stacks_its_settings(tmp_path: Path) -> None:
    cells = [entry("badnets", "none")]
    cells += [entry("badnets", "nt_ml", settings={"defense": {"temperature": value}}) for value in (1, 4, 8)]
    records = [record(cell, metrics(95, 5, 90), metrics(96, 99, 1)) for cell in cells]
    text = printed(write_sweep(tmp_path, "ablation", cells, records), tmp_path)
    for value in (1, 4, 8):
        assert f"temperature={value}" in text


def test_pictures_are_the_same_twice(tmp_path: Path) -> None:
    folder = unfinished_sweep(tmp_path)
    for name in ("a", "b"):
        render_sweep(folder, tmp_path / name, ("png",))
    assert (tmp_path / "a" / "table.png").read_bytes() == (tmp_path / "b" / "table.png").read_bytes()


def test_metrics_are_chosen(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, "golden", *golden())
    render_sweep(folder, tmp_path, ("md",), parse_sections("acc/asr/ra"))
    assert "| badnets | 97.0 / 1.0 / 95.0 |" in (tmp_path / "table.md").read_text()
    with pytest.raises(UserError, match="unknown metric 'acr'"):
        parse_sections("acc,acr")
    with pytest.raises(UserError, match="unknown format 'pdf'"):
        render_sweep(folder, tmp_path, ("pdf",))


def test_the_command_prints_and_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unfinished_sweep(tmp_path)
    assert main(["part", "--outputs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "failed: badnets: none seed 0: RuntimeError: a_b & 100%" in out
    assert "missing: badnets: none seed 1, ft seed 0" in out
    assert {path.name for path in (tmp_path / "tables" / "part").iterdir()} == set(FILES.values())


def test_the_command_takes_a_folder_and_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_sweep(tmp_path, "golden", *golden())
    assert main([str(folder), "--format", "md,csv", "--to", str(tmp_path / "here")]) == 0
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"table.md", "cells.csv"}
    assert "ACC" not in capsys.readouterr().out


def test_the_command_names_the_nearest_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(tmp_path, "golden", *golden())
    assert main(["goldne", "--outputs", str(tmp_path)]) == 2
    assert "Did you mean 'golden'?" in capsys.readouterr().err
    assert main(["golden", "--outputs", str(tmp_path), "--format", "mdd"]) == 2
    assert "Did you mean 'md'?" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 2


def test_help_needs_no_heavy_module() -> None:
    code = (
        "import sys\nfrom ntml_bench.table.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print({'torch', 'timm', 'matplotlib', 'wandb'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
