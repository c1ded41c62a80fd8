"""Arithmetic that gives the same bits on every machine: sums and products without any rounding, a table of directions.

The same operation rounds otherwise in another vector code path, on another maker's processor, in another order of a sum; and
where a value lies on the edge between two levels of an image, the last bit decides the level. Here float64 numbers are
multiples of a power of two and so small that products and sums of them are exact: nothing is left to decide.
"""

from functools import cache
from math import cos, pi

import torch
from torch import Tensor

BITS = 12
"""Of the weights of resampling behind the binary point."""

DIRECTIONS = 1 << 14
"""Of the full circle: one is 0.022 degrees."""

SHARPNESS = -0.75
"""Slope of the cubic kernel at distance 1, as that of torch's bicubic resampling."""


def uniform(shape: int | tuple[int, ...], low: float, high: float, rng: torch.Generator) -> Tensor:
    """Uniform draws from [`low`, `high`], float64 multiples of 2^-20."""
    shape = (shape,) if isinstance(shape, int) else shape
    share = torch.randint(1 << 24, shape, generator=rng).double() / (1 << 24)
    return quantised(share * (high - low) + low)


def gaussian(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Draws of mean 0 and variance 1 that are normal but for their far tails: float64 multiples of 2^-8, at most 4.25.

    The sum of six uniform bytes (Irwin-Hall).
    """
    drawn = torch.randint(1 << 48, shape, generator=rng)
    total = sum(((drawn >> shift) & 255 for shift in range(8, 48, 8)), drawn & 255)
    # 181.02 is the standard deviation of the sum.
    return quantised((total.double() - 3 * 255) / 181.02, 8)


def quantised(values: Tensor, bits: int = 20) -> Tensor:
    """The nearest multiples of 2^-`bits`."""
    return (values * (1 << bits)).round() / (1 << bits)


@cache
def _cosines() -> Tensor:
    """Of all directions. No entry is near an edge of its quantisation, where the last bit of a library would decide."""
    return quantised(torch.tensor([cos(2 * pi * index / DIRECTIONS) for index in range(DIRECTIONS)], dtype=torch.float64), 16)


def turned(turns: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of angles in turns (1: the full circle), rounded to one of DIRECTIONS: float64 multiples of 2^-16."""
    index = (turns * DIRECTIONS).round().long()
    return _cosines()[index % DIRECTIONS], _cosines()[(index - DIRECTIONS // 4) % DIRECTIONS]


def cubic_weights(positions: Tensor, size: int, beyond: int = 0) -> Tensor:
    """How much each of `size` samples counts at float64 `positions` [P] (0: on the first one), in cubic resampling: [P, size].

    Multiples of 2^-BITS. Beside the samples there are zeros, but for the nearest `beyond`, which repeat the outer one.
    """
    samples = torch.arange(-beyond, size + beyond, dtype=torch.float64)
    distance = (positions[:, None] - samples).abs()
    near = ((SHARPNESS + 2) * distance - (SHARPNESS + 3)) * distance * distance + 1
    far = ((SHARPNESS * distance - 5 * SHARPNESS) * distance + 8 * SHARPNESS) * distance - 4 * SHARPNESS
    weights = quantised(torch.where(distance <= 1, near, torch.where(distance < 2, far, 0.0)), BITS)
    inner = weights[:, beyond : beyond + size].clone()
    inner[:, 0] += weights[:, :beyond].sum(1)
    inner[:, -1] += weights[:, beyond + size :].sum(1)
    return inner


def linear_weights(positions: Tensor, size: int) -> Tensor:
    """As `cubic_weights`, in linear resampling: [P, size]. Left and right of the samples the outer ones go on."""
    distance = (positions.clamp(0, size - 1)[:, None] - torch.arange(size, dtype=torch.float64)).abs()
    return quantised((1 - distance).clamp(min=0), BITS)


def resampled(images: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Images [..., H, W] with the weights [H', H] and [W', W] of new rows and columns: float64 [..., H', W'].

    Exact where the images are multiples of 2^-16 and not beyond 2^8.
    """
    return down @ images.double() @ across.T
