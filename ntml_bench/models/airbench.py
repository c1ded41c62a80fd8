"""A plain convolutional net that reaches high accuracy on 32x32 images for little arithmetic.

Its shape is that of Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv 2404.00498, section 3.1: a 2x2 convolution
without padding, three groups of convolution, max-pool, BatchNorm, activation, convolution, BatchNorm, activation, a max-pool
over what is left, and a linear layer whose output is scaled down.

Deviations: narrower; every weight is trained (there the first layer is the whitening of the data, and frozen); BatchNorm has
its scales and torch's momentum; no bias but BatchNorm's; random weights as torch draws them.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

HEAD_SCALE = 1 / 9
"""Of the logits, as published."""


class ConvGroup(nn.Module):
    """[N, inputs, H, W] to [N, outputs, H // 2, W // 2]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.gelu(self.bn1(functional.max_pool2d(self.conv1(x), 2)))
        return functional.gelu(self.bn2(self.conv2(x)))


class AirbenchNet(nn.Module):
    """Images [N, in_chans, H, W], of 9 pixels a side or more, to logits [N, num_classes].

    `stem`: channels of the first convolution; `widths` list the groups. `feature_info` names them, as timm's models do.
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
