"""A real sweep: every artifact in its store is named by its cells, and travels to another place with all that it is."""

from pathlib import Path

import pytest
from app_runner import SMALL, bench, rows, workplace
from test_app_sweep import trainings

from ntml_bench.housekeeping.inventory import take_inventory
from ntml_bench.housekeeping.main import main
from ntml_bench.table.main import main as table

__all__ = ["trainings", "workplace"]

SWEEP = ("-m", *SMALL, "attack=lc", "attack.steps=2", "defense=none,i_bau", "floor=true", "sweep=moved")
KINDS = {"victim", "purified", "surrogate", "evaluation", "cell", "gallery", "exhibit"}


@pytest.mark.slow
def test_an_exported_sweep_goes_on_elsewhere_without_training(
    workplace: Path, trainings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(*SWEEP).code == 0
    assert sorted(trainings) == ["surrogate", "victim", "victim"]
    inventory = take_inventory(workplace / "outputs", verify=True)
    (use,) = inventory.uses
    assert use.problem == ""
    # All that there is is wanted, and all that is wanted is there.
    assert set(inventory.artifacts) == use.wanted
    assert {name.split("-")[0] for name in use.wanted} == KINDS
    assert not [item for item in inventory.items if item.kind != "artifact" or item.damage]

    assert main(["export", "moved", "--models"]) == 0
    elsewhere = workplace / "elsewhere" / "outputs"
    assert main(["import", "moved.tar.gz", "--outputs", str(elsewhere)]) == 0
    assert table(["moved", "--outputs", str(elsewhere), "--format", "csv"]) == 0
    original = (workplace / "outputs" / "tables" / "moved" / "cells.csv").read_bytes()
    assert (elsewhere / "tables" / "moved" / "cells.csv").read_bytes() == original

    trainings.clear()
    again = bench(*SWEEP, f"outputs={elsewhere}")
    assert again.code == 0
    assert again.output.count("(stored)") == 2
    # Another defense of the same backdoored model: it is not trained again.
    more = bench(*SWEEP, f"outputs={elsewhere}", "defense=ft", "defense.recipe.epochs=1", "sweep=more")
    assert more.code == 0
    assert trainings == []
    assert rows("moved", workplace / "elsewhere") == rows("moved")
    # What two sweeps and an import share goes with the last of them.
    assert main(["prune", "--sweep", "moved", "--yes", "--outputs", str(elsewhere)]) == 0
    left = take_inventory(elsewhere)
    assert [use.name for use in left.uses] == ["more"]
    assert set(left.artifacts) <= left.uses[0].wanted
    assert {name.split("-")[0] for name in left.artifacts} == KINDS
    assert bench(*SWEEP, f"outputs={elsewhere}", "defense=ft", "defense.recipe.epochs=1", "sweep=more").code == 0
    assert trainings == []
