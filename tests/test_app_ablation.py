"""An ablation end to end: one command to the table over a setting, whose numbers are those of the cells."""

import csv
from pathlib import Path
from statistics import mean, stdev

import pytest
from app_runner import SMALL, bench, rows, workplace

__all__ = ["workplace"]

BUDGETS = ("0.1", "0.2")
METRICS = ("clean_accuracy", "attack_success_rate", "robust_accuracy", "defense_effectiveness_rating")


@pytest.mark.slow
def test_one_command_to_the_table_over_a_setting(workplace: Path) -> None:
    outcome = bench(
        "-m",
        *SMALL,
        "attack=badnets",
        "defense=none,i_bau",
        "clean_budget=" + ",".join(BUDGETS),
        "seed=0,1",
        "sweep=budget",
    )
    assert outcome.code == 0, outcome.errors
    folder = workplace / "outputs" / "tables" / "budget"
    assert {path.name for path in folder.glob("ablation.*")} == {"ablation.csv", "ablation.md", "ablation.png", "ablation.pdf"}
    with (folder / "ablation.csv").open() as file:
        lines = {(line["defense"], line["clean_budget"]): line for line in csv.DictReader(file)}
    assert set(lines) == {(defense, budget) for defense in ("none", "i_bau") for budget in BUDGETS}
    for (defense, budget), line in lines.items():
        cells = [row for row in rows("budget") if row["defense"] == defense and f"clean_budget={budget})" in row["model"]]
        assert [cell["seed"] for cell in cells] == ["0", "1"]
        assert line["seeds"] == "2"
        for metric in METRICS:
            values = [float(cell[metric]) for cell in cells if cell[metric]]
            assert bool(values) == bool(line[metric])
            if values:
                # Each of the texts is rounded to two decimals.
                assert float(line[metric]) == pytest.approx(mean(values), abs=0.0101)
                assert float(line[f"{metric}_deviation"]) == pytest.approx(stdev(values), abs=0.0151)
