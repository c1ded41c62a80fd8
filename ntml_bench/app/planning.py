"""The cells of a sweep, all composed and checked before the first one runs; and the end of a sweep."""

from collections.abc import Sequence

from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from ntml_bench.app.cell import Cell
from ntml_bench.app.composition import split_config
from ntml_bench.app.manifest import add_to_manifest, write_manifest
from ntml_bench.app.session import Session
from ntml_bench.app.settings import read_settings
from ntml_bench.errors import UserError
from ntml_bench.records.view import counted

WHOLE = ("sweep", "outputs", "workers", "objective", "tracking", "cluster")
"""Settings of the process that runs the cells."""


def planned(
    session: Session, context: HydraContext, config: DictConfig, grid: Sequence[Sequence[str]], first: int
) -> tuple[list[Cell], list[JobReturn]]:
    """The cells of a grid of overrides, and what Hydra wants to know of each; `first`: the number of the first cell.

    The sweep's manifest is written. Raises UserError for a mistake in any cell.
    """
    read, returns = [], []
    for number, overrides in enumerate(grid, start=first):
        composed = context.config_loader.load_sweep_config(config, list(overrides))
        with open_dict(composed):
            composed.hydra.job.num = number
            composed.hydra.job.id = str(number)
        try:
            plain, choices, folders = split_config(composed)
            read.append(read_settings(plain, choices, folders))
        except UserError as error:
            raise _in_the_cell(overrides, error) from None
        _check_whole(plain, returns[0].cfg if returns else plain)
        returns.append(JobReturn(overrides=list(overrides), cfg=plain, hydra_cfg=composed))
    cells = []
    for overrides, settings in zip(grid, read, strict=True):  # once no name is wrong: this loads or makes the data
        try:
            cells.append(session.cell(settings))
        except UserError as error:
            raise _in_the_cell(overrides, error) from None
    if first > 0:  # A sweeper may come with its cells in batches, which together are one sweep.
        add_to_manifest(cells)
    elif left := write_manifest(cells):
        session.progress.say(
            f"sweep '{cells[0].settings.general.sweep}' no longer lists {counted(left, 'cell')} of an earlier command; "
            "what is done of them is stored, and a command that names them, too, shows them again"
        )
    return cells, returns


def _in_the_cell(overrides: Sequence[str], error: UserError) -> UserError:
    return UserError(f"{error}\n(in the cell {' '.join(filter_overrides(overrides))}; nothing was run)")


def _check_whole(config: DictConfig, first: DictConfig) -> None:
    """Raise UserError where a cell has another value than the first of what is one for all cells of a sweep."""
    for name in WHOLE:
        if config[name] != first[name]:
            raise UserError(f"{name} is one for a whole sweep, and no two values of it can be swept over; run two sweeps")


def ended(session: Session, cells: Sequence[Cell], returns: Sequence[JobReturn]) -> None:
    """Write the table and hand to Hydra what a sweeper waits for: the objective, where there is one, else the records.

    Raises UserError where cells failed; to a search a failed cell is a failed trial, which the others outlive.
    """
    searching = cells[0].searched
    for result, cell in zip(returns, cells, strict=True):
        record = cell.record()
        result.status = JobStatus.COMPLETED
        result.return_value = record if record is None or not searching else cell.objective(record)
        if searching and record is None:
            result.status = JobStatus.FAILED
            result.return_value = UserError(f"{cell.name} failed; its traceback: {cell.failure_path}")
    session.render(cells[0].settings, quiet=searching)
    if session.failed and not searching:
        lines = "\n  ".join(session.failed)
        raise UserError(f"{len(session.failed)} of {len(cells)} cells failed; the same command runs these again:\n  {lines}")
