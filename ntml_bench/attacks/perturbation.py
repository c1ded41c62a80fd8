"""Adversarial perturbations of single images, and the nets that are trained against them.

Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018
(arXiv 1706.06083): projected gradient ascent on the cross-entropy within a ball of a norm, from a random point of it; a net
that is trained on what becomes of its batches this way is adversarially trained.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ntml_bench.schema import number

LINF, L2 = "linf", "l2"


def largest(norm: str, image_shape: tuple[int, int, int]) -> float:
    """The largest `norm` of a difference of two images of (C, H, W), in levels of 0..255."""
    return 255 * (math.sqrt(math.prod(image_shape)) if norm == L2 else 1)


@dataclass(frozen=True)
class Perturbation:
    """`epsilon`: bound of the perturbation in levels of 0..255; `step_size`: length of a step in the same; `steps`: of them."""

    epsilon: float = number(at_least=0, at_most=255)
    step_size: float = number(above=0, at_most=255)
    steps: int = number(at_least=1)

    def push_off(
        self, model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, rng: torch.Generator, norm: str = LINF
    ) -> Tensor:
        """Float [B, C, H, W] in [0, 1], within epsilon of `images` by `norm`, on which `model` has a larger loss for `labels`
        [B].

        By linf a step is of the gradient's signs, by l2 of its direction, image by image. The model is left as it is but for
        what a forward pass changes in train mode. `rng` may live on another device.
        """
        epsilon, step = self.epsilon / 255, self.step_size / 255
        image = (images + _start(images, rng, norm) * epsilon).clamp(0, 1)
        for _ in range(self.steps):
            image.requires_grad_(True)
            # The sum, so that an image's gradient does not depend on its batch.
            loss = F.cross_entropy(model(image), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, image)
            moved = image.detach() + step * (_unit(gradient) if norm == L2 else gradient.sign())
            image = (images + _within(moved - images, epsilon, norm)).clamp(0, 1)
        return image


def _start(images: Tensor, rng: torch.Generator, norm: str) -> Tensor:
    """A random point of the unit ball for each image: by linf any, by l2 in any direction and at any distance alike."""
    if norm == LINF:
        return (torch.rand(images.shape, generator=rng, device=rng.device) * 2 - 1).to(images.device)
    direction = _unit(torch.randn(images.shape, generator=rng, device=rng.device))
    distance = torch.rand(len(images), 1, 1, 1, generator=rng, device=rng.device)
    return (direction * distance).to(images.device)


def _lengths(batch: Tensor) -> Tensor:
    # Not 0, so that what has no direction stays where it is.
    return torch.linalg.vector_norm(batch, dim=(1, 2, 3), keepdim=True).clamp(min=torch.finfo(batch.dtype).tiny)


def _unit(batch: Tensor) -> Tensor:
    return batch / _lengths(batch)


def _within(offset: Tensor, epsilon: float, norm: str) -> Tensor:
    if norm == LINF:
        return offset.clamp(-epsilon, epsilon)
    return offset * (epsilon / _lengths(offset)).clamp(max=1)
