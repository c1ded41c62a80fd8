"""Sweeps end to end: records, table, resume, reproducibility, tracking, extensions from outside the package."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from app_runner import SMALL, bench, rows, workplace
from builders import option_names
from documents import file_of_the_pages
from wandb_files import read_runs

from ntml_bench.app import victims

__all__ = ["workplace"]

GRID = (
    "-m",
    *SMALL,
    "attack=badnets,sig",
    "attack.poisoning_rate=0.05",
    "defense=none,i_bau",
    "seed=0",
    "sweep=grid",
    "floor=true",
)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The purposes of the trainings that stages ask for, as they happen."""
    seen: list[str] = []
    original = victims.fit

    def counted(*arguments: Any, **settings: Any) -> None:
        seen.append(settings["purpose"])
        original(*arguments, **settings)

    monkeypatch.setattr(victims, "fit", counted)
    return seen


def test_help_lists_every_option(workplace: Path) -> None:
    outcome = bench("--help")
    assert outcome.code == 0
    assert f"attack: {', '.join(option_names('attack'))}" in outcome.output
    assert f"defense: {', '.join(option_names('defense'))}" in outcome.output
    datasets = "cifar10, cifar100, cifar10_jpeg, digit_scenes, digits, gtsrb, image_folder, tiny_imagenet"
    assert f"dataset: {datasets}" in outcome.output
    assert "model: airbench_small, preact_resnet18, resnet_tiny, timm" in outcome.output
    assert "presets: backdoorbench, cpu, paper, small" in outcome.output


def test_the_resolved_config_is_shown(workplace: Path) -> None:
    outcome = bench("--cfg", "job", "attack=sig", "attack.amplitude=30")
    assert outcome.code == 0
    assert "amplitude: 30" in outcome.output


def test_one_cell_prints_its_rates_before_and_after(workplace: Path) -> None:
    outcome = bench(*SMALL, "attack=badnets", "defense=i_bau")
    assert outcome.code == 0
    line = next(line for line in outcome.output.splitlines() if line.startswith("[1/1] badnets x i_bau, seed 0: ACC "))
    assert line.count(" -> ") == 3
    assert "ASR " in line
    assert "RA " in line


def test_a_grid_leaves_the_table_and_runs_nothing_twice(workplace: Path, trainings: list[str]) -> None:
    first = bench(*GRID)
    assert first.code == 0
    assert "Sweep grid: all 4 cells done." in first.output
    # Two victims and the clean model of the floor, shared by all columns.
    assert trainings == ["victim"] * 3
    folder = workplace / "outputs" / "tables" / "grid"
    assert {path.name for path in folder.iterdir()} == {"cells.csv", "table.md", "table.tex", "table.html", "table.png"}
    done = rows("grid")
    assert [(row["attack"], row["defense"], row["state"]) for row in done] == [
        (attack, defense, "done") for attack in ("badnets", "sig") for defense in ("none", "i_bau")
    ]
    trainings.clear()
    second = bench(*GRID)
    assert second.code == 0
    assert trainings == []
    assert second.output.count("(stored)") == 4
    assert rows("grid") == done


def test_a_changed_setting_reruns_what_it_touches(workplace: Path, trainings: list[str]) -> None:
    bench(*GRID)
    trainings.clear()
    changed = bench(*GRID, "attack=badnets", "defense=i_bau", "defense.rounds=4")
    assert changed.code == 0
    assert trainings == []  # the victim stays; the defense trains through its own import
    assert changed.output.count("(stored)") == 0
    bench(*GRID, "attack=badnets", "defense=none", "attack.poisoning_rate=0.06")
    assert trainings == ["victim"]


def test_a_smaller_grid_says_what_it_no_longer_lists(workplace: Path) -> None:
    def said(*arguments: str) -> list[str]:
        return [line for line in bench(*GRID, *arguments).output.splitlines() if "no longer lists" in line]

    assert said() == []
    assert said("attack=sig") == [
        "sweep 'grid' no longer lists 2 cells of an earlier command; what is done of them is stored, and a command that names "
        "them, too, shows them again"
    ]
    assert said("attack=sig") == []
    assert said("attack=badnets,sig") == []  # none is lost
    manifest = workplace / "outputs" / "sweeps" / "grid" / "manifest.json"
    manifest.write_text("{")
    assert said("attack=sig", "defense=none") == []
    assert len(rows("grid")) == 1


