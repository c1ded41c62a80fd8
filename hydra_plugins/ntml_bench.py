"""Sweeps on one machine: every cell is composed and checked, once, before the first one runs.

Hydra's own sequential launcher composes each job when its turn comes, so that a mistake in the last cell shows after
hours, and it knows nothing of a sweep's progress. Other launchers work too: each of their jobs then runs a cell on its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, setup_globals
from hydra.errors import ConfigCompositionException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig
from rich.console import Console

from ntml_bench.app.imports import lasting_imports


@dataclass
class LauncherConfig:
    _target_: str = "hydra_plugins.ntml_bench.SweepLauncher"


@dataclass
class SweeperConfig(BasicSweeperConf):
    _target_: str = "hydra_plugins.ntml_bench.GridSweeper"


class GridSweeper(BasicSweeper):
    """Hydra's own grid, but the cells are composed once: our launchers compose and check them all before one runs.

    A setting of an option holds for the cells whose option has it.
    """

    def sweep(self, arguments: list[str]) -> Any:
        """Raises UserError for a setting of Hydra that would do nothing, and for one that no cell has."""
        from ntml_bench.app.hydra_settings import check_hydra

        assert self.config is not None
        jobs = not getattr(self.launcher, "checks_all_cells", False)
        check_hydra(self.config.hydra, self.config.outputs, self.config.sweep, jobs=jobs)
        return super().sweep(arguments)

    def split_arguments(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        from ntml_bench.app.partial import fitted

        grid, lines = fitted(BasicSweeper.split_arguments(overrides, None)[0], self._has)
        for line in lines:
            print(line, flush=True)
        return [list(batch) for batch in BasicSweeper.split_overrides_to_chunks(grid, max_batch_size)]

    def _has(self, overrides: Sequence[str], key: str) -> bool:
        """Whether a cell of these overrides has that setting."""
        from ntml_bench.app.explain import refused_key

        assert self.hydra_context is not None
        assert self.config is not None
        try:
            self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        except ConfigCompositionException as error:
            if refused_key(error) == key:
                return False
            raise
        return True

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        if not getattr(self.launcher, "checks_all_cells", False):
            super().validate_batch_is_legal(batch)


class SweepLauncher(Launcher):
    """Runs the cells of a multirun in threads or worker processes, as `cluster` says, then renders the table."""

    checks_all_cells = True

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Raises UserError for a mistake in any cell before all, and for cells that failed behind all."""
        # Here, because they import torch, which `--help` and `--cfg` do without.
        with lasting_imports():
            from ntml_bench.app.planning import ended, planned
            from ntml_bench.app.runners import runners_of
            from ntml_bench.app.session import Session

        setup_globals()
        session = Session(len(job_overrides), Console(), resident=self.config.cluster.name == "threads")
        try:
            cells, returns = planned(session, self.hydra_context, self.config, job_overrides, initial_job_idx)
            session.run(cells, runners_of(cells[0].settings, single=False))
        finally:
            session.close()
        ended(session, cells, returns)
        return returns


ConfigStore.instance().store(group="hydra/sweeper", name="ntml_bench", node=SweeperConfig, provider="ntml_bench")
ConfigStore.instance().store(group="hydra/launcher", name="ntml_bench", node=LauncherConfig, provider="ntml_bench")
