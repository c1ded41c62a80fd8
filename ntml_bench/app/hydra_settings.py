"""Hydra's own settings: which of them a command may change, and what to use instead of the others.

A sweep's cells are no jobs of Hydra and have no folders of its: what it would do for a job is refused, not left undone.
"""

from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from ntml_bench.errors import UserError

FREE = ("mode", "searchpath", "sweeper", "launcher", "help", "hydra_help", "callbacks")
"""The parts of `hydra` that do what Hydra says of them, through any launcher (of `callbacks` see below)."""
PLACES = "outputs=FOLDER and sweep=NAME say where everything is written"
INSTEAD = {
    "run": PLACES,
    "sweep": PLACES,
    "output_subdir": "each cell's settings stand in its record, and --cfg job shows them",
    "job.chdir": f"a command stays in the folder that it is started in; {PLACES}",
    "job.name": "sweep=NAME names a sweep",
    "job.env_set": "set the variable before the command; on Slurm cluster.setup does",
    "job.env_copy": "jobs have the environment of the command; on Slurm cluster.setup changes it",
    "verbose": "the progress is printed, and a cell's record holds what it did",
    "job_logging": "the progress is printed, and a cell's record holds what it did",
    "hydra_logging": "the progress is printed, and a cell's record holds what it did",
}
"""What is fixed, and what there is instead."""


def check_hydra(hydra: DictConfig, outputs: Any, sweep: Any, *, jobs: bool) -> None:
    """Raise UserError for a setting of Hydra that would do nothing, from the command line or a primary config.

    `hydra`: the node of a composed config; `jobs`: whether Hydra runs the cells, as it does a single one.
    """
    folder = f"{outputs}/sweeps/{sweep}"
    fixed = {
        "run.dir": folder,
        "sweep.dir": folder,
        "sweep.subdir": ".",
        "output_subdir": None,
        "job.chdir": False,
        "job.env_set": {},
        "job.env_copy": [],
        "verbose": False,
    }
    for key, value in fixed.items():
        if OmegaConf.select(cast(Any, hydra), key) != value:
            raise _refused(f"hydra.{key}")
    for group in ("job_logging", "hydra_logging"):
        if hydra.runtime.choices[f"hydra/{group}"] not in ("none", "disabled"):
            raise _refused(f"hydra/{group}")
    for word in hydra.overrides.hydra:
        key = word.partition("=")[0].lstrip("+~").replace("/", ".").removeprefix("hydra.")
        if key not in fixed and key not in ("job_logging", "hydra_logging") and key.partition(".")[0] not in FREE:
            raise _refused(f"hydra.{key}")
    if hydra.callbacks and not jobs:
        raise UserError("hydra.callbacks: the cells of a sweep are no jobs of Hydra's, which it could call back for")


def _refused(name: str) -> UserError:
    key = name.replace("/", ".").removeprefix("hydra.")
    instead = INSTEAD.get(key) or INSTEAD.get(key.partition(".")[0], f"of Hydra's settings these can: {', '.join(FREE)}")
    return UserError(f"{name} cannot be changed here: {instead}")
