"""Which precision `precision=auto` means: measured, and kept; or, where the digits count, by what the processor has.

Instructions for bfloat16 do not make it the faster one: a processor was seen that has them and trains a small net 1.3 times as
fast in float32. The choice is part of the keys of models, so a machine measures once.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import nn

from ntml_bench.files import StorageError
from ntml_bench.machine import has_bfloat16, processor
from ntml_bench.store import Artifact, Store, key_of

BFLOAT16, FLOAT32 = "bfloat16", "float32"
SECONDS = 0.1
"""Of the measurement, about."""
LEAST_ROUNDS = 5

Seconds = dict[str, float]


def automatic(device: torch.device, deterministic: bool, cache_dir: Path | None) -> tuple[str, str]:
    """The precision, and in words what chose it.

    On a CPU with bfloat16 instructions the faster one, as it was measured first: that is kept in `cache_dir` for the model of
    the CPU and the version of torch. Deterministic runs take bfloat16 there: it ends in the same digits on more machines, and
    nothing that differs from run to run may choose. Without such instructions float32, on a GPU with them bfloat16.
    """
    if not has_bfloat16(device):
        return FLOAT32, "no bfloat16 instructions"
    if device.type != "cpu" or deterministic:
        return BFLOAT16, "bfloat16 instructions"
    seconds = measured_here() if cache_dir is None else kept_seconds(cache_dir)
    chosen = min(seconds, key=lambda name: seconds[name])
    return chosen, "measured: " + ", ".join(f"{name} {1000 * value:.2f} ms" for name, value in seconds.items())


def kept_seconds(cache_dir: Path) -> Seconds:
    """The measurement that was made first on a machine like this; where nothing can be written, that of this process."""
    key = key_of({"processor": processor(), "torch": str(torch.__version__)})

    def make() -> Artifact:
        return Artifact({"processor": processor(), "torch": str(torch.__version__), "seconds": measured_here()}, {})

    with suppress(StorageError):
        return dict(Store(cache_dir).get_or_make("precision", key, make).record["seconds"])
    return measured_here()


@cache
def measured_here() -> Seconds:
    """Once a process."""
    return measure()


def measure(clock: Callable[[], float] = time.perf_counter) -> Seconds:
    """Seconds of a training step of two convolutions in each precision: the best of several, in turns."""
    with torch.random.fork_rng(devices=[]):
        net = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1))
        images = torch.zeros(8, 32, 16, 16).to(memory_format=torch.channels_last)
    net = net.to(memory_format=torch.channels_last)

    def step(precision: str) -> float:
        start = clock()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == BFLOAT16):
            loss = net(images).sum()
        loss.backward()
        return clock() - start

    found: dict[str, list[float]] = {name: [] for name in (BFLOAT16, FLOAT32)}
    for name in found:
        step(name)  # kernels are made in the first one
    while len(found[FLOAT32]) < LEAST_ROUNDS or sum(map(sum, found.values())) < SECONDS:
        for name, times in found.items():
            times.append(step(name))
    return {name: min(times) for name, times in found.items()}