def test_one_seed_gives_the_same_bytes_and_another_seed_other_draws(workplace: Path) -> None:
    arguments = ("-m", *SMALL, "attack=badnets", "defense=none,i_bau", "sweep=again")
    bench(*arguments, "seed=0", "outputs=outputs")
    bench(*arguments, "seed=0", "outputs=second/outputs")
    assert rows("again") == rows("again", workplace / "second")
    bench(*arguments, "seed=1", "outputs=third/outputs")
    keys = {row["key"] for row in rows("again")}
    assert keys.isdisjoint(row["key"] for row in rows("again", workplace / "third"))
    poisons = [poisoned_indices(workplace / place) for place in ("outputs", "second/outputs", "third/outputs")]
    assert poisons[0] == poisons[1]
    assert poisons[0] != poisons[2]


def poisoned_indices(outputs: Path) -> list[int]:
    from safetensors.torch import load_file

    (victim,) = (outputs / "store").glob("victim-*")
    return load_file(victim / "tensors.safetensors")["poison/indices"].tolist()


def test_a_failed_cell_is_recorded_and_the_others_go_on(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ntml_bench.defenses.i_bau import IBAU

    def broken(*_: Any) -> None:
        raise RuntimeError("the defense broke")

    with monkeypatch.context() as patch:
        patch.setattr(IBAU, "purify", broken)
        outcome = bench(*GRID, "defense=i_bau,none", "attack=badnets")
    assert outcome.code == 1
    assert "1 of 2 cells failed" in outcome.errors
    assert [row["state"] for row in rows("grid")] == ["failed", "done"]
    (failure,) = (workplace / "outputs" / "store").glob("cell-*.failed.json")
    assert "the defense broke" in json.loads(failure.read_text())["traceback"]
    again = bench(*GRID, "defense=i_bau,none", "attack=badnets")
    assert again.code == 0
    assert [row["state"] for row in rows("grid")] == ["done", "done"]
    assert not failure.exists()


def test_kill_9_in_the_middle_and_again(workplace: Path) -> None:
    arguments = list(GRID)
    command = [sys.executable, "-m", "ntml_bench.app.main", *arguments]
    records = workplace / "outputs" / "store"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(records.glob("cell-*/record.json")):
        assert process.poll() is None, "the sweep ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in records.glob("*/record.json")}
    assert not list(records.glob("*/record.json.tmp*"))

    resumed = bench(*arguments)
    assert resumed.code == 0
    assert resumed.output.count("(stored)") >= 1
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "something that was done was made again"
    bench(*arguments, "outputs=undisturbed/outputs")
    assert rows("grid") == rows("grid", workplace / "undisturbed")


def test_a_method_from_outside_is_one_file_and_one_yaml(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stripe.py", "my_conf/attack/stripe.yaml", "shrink.py", "my_conf/defense/shrink.yaml"):
        path = workplace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file_of_the_pages(name))
    monkeypatch.syspath_prepend(str(workplace))
    helped = bench("--config-dir", "my_conf", "--help")
    assert "stripe" in helped.output
    assert "shrink" in helped.output
    arguments = (
        "-m",
        *SMALL,
        "imports=[stripe,shrink]",
        "attack=stripe",
        "defense=none,shrink",
        "defense.factor=0",
        "sweep=toys",
    )
    outcome = bench("--config-dir", "my_conf", *arguments)
    assert outcome.code == 0, outcome.errors
    undefended, shrunk = rows("toys")
    # A head without weights answers one class: its accuracy is the share of that class.
    assert float(shrunk["clean_accuracy"]) < 20
    assert (undefended["attack"], shrunk["defense"]) == ("stripe", "shrink")
    wrong = bench("--config-dir", "my_conf", *arguments, "attack.row=top")
    assert wrong.code == 1
    assert "attack.row" in wrong.errors


def test_every_cell_of_a_sweep_is_an_offline_run_with_its_rates(workplace: Path) -> None:
    outcome = bench(*GRID, "tracking=offline")
    assert outcome.code == 0
    sys.modules["wandb"].teardown()  # its service writes the end of a file a moment after a run is finished
    runs = read_runs(workplace / "outputs" / "sweeps" / "grid")
    cells = {f"{row['attack']}/{row['defense']}/seed{row['seed']}": row for row in rows("grid")}
    assert set(cells) <= set(runs)
    for name, row in cells.items():
        assert f"{runs[name].summary['clean_accuracy']:.2f}" == row["clean_accuracy"]
        assert f"{runs[name].summary['attack_success_rate']:.2f}" == row["attack_success_rate"]
    assert "table/grid" in runs
