"""The last linear layer, made anew: what `ft_init`, `fe_tuning` and `fst` share."""

import torch
from torch import Tensor, nn

from ntml_bench.defenses.base import DefenseContext


def reinitialise_head(context: DefenseContext, head: nn.Linear) -> None:
    """Weight and bias in place, uniform in [-b, b] with b = 1 / sqrt(inputs), as torch makes them."""
    bound = head.in_features**-0.5
    rng = context.generator("new head")
    with torch.no_grad():
        head.weight.uniform_(-bound, bound, generator=rng)
        if head.bias is not None:
            head.bias.uniform_(-bound, bound, generator=rng)


def scale_to(weight: Tensor, norm: Tensor) -> None:
    """In place: the weight of a head, any shape, to a Euclidean norm."""
    with torch.no_grad():
        weight.mul_(norm / weight.norm())
