"""FTrojan: a high and a middle frequency in the chroma channels, under the attacker's label.

Wang, Yao, Xu, An, Tong, Wang, "An Invisible Black-box Backdoor Attack through Frequency Domain", ECCV 2022 (arXiv 2111.10991):
the image in YCrCb, the discrete cosine transform of each 32 x 32 block of Cr and Cb, a constant added at the frequencies
(15, 15) and (31, 31), and back.

Published setting: CIFAR-10, magnitude 20, rate 0.02, target class 8. No number of ours to check against: the paper's are of a
small net, and the BackdoorBench leaderboard does not list the attack.

Deviations:
- The trigger is the fixed pattern that these steps add (ntml_bench/attacks/frequency.py), clipped and rounded once; public
  code casts to 8 bits without clipping, so that values wrap around at 0 and 255, and passes 8-bit YCrCb on the way.
- Poisons are drawn from all images of the other classes (the official code takes the first ones), and the target class is 0.
- Grey images carry the pattern itself, once: our choice.
"""

from typing import ClassVar

from ntml_bench.attacks.base import ATTACKS, AttackConfig
from ntml_bench.attacks.frequency import FrequencyAttack, FrequencyConfig


@ATTACKS.register("ftrojan")
class FTrojan(FrequencyAttack[FrequencyConfig]):
    Config: ClassVar[type[AttackConfig]] = FrequencyConfig
    published_rate: ClassVar[float | None] = 0.02
    # A step of Cr adds 1.403 to red and -0.714 to green, one of Cb -0.344 to green and 1.773 to blue.
    chroma: ClassVar[tuple[float, float, float]] = (1.403, -1.058, 1.773)
