"""Pre-activation ResNets for small images.

He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016: a block is BN-ReLU-conv-BN-ReLU-conv, the shortcut
of a block that changes shape starts behind the first BN-ReLU. `preact_resnet18` is the net of the BackdoorBench
leaderboard, but with the BN-ReLU before the pool that the publication has and the leaderboard's net lacks.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class PreActBlock(nn.Module):
    """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        changes_shape = stride != 1 or inputs != outputs
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes_shape else None

    def forward(self, x: Tensor) -> Tensor:
        activated = functional.relu(self.bn1(x))
        residual = x if self.shortcut is None else self.shortcut(activated)
        return self.conv2(functional.relu(self.bn2(self.conv1(activated)))) + residual


class PreActResNet(nn.Module):
    """Images [N, in_chans, H, W] to logits [N, num_classes].

    `widths` and `depths` list the stages; every stage but the first halves the resolution, and so does the stem where
    `stem_stride` is 2. `feature_info` names the stages, as timm's models do.
    """

    def __init__(self, widths: Sequence[int], depths: Sequence[int], stem_stride: int, num_classes: int, in_chans: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv1 = nn.Conv2d(in_chans, widths[0], 3, stem_stride, 1, bias=False)
        self.feature_info: list[dict[str, Any]] = []
        inputs, reduction = widths[0], stem_stride
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
            stride = 1 if number == 1 else 2
            blocks = [
                PreActBlock(inputs if block == 0 else width, width, stride if block == 0 else 1) for block in range(depth)
            ]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            inputs, reduction = width, reduction * stride
            self.feature_info.append({"num_chs": width, "reduction": reduction, "module": f"layer{number}"})
        self.bn = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def get_classifier(self) -> nn.Linear:
        return self.fc

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for stage in self.feature_info:
            x = self.get_submodule(stage["module"])(x)
        return self.fc(functional.relu(self.bn(x)).mean(dim=(2, 3)))


def preact_resnet18(pretrained: bool = False, num_classes: int = 10, in_chans: int = 3, **_: Any) -> PreActResNet:
    """11.2 M parameters; the net of the published CIFAR-10 tables."""
    return PreActResNet((64, 128, 256, 512), (2, 2, 2, 2), 1, num_classes, in_chans)


def resnet_tiny(pretrained: bool = False, num_classes: int = 10, in_chans: int = 3, **_: Any) -> PreActResNet:
    """0.3 M parameters, 12 M multiplications a 32x32 image: trains on a CPU in a minute."""
    return PreActResNet((32, 64, 128), (1, 1, 1), 2, num_classes, in_chans)
