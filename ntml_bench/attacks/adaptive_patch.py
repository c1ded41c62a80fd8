"""Adaptive patch: each poison carries one of four faint patches, a test image two at once, and covers beside the poisons.

Qi, Xie, Li, Mahloujifar, Mittal, "Revisiting the Assumption of Latent Separability for Backdoor Defenses", ICLR 2023 (arXiv
2205.13613): poisons and covers are split into four groups of equal size, one for each partial trigger, which is blended in;
covers keep their right labels. At test two of the triggers are pasted, opaque.

Reported: CIFAR-10, ResNet-20, 150 poisons and 300 covers, undefended ACC 91.5 / ASR 97.5 (the paper). So few random images
give results that differ much from seed to seed.

Deviations:
- The official patches are trademarks and stored pictures: here they are random colours, pixel by pixel, of the same size and
  place, and black and white in the four corners. The large emblem is a disc of 137 pixels (official: 140).
- Where two patches overlap, the checkers lie on top: our choice.
- Poisons and covers are images of the other classes only (the paper draws both from all; a cover of the target class is a
  poison in effect).
- Images of other sizes than 32 x 32 get the patches scaled to the nearest pixel.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ntml_bench.attacks.base import ATTACKS, AttackConfig, AttackContext, Poisoning, to_float
from ntml_bench.attacks.covers import CoveredAttack, CoveredConfig
from ntml_bench.errors import UserError
from ntml_bench.schema import number
from ntml_bench.seeding import generator

SIDE = 32
"""Pixels of an image's side in which the patches are drawn."""
SMALLEST = 11
"""Pixels of a side from which on no checker of 3 of 32 falls between two pixels."""
EMBLEM, DISC, SQUARE, CHECKERS = NAMES = ("emblem", "disc", "square", "checkers")
"""The partial triggers, from the lowest on to the one that lies on top."""


@dataclass(frozen=True, kw_only=True)
class AdaptivePatchConfig(CoveredConfig):
    """`emblem_alpha`: opacity in training of 5 x 5 pixels in the bottom-right corner, at test in the bottom-left one too.

    `disc_alpha`: of a disc of 13 pixels at the top right; `square_alpha`: of 8 x 8 pixels at the bottom right;
    `checkers_alpha`: of 3 x 3 black and white pixels in every corner. `test_triggers`: which of emblem, disc, square and
    checkers a test image carries; `pattern_seed`: which random colours they have.
    """

    emblem_alpha: float = number(above=0, at_most=1)
    disc_alpha: float = number(above=0, at_most=1)
    square_alpha: float = number(above=0, at_most=1)
    checkers_alpha: float = number(above=0, at_most=1)
    test_triggers: list[str]
    pattern_seed: int = number(at_least=0)


@ATTACKS.register("adaptive_patch")
class AdaptivePatch(CoveredAttack[AdaptivePatchConfig]):
    Config: ClassVar[type[AttackConfig]] = AdaptivePatchConfig
    published_rate: ClassVar[float | None] = 0.003
    covers_of_target: ClassVar[bool] = False

    def check(self, class_sizes: Tensor, image_shape: tuple[int, int, int]) -> None:
        super().check(class_sizes, image_shape)
        asked, (_, height, width) = self.config.test_triggers, image_shape
        if not asked or not set(asked) <= set(NAMES) or len(set(asked)) < len(asked):
            raise UserError(f"attack.test_triggers is {asked}; allowed: one or more different ones of {', '.join(NAMES)}")
        if min(height, width) < SMALLEST:
            raise UserError(
                f"attack {self.config.name} takes images of at least {SMALLEST} x {SMALLEST} pixels, not of {height} x {width}"
            )

    def poison(self, context: AttackContext) -> Poisoning:
        train, device, config = context.train, context.train.images.device, self.config
        poisons = self.choose(context)
        covers = self.choose_covers(context, poisons)
        clean = to_float(train.images[torch.cat([poisons, covers]).to(device)])
        rng = context.generator("adaptive_patch/groups")
        groups = torch.cat([torch.randperm(len(part), generator=rng) % len(NAMES) for part in (poisons, covers)]).to(device)
        opacities = {
            EMBLEM: config.emblem_alpha,
            DISC: config.disc_alpha,
            SQUARE: config.square_alpha,
            CHECKERS: config.checkers_alpha,
        }
        masks = torch.stack([opacities[name] * patch_mask(name, *clean.shape[2:]) for name in NAMES]).to(device)
        colours = torch.stack([self.colours(name, clean) for name in NAMES])
        images = clean + masks[groups][:, None] * (colours[groups] - clean)
        return self.poisons_and_covers(context, poisons, covers, images, {})

    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        for name in NAMES:
            if name in self.config.test_triggers:
                mask = patch_mask(name, *images.shape[2:], test=True).bool().to(images.device)
                images = torch.where(mask, self.colours(name, images), images)
        return images

    def colours(self, name: str, images: Tensor) -> Tensor:
        """The colours of a partial trigger all over the image, as `images` [N, C, H, W] are: [C, H, W] in [0, 1]."""
        channels, height, width = images.shape[1:]
        drawn = torch.randint(0, 256, (channels, SIDE, SIDE), generator=generator(self.config.pattern_seed, f"attack/{name}"))
        if name == EMBLEM:
            drawn[:, :, :5] = drawn[:, :, -5:]  # the same one in both corners
        if name == CHECKERS:
            place = torch.arange(SIDE).minimum(torch.arange(SIDE).flip(0))
            drawn = (255 * (1 - (place[:, None] + place) % 2)).expand_as(drawn)
        return scaled(drawn.to(images) / 255, height, width)


def patch_mask(name: str, height: int, width: int, *, test: bool = False) -> Tensor:
    """Float [H, W] of 0 and 1: where a partial trigger is; `test`: at test, when the emblem is in two corners."""
    mask = torch.zeros(SIDE, SIDE)
    if name == EMBLEM:
        mask[-5:, -5:] = 1
        if test:
            mask[-5:, :5] = 1
    elif name == DISC:
        place = torch.arange(-6, 7) ** 2
        mask[1:14, 18:31] = (place[:, None] + place <= 42).float()  # a radius of 6.5 pixels
    elif name == SQUARE:
        mask[21:29, 21:29] = 1
    else:
        outer = torch.arange(SIDE).minimum(torch.arange(SIDE).flip(0)) < 3
        mask[outer[:, None] & outer] = 1
    return scaled(mask, height, width)


def scaled(picture: Tensor, height: int, width: int) -> Tensor:
    """`picture` [..., 32, 32] at the nearest pixels of [..., H, W]."""
    rows, columns = ((2 * torch.arange(side, device=picture.device) + 1) * SIDE // (2 * side) for side in (height, width))
    return picture[..., rows[:, None], columns]
