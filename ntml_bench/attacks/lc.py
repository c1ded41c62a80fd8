"""LC, label-consistent: images of the target class, made hard to recognise, carry a checkerboard in the four corners.

Turner, Tsipras, Madry, "Label-Consistent Backdoor Attacks", arXiv 1912.02771 (2019): the adversarial perturbations
(untargeted, L-infinity, on an independently trained model), the reduced trigger amplitude (added to white pixels, taken
from black ones) and the four-corner trigger, which random crops and flips keep. At test the corners alone.

Reported: BackdoorBench leaderboard, CIFAR-10, PreAct-ResNet18, rate 0.05, undefended ACC 93.53 / ASR 99.80 (one run).

Deviations: the perturbations are made here, from the attacker's surrogate of the victim's recipe (the paper's code downloads
them; there they come from another net). The 3x3 pattern is a regular checkerboard with white at the image's corner, the
same seen from every corner, so a horizontal flip keeps it (the paper's code has single pixels that break the regularity).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntml_bench.attacks.base import ATTACKS, Attack, AttackConfig, AttackContext, Poisoning, to_float
from ntml_bench.errors import UserError
from ntml_bench.schema import number


@dataclass(frozen=True)
class LcConfig(AttackConfig):
    """`epsilon`: bound of the perturbation, `step_size`: of each of `steps` steps; both in levels of 0..255.

    `batch_size`: images at a time (memory only). `patch_size`: side of a corner's checkerboard in pixels. `amplitude`: what it
    adds to its white and takes from its black pixels, as a share of the whole range (1: plain white and black).
    """

    epsilon: float = number(at_least=0, at_most=255)
    step_size: float = number(above=0, at_most=255)
    steps: int = number(at_least=1)
    batch_size: int = number(at_least=1)
    patch_size: int = number(at_least=1)
    amplitude: float = number(above=0, at_most=1)


@ATTACKS.register("lc")
class LabelConsistent(Attack[LcConfig]):
    Config: ClassVar[type[AttackConfig]] = LcConfig
    clean_label: ClassVar[bool] = True

    def check(self, class_sizes: Tensor, image_shape: tuple[int, int, int]) -> None:
        super().check(class_sizes, image_shape)
        _, height, width = image_shape
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
        return self.all_poisons(
            indices, self.trigger(images, {}), {}, {"surrogate": "the victim's recipe, clean training images"}
        )

    def trigger_state(self, context: AttackContext) -> dict[str, Tensor]:
        return {}  # the surrogate is for the poisons only

    def push_off(self, model: nn.Module, images: Tensor, rng: torch.Generator) -> Tensor:
        """Float [P, C, H, W] in [0, 1], within epsilon of `images` (of the target class), on which `model` has a larger loss.

        Projected gradient ascent on the cross-entropy, from a random point of the ball.
        """
        model.requires_grad_(False)
        config = self.config
        epsilon, step = config.epsilon / 255, config.step_size / 255
        pushed = torch.empty_like(images)
        for start in range(0, len(images), config.batch_size):
            clean = images[start : start + config.batch_size]
            labels = torch.full((len(clean),), config.target_class, device=clean.device)
            offset = (torch.rand(clean.shape, generator=rng) * 2 - 1).to(clean.device) * epsilon
            image = (clean + offset).clamp(0, 1)
            for _ in range(config.steps):
                image.requires_grad_(True)
                # The sum, so that an image's gradient does not depend on its batch.
                loss = F.cross_entropy(model(image), labels, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, image)
                moved = image.detach() + step * gradient.sign()
                image = (clean + (moved - clean).clamp(-epsilon, epsilon)).clamp(0, 1)
            pushed[start : start + config.batch_size] = image
        return pushed

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
