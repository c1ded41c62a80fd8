"""Adversarial perturbations of single images, and the nets that are trained against them.

Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018
(arXiv 1706.06083): projected gradient ascent on the cross-entropy within an L-infinity ball, from a random point of it; a net
that is trained on what becomes of its batches this way is adversarially trained.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ntml_bench.schema import number


@dataclass(frozen=True)
class Perturbation:
    """`epsilon`: bound of the perturbation in levels of 0..255; `step_size`: length of a step in the same; `steps`: of them."""

    epsilon: float = number(at_least=0, at_most=255)
    step_size: float = number(above=0, at_most=255)
    steps: int = number(at_least=1)

    def push_off(self, model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
        """Float [B, C, H, W] in [0, 1], within epsilon of `images`, on which `model` has a larger loss for `labels` [B].

        The model is left as it is but for what a forward pass changes in train mode. `rng` may live on another device.
        """
        epsilon, step = self.epsilon / 255, self.step_size / 255
        offset = (torch.rand(images.shape, generator=rng, device=rng.device) * 2 - 1).to(images.device) * epsilon
        image = (images + offset).clamp(0, 1)
        for _ in range(self.steps):
            image.requires_grad_(True)
            # The sum, so that an image's gradient does not depend on its batch.
            loss = F.cross_entropy(model(image), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, image)
            moved = image.detach() + step * gradient.sign()
            image = (images + (moved - images).clamp(-epsilon, epsilon)).clamp(0, 1)
        return image
