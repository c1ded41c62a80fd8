"""W&B's environment variables that say otherwise than the settings: refused, because no run would follow them."""

import os
from collections.abc import Mapping
from pathlib import Path

from ntml_bench.errors import UserError
from ntml_bench.tracking.session import IDENTITY
from ntml_bench.tracking.tracker import TrackingConfig

MODES = {"dryrun": "offline", "run": "online"}
"""W&B's other names of them."""
OWN_IDENTITY = "a cell's run has an id, a name and a group of its own (sweep=NAME is the group)"
IDENTITIES = ("WANDB_RESUME", "WANDB_RESUME_FROM", "WANDB_FORK_FROM", "WANDB_LAUNCH", "WANDB_NAME", "WANDB_RUN_GROUP")


def check_variables(config: TrackingConfig, folder: Path, environment: Mapping[str, str] = os.environ) -> None:
    """Raise UserError for a variable that asks for other runs than `config` and `folder`, the sweep's, make.

    With mode none no run is written, whatever the variables say.
    """
    if config.mode == "none":
        return
    given = {name: value for name, value in environment.items() if name.startswith("WANDB_") and value}
    mode = given.get("WANDB_MODE", config.mode).lower()
    if MODES.get(mode, mode) != config.mode:
        instead = mode if mode in ("online", "offline") else "none"
        raise _refused("WANDB_MODE", given, f"tracking.mode is {config.mode}; tracking={instead} is what it asks for")
    if given.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes", "on"):
        raise _refused("WANDB_DISABLED", given, f"tracking.mode is {config.mode}; tracking=none writes no runs")
    for name, setting in (("WANDB_PROJECT", config.project), ("WANDB_ENTITY", config.entity)):
        if setting is not None and given.get(name, setting) != setting:
            key = f"tracking.{name.removeprefix('WANDB_').lower()}"
            raise _refused(name, given, f"{key} is {setting}; {key}={given[name]} is what it asks for")
    if config.agent:
        return  # the agent's variables say who the run is, and where
    if "WANDB_DIR" in given and Path(given["WANDB_DIR"]).resolve() != folder.resolve():
        raise _refused("WANDB_DIR", given, f"runs are written to {folder / 'wandb'}; outputs=FOLDER names another place")
    for name in IDENTITY:
        if name in given:
            raise _refused(name, given, f"{OWN_IDENTITY}; tracking=agent makes it the run of a W&B agent")
    for name in IDENTITIES:
        if name in given:
            raise _refused(name, given, OWN_IDENTITY)


def _refused(name: str, given: Mapping[str, str], why: str) -> UserError:
    return UserError(f"{name}={given[name]} is set in the environment, but {why} (or unset {name})")
