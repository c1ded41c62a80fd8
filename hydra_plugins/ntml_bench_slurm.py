"""Sweeps on a Slurm cluster: `cluster=slurm`, a job a cell, through hydra-submitit-launcher.

Nothing is registered where that is not installed (`pip install 'ntml-bench[slurm]'`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or find_spec("hydra_plugins.hydra_submitit_launcher") is not None:
    from hydra.core.config_store import ConfigStore
    from hydra.core.utils import JobReturn, setup_globals
    from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
    from rich.console import Console

    from ntml_bench.app.imports import lasting_imports

    @dataclass
    class SlurmLauncherConfig(SlurmQueueConf):
        """hydra-submitit-launcher's settings with the values of the group `cluster`."""

        _target_: str = "hydra_plugins.ntml_bench_slurm.SlurmSweepLauncher"
        name: str = "${sweep}"
        partition: str | None = "${cluster.partition}"
        account: str | None = "${cluster.account}"
        qos: str | None = "${cluster.qos}"
        timeout_min: int = "${cluster.timeout_min}"  # type: ignore[assignment]
        cpus_per_task: int | None = "${cluster.cpus}"  # type: ignore[assignment]
        gpus_per_node: int | None = "${cluster.gpus}"  # type: ignore[assignment]
        mem_gb: int | None = "${cluster.mem_gb}"  # type: ignore[assignment]
        array_parallelism: int = "${cluster.array_parallelism}"  # type: ignore[assignment]
        max_num_timeout: int = "${cluster.requeues}"  # type: ignore[assignment]
        signal_delay_s: int = "${cluster.signal_delay_s}"  # type: ignore[assignment]
        setup: list[str] | None = "${cluster.setup}"  # type: ignore[assignment]
        additional_parameters: dict[str, Any] = "${cluster.additional_parameters}"  # type: ignore[assignment]

    class SlurmSweepLauncher(SlurmLauncher):
        """Checks every cell here, before the first job, and submits those that are not done; renders the table at the end."""

        checks_all_cells = True

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            """Raises UserError for a mistake in any cell before all, and for cells that failed behind all."""
            with lasting_imports():
                from ntml_bench.app.jobs import check_commands
                from ntml_bench.app.planning import ended, planned
                from ntml_bench.app.session import Session
                from ntml_bench.app.slurm import run_in_jobs

            check_commands()
            assert self.config is not None
            assert self.hydra_context is not None
            setup_globals()
            session = Session(len(job_overrides), Console(), resident=False)
            try:
                cells, returns = planned(session, self.hydra_context, self.config, job_overrides, initial_job_idx)
                run_in_jobs(session, cells, self, [list(overrides) for overrides in job_overrides])
            finally:
                session.close()
            ended(session, cells, returns)
            return returns

    ConfigStore.instance().store(
        group="hydra/launcher", name="ntml_bench_slurm", node=SlurmLauncherConfig, provider="ntml_bench"
    )
