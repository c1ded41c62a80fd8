"""Where a number was made: what a record must say to be believed."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ntml_bench.engine import Engine
from ntml_bench.machine import processor

PACKAGES = ("ntml-bench", "torch", "torchvision", "timm", "hydra-core", "omegaconf", "numpy", "scikit-learn", "safetensors")
CPU_LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
"""Variables by which torch, oneDNN and MKL are told to use less than the processor has."""


def environment(engine: Engine) -> dict[str, Any]:
    """Package versions, device, processor and its instructions, threads, precision in force, git revision, the time (UTC)."""
    device = engine.device
    return {
        **_constant(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "half_precision": engine.half,
        "precision_by": engine.chosen_by,
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
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu_instructions": sorted(name for name, there in torch.cpu.get_capabilities().items() if there is True),
        "cpu_limits": {name: os.environ[name] for name in CPU_LIMITS if name in os.environ},
        "git_revision": _git_revision(),
    }


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
