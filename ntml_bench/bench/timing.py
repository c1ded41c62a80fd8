"""Two works timed in turns, so that a noisy machine hurts both alike."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

import torch

Clock = Callable[[], float]


class Work(Protocol):
    """Something that goes through images in batches."""

    batch_size: int

    def prepare(self, images: int) -> int:
        """Get ready to go through about that many, at least one batch; the number that `run` will go through."""
        ...

    def run(self) -> None: ...


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of the values of all rounds, in the unit of the values."""

    median: float
    lowest: float
    highest: float
    rounds: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median(values), min(values), max(values), tuple(values))


@dataclass(frozen=True)
class Comparison:
    """Images a second of two works, and their ratio: that of each round, whose two halves saw the same machine.

    `first_images` / `second_images`: how many images a measurement went through.
    """

    first: Spread
    second: Spread
    ratio: Spread
    first_images: int
    second_images: int

    @classmethod
    def of(cls, first: Sequence[float], second: Sequence[float], first_images: int, second_images: int) -> "Comparison":
        """From the images a second of each round."""
        ratios = [one / other for one, other in zip(first, second, strict=True)]
        return cls(Spread.of(first), Spread.of(second), Spread.of(ratios), first_images, second_images)


def seconds_of(work: Callable[[], None], device: torch.device, clock: Clock) -> float:
    """How long it takes until the device has done it."""
    _synchronise(device)
    start = clock()
    work()
    _synchronise(device)
    return clock() - start


def fitted(work: Work, device: torch.device, seconds: float, least_batches: int = 1, clock: Clock = time.perf_counter) -> int:
    """Warm up, and prepare `work` for so many images that a run takes about `seconds`; the number of images.

    At least `least_batches` batches, however long these take.
    """
    images = work.prepare(work.batch_size * least_batches)
    # The first run pays for what is done once (kernels chosen, memory taken); only later ones say how fast it is.
    took = seconds_of(work.run, device, clock)
    if took > seconds:
        return images
    while (took := seconds_of(work.run, device, clock)) < seconds / 4:
        images = work.prepare(images * 2)
    batches = round(images * seconds / took / work.batch_size)
    return work.prepare(work.batch_size * max(batches, least_batches))


def alternate(
    first: Work, second: Work, images: tuple[int, int], device: torch.device, rounds: int, clock: Clock = time.perf_counter
) -> Comparison:
    """Time two prepared works in turns; `images`: how many the runs of each go through."""
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for work, count, found in zip((first, second), images, rates, strict=True):
            found.append(count / seconds_of(work.run, device, clock))
    return Comparison.of(*rates, *images)


def passes(images: int, batch_size: int, available: int) -> tuple[int, int]:
    """How to go through `images` of which only `available` are different: images a pass (whole batches), passes."""
    batches = max(1, round(images / batch_size))
    batches_a_pass = min(batches, available // batch_size)
    if batches_a_pass == 0:
        raise ValueError(f"{available} images are less than a batch of {batch_size}")
    return batches_a_pass * batch_size, -(-batches // batches_a_pass)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
