"""COMBAT: a generator draws faint low frequencies into images of the target class, whose labels stay right.

Huynh, Nguyen, Pham, Tran, "COMBAT: Alternated Training for Effective Clean-Label Backdoor Attacks", AAAI 2024: the trigger
x' = blur(clip(x + a LOW(G(x)))) with a generator G of values in [-1, 1], LOW, which keeps the low coefficients of the discrete
cosine transform (what it leaves may go beyond [-1, 1] a little), and a Gaussian blur of 3 x 3 pixels. In turns, a batch at a
time, a surrogate learns the batch, in which a share of the target class is triggered, and G learns to have the surrogate take
all triggered images for the target, close to the originals and so that a model of clean images still answers right. Then the
same share of the target class is poisoned.

Published setting: CIFAR-10, a = 0.08 where images are in [-1, 1], half of the target class. No number of ours to check against:
the BackdoorBench leaderboard does not have the attack.

Deviations:
- One draw of the generator's values, and one of crops and flips, serves both turns of a batch and both models (the official
  code draws anew for each).
- The width of the blur is drawn for each batch while the generator is trained; poisons and test images have its middle value,
  so that an image has one trigger (the official code draws at test, too).
- The surrogate is the victim's net with its layers drawn anew, and the clean model is the attacker's surrogate of other
  attacks, trained with the victim's recipe.
- The U-net is of our own drawing: four levels, the outermost with `width` channels, the innermost with eight times as many.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from math import exp
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntml_bench.attacks.base import ATTACKS, Attack, AttackConfig, AttackContext, Poisoning, to_float
from ntml_bench.attacks.frequency import low_pass
from ntml_bench.attacks.generators import AT_ONCE, falling, made_by, minibatches, state_of, step, steps_of_a_pass
from ntml_bench.data.augmentation import augment
from ntml_bench.errors import UserError
from ntml_bench.models.classifier import global_stream
from ntml_bench.schema import number
from ntml_bench.seeding import derive

GENERATOR = "generator/"


@dataclass(frozen=True, kw_only=True)
class CombatConfig(AttackConfig):
    """`amplitude`: of the generator's values, in levels of 0..255; `kept_share`: of the frequencies of each side, the low ones;
    `blur_from`, `blur_to`: standard deviations of the blur, in pixels, between which it is drawn.

    `clean_weight`: of the clean model's loss; `distance_weight`: of the mean square of the change, where images are in [-1, 1].
    `width`: channels of the generator's first level; `generator_epochs`: passes that train it and the surrogate; `batch_size`:
    images of a step; `generator_rate`, `surrogate_rate`: SGD's learning rates.
    """

    amplitude: float = number(above=0, at_most=255)
    kept_share: float = number(above=0, at_most=1)
    blur_from: float = number(above=0)
    blur_to: float = number(above=0)
    clean_weight: float = number(at_least=0)
    distance_weight: float = number(at_least=0)
    width: int = number(at_least=1)
    generator_epochs: int = number(at_least=0)
    batch_size: int = number(at_least=2)
    generator_rate: float = number(above=0)
    surrogate_rate: float = number(above=0)


@ATTACKS.register("combat")
class Combat(Attack[CombatConfig]):
    Config: ClassVar[type[AttackConfig]] = CombatConfig
    published_rate: ClassVar[float | None] = 0.05
    clean_label: ClassVar[bool] = True

    def check(self, class_sizes: Tensor, image_shape: tuple[int, int, int]) -> None:
        super().check(class_sizes, image_shape)
        if self.config.blur_from > self.config.blur_to:
            raise UserError(
                f"attack.blur_from is {self.config.blur_from} with attack.blur_to {self.config.blur_to}; "
                f"allowed: at most {self.config.blur_to}"
            )
        if min(image_shape[1:]) < 2:
            raise UserError(f"attack combat blurs images of 2 x 2 pixels or more, not of {image_shape[1]} x {image_shape[2]}")

    def poison(self, context: AttackContext) -> Poisoning:
        indices, train = self.choose(context), context.train.images
        generator, models = self.trained(context)
        state = state_of(generator, GENERATOR)
        images = self.under_trigger(train[indices.to(train.device)], state)
        return self.all_poisons(indices, images, state, self.told(models, state, context))

    def trained(self, context: AttackContext) -> tuple[nn.Module, dict[str, nn.Module]]:
        """The generator, and by their names in the record the models that it was trained against, in eval mode."""
        config, train = self.config, context.train
        channels = train.images.shape[1]
        with global_stream(derive(context.seed, "attack/combat/initialisation")):
            generator = Generator(channels, config.width)
        generator = generator.to(train.images.device)
        if config.poisoning_rate == 0 or config.generator_epochs == 0:
            return generator, {}
        clean = context.surrogate()
        with global_stream(derive(context.seed, "attack/combat/surrogate")):
            model = drawn_anew(deepcopy(clean))
        clean.eval().requires_grad_(False)
        share = self.share_of_target(train.labels)
        steps = config.generator_epochs * steps_of_a_pass(len(train), config.batch_size)
        rates = ((model, config.surrogate_rate), (generator, config.generator_rate))
        of_model, of_generator = (
            torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, nesterov=True, weight_decay=5e-4) for net, rate in rates
        )
        schedules = [falling(optimizer, steps, (1 / 2, 3 / 4)) for optimizer in (of_model, of_generator)]
        rng = context.generator("combat/augmentation", train.images.device)
        of_blur = context.generator("combat/blur")
        for index in minibatches(context, config.batch_size, config.generator_epochs, "combat/minibatches"):
            images, labels = to_float(train.images[index]), train.labels[index]
            sigma = config.blur_from + (config.blur_to - config.blur_from) * float(torch.rand((), generator=of_blur))
            triggered = self.placed(images, generator(images), sigma)
            is_target = labels == config.target_class
            is_poison = is_target & (torch.rand(len(labels), generator=rng, device=labels.device) < share)
            # The channels of both side by side, so that an image and its triggered twin are cropped and mirrored alike.
            pair = augment(torch.cat([images, triggered], dim=1), context.augmentation, rng)
            original, changed = pair[:, :channels], pair[:, channels:]

            model.train().requires_grad_(True)
            batch = torch.where(is_poison[:, None, None, None], changed.detach(), original.detach())
            step(F.cross_entropy(model(batch), labels), of_model)

            model.eval().requires_grad_(False)
            step(self.generator_loss(model(changed), clean(changed), triggered - images, labels), of_generator)
            for schedule in schedules:
                schedule.step()
        return generator.requires_grad_(False), {"surrogate": model, "clean model": clean}

    def share_of_target(self, labels: Tensor) -> float:
        """The share of the target class that is poisoned, for the surrogate as for the victim; the rate is of all images."""
        return round(self.config.poisoning_rate * len(labels)) / int((labels == self.config.target_class).sum())

    def generator_loss(self, answers: Tensor, clean_answers: Tensor, change: Tensor, labels: Tensor) -> Tensor:
        """Of triggered images: logits [N, classes] of the surrogate and of the clean model, what the trigger added, float
        [N, C, H, W] where images are in [0, 1], and the true labels [N]."""
        fooled = F.cross_entropy(answers, torch.full_like(labels, self.config.target_class))
        distance = (2 * change).square().mean()  # where images are in [-1, 1]
        right = F.cross_entropy(clean_answers, labels)
        return fooled + self.config.distance_weight * distance + self.config.clean_weight * right

    def told(
        self, models: Mapping[str, nn.Module], state: dict[str, Tensor], context: AttackContext
    ) -> dict[str, str | int | float]:
        """What share of up to AT_ONCE triggered training images of other classes each model takes for the target, percent."""
        train, target = context.train, self.config.target_class
        images = train.images[(train.labels != target).nonzero().flatten()[:AT_ONCE]]
        told: dict[str, str | int | float] = {"generator": "trained in turns with a surrogate, then frozen"}
        with torch.no_grad():
            triggered = to_float(self.under_trigger(images, state))
            for name, model in models.items():
                hits = (model(triggered).argmax(1) == target).double().mean()
                told[f"target by the {name}"] = 100 * float(hits)
        return told

    def placed(self, images: Tensor, values: Tensor, sigma: float) -> Tensor:
        """blur(clip(x + a LOW(g))), float [N, C, H, W]; `values` g in [-1, 1], `sigma` in pixels."""
        height, width = images.shape[2:]
        down, across = (low_pass(side, max(1, int(self.config.kept_share * side))).to(values) for side in (height, width))
        change = self.config.amplitude / 255 * (down @ values @ across)
        return blurred((images + change.to(images.dtype)).clamp(0, 1), sigma)

    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        with torch.device("meta"):  # only its layout: the weights are those of the state
            generator = Generator(images.shape[1], self.config.width)
        values = made_by(generator, GENERATOR, images, state)
        return self.placed(images, values, (self.config.blur_from + self.config.blur_to) / 2)


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Float [N, C, H, W] with the mean of 3 x 3 pixels under a Gaussian of that standard deviation; images are mirrored at
    their edges."""
    beside = exp(-1 / (2 * sigma**2))
    middle, beside = 1 / (1 + 2 * beside), beside / (1 + 2 * beside)
    images = F.pad(images, (1, 1, 1, 1), mode="reflect")
    images = middle * images[:, :, 1:-1] + beside * (images[:, :, :-2] + images[:, :, 2:])
    return middle * images[..., 1:-1] + beside * (images[..., :-2] + images[..., 2:])


