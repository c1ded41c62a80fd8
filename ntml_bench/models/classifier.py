"""The model that everything else sees: float images in [0, 1] to logits, whatever net is inside."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import gcd, log
from threading import RLock
from typing import Any, cast

import torch
from torch import Tensor, nn

from ntml_bench.errors import UserError, unknown
from ntml_bench.models.own import OWN
from ntml_bench.models.weights import WeightsFile, start_from
from ntml_bench.schema import build
from ntml_bench.seeding import derive


@dataclass(frozen=True)
class ModelConfig:
    """`name`: any model of timm, or one of ours (`preact_resnet18`, `resnet_tiny`, `airbench_small`)."""

    name: str

    @property
    def adapted(self) -> bool | None:
        """Whether a net for large images is changed for small ones; None: nothing was said of it, and it is."""
        return None

    @property
    def pretrained(self) -> WeightsFile | None:
        """The weights that a training starts from; None: random ones."""
        return None

    def determining(self) -> dict[str, Any]:
        """What a new model is determined by, beside the data and the seed."""
        settings: dict[str, Any] = {"name": self.name}
        # Absent where they say nothing, so that older artifacts keep their keys.
        if self.adapted is False:
            settings["adapted"] = False
        if self.pretrained is not None:
            settings["pretrained"] = self.pretrained.digest
        return settings

    def recorded(self) -> dict[str, Any]:
        """The settings for a record, without where a file is."""
        named = {} if self.pretrained is None else {"pretrained": self.pretrained.name}
        return self.determining() | named


@dataclass(frozen=True, kw_only=True)
class TimmSettings:
    """The settings of `model=timm`.

    `name`: any model of timm, or one that a module of `imports` registers there. `adapted`: whether a net for large images is
    changed for small ones (strides taken out, smaller patches); null: yes, but for pretrained nets. `pretrained`: a file of
    weights that victims start from (null: random weights).
    """

    name: str
    adapted: bool | None
    pretrained: str | None


@dataclass(frozen=True)
class TimmConfig(ModelConfig):
    """A net of which more than the name is said."""

    is_adapted: bool | None = None
    weights: WeightsFile | None = None

    @property
    def adapted(self) -> bool | None:
        return self.is_adapted

    @property
    def pretrained(self) -> WeightsFile | None:
        return self.weights


def read_model(values: Mapping[str, Any]) -> ModelConfig:
    """The net that the settings of `model` name. Raises UserError, also for a file of weights that is not there."""
    if values.keys() <= {"name"}:
        return build(ModelConfig, values, "model")
    said = build(TimmSettings, {"adapted": None, "pretrained": None, **values}, "model")
    if said.pretrained is None:
        return ModelConfig(said.name) if said.adapted is None else TimmConfig(said.name, said.adapted)
    return TimmConfig(said.name, bool(said.adapted), WeightsFile.of("model.pretrained", said.pretrained))


class Classifier(nn.Module):
    """A net behind its normalisation: float images [N, C, H, W] in [0, 1] to logits [N, classes].

    `patch_size`: of a net of patches that earlier versions made with other ones, which cut off the border; else None.
    """

    mean: Tensor
    std: Tensor
    patch_size: int | None = None

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
        get_classifier = getattr(self.net, "get_classifier", None)
        if get_classifier is None:
            raise UserError(f"{type(self.net).__name__} has no get_classifier(); this needs a net that names its linear layer")
        head = cast(Any, get_classifier)()
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
        try:
            return [self.net.get_submodule(stage["module"]) for stage in list(info)[-count:]]
        except (AttributeError, KeyError) as error:
            raise UserError(f"feature_info of {type(self.net).__name__} names stages that it does not have: {error}") from None


def make_classifier(
    config: ModelConfig, num_classes: int, image_shape: tuple[int, int, int], statistics: tuple[Tensor, Tensor], seed: int
) -> Classifier:
    """A new classifier with random weights that depend on `seed` alone, or pretrained ones but for a random head.

    UserError for a name that is none, or does not fit, and for weights that do not fit.
    """
    _maker(config.name)
    # The initialisers draw from torch's global generator.
    with global_stream(derive(seed, "initialisation")):
        net, patch_size = _create(config, num_classes, *image_shape)
    if config.pretrained is not None:
        start_from(net, config.pretrained, config.name)
    classifier = Classifier(net, *statistics)
    classifier.patch_size = patch_size
    return classifier


def _maker(name: str) -> Callable[..., nn.Module]:
    """What makes the net: ours, or timm's. Raises UserError for an unknown name."""
    if name in OWN:
        return OWN[name]
    from ntml_bench.models.in_timm import list_models, model_entrypoint

    if name in list_models(name):
        return model_entrypoint(name)
    names = list_models()
    # timm's names of weights, of which it would make the net, with random weights here.
    net, _, weights = name.partition(".")
    if weights and net in names:
        raise UserError(
            f"model.name is '{name}', but no weights are downloaded here, and so not '{weights}'; use model.name={net}, "
            "model.pretrained=FILE for weights in a file"
        )
    raise unknown("model.name", name, names)


