"""A sweep's folder as data for its report: from a real sweep, from archives and kept records, and from damaged stores."""

import json
import shutil
import subprocess
import sys
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from app_runner import SMALL, bench, workplace
from damage import Damage, damages
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from table_records import entry, golden, metrics, record, write_sweep

from ntml_bench.app.command import joined, typed_command
from ntml_bench.errors import UserError
from ntml_bench.housekeeping.inventory import take_inventory
from ntml_bench.housekeeping.main import main as store_main
from ntml_bench.integrity import CHECKSUMS
from ntml_bench.records.manifest import LONGEST_COMMAND, SweepFolder
from ntml_bench.report.read import read_report
from ntml_bench.report.stored import exhibit_from, gallery_from, read_exhibit, read_gallery
from ntml_bench.store import RECORD, TENSORS, Artifact, Store
from ntml_bench.table.main import main as table_main

__all__ = ["workplace"]


# A store made by hand.

GALLERY, BEFORE, AFTER = "a" * 16, "b" * 16, "c" * 16


def gallery_record(**changes: Any) -> dict[str, Any]:
    return {"classes": ["one", "two"], "target": "zero", "images": 50, "psnr": 31.5, "ssim": 0.9, "linf": 12.0, **changes}


def gallery_tensors(**changes: Any) -> dict[str, torch.Tensor]:
    clean = torch.arange(2 * 4 * 5 * 3, dtype=torch.uint8).view(2, 4, 5, 3)
    return {"clean": clean, "triggered": clean + 1, **changes}


def exhibit_tensors(**changes: Any) -> dict[str, torch.Tensor]:
    return {
        "clean_map": torch.arange(6.0).view(3, 2),
        "clean_labels": torch.tensor([0, 1, 2]),
        "triggered_map": torch.ones(2, 2),
        "triggered_labels": torch.tensor([1, 2]),
        "true_class_probability": torch.tensor([0.0, 100.0]),
        **changes,
    }


def fill(store: Store) -> None:
    store.get_or_make("gallery", GALLERY, lambda: Artifact(gallery_record(), gallery_tensors()))
    for key, shift in ((BEFORE, 0.0), (AFTER, 1.0)):
        tensors = exhibit_tensors(triggered_map=torch.full((2, 2), shift))
        store.get_or_make("exhibit", key, lambda tensors=tensors: Artifact({"target_class": 0}, tensors))


def sweep_with(exhibits: Any, outputs: Path) -> Path:
    cells = [entry("badnets", "none"), entry("badnets", "ft"), entry("none", "ft")]
    records = []
    for cell in cells[:2]:
        done = record(cell, metrics(90, 5, 80), metrics(95, 99, 1))
        records.append({**done, "exhibits": exhibits})
    fill(Store(outputs / "store"))
    return write_sweep(outputs, "small", cells, records)


def test_a_report_holds_what_the_cells_left(tmp_path: Path) -> None:
    folder = sweep_with({"gallery": GALLERY, "before": BEFORE, "after": AFTER}, tmp_path)
    found = read_report(folder)
    assert [cell.cell.state for cell in found.cells] == ["done", "done", "missing"]
    (gallery,) = found.galleries
    assert (gallery.dataset, gallery.attack, gallery.target, gallery.classes) == (
        "digit_scenes",
        "badnets",
        "zero",
        ("one", "two"),
    )
    assert (gallery.images, gallery.psnr, gallery.ssim, gallery.linf) == (50, 31.5, 0.9, 12.0)
    assert gallery.clean.dtype == np.uint8
    assert (gallery.triggered == gallery.clean + 1).all()
    none, ft, missing = found.cells
    assert none.before is ft.before
    assert ft.before is not None
    assert ft.after is not None
    assert (ft.before.triggered_map == 0).all()
    assert (ft.after.triggered_map == 1).all()
    assert ft.after.clean_labels.tolist() == [0, 1, 2]
    assert ft.after.true_class_probability.tolist() == [0, 100]
    assert ft.record is not None
    assert ft.record["history"]
    assert (missing.record, missing.before, missing.after) == (None, None, None)
    assert found.command is None
    assert found.summary.sweep == "small"


def test_nothing_of_torch_is_needed(tmp_path: Path) -> None:
    folder = sweep_with({"gallery": GALLERY, "before": BEFORE, "after": AFTER}, tmp_path)
    code = (
        "import sys; from pathlib import Path; from ntml_bench.report.read import read_report\n"
        f"found = read_report(Path({str(folder)!r})); assert found.galleries and found.cells[1].after is not None\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "exhibits",
    [
        None,
        [],
        "all",
        {"gallery": None, "before": 3, "after": ["c"]},
        {"gallery": "../../up", "before": "/etc", "after": "b" * 15},
        {"gallery": "d" * 16, "before": "d" * 16, "after": "d" * 16},
        {"gallery": BEFORE, "before": GALLERY, "after": GALLERY},
    ],
)
def test_names_that_lead_nowhere_show_nothing(exhibits: Any, tmp_path: Path) -> None:
    found = read_report(sweep_with(exhibits, tmp_path))
    assert found.galleries == ()
    assert {(cell.before, cell.after) for cell in found.cells} == {(None, None)}
    assert [cell.record is not None for cell in found.cells] == [True, True, False]