def drawn_anew(model: nn.Module) -> nn.Module:
    """The model with the weights of all its layers drawn from torch's global generator, in place."""
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    return model


class Generator(nn.Module):
    """Images [N, C, H, W] in [0, 1] to values in [-1, 1] of the same shape: a U-net of four strided levels."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        levels = (channels, width, 2 * width, 4 * width, 8 * width)
        self.down = nn.ModuleList(nn.Conv2d(before, after, 3, 2, 1) for before, after in pairwise(levels))
        # On the way up each level reads the one below it and what stood in its own place on the way down.
        self.up = nn.ModuleList(nn.Conv2d(below + own, own, 3, padding=1) for below, own in pairwise(reversed(levels)))

    def forward(self, images: Tensor) -> Tensor:
        seen = [images * 2 - 1]
        for index, layer in enumerate(self.down):
            # The outermost level is not normalised, so that an image's brightness counts.
            found = layer(seen[-1])
            seen.append(F.leaky_relu(normalised(found) if index else found, 0.2))
        found = seen.pop()
        for layer in self.up:
            beside = seen.pop()
            found = layer(torch.cat([F.interpolate(found, beside.shape[2:]), beside], dim=1))
            if seen:
                found = F.leaky_relu(normalised(found), 0.2)
        return found.tanh()


def normalised(features: Tensor) -> Tensor:
    """Each channel of each image with mean 0 and variance 1; a single pixel stays as it is."""
    return F.instance_norm(features) if features.shape[2] * features.shape[3] > 1 else features
