"""The model that everything else sees: float images in [0, 1] to logits, whatever net is inside."""

from dataclasses import dataclass
from threading import Lock
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

import ntml_bench.models.preact_resnet  # noqa: F401  (registers its nets in timm)
from ntml_bench.errors import UserError, unknown
from ntml_bench.seeding import derive


@dataclass(frozen=True)
class ModelConfig:
    """`name`: any model of timm, or one of ours (`preact_resnet18`, `resnet_tiny`)."""

    name: str


class Classifier(nn.Module):
    """A net behind its normalisation: float images [N, C, H, W] in [0, 1] to logits [N, classes]."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.register_buffer("std", std.view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.net((images - self.mean) / self.std)

    @property
    def head(self) -> nn.Linear:
        """The last linear layer; UserError for a net whose classifier is something else."""
        head = cast(Any, self.net).get_classifier()
        if not isinstance(head, nn.Linear):
            raise UserError(
                f"{type(self.net).__name__} ends in {type(head).__name__}; this needs a net that ends in a linear layer"
            )
        return head

    def stages(self, count: int) -> list[nn.Module]:
        """The last `count` stages, whose outputs are feature maps; UserError for a net that does not name so many."""
        info = getattr(self.net, "feature_info", None) or []
        if len(info) < count:
            raise UserError(f"{type(self.net).__name__} names {len(info)} stages of feature maps; this needs {count}")
        return [self.net.get_submodule(stage["module"]) for stage in list(info)[-count:]]


def make_classifier(
    config: ModelConfig, num_classes: int, image_shape: tuple[int, int, int], statistics: tuple[Tensor, Tensor], seed: int
) -> Classifier:
    """A new classifier with random weights that depend on `seed` alone. UserError for an unknown name."""
    module_of(config)
    channels, height, width = image_shape
    # The initialisers draw from torch's global generator, which is one for all threads.
    with _global_generator, torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "initialisation"))
        net = _create(config.name, num_classes, channels, height, width)
    return Classifier(net, *statistics)


def module_of(config: ModelConfig) -> str:
    """The name of the module that builds the net; UserError for an unknown one."""
    if not timm.is_model(config.name):
        raise unknown("model.name", config.name, timm.list_models())
    return timm.model_entrypoint(config.name).__module__


_global_generator = Lock()
OWN = ("preact_resnet18", "resnet_tiny")


def _create(name: str, num_classes: int, channels: int, height: int, width: int) -> nn.Module:
    arguments: dict[str, Any] = {"pretrained": False, "num_classes": num_classes, "in_chans": channels}
    if name in OWN:
        return timm.create_model(name, **arguments)
    try:
        # Transformers: 64 patches, as a 224x224 image has 196.
        return timm.create_model(name, img_size=(height, width), patch_size=max(1, min(height, width) // 8), **arguments)
    except TypeError:
        net = timm.create_model(name, **arguments)
    adapt_to_small_images(net, min(height, width))
    try:
        with torch.inference_mode():
            net.eval()(torch.zeros(1, channels, height, width))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(f"model.name={name} cannot be adapted to images of {height}x{width} pixels: {error}") from None
    return net


def adapt_to_small_images(net: nn.Module, size: int) -> None:
    """Take the earliest strides out of a convolutional net, in place, until its last feature map is at least 4x4.

    A net made for 224x224 images reduces them by 32; a 32x32 image would end as one pixel. The 7x7 stem becomes 3x3.
    """
    info = getattr(net, "feature_info", None)
    reduction = int(list(info)[-1]["reduction"]) if info else 32
    block = None
    for name, module in list(net.named_modules()):
        stride = getattr(module, "stride", 1)
        stride = stride[0] if isinstance(stride, tuple) else stride
        if stride == 1 or not isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            continue
        # The branches of one block (its shortcut among them) lose their strides together, and count once.
        if name.split(".")[:2] != block:
            if reduction <= max(1, size // 4):
                return
            block = name.split(".")[:2]
            reduction //= stride
        parent, _, own_name = name.rpartition(".")
        setattr(net.get_submodule(parent), own_name, _without_stride(module))


def _without_stride(module: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) -> nn.Module:
    if not isinstance(module, nn.Conv2d):
        return nn.Identity()
    large = module.kernel_size[0] > 3
    return nn.Conv2d(
        module.in_channels,
        module.out_channels,
        3 if large else cast(Any, module.kernel_size),
        1,
        1 if large else cast(Any, module.padding),
        groups=module.groups,
        bias=module.bias is not None,
    )
