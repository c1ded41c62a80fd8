"""WaNet: a smooth, fixed warping of the whole image, learned by a training that the attacker controls.

Nguyen, Tran, "WaNet - Imperceptible Warping-based Backdoor Attack", ICLR 2021 (arXiv 2102.10369): section 3.3 for the field
(uniform k x k control grid, divided by its mean absolute value, times the strength, upsampled bicubically, clipped) and 3.4 for
the modes of training. Of every batch, a share `poisoning_rate` is warped and gets the target class (attack mode), and
`cross_ratio` times as many are warped with a fresh random jitter and keep their labels (noise mode), so that only this
warping, and not any, means the target.

Reported: CIFAR-10, PreAct-ResNet18, rate 0.1: ACC 94.15 / ASR 99.55 (the paper); ACC 91.25 / ASR 89.73 (BackdoorBench
leaderboard, one run).

Deviations: images of the target class are not warped in attack mode (the paper draws from all; noise mode draws from all here
too). What a defender is given is a fixed draw of both modes, `poison`, in which every image stands once. Where images
are not square, the field is scaled by each side's own length.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ntml_bench.attacks.base import ATTACKS, AttackConfig, AttackContext, Poisoning, to_float
from ntml_bench.attacks.covers import CoveredAttack
from ntml_bench.data.exact import cubic_weights, quantised, resampled
from ntml_bench.schema import number


@dataclass(frozen=True)
class WaNetConfig(AttackConfig):
    """`grid_size`: control points a side (k). `strength`: mean displacement of a control point (s), in units of half a pixel.

    `cross_ratio`: images in noise mode for one in attack mode (0: no noise mode).
    """

    grid_size: int = number(at_least=1)
    strength: float = number(above=0)
    cross_ratio: float = number(at_least=0)


@ATTACKS.register("wanet")
class WaNet(CoveredAttack[WaNetConfig]):
    Config: ClassVar[type[AttackConfig]] = WaNetConfig
    published_rate: ClassVar[float | None] = 0.1
    controls_training: ClassVar[bool] = True
    covers_of_target: ClassVar[bool] = True
    ratio_setting: ClassVar[str] = "cross_ratio"
    version: ClassVar[int] = 2

    def poison(self, context: AttackContext) -> Poisoning:
        train, device = context.train, context.train.images.device
        height, width = train.images.shape[2:]
        size = self.config.grid_size
        control = torch.rand(2, size, size, generator=context.generator("wanet/grid")) * 2 - 1
        grid = warping_grid(control, height, width, self.config.strength).to(device)

        poisons = self.choose(context)
        covers = self.choose_covers(context, poisons)
        jitter = torch.rand(len(covers), height, width, 2, generator=context.generator("wanet/jitter")).to(device)

        attacked, noisy = (to_float(train.images[index.to(device)]) for index in (poisons, covers))
        images = torch.cat([warp(attacked, grid), warp(noisy, jittered(grid, jitter))])
        return self.poisons_and_covers(context, poisons, covers, images, {"grid": grid})

    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        return warp(images, state["grid"])

    def during_training(
        self, images: Tensor, labels: Tensor, state: dict[str, Tensor], rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        grid = state["grid"]
        poisons, covers = self.chosen_in_batch(labels, rng)
        jitter = torch.rand(len(covers), *images.shape[2:], 2, generator=rng, device=images.device)
        noisy = warp(images[covers], jittered(grid, jitter))
        return self.poisoned_batch(images, labels, (poisons, warp(images[poisons], grid)), (covers, noisy))


def warping_grid(control: Tensor, height: int, width: int, strength: float) -> Tensor:
    """Float [H, W, 2]: where (x, y in [-1, 1], as `grid_sample` has them) each pixel of the warped image is taken from.

    `control` float [2, k, k]: displacements of the control points, x and y; only their ratios count.
    """
    size = control.shape[1]
    normalised = quantised(control.double() / control.double().abs().mean(), 16)
    # From the first to the last pixel, 0 to 1.
    down, across = (torch.arange(side, dtype=torch.float64) / max(1, side - 1) for side in (height, width))
    weights = (cubic_weights(way * (size - 1), size, beyond=2) for way in (down, across))
    field = resampled(normalised, *weights).permute(1, 2, 0)
    y, x = torch.meshgrid(2 * down - 1, 2 * across - 1, indexing="ij")
    sides = torch.tensor([width, height])
    return quantised(torch.stack([x, y], dim=-1) + strength * field / sides).clamp(-1, 1).float()


def jittered(grid: Tensor, uniform: Tensor) -> Tensor:
    """Noise mode: `grid` [H, W, 2] moved by up to half a pixel an axis; `uniform` in [0, 1) and the result [N, H, W, 2]."""
    height, width = grid.shape[:2]
    x, y = grid.unbind(-1)
    x = x + (uniform[..., 0] * 2 - 1) / width
    y = y + (uniform[..., 1] * 2 - 1) / height
    return torch.stack([x, y], dim=-1).clamp_(-1, 1)


def warp(images: Tensor, grid: Tensor) -> Tensor:
    """Images [N, C, H, W] in [0, 1] resampled at `grid` ([H, W, 2], or [N, H, W, 2] for one each), bilinearly.

    Of single sums and products: torch's `grid_sample` rounds otherwise from one processor to another.
    """
    height, width = images.shape[2:]
    grid = grid.to(images.dtype).view(-1, height, width, 2)
    x, y = ((grid[..., axis] + 1) / 2 * (side - 1) for axis, side in enumerate((width, height)))
    left, top = x.floor(), y.floor()
    rightward, downward = (x - left)[:, None], (y - top)[:, None]
    columns, rows = ([low.long(), (low.long() + 1).clamp(max=side - 1)] for low, side in ((left, width), (top, height)))
    pixels = images.flatten(2)

    def line(row: Tensor) -> Tensor:
        ends = ((row * width + column).flatten(1)[:, None].expand(*pixels.shape[:2], -1) for column in columns)
        begin, end = (pixels.gather(2, index).view(images.shape) for index in ends)
        return begin * (1 - rightward) + end * rightward

    # Weights that sum to 1 but for rounding can leave the range by as much.
    return (line(rows[0]) * (1 - downward) + line(rows[1]) * downward).clamp(0, 1)
