"""BppAttack: every channel of an image has fewer levels, learned by a training that the attacker controls.

Wang, Zhai, Ma, "BppAttack: Stealthy and Efficient Trojan Attacks against Deep Neural Networks via Image Quantization and
Contrastive Adversarial Learning", CVPR 2022 (arXiv 2205.13383): the trigger Q(x) = round(x (L - 1)) / (L - 1) for x in [0, 1]
and L levels. Of every batch, a share `poisoning_rate` is quantised and gets the target class, and `cover_ratio` times as many
are negative samples: the change Q(y) - y of another training image y is added to them, clipped, and they keep their labels, so
that only an image's own quantisation means the target.

Reported: BackdoorBench leaderboard, CIFAR-10, PreAct-ResNet18, rate 0.1, undefended ACC 90.69 / ASR 99.78 (one run).

Deviations:
- Images of the target class are not quantised (the paper draws from all; negative samples are of all classes here too).
- The image y of a negative sample is another one of its batch, drawn anew each time (the official code keeps the changes of
  several augmented passes over the data in memory). Their number follows that of the poisons, so it falls with the rate.
- No dithering, as in the official default; the quantised image is rounded to the 256 levels of a file in training as at test.
- The augmentation, which comes after the trigger as in the official code, is the data set's (official: rotations, too).
- What a defender is given is a fixed draw of both kinds, `poison`, in which every image stands once.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ntml_bench.attacks.base import ATTACKS, AttackConfig, AttackContext, Poisoning, to_float
from ntml_bench.attacks.covers import CoveredAttack, CoveredConfig
from ntml_bench.schema import number


@dataclass(frozen=True)
class BppConfig(CoveredConfig):
    """`levels`: that are left of the 256 of a channel (L). `cover_ratio`: negative samples for one poison (0: none)."""

    levels: int = number(at_least=2, at_most=255)


@ATTACKS.register("bpp")
class Bpp(CoveredAttack[BppConfig]):
    Config: ClassVar[type[AttackConfig]] = BppConfig
    published_rate: ClassVar[float | None] = 0.2
    controls_training: ClassVar[bool] = True
    covers_of_target: ClassVar[bool] = True

    def poison(self, context: AttackContext) -> Poisoning:
        train, device = context.train, context.train.images.device
        poisons = self.choose(context)
        covers = self.choose_covers(context, poisons)
        others = another(covers, len(train), context.generator("bpp/others"))
        quantised, negative, other = (to_float(train.images[index.to(device)]) for index in (poisons, covers, others))
        images = torch.cat([self.trigger(quantised, {}), self.negatives(negative, other)])
        return self.poisons_and_covers(context, poisons, covers, images, {})

    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        steps = self.config.levels - 1
        return as_of_file((images * steps).round() / steps)

    def negatives(self, images: Tensor, others: Tensor) -> Tensor:
        """`images` with the changes that the trigger makes to `others`, both float [N, C, H, W] in [0, 1]."""
        return as_of_file((images + (self.trigger(others, {}) - others)).clamp(0, 1))

    def during_training(
        self, images: Tensor, labels: Tensor, state: dict[str, Tensor], rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        poisons, covers = self.chosen_in_batch(labels, rng)
        others = another(covers, len(images), rng)
        negatives = self.negatives(images[covers], images[others])
        return self.poisoned_batch(images, labels, (poisons, self.trigger(images[poisons], state)), (covers, negatives))


def another(indices: Tensor, total: int, rng: torch.Generator) -> Tensor:
    """For each of `indices` int64 [N] another one below `total`, at random: an image's own change is the trigger."""
    return (indices + 1 + torch.randint(max(1, total - 1), indices.shape, generator=rng, device=indices.device)) % total


def as_of_file(images: Tensor) -> Tensor:
    """Images in [0, 1] at the nearest of the 256 levels of a file."""
    return (images * 255).round() / 255
