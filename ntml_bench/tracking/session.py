"""A W&B run that prints nothing, asks nothing, collects nothing of the machine, and does what its settings say only."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wandb import Run

# Each of these would make our run another one (resumed, part of a W&B sweep, switched off) behind the user's back.
DISTURBING = (
    "MODE",
    "DISABLED",
    "RESUME",
    "RESUME_FROM",
    "FORK_FROM",
    "RUN_ID",
    "SWEEP_ID",
    "SWEEP_PARAM_PATH",
    "LAUNCH",
    "DIR",
)
REPORTING = "WANDB_ERROR_REPORTING"


def installed() -> bool:
    """Whether wandb can be found; it is not imported for that."""
    try:
        return find_spec("wandb") is not None
    except (ImportError, ValueError):
        return False


@contextmanager
def undisturbed(*, offline: bool) -> Iterator[None]:
    """Without the variables that change what a run is, and without a terminal on which W&B could ask for a key."""
    names = [*(f"WANDB_{part}" for part in DISTURBING), REPORTING]
    kept = {name: os.environ[name] for name in names if name in os.environ}
    for name in names[:-1]:
        os.environ.pop(name, None)
    if offline:
        # W&B's service would send crash reports even then.
        os.environ[REPORTING] = "false"
    stdin, sys.stdin = sys.stdin, StringIO()
    try:
        yield
    finally:
        sys.stdin = stdin
        os.environ.pop(REPORTING, None)
        os.environ.update(kept)


def open_run(mode: str, folder: Path, init_timeout: float, finish_timeout: float, **description: Any) -> "Run":
    """A new run below `folder / "wandb"`; times in seconds. Raises what W&B raises, in `online` after `init_timeout`."""
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    wanted = {
        "mode": mode,
        "silent": True,
        "console": "off",
        "init_timeout": init_timeout,
        "login_timeout": init_timeout,
        "finish_timeout": finish_timeout,
        "finish_timeout_raises": True,
        "disable_git": True,
        "save_code": False,
        "x_disable_machine_info": True,
        "x_disable_meta": True,
        "x_disable_stats": True,
        "x_save_requirements": False,
    }
    # Older versions refuse settings that they do not know.
    known = {name: value for name, value in wanted.items() if name in wandb.Settings.model_fields}
    # Setting up first makes the log-in silent as well.
    wandb.setup(wandb.Settings(**known))
    run = wandb.init(dir=folder, reinit="finish_previous", settings=wandb.Settings(**known), **description)
    if run.disabled:
        raise RuntimeError("W&B is switched off")
    return run


def forget_server() -> None:
    """End W&B's service process: it remembers a run that failed; a new one starts with the next run."""
    import wandb

    wandb.teardown()
