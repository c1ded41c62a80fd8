"""Random-position BadNets: a small patch at a place of its own in each image, under the attacker's label.

Salem, Wen, Backes, Ma, Zhang, "Dynamic Backdoor Attacks Against Machine Learning Models", EuroS&P 2022 (arXiv 2003.03675): of
the Random Backdoor the random place of the trigger, in training and at test.

No number of ours to check against: the BackdoorBench leaderboard does not have the attack.

Deviations:
- The place is drawn by a hash of the image's own pixels (multilinear, with a random key of the cell's seed), not anew each
  time: so an image has one trigger, before and behind a defense and whatever batch it stands in.
- The patch is white or a checkerboard, the same everywhere; the paper draws patterns, too. Places are any at which the patch
  lies wholly inside; the paper's are a fixed set.
- Only images of the other classes are poisoned.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ntml_bench.attacks.base import ATTACKS, Attack, AttackConfig, AttackContext, Poisoning, to_float, to_uint8
from ntml_bench.errors import UserError
from ntml_bench.schema import number, one_of


@dataclass(frozen=True, kw_only=True)
class BadNetsRandomConfig(AttackConfig):
    """`patch_size`: side of the patch in pixels. `pattern`: `white`, or `checker`: white and black pixels by turns, white at
    the patch's corner."""

    patch_size: int = number(at_least=1)
    pattern: str = one_of("white", "checker")


@ATTACKS.register("badnets_random")
class BadNetsRandom(Attack[BadNetsRandomConfig]):
    Config: ClassVar[type[AttackConfig]] = BadNetsRandomConfig
    published_rate: ClassVar[float | None] = 0.1

    def check(self, class_sizes: Tensor, image_shape: tuple[int, int, int]) -> None:
        super().check(class_sizes, image_shape)
        _, height, width = image_shape
        if self.config.patch_size > min(height, width):
            raise UserError(
                f"attack.patch_size is {self.config.patch_size}: larger than the image ({height} x {width}); "
                f"allowed: at most {min(height, width)}"
            )

    def poison(self, context: AttackContext) -> Poisoning:
        indices = self.choose(context)
        train = context.train.images
        state = self.trigger_state(context)
        images = to_float(train[indices.to(train.device)])
        return self.all_poisons(indices, self.trigger(images, state), state, {}, context)

    def trigger_state(self, context: AttackContext) -> dict[str, Tensor]:
        train = context.train.images
        rng = context.generator("badnets_random/key")
        key = torch.randint(-(2**62), 2**62, (2, train[:1].numel()), generator=rng)
        return {"key": key.to(train.device)}

    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        height, width = images.shape[2:]
        size = self.config.patch_size
        top, left = places(images, state["key"], (height - size + 1, width - size + 1))
        down = torch.arange(height, device=images.device) - top[:, None]
        across = torch.arange(width, device=images.device) - left[:, None]
        inside = ((down >= 0) & (down < size))[:, :, None] & ((across >= 0) & (across < size))[:, None, :]
        patch = torch.ones_like(inside)
        if self.config.pattern == "checker":
            patch = (down[:, :, None] + across[:, None, :]) % 2 == 0
        return torch.where(inside[:, None], patch[:, None].to(images.dtype), images)


def places(images: Tensor, key: Tensor, room: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Two numbers for each image, int64 [N], from 0 to below each of `room`: hashes of its pixels as a file would hold them.

    `key` int64 [2, C H W]. The sum of the products of pixels and key, modulo 2^64, whose upper half is well mixed.
    """
    pixels = to_uint8(images).flatten(1).long()
    row, column = (((pixels * each).sum(1) >> 33) % most for each, most in zip(key, room, strict=True))
    return row, column
