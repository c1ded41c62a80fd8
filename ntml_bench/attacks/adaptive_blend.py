"""Adaptive blend: half of a faint full-size image while training, all of it and more at test, and covers beside the poisons.

Qi, Xie, Li, Mahloujifar, Mittal, "Revisiting the Assumption of Latent Separability for Backdoor Defenses", ICLR 2023 (arXiv
2205.13613): x' = x + alpha B (T - x) with the key pattern T and a mask B of 8 of 16 blocks, drawn for each poison and each
cover; covers carry it under their right labels. At test B is the whole image and alpha is larger.

Reported: CIFAR-10, ResNet-20, 150 poisons and 150 covers, undefended ACC 91.6 / ASR 76.5 (the paper). So few random images
give results that differ much from seed to seed.

Deviations:
- The paper's cartoon may not be redistributed: the patterns are those of `blended`.
- Poisons and covers are images of the other classes only (the paper draws both from all; a cover of the target class is a
  poison in effect).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ntml_bench.attacks.base import ATTACKS, AttackConfig, AttackContext, Poisoning, to_float
from ntml_bench.attacks.blended import noise_pattern, shape_pattern
from ntml_bench.attacks.covers import CoveredAttack, CoveredConfig
from ntml_bench.errors import UserError
from ntml_bench.schema import number, one_of
from ntml_bench.seeding import generator


@dataclass(frozen=True)
class AdaptiveBlendConfig(CoveredConfig):
    """`alpha`: weight of the pattern in training; `test_alpha`: at test. `pattern`, `pattern_seed`: as of `blended`.

    `grid_size`: blocks along a side; `kept_blocks`: how many of all blocks of a poison or cover show the pattern.
    """

    alpha: float = number(above=0, at_most=1)
    test_alpha: float = number(above=0, at_most=1)
    grid_size: int = number(at_least=1)
    kept_blocks: int = number(at_least=1)
    pattern: str = one_of("noise", "shape")
    pattern_seed: int = number(at_least=0)


@ATTACKS.register("adaptive_blend")
class AdaptiveBlend(CoveredAttack[AdaptiveBlendConfig]):
    Config: ClassVar[type[AttackConfig]] = AdaptiveBlendConfig
    published_rate: ClassVar[float | None] = 0.003
    covers_of_target: ClassVar[bool] = False

    def check(self, class_sizes: Tensor, image_shape: tuple[int, int, int]) -> None:
        super().check(class_sizes, image_shape)
        grid, kept = self.config.grid_size, self.config.kept_blocks
        _, height, width = image_shape
        if height % grid or width % grid:
            raise UserError(
                f"attack.grid_size is {grid}: images of {height} x {width} cannot be cut into so many blocks a side; allowed: "
                "what divides both sides"
            )
        if kept > grid * grid:
            raise UserError(f"attack.kept_blocks is {kept} with attack.grid_size {grid}; allowed: at most {grid * grid}")

    def poison(self, context: AttackContext) -> Poisoning:
        train, device = context.train, context.train.images.device
        poisons = self.choose(context)
        covers = self.choose_covers(context, poisons)
        chosen = torch.cat([poisons, covers])
        clean = to_float(train.images[chosen.to(device)])
        blocks = self.config.grid_size**2
        # Sorted random numbers: those of the lowest ranks are a draw without repetition, for each image.
        order = torch.rand(len(chosen), blocks, generator=context.generator("adaptive_blend/blocks")).argsort(stable=True)
        kept = order.argsort(stable=True) < self.config.kept_blocks
        pattern = self.pattern(clean).to(device)
        mask = block_mask(kept, *clean.shape[2:]).to(device)
        images = clean + self.config.alpha * mask * (pattern - clean)
        return self.poisons_and_covers(context, poisons, covers, images, {"pattern": pattern})

    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        return (images + self.config.test_alpha * (state["pattern"].to(images.dtype) - images)).clamp(0, 1)

    def pattern(self, images: Tensor) -> Tensor:
        """The key pattern for images [N, C, H, W]: float [C, H, W] in [0, 1]."""
        draw = {"noise": noise_pattern, "shape": shape_pattern}[self.config.pattern]
        channels, height, width = images.shape[1:]
        return draw(channels, height, width, generator(self.config.pattern_seed, "attack/blended/pattern"))


def block_mask(kept: Tensor, height: int, width: int) -> Tensor:
    """Float [N, 1, H, W] of 0 and 1 from bool [N, grid x grid], row by row: which blocks of each image are kept."""
    grid = round(kept.shape[1] ** 0.5)
    rows, columns = (torch.arange(side) * grid // side for side in (height, width))
    return kept.float()[:, None, rows[:, None] * grid + columns]
