"""Where a number was made: what a record must say to be believed."""

import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ntml_bench.engine import Engine

PACKAGES = ("ntml-bench", "torch", "torchvision", "timm", "hydra-core", "omegaconf", "numpy", "scikit-learn", "safetensors")


def environment(engine: Engine) -> dict[str, Any]:
    """Package versions, device, processor, threads, precision in force, git revision and the time (UTC)."""
    device = engine.device
    return {
        **_constant(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "half_precision": engine.half,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def _constant() -> dict[str, Any]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "packages": versions,
        "processor": _processor(),
        "git_revision": _git_revision(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.machine()


def _git_revision() -> str | None:
    """The revision of this checkout, with a mark where it was changed; None for an installed package."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("-modified" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None
