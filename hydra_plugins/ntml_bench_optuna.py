"""Optuna's sweeper of Hydra, with an account of the study: what was searched for, every trial, what was best.

The search itself is hydra-optuna-sweeper's (the extra `optuna`); it names in its outcome neither the objective nor the number
of trials, and ends in a traceback where every trial failed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from ntml_bench.errors import UserError
from ntml_bench.objective import OBJECTIVES, described

OUTCOME, TRIALS = "optimization_results.yaml", "trials.csv"


class Noted:
    """A launcher that tells `note` of the jobs that have come back."""

    def __init__(self, launcher: Launcher, note: Any) -> None:
        self._launcher = launcher
        self._note = note

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        returns = self._launcher.launch(job_overrides, initial_job_idx=initial_job_idx)
        self._note(returns)
        return returns


class Study(Sweeper):
    """One study; its settings are those of hydra/sweeper=optuna."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self._returns: list[JobReturn] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        # Here, because Hydra imports this file at every start, with the extra or without it.
        from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper  # pyright: ignore[reportMissingImports]

        from ntml_bench.app.hydra_settings import check_hydra

        check_hydra(config.hydra, config.outputs, config.sweep, jobs=False)
        self._objective = config.objective
        self._folder = Path(config.hydra.sweep.dir)
        self._search = OptunaSweeper(**self._settings)
        self._search.setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self._search.sweeper.launcher = Noted(self._search.sweeper.launcher, self._note)

    def sweep(self, arguments: list[str]) -> None:
        """Raises UserError for a study without an objective, and for one all of whose trials failed."""
        # Here, because `--help` does without.
        from ntml_bench.app.partial import unwrapped

        if self._objective is None:
            raise UserError(f"objective is null; a study maximises one of: {', '.join(OBJECTIVES)}")
        if self._settings["direction"] != "maximize":
            raise UserError("hydra.sweeper.direction: of every objective the higher is the better; allowed: maximize")
        try:
            self._search.sweep([unwrapped(word) for word in arguments])
        except ValueError:
            if self._done():
                raise
            raise UserError(f"all {len(self._returns)} trials of the study failed") from None
        outcome = self._folder / OUTCOME
        found = OmegaConf.to_container(OmegaConf.load(outcome))
        assert isinstance(found, dict)
        account = {
            "objective": self._objective,
            "objective_is": described(self._objective),
            "trials": len(self._returns),
            "failed_trials": len(self._returns) - len(self._done()),
        }
        OmegaConf.save(OmegaConf.create(account | found), outcome)
        best = ", ".join(f"{name}={value}" for name, value in found["best_params"].items())
        print(f"Best of {len(self._returns)} trials by {self._objective}, {found['best_value']:.2f}: {best}\n{outcome}")

    def _done(self) -> list[JobReturn]:
        return [found for found in self._returns if found.status == JobStatus.COMPLETED]

    def _note(self, returns: Sequence[JobReturn]) -> None:
        """Write down all trials so far: a study that is killed has its account too."""
        # Here, because `--help` does without.
        from ntml_bench.files import write_file
        from ntml_bench.records.rows import csv_text

        self._returns += returns
        rows = [_settings_of(found) for found in self._returns]
        names = list(dict.fromkeys(name for row in rows for name in row))
        lines = [
            [str(number), found.status.name.lower(), _value(found), *(row.get(name, "") for name in names)]
            for number, (found, row) in enumerate(zip(self._returns, rows, strict=True))
        ]
        write_file(self._folder / TRIALS, csv_text(["trial", "state", self._objective, *names], lines).encode())


def _settings_of(found: JobReturn) -> dict[str, str]:
    overrides = OverridesParser.create().parse_overrides(list(filter_overrides(found.overrides or [])))
    return {override.get_key_element(): override.get_value_element_as_str() for override in overrides}


def _value(found: JobReturn) -> str:
    return f"{found.return_value:.2f}" if found.status == JobStatus.COMPLETED else ""
