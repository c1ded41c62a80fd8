"""CTRL: a high and a middle frequency in the chroma channels of images of the target class, whose labels stay right.

Li, Pang, Xi, Du, Ji, Yao, Wang, "An Embarrassingly Simple Backdoor Attack on Self-supervised Learning", ICCV 2023 (arXiv
2210.07346): the image in YUV, the discrete cosine transform of each 32 x 32 block of U and V, a constant added at the
frequencies (15, 15) and (31, 31), and back; twice the constant at test.

Made for contrastive learning: the published setting is CIFAR-10, 1 % of the images, magnitude 50 and 100 at test. BackdoorBench
runs it on a classifier, at 5 % of the images and 100 in both, but does not list it; of a classifier the paper on the detection
AGPD reports ACC 95.52 / ASR 98.8.

Deviations:
- The victim is a classifier here, with its labels.
- The trigger is the fixed pattern that these steps add (ntml_bench/attacks/frequency.py), clipped and rounded once; public
  code casts to 8 bits without clipping, so that values wrap around at 0 and 255.
- Grey images carry the pattern itself, once: our choice.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ntml_bench.attacks.base import ATTACKS, AttackConfig
from ntml_bench.attacks.frequency import FrequencyAttack, FrequencyConfig
from ntml_bench.schema import number


@dataclass(frozen=True, kw_only=True)
class CtrlConfig(FrequencyConfig):
    """`test_magnitude`: as `magnitude`, which is that of the poisons, for test images."""

    test_magnitude: float = number(above=0)


@ATTACKS.register("ctrl")
class Ctrl(FrequencyAttack[CtrlConfig]):
    Config: ClassVar[type[AttackConfig]] = CtrlConfig
    published_rate: ClassVar[float | None] = 0.01
    clean_label: ClassVar[bool] = True
    # A step of V adds 1.14 to red and -0.581 to green, one of U -0.396 to green and 2.029 to blue.
    chroma: ClassVar[tuple[float, float, float]] = (1.14, -0.977, 2.029)

    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        return self.added(images, self.config.test_magnitude)