def test_a_sweep_from_before_there_were_exhibits_is_read(tmp_path: Path) -> None:
    found = read_report(write_sweep(tmp_path, "golden", *golden()))
    assert found.galleries == ()
    assert all(cell.record is not None and cell.after is None for cell in found.cells)


def test_a_published_number_makes_a_comparison(tmp_path: Path) -> None:
    assert read_report(write_sweep(tmp_path, "golden", *golden())).comparison is None
    cell = entry("badnets", "ft", dataset="cifar10", model="preact_resnet18")
    folder = write_sweep(tmp_path, "real", [cell], [record(cell, metrics(90, 5, 80), metrics(95, 99, 1))])
    comparison = read_report(folder).comparison
    assert comparison is not None
    assert any(line.published for line in comparison.lines)
    assert read_report(folder, None).comparison is None
    with pytest.raises(UserError, match="Did you mean 'backdoorbench'"):
        read_report(folder, "backdorbench")


# What somebody else may have made.


@pytest.mark.parametrize(
    ("changes", "tensors"),
    [
        ({"classes": ["one"]}, {}),
        ({"classes": "ab"}, {}),
        ({"classes": [1, 2]}, {}),
        ({"classes": ["a" * 201, "b"]}, {}),
        ({"target": 0}, {}),
        ({"images": 2.5}, {}),
        ({"images": True}, {}),
        ({"images": -1}, {}),
        ({"psnr": "31"}, {}),
        ({"psnr": 1e9}, {}),
        ({"ssim": None}, {}),
        ({"ssim": 2}, {}),
        ({"linf": 256}, {}),
        ({}, {"clean": torch.zeros(2, 4, 5, 3)}),
        ({}, {"clean": torch.zeros(2, 4, 5, 2, dtype=torch.uint8)}),
        ({}, {"clean": torch.zeros(2, 4, 6, 3, dtype=torch.uint8)}),
        ({}, {"clean": torch.zeros(2, 60, dtype=torch.uint8)}),
        ({}, {name: torch.zeros(2, 1, 1025, 1, dtype=torch.uint8) for name in ("clean", "triggered")}),
        ({}, {name: torch.zeros(2, 0, 5, 3, dtype=torch.uint8) for name in ("clean", "triggered")}),
        ({}, {"clean": torch.zeros(2, 4, 5, 3, dtype=torch.bfloat16)}),
    ],
)
def test_what_is_no_gallery_is_not_shown(changes: dict[str, Any], tensors: dict[str, Any], tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.get_or_make("gallery", GALLERY, lambda: Artifact(gallery_record(**changes), gallery_tensors(**tensors)))
    assert read_gallery(store, GALLERY, "digits", "badnets") is None


@pytest.mark.parametrize("missing", ["classes", "target", "images", "psnr", "ssim", "linf", "clean", "triggered"])
def test_a_gallery_is_whole(missing: str) -> None:
    values = {**gallery_record(), **{name: value.numpy() for name, value in gallery_tensors().items()}}
    assert gallery_from(values, values, "digits", "badnets").attack == "badnets"
    del values[missing]
    with pytest.raises(KeyError):
        gallery_from(values, values, "digits", "badnets")


def test_where_nothing_is_changed_the_psnr_is_infinite(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.get_or_make("gallery", GALLERY, lambda: Artifact(gallery_record(psnr=None), gallery_tensors()))
    found = read_gallery(store, GALLERY, "digits", "badnets")
    assert found is not None
    assert found.psnr == inf


@pytest.mark.parametrize(
    ("target", "tensors"),
    [
        (-1, {}),
        ("0", {}),
        (True, {}),
        (0, {"clean_map": torch.zeros(3, 3)}),
        (0, {"clean_map": torch.zeros(4, 2)}),
        (0, {"clean_map": torch.zeros(3, 2, dtype=torch.float64)}),
        (0, {"clean_map": torch.full((3, 2), torch.inf)}),
        (0, {"triggered_map": torch.full((2, 2), torch.nan)}),
        (0, {"triggered_map": torch.zeros(3, 2)}),
        (0, {"clean_labels": torch.tensor([0.0, 1.0, 2.0])}),
        (0, {"clean_labels": torch.tensor([0, -1, 2])}),
        (0, {"triggered_labels": torch.tensor([1])}),
        (0, {"true_class_probability": torch.tensor([0.0, 101.0])}),
        (0, {"true_class_probability": torch.tensor([-1.0, 50.0])}),
        (0, {"true_class_probability": torch.zeros(2, 2)}),
        (0, {"true_class_probability": torch.zeros(0), "triggered_map": torch.zeros(0, 2)}),
        (0, {"clean_map": torch.zeros(10_001, 2), "clean_labels": torch.zeros(10_001, dtype=torch.int64)}),
    ],
)
def test_what_is_no_exhibit_is_not_shown(target: Any, tensors: dict[str, Any], tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.get_or_make("exhibit", BEFORE, lambda: Artifact({"target_class": target}, exhibit_tensors(**tensors)))
    assert read_exhibit(store, BEFORE) is None


def test_where_each_class_has_its_own_target_none_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.get_or_make("gallery", GALLERY, lambda: Artifact(gallery_record(target=None), gallery_tensors()))
    store.get_or_make("exhibit", BEFORE, lambda: Artifact({"target_class": None}, exhibit_tensors()))
    gallery, exhibit = read_gallery(store, GALLERY, "digits", "badnets"), read_exhibit(store, BEFORE)
    assert gallery is not None
    assert exhibit is not None
    assert (gallery.target, exhibit.target_class) == (None, None)


def test_a_large_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    fill(store)
    assert read_exhibit(store, BEFORE) is not None
    monkeypatch.setattr("ntml_bench.report.stored.LARGEST", 100)
    assert read_exhibit(store, BEFORE) is None


@given(happened=st.lists(st.tuples(st.sampled_from((CHECKSUMS, RECORD, TENSORS)), damages()), min_size=1, max_size=3))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_exhibit_is_right_or_absent(happened: list[tuple[str, Damage]], tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.rmtree(root, ignore_errors=True)
    store = Store(root)
    fill(store)
    right = read_exhibit(store, BEFORE)
    assert right is not None
    for file, damage in happened:
        damage(store.path("exhibit", BEFORE) / file, store.path("exhibit", AFTER) / file)
    found = read_exhibit(store, BEFORE)
    if found is not None:
        for name, value in vars(right).items():
            assert np.array_equal(vars(found)[name], value)


def test_an_exhibit_needs_all_its_tensors() -> None:
    arrays = {name: value.numpy() for name, value in exhibit_tensors().items()}
    for name in arrays:
        with pytest.raises(KeyError):
            exhibit_from({"target_class": 0}, {key: value for key, value in arrays.items() if key != name})


# A real sweep.

GRID = ("-m", *SMALL, "attack=badnets,sig,none", "defense=none,i_bau", "sweep=shown")


def same(one: Any, other: Any) -> bool:
    return all(np.array_equal(value, vars(other)[name]) for name, value in vars(one).items())


def test_a_sweep_its_archive_and_its_kept_records(workplace: Path) -> None:
    assert bench(*GRID).code == 0
    outputs = workplace / "outputs"
    report = read_report(outputs / "sweeps" / "shown")
    assert [(found.dataset, found.attack) for found in report.galleries] == [("digits", "badnets"), ("digits", "sig")]
    assert report.command == "ntml-bench " + " ".join(GRID)
    for cell in report.cells:
        assert (cell.before is None) == (cell.after is None) == (cell.cell.attack == "none")
        if cell.after is not None:
            assert cell.record is not None
            # Of the 90 triggered images all are shown, so the mean is the evaluator's own.
            shown = float(cell.after.true_class_probability.mean())
            assert shown == pytest.approx(cell.record["after"]["true_class_probability"], abs=1e-2)
    # All that is stored is named by the sweep, so that nothing of it is pruned.
    inventory = take_inventory(outputs, verify=True)
    assert set(inventory.artifacts) <= inventory.uses[0].wanted
    assert {name.split("-")[0] for name in inventory.artifacts} == {
        "victim",
        "purified",
        "evaluation",
        "cell",
        "gallery",
        "exhibit",
    }

    assert table_main(["shown", "--keep", "--format", "csv"]) == 0
    kept = read_report(outputs / "reference" / "shown")
    assert kept.command == report.command
    assert all(same(one, other) for one, other in zip(kept.galleries, report.galleries, strict=True))
    # An archive without models brings what there is to look at.
    assert store_main(["export", "shown"]) == 0
    elsewhere = workplace / "elsewhere"
    assert store_main(["import", "shown.tar.gz", "--outputs", str(elsewhere)]) == 0
    assert {path.name.split("-")[0] for path in (elsewhere / "store").glob("[!.]*")} == {"gallery", "exhibit"}
    brought = read_report(elsewhere / "reference" / "shown")
    assert brought.command == report.command
    assert all(same(one, other) for one, other in zip(brought.galleries, report.galleries, strict=True))
    for one, other in zip(brought.cells, report.cells, strict=True):
        assert (one.after is None) == (other.after is None)
        assert one.after is None or same(one.after, other.after)
        assert one.before is None or same(one.before, other.before)
    assert store_main(["prune", "--unused", "--yes", "--outputs", str(elsewhere)]) == 0
    assert len(read_report(elsewhere / "reference" / "shown").galleries) == 2
    # What is lost of it holds up no export.
    gallery = next((outputs / "store").glob("gallery-*"))
    shutil.rmtree(gallery)
    (next((outputs / "store").glob("exhibit-*")) / TENSORS).write_bytes(b"")
    for number, models in enumerate(([], ["--models"])):
        assert store_main(["export", "shown", *models, "--to", f"{number}.tar.gz"]) == 0
    assert len(read_report(outputs / "sweeps" / "shown").galleries) == 1


# The command.


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["attack=badnets,sig", "defense=none"], "attack=badnets,sig defense=none"),
        (["-cn", "paper_table", "imports=[a,b]"], "-cn paper_table 'imports=[a,b]'"),
        (["dataset.root=/home/me/data", "seed=0"], "dataset.root=FOLDER seed=0"),
        (["dataset.root=data"], "dataset.root=FOLDER"),
        (["+dataset.root=../me"], "+dataset.root=FOLDER"),
        (["outputs=/scratch/me", "data_dir=~/data"], "outputs=FOLDER data_dir=FOLDER"),
        (["outputs=mine"], "outputs=FOLDER"),
        (["--config-dir", "/home/me/conf"], "--config-dir FOLDER"),
        (["--config-dir=/home/me/conf"], "--config-dir=FOLDER"),
        (["--config-dir", "my_conf"], "--config-dir my_conf"),
        (["hydra.searchpath=[file:///home/me]"], "hydra.searchpath=FOLDER"),
        (["a='/home/me'", "b=[x, /home/me]"], "a=FOLDER b=FOLDER"),
        (["~attack.alpha", "attack.poisoning_rate=0.1"], "'~attack.alpha' attack.poisoning_rate=0.1"),
    ],
)
def test_the_command_is_written_down_without_anybodys_folders(words: list[str], expected: str) -> None:
    for program in ("/opt/venv/bin/ntml-bench", "ntml-bench", "/x/ntml_bench/app/main.py"):
        assert typed_command([program, *words]) == f"ntml-bench {expected}"


@pytest.mark.parametrize("program", ["/x/submitit/core/_submit.py", "-c", "-m", "pytest", "main.py"])
def test_what_was_not_typed_is_not_written_down(program: str) -> None:
    assert typed_command([program, "attack=badnets"]) is None


@given(
    st.text(alphabet="ab/.~_-", min_size=1, max_size=20), st.sampled_from(["dataset.root", "outputs", "x.y", "--config-dir"])
)
def test_no_absolute_path_is_left(path: str, key: str) -> None:
    command = typed_command(["ntml-bench", f"{key}=/home/{path}"])
    assert command == f"ntml-bench {key}=FOLDER"


def test_a_sweep_of_several_commands_has_them_all() -> None:
    assert joined(None, None) is None
    assert joined(None, "ntml-bench a=1") == "ntml-bench a=1"
    both = joined("ntml-bench a=1", "ntml-bench a=2")
    assert both == "ntml-bench a=1 && ntml-bench a=2"
    assert joined(both, "ntml-bench a=1") == joined(both, None) == both


def test_single_cells_of_one_sweep_are_all_in_its_command(workplace: Path) -> None:
    for defense in ("none", "i_bau", "none"):
        assert bench(*SMALL, f"defense={defense}", "outputs=outputs").code == 0
    folder = workplace / "outputs" / "sweeps" / "single"
    command = SweepFolder.open(folder).command
    assert command is not None
    assert [part.split()[-2:] for part in command.split(" && ")] == [
        ["defense=none", "outputs=FOLDER"],
        ["defense=i_bau", "outputs=FOLDER"],
    ]


@pytest.mark.parametrize("command", [3, "", None, "a\nb", "a\x1b[2J", "x" * (LONGEST_COMMAND + 1), ["ntml-bench"]])
def test_what_is_no_command_is_not_shown(command: Any, tmp_path: Path) -> None:
    folder = write_sweep(tmp_path, "golden", *golden())
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "command": "ntml-bench -cn digits_table"}))
    assert read_report(folder).command == "ntml-bench -cn digits_table"
    (folder / "manifest.json").write_text(json.dumps({**manifest, "command": command}))
    assert read_report(folder).command is None
