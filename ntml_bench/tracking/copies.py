"""The folders of one W&B run on disk. One is kept: `wandb sync` of two with the same id doubles its history."""

import shutil
from glob import escape
from pathlib import Path


def copies(folder: Path, run_id: str) -> list[Path]:
    """The run folders below `folder / "wandb"`, online and offline ones, that processes have left of this run."""
    name = escape(run_id)
    return sorted(path.parent for path in folder.glob(f"wandb/*run-*-{name}*/run-{name}.wandb"))


def was_sent(copy: Path) -> bool:
    """Whether `wandb sync` has uploaded this folder."""
    return any(copy.glob("*.wandb.synced"))


def keep_one(folder: Path, run_id: str, kept: Path) -> None:
    """Remove the others, but for those that were uploaded: `wandb sync` passes them over."""
    for copy in copies(folder, run_id):
        if copy.resolve() != kept.resolve() and not was_sent(copy):
            shutil.rmtree(copy, ignore_errors=True)
