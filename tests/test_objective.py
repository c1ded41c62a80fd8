"""What a search maximises is named after what it reads, and is what its name says."""

from pathlib import Path

import pytest
import torch
from app_runner import SMALL, bench, workplace
from hydra import compose, initialize_config_dir
from table_records import entry, metrics, record, write_sweep

from ntml_bench.app.cell import Cell
from ntml_bench.app.composition import config_folder, split_config
from ntml_bench.app.settings import read_settings
from ntml_bench.data.loading import load
from ntml_bench.errors import UserError
from ntml_bench.objective import OBJECTIVES, check_objective, described
from ntml_bench.table.main import main
from ntml_bench.table.render import render_sweep

__all__ = ["workplace"]

QUICK = ("attack=badnets", "defense=i_bau", "defense.rounds=1")
RATING = "defense_effectiveness_rating"


def cell_of(folder: Path, *overrides: str) -> Cell:
    with initialize_config_dir(str(config_folder("conf")), version_base="1.3"):
        composed = compose("config", [*SMALL, *QUICK, f"outputs={folder}", *overrides], return_hydra_config=True)
    settings = read_settings(*split_config(composed))
    return Cell(settings, load(settings.dataset, Path(settings.general.data_dir), settings.general.seed))


@pytest.mark.parametrize("metric", ["clean_accuracy", "robust_accuracy", RATING])
def test_what_reads_the_test_set_is_called_an_oracle_and_nothing_else_is(metric: str) -> None:
    check_objective(f"oracle_{metric}", 0.0, "badnets", "ft")
    check_objective(f"holdout_{metric}", 0.2, "badnets", "ft")
    with pytest.raises(UserError, match=f"holdout=0 it is measured on the test set: write objective=oracle_{metric}"):
        check_objective(f"holdout_{metric}", 0.0, "badnets", "ft")
    with pytest.raises(UserError, match=f"measured on held-out training images: write objective=holdout_{metric}"):
        check_objective(f"oracle_{metric}", 0.2, "badnets", "ft")
    for holdout, right in ((0.0, "oracle"), (0.2, "holdout")):
        with pytest.raises(UserError, match=f"write objective={right}_{metric}"):
            check_objective(metric, holdout, "badnets", "ft")


def test_an_objective_without_a_value_is_refused() -> None:
    with pytest.raises(UserError, match="Did you mean 'clean_budget_accuracy'"):
        check_objective("clean_budget_acuracy", 0.0, "badnets", "ft")
    with pytest.raises(UserError, match="no value without an attack"):
        check_objective("oracle_robust_accuracy", 0.0, "none", "ft")
    with pytest.raises(UserError, match="no value without a defense"):
        check_objective(f"oracle_{RATING}", 0.0, "badnets", "none")
    check_objective("oracle_clean_accuracy", 0.0, "none", "none")
    check_objective("clean_budget_accuracy", 0.0, "none", "none")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_only_an_oracle_reads_the_test_set(name: str) -> None:
    assert name.startswith("oracle_") == described(name).startswith("an oracle: it reads the test set")


def test_a_mistake_is_named_before_any_training(workplace: Path) -> None:
    outcome = bench(*SMALL, *QUICK, f"objective={RATING}")
    assert outcome.code == 1
    assert f"write objective=oracle_{RATING}" in outcome.errors
    assert not (workplace / "outputs" / "store").exists()


def test_the_value_is_that_of_the_record(tmp_path: Path) -> None:
    plain = cell_of(tmp_path)
    done = plain.run(lambda _: None)
    assert plain.objective(done) is None
    for name, value in {
        "oracle_clean_accuracy": done["after"]["clean_accuracy"],
        "oracle_robust_accuracy": done["after"]["robust_accuracy"],
        f"oracle_{RATING}": done[RATING],
    }.items():
        cell = cell_of(tmp_path, f"objective={name}")
        # What is searched for does not change a cell, so its record is found.
        assert cell.key == plain.key
        assert cell.objective(done) == value


def test_the_accuracy_on_the_clean_budget_is_of_the_purified_model_on_the_defenders_images(tmp_path: Path) -> None:
    cell = cell_of(tmp_path, "objective=clean_budget_accuracy")
    found = cell.objective(cell.run(lambda _: None))
    victim, model = cell.stages.victim(), cell.stages.purified()[0]
    images = cell.stages._clean_budget(victim)
    assert len(images) == 60
    assert not set(images.tolist()) & set(victim.poisoning.indices.tolist())
    split = cell.data.train[images]
    with torch.no_grad():
        answers = model.eval()(cell.engine.images(split.images)).argmax(1)
    assert found == pytest.approx(100 * float((answers == split.labels).double().mean()))


@pytest.mark.parametrize("name", [f"oracle_{RATING}", f"holdout_{RATING}"])
def test_every_table_of_a_search_says_by_what_it_went(tmp_path: Path, name: str) -> None:
    cells = [entry("badnets", "nt_ml", settings={"defense": {"temperature": value}}) for value in (1, 2)]
    folder = write_sweep(tmp_path, "search", cells, [record(cell, metrics(95, 5, 90), metrics(96, 99, 1)) for cell in cells])
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"sweep": "search"', f'"sweep": "search", "objective": "{name}"'))
    render_sweep(folder, tmp_path / "out")
    for file in ("table.md", "table.tex", "table.html", "ablation.md"):
        text = (tmp_path / "out" / file).read_text().replace("\\", "")
        assert f"trials of a search by {name}" in text
        assert ("an oracle: it reads the test set" in text) == name.startswith("oracle_")
    assert main(["search", "--outputs", str(tmp_path), "--keep"]) == 0
    assert f"search by {name}" in (tmp_path / "reference" / "search" / "table.md").read_text().replace("\\", "")
