"""Input-aware: a generator draws each image a trigger of its own, which must not work on any other image.

Nguyen, Tran, "Input-Aware Dynamic Backdoor Attack", NeurIPS 2020 (arXiv 2010.08138): b(x) = (1 - m(x)) x + m(x) g(x) with a
generator g of patterns and one of masks, m. First m is trained alone, to be small and to differ from image to image; then g,
with m frozen, together with a classifier that learns three kinds of images in each batch: in attack mode b(x) under the target
label, in cross mode x under the trigger of another image and its own label, and clean ones. Diversity (of m and of g): the
distance of two images over that of their patterns.

Reported: CIFAR-10, PreAct-ResNet18, rate 0.1: ACC 94.65 / ASR 99.32, cross accuracy 88.16 (the official repository);
ACC 90.67 / ASR 98.26 (BackdoorBench leaderboard, one run).

Deviations:
- The generators are trained before the victim, against the attacker's surrogate, which goes on from a training on clean
  images; then they are frozen, and the victim is trained with both modes in each batch. In the paper they and the victim learn
  from each other: that may reach a higher ASR.
- All is computed on images in [0, 1], a trigger is placed before crops and flips, and g's gradients are those of one step (the
  official code sums them up over all steps). Rates fall at the same shares of the trainings as there.
- Images of the target class are not in attack mode. The partner of an image in cross mode is another of its batch. What a
  defender is given is a fixed draw of both modes, `poison`, in which every image stands once.
- `cross_accuracy` in the record: test images under the trigger of another test image that are classified right.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntml_bench.attacks.base import ATTACKS, AttackConfig, AttackContext, Poisoning, to_float
from ntml_bench.attacks.covers import CoveredAttack
from ntml_bench.attacks.generators import AT_ONCE, falling, made_by, minibatches, state_of, step, steps_of_a_pass
from ntml_bench.data.augmentation import augment
from ntml_bench.models.classifier import global_stream
from ntml_bench.schema import number
from ntml_bench.seeding import derive

MASK, PATTERN = "mask/", "pattern/"


@dataclass(frozen=True, kw_only=True)
class InputAwareConfig(AttackConfig):
    """`cross_ratio`: images in cross mode for one in attack mode. `density`: the share of an image that a mask may take without
    a punishment; `density_weight` and `diversity_weight`: of the two losses.

    `width`: channels of the generators' first level. `mask_epochs`: passes that train the masks; `pattern_epochs`: passes that
    train the patterns and the surrogate; `batch_size`: images of a step; `generator_rate`: Adam's learning rate for both
    generators; `surrogate_rate`: SGD's for the surrogate.
    """

    cross_ratio: float = number(at_least=0)
    density: float = number(at_least=0, at_most=1)
    density_weight: float = number(at_least=0)
    diversity_weight: float = number(at_least=0)
    width: int = number(at_least=1)
    mask_epochs: int = number(at_least=0)
    pattern_epochs: int = number(at_least=0)
    batch_size: int = number(at_least=2)
    generator_rate: float = number(above=0)
    surrogate_rate: float = number(above=0)


@ATTACKS.register("input_aware")
class InputAware(CoveredAttack[InputAwareConfig]):
    Config: ClassVar[type[AttackConfig]] = InputAwareConfig
    published_rate: ClassVar[float | None] = 0.1
    controls_training: ClassVar[bool] = True
    covers_of_target: ClassVar[bool] = True
    ratio_setting: ClassVar[str] = "cross_ratio"

    def poison(self, context: AttackContext) -> Poisoning:
        train, device = context.train, context.train.images.device
        state = self.trigger_state(context)
        poisons = self.choose(context)
        covers = self.choose_covers(context, poisons)
        partners = torch.randint(1, len(train), (len(covers),), generator=context.generator("input_aware/partners"))
        partners = (covers + partners) % len(train)  # any image but itself

        images = to_float(train.images)
        changed = torch.cat(
            [
                self.trigger(images[poisons.to(device)], state),
                self.crossed(images[covers.to(device)], images[partners.to(device)], state),
            ]
        )
        notes: dict[str, str | int | float] = {
            "generators": "trained against a surrogate, then frozen, in place of a training together with the victim",
            "mean mask": float(self.masks(images[:AT_ONCE], state).mean()),
        }
        return self.poisons_and_covers(context, poisons, covers, changed, state, notes)

    def trigger_state(self, context: AttackContext) -> dict[str, Tensor]:
        config, train = self.config, context.train
        channels = train.images.shape[1]
        with global_stream(derive(context.seed, "attack/input_aware/initialisation")):
            masks, patterns = Generator(channels, 1, config.width), Generator(channels, channels, config.width)
        masks, patterns = masks.to(train.images.device), patterns.to(train.images.device)
        if config.poisoning_rate > 0:
            self.train_masks(masks, context)
            self.train_patterns(patterns, masks, context)
        return state_of(masks, MASK) | state_of(patterns, PATTERN)

    def train_masks(self, masks: nn.Module, context: AttackContext) -> None:
        """The first stage, in place: masks of little density that differ from image to image. Left in eval mode."""
        config, images = self.config, context.train.images
        optimizer = torch.optim.Adam(masks.parameters(), lr=config.generator_rate)
        schedule = falling(optimizer, config.mask_epochs * steps_of_a_pass(len(images), config.batch_size), (0.4, 0.8))
        masks.train()
        for index in minibatches(context, config.batch_size, config.mask_epochs, "input_aware/masks"):
            one = to_float(images[index])
            other = one.roll(1, 0)
            mask = sharpened(masks(one))
            loss = config.density_weight * (mask - config.density).relu().mean()
            loss = loss + config.diversity_weight * diversity(one, other, mask, mask.roll(1, 0))
            step(loss, optimizer)
            schedule.step()
        masks.eval().requires_grad_(False)

    def train_patterns(self, patterns: nn.Module, masks: nn.Module, context: AttackContext) -> None:
        """The second stage, in place: patterns that a surrogate learns to take for the target. Left in eval mode."""
        config, train = self.config, context.train
        if config.pattern_epochs == 0:
            patterns.eval().requires_grad_(False)
            return
        model = context.surrogate().train().requires_grad_(True)
        steps = config.pattern_epochs * steps_of_a_pass(len(train), config.batch_size)
        of_model = torch.optim.SGD(model.parameters(), lr=config.surrogate_rate, momentum=0.9, weight_decay=5e-4)
        of_patterns = torch.optim.Adam(patterns.parameters(), lr=config.generator_rate, betas=(0.5, 0.9))
        schedules = [falling(optimizer, steps, (1 / 3, 2 / 3)) for optimizer in (of_model, of_patterns)]
        rng = context.generator("input_aware/augmentation", train.images.device)
        patterns.train()
        for index in minibatches(context, config.batch_size, config.pattern_epochs, "input_aware/patterns"):
            images, labels = to_float(train.images[index]), train.labels[index]
            targets = self.targets(labels, context.num_classes)
            poison_count, cover_count = self.counts(len(images))
            poison_count = max(1, poison_count)
            attacked, crossed = slice(0, poison_count), slice(poison_count, poison_count + cover_count)
            # The patterns of both modes come from one pass, so that they are compared under the same batch statistics.
            origins = torch.cat([images[attacked], images[crossed].roll(1, 0)])
            pattern, mask = bounded(patterns(origins)), sharpened(masks(origins))
            hit = (targets != labels)[attacked][:, None, None, None]
            placed = torch.where(hit, mixed(images[attacked], mask[attacked], pattern[attacked]), images[attacked])
            other = mixed(images[crossed], mask[poison_count:], pattern[poison_count:])
            batch = torch.cat([placed, other, images[crossed.stop :]])
            given = torch.cat([targets[attacked], labels[crossed.start :]])
            loss = F.cross_entropy(model(augment(batch, context.augmentation, rng)), given)
            loss = loss + config.diversity_weight * diversity(origins, origins.roll(1, 0), pattern, pattern.roll(1, 0))
            step(loss, of_model, of_patterns)
            for schedule in schedules:
                schedule.step()
        patterns.eval().requires_grad_(False)

    def masks(self, images: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Float [N, 1, H, W] in [0, 1]."""
        return sharpened(self._made(MASK, 1, images, state))

    def patterns(self, images: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Float [N, C, H, W] in [0, 1]."""
        return bounded(self._made(PATTERN, images.shape[1], images, state))

    def _made(self, prefix: str, channels: int, images: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        with torch.device("meta"):  # only its layout: the weights are those of the state
            net = Generator(images.shape[1], channels, self.config.width).eval()
        return made_by(net, prefix, images, state)

    def crossed(self, images: Tensor, origins: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """`images` under the triggers of `origins`, float [N, C, H, W] in [0, 1] each."""
        mask, pattern = self.masks(origins, state), self.patterns(origins, state)
        return mixed(images, mask.to(images.dtype), pattern.to(images.dtype))

    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        return self.crossed(images, images, state)

    def cross_trigger(self, images: Tensor, origins: Tensor, state: dict[str, Tensor]) -> Tensor:
        return self.crossed(images, origins, state)

    def during_training(
        self, images: Tensor, labels: Tensor, state: dict[str, Tensor], rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        poisons, covers = self.chosen_in_batch(labels, rng)
        partners = torch.randint(1, max(2, len(images)), (len(covers),), generator=rng, device=images.device)
        crossed = self.crossed(images[covers], images[(covers + partners) % len(images)], state)
        return self.poisoned_batch(images, labels, (poisons, self.trigger(images[poisons], state)), (covers, crossed))


def mixed(images: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    """b(x) = (1 - m) x + m g: float [N, C, H, W], the mask [N, 1, H, W]."""
    return ((1 - mask) * images + mask * pattern).clamp(0, 1)


def bounded(output: Tensor) -> Tensor:
    """A generator's output in [0, 1]."""
    return output.tanh() / 2 + 0.5


def sharpened(output: Tensor) -> Tensor:
    """A mask generator's output in [0, 1], near its ends."""
    return (20 * bounded(output) - 10).tanh() / 2 + 0.5


def diversity(one: Tensor, other: Tensor, pattern: Tensor, other_pattern: Tensor) -> Tensor:
    """The mean over pairs of the distance (root mean square) of two images over that of what is made for them."""
    far, near = ((a - b).square().mean((1, 2, 3)) for a, b in ((one, other), (pattern, other_pattern)))
    # The root of an exact 0 has no gradient.
    return (far.sqrt() / ((near + 1e-14).sqrt() + 1e-7)).mean()


class Generator(nn.Module):
    """Images [N, C, H, W] to [N, made, H, W], without skip connections: three levels down by pooling, three up bilinearly."""

    def __init__(self, channels: int, made: int, width: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(*layer(before, after), *layer(after, after))
            for before, after in ((channels, width), (width, 2 * width), (2 * width, 4 * width))
        )
        self.middle = nn.Sequential(*layer(4 * width, 4 * width))
        # The last convolution is followed by no ReLU.
        self.up = nn.ModuleList(
            nn.Sequential(*layer(before, before), *layer(before, after)[: 2 if before == width else 3])
            for before, after in ((4 * width, 2 * width), (2 * width, width), (width, made))
        )

    def forward(self, images: Tensor) -> Tensor:
        sides = []
        for level in self.down:
            images = level(images)
            sides.append(images.shape[2:])
            images = F.max_pool2d(images, 2, ceil_mode=True)
        images = self.middle(images)
        for level in self.up:
            images = level(F.interpolate(images, sides.pop(), mode="bilinear", align_corners=False))
        return images


def layer(before: int, after: int) -> list[nn.Module]:
    """A convolution, BatchNorm, ReLU."""
    return [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after, eps=1e-5, momentum=0.05), nn.ReLU()]
