"""BadNets: a small square in the corner, white by default, under the attacker's label.

Gu, Dolan-Gavitt, Garg, "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain", arXiv 1708.06733
(2017): the pattern backdoor with a single target class.

Reported: BackdoorBench leaderboard, CIFAR-10, PreAct-ResNet18, rate 0.1, undefended ACC 91.32 / ASR 95.03 (one run).

Deviations:
- The square is 3x3 and touches the corner, as in later benchmarks (the paper has a single bright pixel, here
  `trigger_size` 1, or a small pattern of them, on MNIST).
- `pattern=half_checker` at 3x3 is the trigger of backdoor-toolbox; `checker` is ours.
- Only images of the other classes are poisoned (the paper draws from all).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ntml_bench.attacks.base import ATTACKS, Attack, AttackConfig, AttackContext, Poisoning, check_corner
from ntml_bench.schema import number, one_of

WHITE = "white"


@dataclass(frozen=True)
class BadNetsConfig(AttackConfig):
    """`trigger_size`: side of the square in pixels; `margin`: rows and columns between it and the bottom-right corner.

    `pattern`: of its pixels: all white, or white and black by turns, white at the bottom-right corner (checker), or that and
    black above the diagonal from the bottom-left to the top-right corner (half_checker).
    """

    trigger_size: int = number(at_least=1)
    margin: int = number(at_least=0)
    pattern: str = one_of(WHITE, "checker", "half_checker")


@ATTACKS.register("badnets")
class BadNets(Attack[BadNetsConfig]):
    Config: ClassVar[type[AttackConfig]] = BadNetsConfig
    published_rate: ClassVar[float | None] = 0.1

    def determining(self) -> dict[str, Any]:
        settings = super().determining()
        if self.config.pattern == WHITE:
            del settings["pattern"]  # so what was made before there was a choice keeps its key
        return settings

    def check(self, class_sizes: Tensor, image_shape: tuple[int, int, int]) -> None:
        super().check(class_sizes, image_shape)
        check_corner(self.config.trigger_size, self.config.margin, image_shape)

    def poison(self, context: AttackContext) -> Poisoning:
        indices = self.choose(context)
        images = context.train.images[indices.to(context.train.images.device)]
        return self.all_poisons(indices, self.under_trigger(images, {}), {}, {}, context)

    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        height, width = images.shape[2:]
        size, margin = self.config.trigger_size, self.config.margin
        down, across = (slice(side - margin - size, side - margin) for side in (height, width))
        triggered = images.clone()
        triggered[:, :, down, across] = square(size, self.config.pattern).to(images)
        return triggered


def square(size: int, pattern: str) -> Tensor:
    """The trigger, float [size, size]: 1 is white, 0 black."""
    if pattern == WHITE:
        return torch.ones(size, size)
    # How far a pixel is from the bottom-right corner, along both sides together.
    steps = torch.arange(size - 1, -1, -1)[:, None] + torch.arange(size - 1, -1, -1)
    white = steps % 2 == 0
    return (white & (steps < size) if pattern == "half_checker" else white).float()
