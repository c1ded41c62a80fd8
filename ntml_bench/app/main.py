"""`ntml-bench`: the Hydra application. One cell, or a grid of cells."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ntml_bench.app.arguments import checked
from ntml_bench.app.command import as_typed
from ntml_bench.app.composition import SweepsOnSearchPath, config_folder
from ntml_bench.app.explain import explain, refused_key
from ntml_bench.app.hydra_settings import check_hydra
from ntml_bench.app.imports import lasting_imports
from ntml_bench.app.options import check_options
from ntml_bench.app.partial import left_to_the_cells
from ntml_bench.app.primary import said_to_be_a_sweep
from ntml_bench.app.signals import stopped_by_any_signal
from ntml_bench.app.where import asked_where, show_where
from ntml_bench.errors import UserError

_mistakes: list[UserError] = []
"""Of a single run: Hydra prints lines of its own about what a task raises."""


def task(config: DictConfig) -> dict[str, float | None] | float | None:
    """`run_cell`; a single run leaves a user's mistake in `_mistakes`."""
    try:
        return run_cell(config)
    except UserError as error:
        if cast(DictConfig, HydraConfig.get()).mode != RunMode.RUN:
            raise
        _mistakes.append(error)
        return None


def run_cell(config: DictConfig) -> dict[str, float | None] | float:
    """The task of a single run, and of each job of a launcher that starts processes of its own.

    Returns the objective, where there is one: a sweeper that searches waits for it.
    """
    # Here, because they import torch, which `--help` and `--cfg` do without.
    with lasting_imports():
        from rich.console import Console

        from ntml_bench.app.fitted import option_folders
        from ntml_bench.app.manifest import add_to_manifest
        from ntml_bench.app.runners import runners_of
        from ntml_bench.app.session import Session
        from ntml_bench.app.settings import read_settings

    hydra_config = cast(DictConfig, HydraConfig.get())
    check_hydra(hydra_config, config.outputs, config.sweep, jobs=True)
    check_options(config, hydra_config.runtime)
    cluster = config.cluster.name
    if cluster != "threads" and hydra_config.mode == RunMode.RUN:
        raise UserError(f"cluster={cluster} is for sweeps: add -m; a single cell runs where it is started")
    session = Session(1, Console())
    try:
        cell = session.cell(read_settings(config, hydra_config.runtime.choices, option_folders(hydra_config.runtime)))
        add_to_manifest([cell])
        (record,) = session.run([cell], runners_of(cell.settings, single=True))
    finally:
        session.close()
    if record is None:
        raise UserError(f"the cell failed: {session.failed[0]}\nIts traceback: {cell.failure_path}")
    objective = cell.objective(record)
    return record["after"] if objective is None else objective


def _run(application: Callable[[], object]) -> None:
    """Hydra's application with the words of the command line as Hydra takes them."""
    _mistakes.clear()
    refused: HydraException | None = None
    with as_typed() as (program, *words):
        words, key = asked_where(words)
        words = checked(words)
        while True:
            sys.argv = [program, *words]
            try:
                application() if key is None else show_where(words, key)
                if _mistakes:
                    raise _mistakes[0]
                return
            except HydraException as error:
                if refused is not None and "requires --multirun" in str(error):
                    raise refused from None  # it is no sweep, whose cells could be asked
                # Hydra holds what a sweep sets against its own default options, which need not be among the swept ones.
                left = said_to_be_a_sweep(words, error) or left_to_the_cells(words, refused_key(error) or "")
                if left is None:
                    raise
                words, refused = left, error


def main() -> None:
    """Entry point: exit code 0, 1 for a mistake of the user or a failed cell, 130 for an interrupt or a `kill`."""
    # Exceptions come out of Hydra as they are; they are put into words below.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    Plugins.instance().register(SweepsOnSearchPath)
    # Hydra 1.3 wants to be told which version's defaults to use; 1.4 warns of being told.
    version = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}
    application = hydra.main(config_path=str(config_folder("conf")), config_name="config", **version)(task)
    try:
        with stopped_by_any_signal():
            _run(application)
    except UserError as error:
        sys.exit(f"ntml-bench: {error}")
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        sys.exit(f"ntml-bench: {explain(error)}")
    except OSError as error:
        if error.filename is None:
            raise
        reason = (error.strerror or str(error)).lower()
        sys.exit(f"ntml-bench: cannot use {error.filename}: {reason}; outputs=FOLDER names where everything is written")
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be gone
            print("\nntml-bench: interrupted; the same command goes on where it was", file=sys.stderr, flush=True)
        os._exit(130)  # without waiting for the cells in other threads: what they have not stored is made again


if __name__ == "__main__":
    main()
