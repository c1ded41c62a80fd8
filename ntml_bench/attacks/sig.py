"""SIG: a horizontal sine wave on images of the target class, whose labels stay right.

Barni, Kallas, Tondi, "A New Backdoor Attack in CNNs by Training Set Corruption without Label Poisoning", ICIP 2019
(arXiv 1902.11237): the sinusoidal signal v(i, j) = Delta sin(2 pi j f / m) for column j of m, added to all channels, clipped.

Reported: BackdoorBench leaderboard, CIFAR-10, PreAct-ResNet18, rate 0.05, undefended ACC 93.64 / ASR 97.09 (one run).

Deviations: columns count from 0 (the paper: from 1), a shift by one pixel; one Delta in training and test (the paper also tries
a larger one at test); Delta 40 on [0, 255] as in later benchmarks (the paper: 20 to 60, by data set).
"""

from dataclasses import dataclass
from math import pi, sin
from typing import ClassVar

import torch
from torch import Tensor

from ntml_bench.attacks.base import ATTACKS, Attack, AttackConfig, AttackContext, Poisoning
from ntml_bench.schema import number


@dataclass(frozen=True)
class SigConfig(AttackConfig):
    """`amplitude`: height of the wave in levels of 0..255; `frequency`: full periods across the image's width."""

    amplitude: float = number(above=0, at_most=255)
    frequency: float = number(above=0)


@ATTACKS.register("sig")
class Sig(Attack[SigConfig]):
    Config: ClassVar[type[AttackConfig]] = SigConfig
    published_rate: ClassVar[float | None] = 0.05
    clean_label: ClassVar[bool] = True

    def poison(self, context: AttackContext) -> Poisoning:
        indices = self.choose(context)
        images = context.train.images[indices.to(context.train.images.device)]
        return self.all_poisons(indices, self.under_trigger(images, {}), {}, {})

    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        width = images.shape[3]
        # Rounded, so that it does not depend on the last bit of a processor's sine.
        sines = [round(sin(2 * pi * self.config.frequency * column / width), 7) for column in range(width)]
        wave = self.config.amplitude / 255 * torch.tensor(sines, device=images.device, dtype=images.dtype)
        return (images + wave).clamp(0, 1)
