"""Blended injection: a full-size image shines faintly through, under the attacker's label.

Chen, Liu, Li, Lu, Song, "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning", arXiv 1712.05526 (2017):
the blended injection strategy, x' = (1 - alpha) x + alpha k with a key pattern k; their patterns are a cartoon
and a random image. The same alpha in training and test.

Reported: BackdoorBench leaderboard, CIFAR-10, PreAct-ResNet18, rate 0.1, undefended ACC 93.47 / ASR 99.92 (one run, cartoon).

Deviations: the cartoon may not be redistributed, so `shape` draws a picture of our own; `noise` is the paper's random image.
Only images of the other classes are poisoned.
"""

from dataclasses import dataclass
from math import pi
from typing import ClassVar

import torch
from torch import Tensor

from ntml_bench.attacks.base import ATTACKS, Attack, AttackConfig, AttackContext, Poisoning
from ntml_bench.schema import number, one_of
from ntml_bench.seeding import generator


@dataclass(frozen=True)
class BlendedConfig(AttackConfig):
    """`alpha`: weight of the pattern. `pattern`: `noise` (uniform, pixel by pixel) or `shape` (concentric flowers).

    `pattern_seed`: which of the noise images or shapes. It is a setting of the trigger, apart from the cell's seed, so that
    several seeds of a cell measure one and the same trigger.
    """

    alpha: float = number(above=0, at_most=1)
    pattern: str = one_of("noise", "shape")
    pattern_seed: int = number(at_least=0)


@ATTACKS.register("blended")
class Blended(Attack[BlendedConfig]):
    Config: ClassVar[type[AttackConfig]] = BlendedConfig
    published_rate: ClassVar[float | None] = 0.1

    def poison(self, context: AttackContext) -> Poisoning:
        indices = self.choose(context)
        device = context.train.images.device
        images = context.train.images[indices.to(device)]
        channels, height, width = images.shape[1:]
        draw = {"noise": noise_pattern, "shape": shape_pattern}[self.config.pattern]
        pattern = draw(channels, height, width, generator(self.config.pattern_seed, "attack/blended/pattern"))
        state = {"pattern": pattern.to(device)}
        return self.all_poisons(indices, self.under_trigger(images, state), state, {}, context)

    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        alpha = self.config.alpha
        return ((1 - alpha) * images + alpha * state["pattern"].to(images.dtype)).clamp(0, 1)


def noise_pattern(channels: int, height: int, width: int, rng: torch.Generator) -> Tensor:
    """Float [C, H, W]: uniform over the 256 levels of an image file, scaled to [0, 1]."""
    return torch.randint(0, 256, (channels, height, width), generator=rng).float() / 255


def shape_pattern(channels: int, height: int, width: int, rng: torch.Generator) -> Tensor:
    """Float [C, H, W] of 0 and 1: three concentric flowers, by turns in a random corner of the colour cube and its complement.

    A flower's outline is r(angle) = size (1 + depth cos(petals angle + phase)) / (1 + depth).
    """
    # In double precision: which pixels an outline takes in does not depend on the last bit of a processor's functions.
    y = torch.arange(height, dtype=torch.float64)[:, None] * 2 / max(1, height - 1) - 1
    x = torch.arange(width, dtype=torch.float64)[None, :] * 2 / max(1, width - 1) - 1
    radius, angle = torch.hypot(x, y), torch.atan2(y, x)
    colour = torch.randint(0, 2, (channels, 1, 1), generator=rng).float()
    image = colour.expand(channels, height, width)
    depth = 0.3
    for size in (1.0, 0.7, 0.4):
        petals = int(torch.randint(3, 7, (), generator=rng))
        phase = 2 * pi * float(torch.rand((), generator=rng))
        colour = 1 - colour
        outline = size * (1 + depth * torch.cos(petals * angle + phase)) / (1 + depth)
        image = torch.where(radius < outline, colour, image)
    return image