def module_of(config: ModelConfig) -> str:
    """The name of the module that builds the net; UserError for an unknown one."""
    return _maker(config.name).__module__


_global_generator = RLock()


@contextmanager
def global_stream(seed: int) -> Iterator[None]:
    """torch's global generator, which is one for all threads, seeded for the block, and behind it as it was."""
    with _global_generator, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _create(config: ModelConfig, num_classes: int, channels: int, height: int, width: int) -> tuple[nn.Module, int | None]:
    """The net, and the size of its patches where that is another one than earlier versions took."""
    name = config.name
    if name in OWN:
        return OWN[name](num_classes=num_classes, in_chans=channels), None
    from ntml_bench.models.in_timm import create_model

    def create(**arguments: Any) -> nn.Module:
        return create_model(name, pretrained=False, num_classes=num_classes, in_chans=channels, **arguments)

    try:
        if config.adapted is False:
            try:
                return create(img_size=(height, width)), None
            except TypeError:
                return create(), None
        try:
            return _of_patches(name, create, height, width)
        except TypeError:
            net = create()
        adapt_to_small_images(net, min(height, width))
        with torch.inference_mode():
            net.eval()(torch.zeros(1, channels, height, width))
    except (RuntimeError, AssertionError, TypeError, ValueError, ArithmeticError, LookupError) as error:
        raise UserError(f"model.name={name} cannot be adapted to images of {height}x{width} pixels: {error}") from None
    return net, None


def _of_patches(name: str, create: Callable[..., nn.Module], height: int, width: int) -> tuple[nn.Module, int | None]:
    """A net of patches; TypeError for one that has none."""
    size = patch_size(height, width)
    net = create(img_size=(height, width), patch_size=size)
    usual = max(1, min(height, width) // PATCHES)
    if size == usual:
        return net, None
    # What takes any setting and heeds none, as a user's own net may, is the net that it was.
    with suppress(RuntimeError, AssertionError, ValueError, ArithmeticError, LookupError):
        other = create(img_size=(height, width), patch_size=usual)
        if [value.shape for value in other.state_dict().values()] == [value.shape for value in net.state_dict().values()]:
            return net, None
    patches = max(height, width) // size
    if not PATCHES / 2 <= patches <= 2 * PATCHES:
        raise UserError(
            f"model.name={name} cuts images into patches of one size, and none that divides {height}x{width} pixels makes "
            f"{PATCHES // 2} to {2 * PATCHES} of a side; use images of {round(min(height, width) / PATCHES) * PATCHES} "
            "pixels, or a convolutional net"
        )
    return net, size


PATCHES = 8
"""Along a side of an image, about, in nets of patches: 64 of all, as a 224x224 image has 196."""


def patch_size(height: int, width: int) -> int:
    """The side in pixels of square patches that cover the whole image, about `PATCHES` of them along its shorter side."""
    shorter = min(height, width)
    usual = max(1, shorter // PATCHES)
    if height % usual == width % usual == 0:
        return usual
    common = gcd(height, width)
    divisors = [size for size in range(1, common + 1) if common % size == 0]
    return min(divisors, key=lambda size: abs(log(shorter / size / PATCHES)))


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
