"""A layer that a defense inserts into a net. The names of stored weights tell that there is one and where it stands, so that
what is stored says all that it takes to load it, and a net without one keeps its names.
"""

import re
from collections.abc import Mapping
from typing import cast

from torch import Tensor, nn

from ntml_bench.models.classifier import Classifier

_MARK = re.compile(r"net\.(.+)\.polarizer\.0\.weight")


class Polarized(nn.Module):
    """A layer that reads feature maps [N, C, H, W] behind a linear map of their channels and a BatchNorm layer.

    `polarizer`: the two, at first the identity but for the factor 1 / sqrt(1 + eps) of BatchNorm; `layer`: what reads them.
    """

    def __init__(self, layer: nn.Module, channels: int) -> None:
        super().__init__()
        self.layer = layer
        # Not initialised by torch, which would draw from its global generator.
        mixing = cast(nn.Conv2d, nn.utils.skip_init(nn.Conv2d, channels, channels, 1, bias=False))
        nn.init.dirac_(mixing.weight)
        self.polarizer = nn.Sequential(mixing, nn.BatchNorm2d(channels))

    def forward(self, features: Tensor) -> Tensor:
        return self.layer(self.polarizer(features))


def polarize(model: Classifier, name: str, channels: int) -> Polarized:
    """Insert a polarizer in front of the layer `name` of the net, in place; returns the two, in the mode of the layer."""
    parent, _, own_name = name.rpartition(".")
    layer = model.net.get_submodule(name)
    made = Polarized(layer, channels).to(model.mean.device).train(layer.training)
    setattr(model.net.get_submodule(parent), own_name, made)
    return made


def load_weights(model: Classifier, weights: Mapping[str, Tensor]) -> None:
    """Put stored weights into a new model, in place, with the layer that a defense inserted where they have one.

    Raises RuntimeError, as torch's `load_state_dict`, for weights of another net.
    """
    layers = dict(model.net.named_modules())
    for name, weight in weights.items():
        found = _MARK.fullmatch(name)
        if found is not None and found[1] in layers:
            polarize(model, found[1], len(weight))
    model.load_state_dict(weights)
