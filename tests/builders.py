"""Small images, models, recipes and defender's contexts that several test files build on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import OmegaConf
from safetensors.torch import load, save
from torch import Tensor, nn

from ntml_bench.attacks import ATTACKS
from ntml_bench.data.base import DATASETS, AugmentationConfig, Dataset, Split
from ntml_bench.defenses import DEFENSES, Defense, DefenseContext
from ntml_bench.engine import Engine
from ntml_bench.models import Classifier, ModelConfig, load_weights, make_classifier
from ntml_bench.schema import build
from ntml_bench.training import Recipe

CONF = Path(__file__).parents[1] / "conf"
ENGINE = Engine(torch.device("cpu"), half=False)
NO_AUGMENTATION = AugmentationConfig(crop_padding=0, horizontal_flip=False)
CLASSES = 4
SHAPE = (3, 8, 8)


def option_names(group: str) -> list[str]:
    """The options of a group that come with the package, sorted."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def attacks_of_ours() -> list[str]:
    """The attacks that come with the package: neither none nor a victim or a trigger of the user's."""
    return [name for name in option_names("attack") if name != "none" and not ATTACKS[name].from_files]


def yaml_values(group: str, name: str) -> dict[str, Any]:
    """The values of an option's YAML file, over those of the option that it extends."""
    values = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    assert isinstance(values, dict)
    bases = [base for base in values.pop("defaults", []) if base != "_self_"]
    for base in bases:
        values = yaml_values(group, base) | values
    return {str(key): value for key, value in values.items()}


def method_values(group: str, name: str) -> dict[str, Any]:
    """The values of an option's YAML file that the method's class is built from: a defense's strength is the app's."""
    own = yaml_values(group, name)
    return {key: value for key, value in own.items() if (group, key) != ("defense", "strength")}


def make_dataset(name: str, **changes: Any) -> Dataset:
    """A data set with the values of its YAML file, some of them changed."""
    values = yaml_values("dataset", name) | changes
    return DATASETS[values["name"]](build(DATASETS[values["name"]].Config, values, "dataset"))


def with_value(values: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """A copy of nested values with one of them changed, which must be there."""
    name, _, rest = dotted.partition(".")
    assert name in values
    return values | {name: with_value(values[name], rest, value) if rest else value}


def leaves(values: dict[str, Any], prefix: str = "") -> list[str]:
    """The dotted names of all values."""
    names: list[str] = []
    for name, value in values.items():
        names += leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [prefix + name]
    return names


def recipe(**changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": 0.1,
        "momentum": 0.0,
        "nesterov": False,
        "weight_decay": 0.0,
        "schedule": "constant",
        "warmup": 0.0,
    }
    return Recipe(**values | changes)


def images_of(labels: Tensor, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Split:
    """Noisy images whose brightness and colour tell the class."""
    rng = torch.Generator().manual_seed(seed)
    channels, height, width = shape
    base = torch.rand(int(labels.max()) + 1, channels, 1, 1, generator=torch.Generator().manual_seed(99)) * 180
    noise = torch.rand(len(labels), channels, height, width, generator=rng) * 75
    return Split((base[labels] + noise).to(torch.uint8), labels)


def split(count: int = 32, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Split:
    return images_of(torch.arange(count) % CLASSES, shape, seed)


def classifier(name: str = "resnet_tiny", seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> Classifier:
    """An untrained model in eval mode, whose BatchNorm layers are not the identity."""
    channels = shape[0]
    statistics = torch.full((channels,), 0.5), torch.full((channels,), 0.25)
    model = make_classifier(ModelConfig(name), CLASSES, shape, statistics, seed).eval()
    rng = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            size = module.weight.shape
            module.weight.data = 0.5 + torch.rand(size, generator=rng)
            module.bias.data = 0.4 * torch.rand(size, generator=rng) - 0.2
            cast(Tensor, module.running_mean).copy_(0.2 * torch.randn(size, generator=rng))
            cast(Tensor, module.running_var).copy_(0.5 + torch.rand(size, generator=rng))
    return model


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same_state(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def reloaded(model: Classifier, name: str = "resnet_tiny", shape: tuple[int, int, int] = SHAPE) -> Classifier:
    """A fresh model with other weights, into which those of `model` were loaded through a file's bytes."""
    fresh = classifier(name, seed=12345, shape=shape)
    load_weights(fresh, load(save({key: value.contiguous() for key, value in model.state_dict().items()})))
    return fresh.eval()


class Untouchable:
    """Stands in for data that must not be read."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the attribute {name} of data out of reach was read")

    def __len__(self) -> int:
        raise AssertionError("the length of data out of reach was read")

    def __getitem__(self, index: object) -> Any:
        raise AssertionError("data out of reach was indexed")


UNTOUCHABLE = cast(Split, Untouchable())


class Diary:
    """What a defense logged, noted and had observed."""

    def __init__(self) -> None:
        self.logged: list[tuple[str, dict[str, float]]] = []
        self.observed: list[tuple[str, dict[str, Tensor]]] = []
        self.noted: dict[str, Any] = {}

    def log(self, stage: str, values: dict[str, float]) -> None:
        self.logged.append((stage, values))

    def observe(self, stage: str, model: Classifier) -> None:
        self.observed.append((stage, state_of(model)))


def defender(
    model: Classifier | None = None,
    *,
    clean_budget: Split | None = None,
    poisoned_train: Split | None = None,
    seed: int = 0,
    diary: Diary | None = None,
    new_model: Callable[[], Classifier] | None = None,
) -> DefenseContext:
    """The context of a defense on small data."""
    diary = diary or Diary()
    return DefenseContext(
        engine=ENGINE,
        model=model or classifier(),
        clean_budget=clean_budget if clean_budget is not None else split(24, seed=1),
        poisoned_train=poisoned_train if poisoned_train is not None else split(40, seed=2),
        num_classes=CLASSES,
        image_shape=SHAPE,
        seed=seed,
        augmentation=AugmentationConfig(crop_padding=1, horizontal_flip=True),
        new_model=new_model or (lambda: classifier(seed=777)),
        log=diary.log,
        observe=diary.observe,
        note=diary.noted.__setitem__,
        once=lambda _, make: make(),
    )


QUICK: dict[str, Any] = {"epochs": 1, "warmup_epochs": 1, "batch_size": 8, "steps": 3, "rounds": 1}


def quick_values(values: dict[str, Any]) -> dict[str, Any]:
    """The same settings with little to do."""
    return {name: quick_values(value) if isinstance(value, dict) else QUICK.get(name, value) for name, value in values.items()}


def quick_defense(name: str, values: dict[str, Any] | None = None, **changes: Any) -> Defense:
    """A defense with the values of its YAML file, but with little to do; `__` in a name leads into a group."""
    values = values or quick_values(method_values("defense", name))
    for dotted, value in changes.items():
        values = with_value(values, dotted.replace("__", "."), value)
    return DEFENSES[name](build(DEFENSES[name].Config, values, "defense"))


# Registered defenses that come with the package; other tests register toys.
DEFENSE_NAMES = [name for name in DEFENSES if (CONF / "defense" / f"{name}.yaml").exists()]
