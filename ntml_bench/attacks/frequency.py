"""A trigger in the frequency domain: single coefficients of the discrete cosine transform of an image's two chroma channels.

Transform, addition of a constant and inverse transform are linear, as are the changes to and from a colour space of luma and
chroma. So the whole is one fixed pattern that is added to every image: of each frequency k the basis function
(2 / b) cos((2 i + 1) k pi / 2 b) cos((2 j + 1) k pi / 2 b) in each block of b x b pixels (DCT-II, orthonormal), times the
magnitude, times what a step of both chroma channels adds to red, green and blue. The luma stays.
"""

from dataclasses import dataclass
from functools import cache
from math import pi, sqrt
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from ntml_bench.attacks.base import Attack, AttackConfig, AttackContext, Poisoning, to_float
from ntml_bench.data.exact import turned
from ntml_bench.errors import UserError
from ntml_bench.schema import number


@dataclass(frozen=True, kw_only=True)
class FrequencyConfig(AttackConfig):
    """`magnitude`: what is added to each coefficient, where images are 0..255; `block_size`: side b of a block in pixels.

    `frequencies`: the numbers k of the coefficients (k, k), each from 0 to b - 1.
    """

    magnitude: float = number(above=0)
    block_size: int = number(at_least=1)
    frequencies: list[int]


C = TypeVar("C", bound=FrequencyConfig)


class FrequencyAttack(Attack[C]):
    """What both attacks share. `chroma`: what a step of both chroma channels adds to red, green and blue."""

    chroma: ClassVar[tuple[float, float, float]]

    def check(self, class_sizes: Tensor, image_shape: tuple[int, int, int]) -> None:
        super().check(class_sizes, image_shape)
        config = self.config
        size, asked = config.block_size, config.frequencies
        channels, height, width = image_shape
        if not asked or len(set(asked)) < len(asked) or min(asked) < 0 or max(asked) >= size:
            raise UserError(
                f"attack.frequencies is {asked} with attack.block_size {size}; allowed: one or more different ones from 0 to "
                f"{size - 1}"
            )
        if height % size or width % size:
            raise UserError(
                f"attack.block_size is {size}: images of {height} x {width} cannot be cut into such blocks; allowed: what "
                "divides both sides (and attack.frequencies below it)"
            )
        if channels not in (1, 3):
            raise UserError(f"attack {config.name} takes images of 1 channel (grey) or 3 (red, green, blue), not of {channels}")

    def poison(self, context: AttackContext) -> Poisoning:
        indices = self.choose(context)
        images = to_float(context.train.images[indices.to(context.train.images.device)])
        return self.all_poisons(indices, self.added(images, self.config.magnitude), {}, {})

    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        return self.added(images, self.config.magnitude)

    def added(self, images: Tensor, magnitude: float) -> Tensor:
        """`images`, float [N, C, H, W] in [0, 1], with the pattern of this magnitude."""
        channels, height, width = images.shape[1:]
        pattern = diagonal_pattern(height, width, self.config.block_size, self.config.frequencies)
        weights = torch.tensor(self.chroma if channels == 3 else (1.0,), dtype=torch.float64)
        change = magnitude * weights[:, None, None] * pattern / 255
        return (images + change.to(images)).clamp(0, 1)


def diagonal_pattern(height: int, width: int, block_size: int, frequencies: list[int]) -> Tensor:
    """Float64 [H, W]: in every block the sum of the orthonormal DCT-II basis functions (k, k), k in `frequencies`.

    From a table of cosines, so that no level depends on a processor's: within 1e-4 of the largest value, and where `block_size`
    is a power of 2 up to 4096, within 2^-16.
    """
    places = 2 * torch.arange(block_size, dtype=torch.float64) + 1
    block = torch.zeros(block_size, block_size, dtype=torch.float64)
    for frequency in frequencies:
        wave, _ = turned(places * frequency / (4 * block_size))
        block += wave[:, None] * wave[None, :] * (2 if frequency else 1) / block_size
    return block[torch.arange(height) % block_size][:, torch.arange(width) % block_size]


@cache
def low_pass(size: int, kept: int) -> Tensor:
    """Float64 [size, size]: what leaves of `size` samples the part of their first `kept` frequencies (DCT-II, orthonormal).

    Down and across an image, P X Q, it keeps the rectangle of its low coefficients: a projection, so twice is once.
    """
    places = 2 * torch.arange(size, dtype=torch.float64) + 1
    waves = torch.cos(torch.arange(kept, dtype=torch.float64)[:, None] * places * (pi / (2 * size))) * sqrt(2 / size)
    waves[0] /= sqrt(2)
    return waves.T @ waves
