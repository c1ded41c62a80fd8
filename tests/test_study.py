"""A study by Optuna: its account, with a stand-in for the extra's sweeper; and end to end where the extra is installed."""

import csv
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from app_runner import SMALL, bench, rows, workplace
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from hydra_plugins.ntml_bench_optuna import Noted, Study
from ntml_bench.errors import UserError

__all__ = ["workplace"]

INSTALLED = importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is not None
ORACLE = "oracle_defense_effectiveness_rating"
SMALL_STUDY = (
    "-cn",
    "optuna_nt_ml",
    *SMALL,
    "floor=false",
    "objective=" + ORACLE,
    "dataset.holdout=0",
    "hydra.sweeper.n_trials=3",
    "hydra.sweeper.params={attack:badnets,defense:i_bau,defense.learning_rate:'interval(0.0001,0.001)',seed:'0'}",
)


class Launched:
    """A launcher whose jobs return the values that it was made with; None is a failed job."""

    def __init__(self, values: Sequence[float | None]) -> None:
        self.values = list(values)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        returns = []
        for overrides in job_overrides:
            value = self.values.pop(0)
            found = JobReturn(overrides=list(overrides))
            found.status = JobStatus.FAILED if value is None else JobStatus.COMPLETED
            found.return_value = UserError("it failed") if value is None else value
            returns.append(found)
        return returns


def study_of(
    folder: Path, values: Sequence[float | None], objective: str | None = ORACLE, direction: str = "maximize"
) -> Study:
    """A study over `defense.alpha`, two trials at a time, that needs no extra."""
    study = Study(direction=direction)
    study._objective, study._folder = objective, folder
    inner = SimpleNamespace(launcher=Noted(Launched(values), study._note))  # type: ignore[arg-type]

    def sweep(arguments: list[str]) -> None:
        done: list[tuple[float, int]] = []
        for start in range(0, len(values), 2):
            batch = [(f"defense.alpha={number}", *arguments) for number in range(start, min(start + 2, len(values)))]
            returns = inner.launcher.launch(batch, initial_job_idx=start)
            done += [(found.return_value, start + n) for n, found in enumerate(returns) if found.status == JobStatus.COMPLETED]
        if not done:
            raise ValueError("No trials are completed yet.")
        value, number = max(done)
        outcome = {"name": "optuna", "best_params": {"defense.alpha": number}, "best_value": value}
        OmegaConf.save(OmegaConf.create(outcome), folder / "optimization_results.yaml")

    study._search = SimpleNamespace(sweep=sweep, sweeper=inner)
    return study


def test_the_account_of_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study_of(tmp_path, [60.0, 90.5, None]).sweep(["attack=sig", "hydra.verbose=true"])
    outcome: Any = OmegaConf.load(tmp_path / "optimization_results.yaml")
    assert outcome.objective == ORACLE
    assert outcome.objective_is.startswith("an oracle")
    assert (outcome.trials, outcome.failed_trials, outcome.best_value) == (3, 1, 90.5)
    assert outcome.best_params == {"defense.alpha": 1}
    assert (tmp_path / "trials.csv").read_text().splitlines() == [
        f"trial,state,{ORACLE},defense.alpha,attack",
        "0,completed,60.00,0,sig",
        "1,completed,90.50,1,sig",
        "2,failed,,2,sig",
    ]
    assert f"Best of 3 trials by {ORACLE}, 90.50: defense.alpha=1" in capsys.readouterr().out


def test_a_study_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="objective is null; a study maximises one of: clean_budget_accuracy, holdout_"):
        study_of(tmp_path, [1.0], objective=None).sweep([])
    with pytest.raises(UserError, match="allowed: maximize"):
        study_of(tmp_path, [1.0], direction="minimize").sweep([])
    with pytest.raises(UserError, match="all 3 trials of the study failed"):
        study_of(tmp_path, [None] * 3).sweep([])
    assert len((tmp_path / "trials.csv").read_text().splitlines()) == 4


def test_another_mistake_of_the_search_is_not_taken_for_failed_trials(tmp_path: Path) -> None:
    study = study_of(tmp_path, [1.0])
    sweep: Callable[[list[str]], None] = study._search.sweep

    def broken(arguments: list[str]) -> None:
        sweep(arguments)
        raise ValueError("another")

    study._search.sweep = broken
    with pytest.raises(ValueError, match="another"):
        study.sweep([])


@pytest.mark.skipif(INSTALLED, reason="the extra is installed")
def test_without_the_extra_its_name_is_told(workplace: Path) -> None:
    outcome = bench("-cn", "optuna_nt_ml")
    assert outcome.code == 1
    assert "hydra/sweeper=optuna needs an extra that is not installed: pip install 'ntml-bench[optuna]'" in outcome.errors


# Of optuna 2's own use of sqlalchemy.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:::optuna")
@pytest.mark.skipif(not INSTALLED, reason="the extra is not installed")
@pytest.mark.slow
def test_a_study_end_to_end_goes_on_where_it_was_and_outlives_a_failure(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ntml_bench.defenses.i_bau import IBAU

    folder = workplace / "outputs" / "sweeps" / "optuna_nt_ml"
    purify, calls = IBAU.purify, []

    def fails_once(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise RuntimeError("the defense broke")
        return purify(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(IBAU, "purify", fails_once)
        first = bench(*SMALL_STUDY)
    assert first.code == 0, first.errors
    outcome: Any = OmegaConf.load(folder / "optimization_results.yaml")
    assert (outcome.objective, outcome.trials, outcome.failed_trials) == (ORACLE, 3, 1)
    trials = list(csv.DictReader((folder / "trials.csv").open()))
    assert sorted(trial["state"] for trial in trials) == ["completed", "completed", "failed"]
    values = [trial[ORACLE] for trial in trials if trial["state"] == "completed"]
    assert f"{outcome.best_value:.2f}" == max(values, key=float)
    # All batches are in the table, which says what was searched for.
    assert len(rows("optuna_nt_ml")) == 3
    done = {row["defense_effectiveness_rating"] for row in rows("optuna_nt_ml") if row["state"] == "done"}
    assert done == set(values)
    tables = workplace / "outputs" / "tables" / "optuna_nt_ml"
    assert "an oracle: it reads the test set" in (tables / "ablation.md").read_text()
    # The seed of the sampler makes the same first batch, which is stored but for what failed.
    again = bench(*SMALL_STUDY)
    assert again.code == 0, again.errors
    assert again.output.count("(stored)") >= 1
    second = list(csv.DictReader((folder / "trials.csv").open()))
    assert [trial["defense.learning_rate"] for trial in second[:2]] == [trial["defense.learning_rate"] for trial in trials[:2]]
    assert {trial["state"] for trial in second} == {"completed"}
