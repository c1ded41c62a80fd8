"""Tables that are kept with their records, and the models between the stages of a defense."""

import shutil
from pathlib import Path

import pytest
from table_records import entry, golden, metrics, record, write_sweep

from ntml_bench.table.main import main
from ntml_bench.table.render import render_sweep


def test_a_kept_table_needs_no_store_and_has_the_same_numbers(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, "golden", *golden())
    render_sweep(folder, tmp_path / "before")
    assert main(["golden", "--outputs", str(tmp_path), "--keep", "--format", "all"]) == 0
    kept = tmp_path / "reference" / "golden"
    shutil.rmtree(tmp_path / "store")
    shutil.rmtree(tmp_path / "sweeps")
    for name in ("cells.csv", "table.md", "table.tex", "table.html"):
        assert (kept / name).read_bytes() == (tmp_path / "before" / name).read_bytes()
    # From the kept records alone, and once more.
    for arguments in (["--to", str(tmp_path / "after")], ["--keep"]):
        assert main(["golden", "--outputs", str(tmp_path), "--format", "csv", *arguments]) == 0
    assert (tmp_path / "after" / "cells.csv").read_bytes() == (kept / "cells.csv").read_bytes()
    assert str(tmp_path) not in (kept / "manifest.json").read_text()


def seeds(outputs: Path, name: str, *numbers: int) -> Path:
    """Those of odd numbers in another precision, as of another machine."""
    precisions = ("bfloat16", "float32")
    cells = [entry("badnets", "ft", seed, settings={"precision": precisions[seed % 2]}) for seed in numbers]
    return write_sweep(outputs, name, cells, [record(cell, metrics(90.0 + cell["seed"], 5, 80)) for cell in cells])


def test_seeds_of_other_machines_join_a_kept_table(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    seeds(here, "table", 0, 1)
    together = seeds(tmp_path / "together", "table", 0, 1, 2, 3)
    assert main(["table", "--outputs", str(here), "--keep", "--format", "csv"]) == 0
    joined = ["--join", str(seeds(there, "seed_3", 3)), "--join", str(seeds(there, "others", 1, 2))]
    shutil.rmtree(here / "sweeps")  # from the kept table alone; seed 1 is in both, and the same
    assert main(["table", "--outputs", str(here), "--keep", "--format", "csv,md", *joined]) == 0
    render_sweep(together, tmp_path / "once")
    kept = here / "reference" / "table"
    assert (kept / "table.md").read_bytes() == (tmp_path / "once" / "table.md").read_bytes()
    rows = [set((folder / "cells.csv").read_text().splitlines()) for folder in (kept, tmp_path / "once")]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 5
    assert not (kept / "ablation.md").exists()


def test_what_two_sweeps_made_differently_is_not_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeds(tmp_path, "table", 0, 1)
    cell = {**entry("badnets", "ft", 1), "key": "0123456789abcdef"}
    write_sweep(tmp_path, "other", [cell], [record(cell, metrics(50, 5, 40))])
    assert main(["table", "--outputs", str(tmp_path), "--keep", "--join", "other"]) == 2
    said = capsys.readouterr().err
    assert "badnets x ft, seed 1 of 'other' (0123456789abcdef) is there already" in said
    assert not (tmp_path / "reference").exists()
    assert main(["table", "--outputs", str(tmp_path), "--join", "other"]) == 2
    assert "--join SWEEP goes with --keep" in capsys.readouterr().err


def test_an_unfinished_table_is_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells, records = golden()
    write_sweep(tmp_path, "golden", cells, records[:-1])
    assert main(["golden", "--outputs", str(tmp_path), "--keep"]) == 2
    assert "1 of the 18 cells of 'golden' are not done; only a whole table is kept" in capsys.readouterr().err
    assert not (tmp_path / "reference").exists()


def test_stages_are_means_over_seeds_in_their_order(tmp_path: Path) -> None:
    cells = [entry("badnets", "nt_ml", seed) for seed in (0, 1)] + [entry("badnets", "ft")]
    records = []
    for cell, shift in zip(cells, (0.0, 2.0, 0.0), strict=True):
        done = record(cell, metrics(90 + shift, 1, 89), metrics(95, 99, 1))
        done["before"]["true_class_probability"] = 1.0
        done["after"]["true_class_probability"] = 70.0
        if cell["defense"] == "nt_ml":
            middle = {**metrics(40 + shift, 5, 30), "true_class_probability": 25.0 + shift}
            done["stages"] = {"student after NT": middle}
        records.append(done)
    render_sweep(write_sweep(tmp_path, "small", cells, records), tmp_path)
    lines = [line for line in (tmp_path / "stages.md").read_text().splitlines() if "badnets" in line]
    assert lines == [
        "| badnets | nt\\_ml | before the defense | 95.0 ± 0.0 | 99.0 ± 0.0 | 1.0 ± 0.0 | 1.0 ± 0.0 |",
        "| badnets | nt\\_ml | student after NT | 41.0 ± 1.4 | 5.0 ± 0.0 | 30.0 ± 0.0 | 26.0 ± 1.4 |",
        "| badnets | nt\\_ml | after the defense | 91.0 ± 1.4 | 1.0 ± 0.0 | 89.0 ± 0.0 | 70.0 ± 0.0 |",
    ]


def test_stages_are_averaged_over_attacks_that_all_have_them(tmp_path: Path) -> None:
    cells = [entry(attack, "nt_ml") for attack in ("badnets", "sig")] + [entry(attack, "nad") for attack in ("badnets", "sig")]
    records = []
    for cell, accuracy in zip(cells, (30.0, 40.0, 50.0, 60.0), strict=True):
        done = record(cell, metrics(90, 1, 89), metrics(95, 99, 1))
        if cell["defense"] == "nt_ml" or cell["attack"] == "sig":
            done["stages"] = {"middle": metrics(accuracy, 5, 30)}
        records.append(done)
    render_sweep(write_sweep(tmp_path, "small", cells, records), tmp_path)
    lines = [line for line in (tmp_path / "stages.md").read_text().splitlines() if "average |" in line]
    # nad has no stage under badnets, so nothing of it is an average.
    assert lines == [
        "| average | nt\\_ml | before the defense | 95.0 | 99.0 | 1.0 |  |",
        "| average | nt\\_ml | middle | 35.0 | 5.0 | 30.0 |  |",
        "| average | nt\\_ml | after the defense | 90.0 | 1.0 | 89.0 |  |",
    ]


def test_without_stages_there_is_no_such_file(tmp_path: Path) -> None:
    render_sweep(write_sweep(tmp_path, "golden", *golden()), tmp_path)
    assert not (tmp_path / "stages.md").exists()
