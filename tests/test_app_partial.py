"""Settings of a sweep that some of the chosen options have: they hold for those, and for none they are a mistake."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from app_runner import SMALL, bench, rows, workplace

from ntml_bench.app.partial import fitted, left_to_the_cells, unwrapped
from ntml_bench.errors import UserError

__all__ = ["workplace"]

EPOCHS = "defense.recipe.epochs"


def epochs(folder: Path) -> dict[str, object]:
    """What the records say of the epochs of each defense."""
    records = [json.loads(path.read_text()) for path in (folder / "outputs" / "store").glob("cell-*/record.json")]
    return {
        f"{record['defense']} {record['settings']['defense'].get('recipe', {}).get('epochs')}": record for record in records
    }


def test_a_setting_that_all_chosen_options_have_holds_for_all(workplace: Path) -> None:
    outcome = bench("-m", *SMALL, "attack=badnets", "defense=ft,fp", f"{EPOCHS}=1", "sweep=both")
    assert outcome.code == 0, outcome.errors
    assert set(epochs(workplace)) == {"ft 1", "fp 1"}
    assert "holds for" not in outcome.output
    manifest = json.loads((workplace / "outputs" / "sweeps" / "both" / "manifest.json").read_text())
    assert f" {EPOCHS}=1 " in manifest["command"], "the command stands there as it was typed"


@pytest.mark.parametrize("cluster", ["threads", "local"])
def test_a_setting_that_some_chosen_options_have_holds_for_those_and_is_said(cluster: str, workplace: Path) -> None:
    outcome = bench(
        "-m", *SMALL, f"cluster={cluster}", "attack=badnets", "defense=none,ft", f"{EPOCHS}=1,2", "sweep=some", "workers=1"
    )
    assert outcome.code == 0, outcome.errors
    assert outcome.output.count(f"{EPOCHS} holds for ft; not for none, which has no such setting") == 1
    assert set(epochs(workplace)) == {"none None", "ft 1", "ft 2"}
    assert [row["defense"] for row in rows("some")] == [
        "none",
        "ft (recipe.epochs=1)",
        "ft (recipe.epochs=2)",
    ], "cells without the setting are one"


def test_a_sweep_file_needs_no_flag_for_a_setting_of_some_of_several_options(workplace: Path) -> None:
    # Hydra asks the file whether it is a sweep with the setting in it, which the file's own first option does not have.
    outcome = bench("-cn", "digits_table", *SMALL, "attack=badnets", "defense=none,ft", f"{EPOCHS}=1", "seed=0", "sweep=some")
    assert outcome.code == 0, outcome.errors
    assert f"{EPOCHS} holds for ft; not for none" in outcome.output
    assert set(epochs(workplace)) == {"none None", "ft 1"}
    manifest = json.loads((workplace / "outputs" / "sweeps" / "some" / "manifest.json").read_text())
    assert "multirun" not in manifest["command"], "the command stands there as it was typed"


def test_of_several_options_in_a_sweep_file_the_wrong_one_is_named(workplace: Path) -> None:
    outcome = bench("-cn", "digits_table", "attack=badnets,wanet", "defense=nonne")
    assert outcome.code == 1
    assert "unknown defense 'nonne'. Did you mean 'none'?" in outcome.errors


@pytest.mark.parametrize("words", [("attack=badnets,wanet",), ("-cn", "digits_table", "--cfg", "job", "attack=badnets,wanet")])
def test_several_values_for_a_single_cell_are_refused(words: tuple[str, ...], workplace: Path) -> None:
    outcome = bench(*words)
    assert outcome.code == 1
    assert "attack=badnets,wanet names several values: -m makes a sweep of them" in outcome.errors


@pytest.mark.parametrize("sweep", [("-m", "defense=none,ft"), ("-cn", "digits_table"), ("-m", "defense=none")])
def test_a_setting_of_no_option_is_refused_with_the_nearest_name(sweep: tuple[str, str], workplace: Path) -> None:
    outcome = bench(*sweep, *SMALL, "attack=badnets", "defense.recipe.epoch=1")
    assert outcome.code == 1
    assert f"unknown setting 'defense.recipe.epoch'. Did you mean '{EPOCHS}'?" in outcome.errors
    assert not (workplace / "outputs" / "store").exists()


@pytest.mark.parametrize("cells", [("-m", "defense=none,i_bau"), ("defense=none",)])
def test_a_setting_of_other_options_is_refused(cells: tuple[str, ...], workplace: Path) -> None:
    outcome = bench(*cells, *SMALL, "attack=badnets", f"{EPOCHS}=1")
    assert outcome.code == 1
    assert f"'{EPOCHS}' is not one of the chosen defense's" in outcome.errors
    assert not (workplace / "outputs" / "store").exists()


def test_a_grid_is_asked_once_for_each_option_and_keeps_its_order() -> None:
    asked: list[Sequence[str]] = []

    def accepts(overrides: Sequence[str], key: str) -> bool:
        asked.append(overrides)
        return "attack=sig" in overrides

    grid = [
        [f"seed={seed}", f"attack={attack}", f"attack.size={size}", "model.x=1"]
        for seed in (0, 1)
        for attack in ("badnets", "sig")
        for size in (3, 4)
    ]
    cells, lines = fitted(grid, accepts)
    assert cells[:3] == [
        ["seed=0", "attack=badnets", "model.x=1"],
        ["seed=0", "attack=sig", "attack.size=3", "model.x=1"],
        ["seed=0", "attack=sig", "attack.size=4", "model.x=1"],
    ]
    assert len(cells) == 6
    assert asked == [["seed=0", f"attack={name}", "model.x=1", "attack.size=3"] for name in ("badnets", "sig")]
    assert lines == ["attack.size holds for sig; not for badnets, which has no such setting"]
    with pytest.raises(UserError, match=r"attack\.size"):
        fitted(grid, lambda overrides, key: False)
    assert fitted(grid, lambda overrides, key: True) == (grid, [])


@pytest.mark.parametrize("value", ["1", "0.5", "null", "[1,2]", "{a:1,b:2}", "'a,b'", "a b"])
def test_what_is_left_to_the_cells_is_what_was_typed(value: str) -> None:
    word = f"{EPOCHS}={value}"
    left = left_to_the_cells(["seed=0", word], EPOCHS)
    assert left == ["seed=0", f"{EPOCHS}=choice({value})"]
    assert left is not None
    assert [unwrapped(each) for each in left] == ["seed=0", word]
    assert left_to_the_cells(left, EPOCHS) is None
    assert left_to_the_cells(["sed=0"], "sed") is None


def test_a_choice_of_several_stays_a_choice() -> None:
    assert unwrapped(f"{EPOCHS}=choice(1,2)") == f"{EPOCHS}=choice(1,2)"
    assert unwrapped("seed=choice(1)") == "seed=choice(1)"
