"""Sweeps in one process: every cell is composed and checked, once, before the first one runs.

Hydra's own sequential launcher composes each job when its turn comes, so that a mistake in the last cell shows after
hours, and it knows nothing of a sweep's progress. Other launchers work too (Slurm): each of their jobs then runs a cell
on its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict
from rich.console import Console

from ntml_bench.app.composition import split_config
from ntml_bench.errors import UserError


@dataclass
class LauncherConfig:
    _target_: str = "hydra_plugins.ntml_bench.SweepLauncher"


@dataclass
class SweeperConfig(BasicSweeperConf):
    _target_: str = "hydra_plugins.ntml_bench.GridSweeper"


class GridSweeper(BasicSweeper):
    """Hydra's own grid, but the cells are composed once: the launcher composes and checks them all before it runs one."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        if not isinstance(self.launcher, SweepLauncher):
            super().validate_batch_is_legal(batch)


class SweepLauncher(Launcher):
    """Runs the cells of a multirun in this process, then renders the table."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Raises UserError for a mistake in any cell before all, and for cells that failed behind all."""
        # Here, because they import torch, which `--help` and `--cfg` do without.
        from ntml_bench.app.session import Session, share_processor, write_manifest
        from ntml_bench.app.settings import read_settings

        setup_globals()
        session = Session(len(job_overrides), Console())
        try:
            cells, returns = [], []
            for number, overrides in enumerate(job_overrides):
                composed = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
                with open_dict(composed):
                    composed.hydra.job.num = initial_job_idx + number
                    composed.hydra.job.id = str(composed.hydra.job.num)
                config, choices = split_config(composed)
                try:
                    cells.append(session.cell(read_settings(config, choices)))
                except UserError as error:
                    raise UserError(
                        f"{error}\n(in the cell {' '.join(filter_overrides(overrides))}; nothing was run)"
                    ) from None
                returns.append(JobReturn(overrides=list(overrides), cfg=config, hydra_cfg=composed))
            write_manifest(cells)
            workers = share_processor(cells[0].settings, single=False)
            for result, record in zip(returns, session.run(cells, workers), strict=True):
                result.return_value = record
                result.status = JobStatus.COMPLETED
        finally:
            session.close()
        session.render(cells[0].settings)
        if session.failed:
            lines = "\n  ".join(session.failed)
            raise UserError(
                f"{len(session.failed)} of {len(cells)} cells failed; the same command runs these again:\n  {lines}"
            )
        return returns


ConfigStore.instance().store(group="hydra/sweeper", name="ntml_bench", node=SweeperConfig, provider="ntml_bench")
ConfigStore.instance().store(group="hydra/launcher", name="ntml_bench", node=LauncherConfig, provider="ntml_bench")
