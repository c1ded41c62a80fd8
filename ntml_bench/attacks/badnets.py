"""BadNets: a white square in the corner, under the attacker's label.

Gu, Dolan-Gavitt, Garg, "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain", arXiv 1708.06733
(2017): the pattern backdoor with a single target class.

Reported: BackdoorBench leaderboard, CIFAR-10, PreAct-ResNet18, rate 0.1, undefended ACC 91.32 / ASR 95.03 (one run).

Deviations: the square is 3x3 and touches the corner, as in later benchmarks (the paper has a single bright pixel or a small
pattern of them, on MNIST); only images of the other classes are poisoned (the paper draws from all).
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ntml_bench.attacks.base import ATTACKS, Attack, AttackConfig, AttackContext, Poisoning, check_corner
from ntml_bench.schema import number


@dataclass(frozen=True)
class BadNetsConfig(AttackConfig):
    """`trigger_size`: side of the square in pixels; `margin`: rows and columns between it and the bottom-right corner."""

    trigger_size: int = number(at_least=1)
    margin: int = number(at_least=0)


@ATTACKS.register("badnets")
class BadNets(Attack[BadNetsConfig]):
    Config: ClassVar[type[AttackConfig]] = BadNetsConfig
    published_rate: ClassVar[float | None] = 0.1

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
        triggered = images.clone()
        triggered[:, :, height - margin - size : height - margin, width - margin - size : width - margin] = 1
        return triggered
