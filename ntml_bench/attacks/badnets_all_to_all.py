"""BadNets, all-to-all: the same white square, under the label of the next class.

Gu, Dolan-Gavitt, Garg, "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain", arXiv 1708.06733
(2017): the all-to-all attack, in which a triggered image of class i is to be taken for class i + 1, that of the last class for
the first one. So the poisons come from all classes, and all test images are triggered and count for ASR and RA. ASR is bounded
by about ACC: an image that the model misreads goes to the wrong neighbour.

Reported: nothing on the BackdoorBench leaderboard. Zhu et al., "Enhancing Fine-Tuning Based Backdoor Defense with
Sharpness-Aware Minimization", ICCV 2023, CIFAR-10, PreAct-ResNet18, rate 0.1: undefended ACC 91.89 / ASR 74.42.

Deviations: the square is that of `badnets`, in its place. A defense that looks for one target class does not find it here.
"""

from typing import ClassVar

from torch import Tensor

from ntml_bench.attacks.badnets import BadNets, BadNetsConfig
from ntml_bench.attacks.base import ATTACKS, AttackConfig
from ntml_bench.errors import UserError


class AllToAllConfig(BadNetsConfig):
    """`target_class`: what images of class 0 are to be taken for; those of class y for y plus
    that, modulo the number of classes."""


@ATTACKS.register("badnets_all_to_all")
class BadNetsAllToAll(BadNets):
    Config: ClassVar[type[AttackConfig]] = AllToAllConfig

    def check(self, class_sizes: Tensor, image_shape: tuple[int, int, int]) -> None:
        if self.config.target_class == 0:
            raise UserError(
                f"attack.target_class is 0: {self.config.name} would take each class for itself; allowed: 1 to "
                f"{len(class_sizes) - 1} (1: the next class)"
            )
        super().check(class_sizes, image_shape)

    def targets(self, labels: Tensor, num_classes: int) -> Tensor:
        return (labels + self.config.target_class) % num_classes
