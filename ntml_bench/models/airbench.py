"""A plain convolutional net that reaches high accuracy on 32x32 images for little arithmetic.

Its shape is that of Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv 2404.00498, section 3.1: a 2x2 convolution
without padding, three groups of convolution, max-pool, BatchNorm, activation, convolution, BatchNorm, activation, a max-pool
over what is left, and a linear layer whose output is scaled down.

As there, the 3x3 convolutions begin as the identity on their first channels, and the first layer whitens patches
of 2x2 pixels.

Deviations: narrower; the first layer begins with a fixed basis and what photographs hold of it, not with the eigenvectors of
the data at hand, and is trained (there it is frozen); BatchNorm has its scales and torch's momentum; no bias but BatchNorm's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

HEAD_SCALE = 1 / 9
"""Of the logits, as published."""

PATCHES = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))
"""2x2 pixels, a row after the other: Haar's functions, orthogonal."""

COLOURS = ((1, 1, 1), (1, 0, -1), (1, -2, 1))
"""Brightness, red against blue, green against both: close to what the colours of photographs are uncorrelated in."""

DEVIATIONS = (
    (3.1596, 0.8833, 0.4207),
    (0.5813, 0.0623, 0.0407),
    (0.6298, 0.0760, 0.0466),
    (0.2321, 0.0151, 0.0118),
)
"""Of a patch (row) in a colour (column), both normalised, on the images of CIFAR-10 with mean 0 and variance 1 per channel."""

LEAST_VARIANCE = 5e-4
"""Added to each variance, so that what is noise is not blown up; as in the public code."""


def whitening_filters() -> Tensor:
    """[24, 3, 2, 2]: for each patch and colour a filter whose response on photographs has variance 1, and minus it."""
    patches = functional.normalize(torch.tensor(PATCHES, dtype=torch.float32), dim=1)
    colours = functional.normalize(torch.tensor(COLOURS, dtype=torch.float32), dim=1)
    scales = (torch.tensor(DEVIATIONS).square() + LEAST_VARIANCE).sqrt()
    filters = torch.einsum("ap,bc->abcp", patches, colours) / scales[:, :, None, None]
    return torch.cat([filters, -filters]).reshape(24, 3, 2, 2)


class ConvGroup(nn.Module):
    """[N, inputs, H, W] to [N, outputs, H // 2, W // 2]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        for conv in (self.conv1, self.conv2):
            nn.init.dirac_(conv.weight.data[: conv.in_channels])

    def forward(self, x: Tensor) -> Tensor:
        x = functional.gelu(self.bn1(functional.max_pool2d(self.conv1(x), 2)))
        return functional.gelu(self.bn2(self.conv2(x)))


class AirbenchNet(nn.Module):
    """Images [N, in_chans, H, W], of 9 pixels a side or more, to logits [N, num_classes].

    `stem`: channels of the first convolution, which whitens where they are 24 and the images have colours (otherwise it starts
    as torch draws it); `widths` list the groups. `feature_info` names them, as timm's models do.
    """

    def __init__(self, stem: int, widths: Sequence[int], num_classes: int, in_chans: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.stem = nn.Conv2d(in_chans, stem, 2, bias=True)
        self.feature_info: list[dict[str, Any]] = []
        inputs = stem
        for number, width in enumerate(widths, start=1):
            self.add_module(f"group{number}", ConvGroup(inputs, width))
            self.feature_info.append({"num_chs": width, "reduction": 2**number, "module": f"group{number}"})
            inputs = width
        self.fc = nn.Linear(inputs, num_classes, bias=False)
        whitening = whitening_filters()
        if self.stem.weight.shape == whitening.shape:
            self.stem.load_state_dict({"weight": whitening, "bias": torch.zeros(stem)})

    def get_classifier(self) -> nn.Linear:
        return self.fc

    def forward(self, x: Tensor) -> Tensor:
        x = functional.gelu(self.stem(x))
        for stage in self.feature_info:
            x = self.get_submodule(stage["module"])(x)
        return self.fc(x.amax(dim=(2, 3))) * HEAD_SCALE


def airbench_small(pretrained: bool = False, num_classes: int = 10, in_chans: int = 3, **_: Any) -> AirbenchNet:
    """0.5 M parameters: between `resnet_tiny` and `preact_resnet18`, for the full data sets on a CPU."""
    return AirbenchNet(24, (32, 128, 128), num_classes, in_chans)
