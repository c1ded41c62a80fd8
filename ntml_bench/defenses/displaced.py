"""A second gradient elsewhere: what `ft_sam` and `tsbd` share. They take a step by the gradient at weights that were moved."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ntml_bench.defenses.masks import BatchNorm


@contextmanager
def displaced(parameters: Sequence[nn.Parameter], by: Sequence[Tensor]) -> Iterator[None]:
    """Within, each parameter stands so far from where it was; behind it exactly where it was."""
    before = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter, difference in zip(parameters, by, strict=True):
            parameter.add_(difference)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, weight in zip(parameters, before, strict=True):
                parameter.copy_(weight)


@contextmanager
def running_statistics_kept(model: nn.Module) -> Iterator[None]:
    """Within, BatchNorm in training mode normalises by the batch and leaves statistics and counter as they are."""
    tracking = [module for module in model.modules() if isinstance(module, BatchNorm) and module.track_running_stats]
    for module in tracking:
        module.track_running_stats = False
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True
