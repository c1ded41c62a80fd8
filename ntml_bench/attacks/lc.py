"""LC, label-consistent: images of the target class, made hard to recognise, carry a checkerboard in the four corners.

Turner, Tsipras, Madry, "Label-Consistent Backdoor Attacks", arXiv 1912.02771 (2019): the adversarial perturbations
(untargeted, bounded by the L-infinity or the L2 norm, on a model that was trained apart from the victim, adversarially), the
reduced trigger amplitude (added to white pixels, taken from black ones) and the four-corner trigger, which random crops and
flips keep. At test the corners alone.

Reported: BackdoorBench leaderboard, CIFAR-10, PreAct-ResNet18, rate 0.05, undefended ACC 93.53 / ASR 99.80 (one run).

Deviations:
- The perturbations are made here, from the attacker's surrogate of the victim's net and recipe. The paper's code downloads
  perturbed images; that their net was trained adversarially, as by Madry et al., is what a public port of it does and says.
- A surrogate of standard training is an option, which the values for digit_scenes and of the family `small` take for time.
- The 3x3 pattern is a regular checkerboard with white at the image's corner, the same seen from every corner, so a
  horizontal flip keeps it (the paper's code has single pixels that break the regularity).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ntml_bench.attacks.base import ATTACKS, Attack, AttackConfig, AttackContext, Poisoning, to_float
from ntml_bench.attacks.perturbation import L2, LINF, Perturbation, largest
from ntml_bench.errors import UserError
from ntml_bench.schema import number, one_of

STANDARD, ADVERSARIAL = "standard", "adversarial"


@dataclass(frozen=True, kw_only=True)
class LcConfig(AttackConfig):
    """`norm`: of the perturbation: the largest change of a pixel (linf) or its length over the whole image (l2). `epsilon`:
    bound of that norm in levels of 0..255; `step_size`: that of a step, in the same; `steps`: how many; `batch_size`: images at
    a time (memory only). `patch_size`: side of a corner's checkerboard in pixels. `amplitude`: what it adds to its white and
    takes from its black pixels, as a share of the whole range (1: plain white and black).

    `surrogate`: whether the net that the perturbations are made with is trained on clean images (standard) or on what an
    adversary makes of them (adversarial). `adversary`: that adversary.
    """

    norm: str = one_of(LINF, L2)
    epsilon: float = number(at_least=0)
    step_size: float = number(above=0)
    steps: int = number(at_least=1)
    batch_size: int = number(at_least=1)
    patch_size: int = number(at_least=1)
    amplitude: float = number(above=0, at_most=1)
    surrogate: str = one_of(STANDARD, ADVERSARIAL)
    adversary: Perturbation


@ATTACKS.register("lc")
class LabelConsistent(Attack[LcConfig]):
    Config: ClassVar[type[AttackConfig]] = LcConfig
    published_rate: ClassVar[float | None] = 0.05
    clean_label: ClassVar[bool] = True

    def check(self, class_sizes: Tensor, image_shape: tuple[int, int, int]) -> None:
        super().check(class_sizes, image_shape)
        _, height, width = image_shape
        most = largest(self.config.norm, image_shape)
        for name, given in (("epsilon", self.config.epsilon), ("step_size", self.config.step_size)):
            if given > most:
                raise UserError(
                    f"attack.{name} is {given:g}: by {self.config.norm} no two images of {height} x {width} are as far apart; "
                    f"allowed: at most {most:g}"
                )
        if 2 * self.config.patch_size > min(height, width):
            raise UserError(
                f"attack.patch_size is {self.config.patch_size}: four corners of it are larger than the image "
                f"({height} x {width}); allowed: at most {min(height, width) // 2}"
            )

    def poison(self, context: AttackContext) -> Poisoning:
        indices = self.choose(context)
        images = to_float(context.train.images[indices.to(context.train.images.device)])
        if len(indices) > 0 and self.config.epsilon > 0:
            images = self.push_off(context.surrogate(), images, context.generator("lc/start"))
        trained = "the victim's recipe, clean training images"
        if (adversary := self.adversary) is not None:
            trained += (
                f" under perturbations (epsilon {adversary.epsilon:g}, {adversary.steps} steps of {adversary.step_size:g})"
            )
        return self.all_poisons(indices, self.trigger(images, {}), {}, {"surrogate": trained})

    @property
    def adversary(self) -> Perturbation | None:
        return self.config.adversary if self.config.surrogate == ADVERSARIAL else None

    def determining(self) -> dict[str, Any]:
        settings = super().determining()
        if self.adversary is None:
            # What is not used. So the poisons that were made before there was a choice keep their keys, as below.
            del settings["surrogate"], settings["adversary"]
        if self.config.norm == LINF:
            del settings["norm"]
        return settings

    def trigger_state(self, context: AttackContext) -> dict[str, Tensor]:
        return {}  # the surrogate is for the poisons only

    def push_off(self, model: nn.Module, images: Tensor, rng: torch.Generator) -> Tensor:
        """`images` of the target class, float [P, C, H, W] in [0, 1], made hard to recognise for `model`."""
        model.requires_grad_(False)
        config = self.config
        perturbation = Perturbation(config.epsilon, config.step_size, config.steps)
        labels = torch.full((len(images),), config.target_class, device=images.device)
        batches = zip(images.split(config.batch_size), labels.split(config.batch_size), strict=True)
        return torch.cat([perturbation.push_off(model, clean, classes, rng, config.norm) for clean, classes in batches])

    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        height, width = images.shape[2:]
        row = torch.arange(height, device=images.device)
        column = torch.arange(width, device=images.device)
        # Distance of a pixel from the nearest corner, along each side.
        down = torch.minimum(row, height - 1 - row)[:, None]
        across = torch.minimum(column, width - 1 - column)[None, :]
        inside = (down < self.config.patch_size) & (across < self.config.patch_size)
        sign = 1 - 2 * ((down + across) % 2)
        patch = self.config.amplitude * (inside * sign).to(images.dtype)
        return (images + patch).clamp(0, 1)
