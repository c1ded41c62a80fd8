"""LF, low frequency: one smooth dome is added to the whole image, under the attacker's label.

Zeng, Park, Mao, Jia, "Rethinking the Backdoor Attacks' Triggers: A Frequency Perspective", ICCV 2021 (arXiv 2104.03413): a
perturbation that fools a model is smoothed by a Gaussian filter and rescaled to [0, 0.2], over and over, until it does.

Reported: BackdoorBench leaderboard, CIFAR-10, PreAct-ResNet18, rate 0.1, undefended ACC 93.19 / ASR 99.28 (one run).

Deviations:
- No model: a loop that smooths and rescales forgets what it smooths. Each channel ends as a multiple of D[i, j] = e_i e_j with
  the first eigenvector e of the filter, and only the weights of the channels come from the model. Here they are settings;
  those of conf/attack/lf.yaml are the leaderboard's for CIFAR-10 (the authors' own there: about 0.13, 1, 0.03).
- Images of other sizes than 32 x 32 get the same curve, resampled: our choice. Grey images get the dome itself.
- Only images of the other classes are poisoned.
"""

from dataclasses import dataclass
from functools import cache
from math import exp, fsum
from typing import ClassVar

import torch
from torch import Tensor

from ntml_bench.attacks.base import ATTACKS, Attack, AttackConfig, AttackContext, Poisoning, to_float
from ntml_bench.data.exact import linear_weights, quantised
from ntml_bench.errors import UserError
from ntml_bench.schema import number

SIDE, TAPS, BEFORE, SIGMA = 32, 30, 14, 6.0
"""Of the filter: pixels of an image's side, taps, how many of them stand before a pixel, standard deviation in pixels."""


@dataclass(frozen=True, kw_only=True)
class LfConfig(AttackConfig):
    """`amplitude`: height of the dome in levels of 0..255; `channel_weights`: share of it that each channel gets, 0 to 1."""

    amplitude: float = number(above=0, at_most=255)
    channel_weights: list[float]


@ATTACKS.register("lf")
class LowFrequency(Attack[LfConfig]):
    Config: ClassVar[type[AttackConfig]] = LfConfig
    published_rate: ClassVar[float | None] = 0.1

    def check(self, class_sizes: Tensor, image_shape: tuple[int, int, int]) -> None:
        super().check(class_sizes, image_shape)
        channels, weights = image_shape[0], self.config.channel_weights
        if channels > 1 and len(weights) != channels:
            raise UserError(
                f"attack.channel_weights is {weights}; allowed: {channels} weights, one for each channel of the images"
            )
        if not weights or min(weights) < 0 or max(weights) > 1 or max(weights) == 0:
            raise UserError(f"attack.channel_weights is {weights}; allowed: each at least 0 and at most 1, not all of them 0")

    def poison(self, context: AttackContext) -> Poisoning:
        indices = self.choose(context)
        images = to_float(context.train.images[indices.to(context.train.images.device)])
        return self.all_poisons(indices, self.trigger(images, {}), {}, {})

    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        channels, height, width = images.shape[1:]
        weights = torch.tensor(self.config.channel_weights if channels > 1 else [1.0], dtype=torch.float64)
        change = self.config.amplitude * weights[:, None, None] * dome(height, width) / 255
        return (images + change.to(images)).clamp(0, 1)


def dome(height: int, width: int) -> Tensor:
    """Float64 [H, W] in (0, 1]: e_i e_j, the highest value of e being 1."""
    places = ((torch.arange(side, dtype=torch.float64) + 0.5) * SIDE / side - 0.5 for side in (height, width))
    down, across = (linear_weights(place, SIDE) @ first_eigenvector() for place in places)
    return down[:, None] * across


def smoothing_matrix() -> Tensor:
    """Float64 [32, 32], multiples of 2^-20: the Gaussian filter along one side, with zeros beyond the image."""
    weights = [exp(-((tap - (TAPS - 1) / 2) ** 2) / (2 * SIGMA**2)) for tap in range(TAPS)]
    taps = quantised(torch.tensor(weights, dtype=torch.float64) / fsum(weights))
    offset = torch.arange(SIDE) - torch.arange(SIDE)[:, None] + BEFORE
    return torch.where((offset >= 0) & (offset < TAPS), taps[offset.clamp(0, TAPS - 1)], 0.0)


@cache
def first_eigenvector() -> Tensor:
    """Of the filter, with the highest value 1: float64 [32], multiples of 2^-16. By powers, in exact products and sums."""
    matrix = smoothing_matrix()
    vector = torch.ones(SIDE, dtype=torch.float64)
    for _ in range(100):
        vector = matrix @ vector
        vector = quantised(vector / vector.max())
    return quantised(vector, 16)
