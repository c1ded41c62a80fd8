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

from ntml_bench.attacks.base import ATTACKS, Attack, AttackConfig, AttackContext, Poisoning, rounded_down, to_float, to_uint8
from ntml_bench.data.exact import cubic_weights, quantised, resampled
from ntml_bench.errors import UserError
from ntml_bench.schema import number
from ntml_bench.seeding import stratified


@dataclass(frozen=True)
class WaNetConfig(AttackConfig):
    """`grid_size`: control points a side (k). `strength`: mean displacement of a control point (s), in units of half a pixel.

    `cross_ratio`: images in noise mode for one in attack mode (0: no noise mode).
    """

    grid_size: int = number(at_least=1)
    strength: float = number(above=0)
    cross_ratio: float = number(at_least=0)


@ATTACKS.register("wanet")
class WaNet(Attack[WaNetConfig]):
    Config: ClassVar[type[AttackConfig]] = WaNetConfig
    published_rate: ClassVar[float | None] = 0.1
    controls_training: ClassVar[bool] = True
    version: ClassVar[int] = 2

    def check(self, class_sizes: Tensor, image_shape: tuple[int, int, int]) -> None:
        super().check(class_sizes, image_shape)
        config = self.config
        if config.poisoning_rate * (1 + config.cross_ratio) > 1:
            raise UserError(
                f"attack.poisoning_rate is {config.poisoning_rate} with attack.cross_ratio {config.cross_ratio}: more than all "
                f"images together; allowed: at most {rounded_down(1 / (1 + config.cross_ratio))}"
            )

    def counts(self, total: int) -> tuple[int, int]:
        """How many of `total` images are in attack mode and in noise mode; never more than there are."""
        poisons = round(self.config.poisoning_rate * total)
        return poisons, min(round(self.config.cross_ratio * poisons), total - poisons)

    def touched(self, total: int) -> int:
        return sum(self.counts(total))

    def poison(self, context: AttackContext) -> Poisoning:
        train, device = context.train, context.train.images.device
        height, width = train.images.shape[2:]
        size = self.config.grid_size
        control = torch.rand(2, size, size, generator=context.generator("wanet/grid")) * 2 - 1
        grid = warping_grid(control, height, width, self.config.strength).to(device)

        poisons = self.choose(context)
        labels = train.labels.cpu()
        untouched = torch.ones(len(labels), dtype=torch.bool).index_fill_(0, poisons, False).nonzero().flatten()
        _, cover_count = self.counts(len(labels))
        covers = untouched[stratified(labels[untouched], cover_count, context.generator("choice of covers"))]
        jitter = torch.rand(len(covers), height, width, 2, generator=context.generator("wanet/jitter")).to(device)

        images = torch.cat(
            [
                to_uint8(warp(to_float(train.images[poisons.to(device)]), grid)),
                to_uint8(warp(to_float(train.images[covers.to(device)]), jittered(grid, jitter))),
            ]
        )
        given = torch.cat([torch.full_like(poisons, self.config.target_class), labels[covers]])
        is_poison = torch.arange(len(given)) < len(poisons)
        indices, order = torch.cat([poisons, covers]).sort()
        return Poisoning(
            indices,
            images[order.to(device)],
            given[order].to(device),
            is_poison[order],
            {"grid": grid},
            {"poisons": len(poisons), "covers": len(covers)},
        )

    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        return warp(images, state["grid"])

    def during_training(
        self, images: Tensor, labels: Tensor, state: dict[str, Tensor], rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        total, device, grid = len(images), images.device, state["grid"]
        poison_count, cover_count = self.counts(total)
        is_target = labels == self.config.target_class
        # A random order with the target class at its end, found without asking the device how many images of it there are.
        order = (torch.rand(total, generator=rng, device=device) + is_target).argsort()
        poisons, rest = order[:poison_count], order[poison_count:]
        covers = rest[torch.rand(len(rest), generator=rng, device=device).argsort()[:cover_count]]
        jitter = torch.rand(cover_count, *images.shape[2:], 2, generator=rng, device=device)

        chosen = images[poisons]
        # Where a batch has too few images of other classes, those of the target class stay clean.
        warped = torch.where(is_target[poisons][:, None, None, None], chosen, warp(chosen, grid))
        batch = images.index_copy(0, poisons, warped).index_copy(0, covers, warp(images[covers], jittered(grid, jitter)))
        return batch, labels.index_fill(0, poisons, self.config.target_class)


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
