"""The nets of this package by name: they are made without timm, which takes seconds to import."""

from collections.abc import Callable

from torch import nn

from ntml_bench.models.airbench import airbench_small
from ntml_bench.models.preact_resnet import preact_resnet18, resnet_tiny

OWN: dict[str, Callable[..., nn.Module]] = {
    "preact_resnet18": preact_resnet18,
    "resnet_tiny": resnet_tiny,
    "airbench_small": airbench_small,
}
