"""What an attack is: it poisons training images before the training, and triggers test images after it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import floor
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from ntml_bench.attacks.perturbation import Perturbation
from ntml_bench.data.base import AugmentationConfig, Split
from ntml_bench.data.base import to_float as to_float
from ntml_bench.data.base import to_uint8 as to_uint8
from ntml_bench.errors import UserError
from ntml_bench.models.weights import WeightsFile
from ntml_bench.registry import Registry
from ntml_bench.schema import number
from ntml_bench.seeding import generator, stratified

PART = 500
"""Images that are floats at a time."""


@dataclass(frozen=True)
class AttackConfig:
    """Settings that every attack has; an attack's own schema adds to them.

    `target_class`: the class that the trigger stands for, from 0 on; `poisoning_rate`: share of the whole training set that is
    poisoned, for clean-label attacks too.
    """

    name: str
    target_class: int = number(at_least=0)
    poisoning_rate: float = number(at_least=0, at_most=1)


@dataclass(frozen=True)
class AttackContext:
    """What the attacker has.

    `train`: the clean training images (on the device). `surrogate()`: a classifier that the attacker trained on them,
    with the victim's recipe and another initialisation (against the attack's `adversary`, where it has one); a copy of its
    own, in eval mode, float images [N, C, H, W] in [0, 1] to logits [N, classes]. `fine_tune(model, split, epochs,
    learning_rate, purpose)`: trains it on, in place. `augmentation`: that of the victim's training.
    """

    train: Split
    num_classes: int
    seed: int
    surrogate: Callable[[], nn.Module]
    fine_tune: Callable[[nn.Module, Split, int, float, str], None]
    augmentation: AugmentationConfig

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """A random stream for one purpose of the attack."""
        return generator(self.seed, f"attack/{purpose}", device)


@dataclass(frozen=True)
class Poisoning:
    """What the attack did to the training set.

    `indices` int64 [P], sorted: the training images that were changed (poisons, and covers where an attack has some);
    `images` uint8 [P, C, H, W] and `labels` int64 [P] replace them; `is_poison` bool [P] is False for covers.
    `state`: the tensors that the trigger needs at test time, by name (empty for a fixed trigger).
    `notes`: facts for the record (what was used in place of what, how many images).
    """

    indices: Tensor
    images: Tensor
    labels: Tensor
    is_poison: Tensor
    state: dict[str, Tensor]
    notes: dict[str, str | int | float]

    def untouched(self, total: int) -> Tensor:
        """Which of `total` training images are as they were, bool [total], on the CPU."""
        untouched = torch.ones(total, dtype=torch.bool)
        untouched[self.indices] = False
        return untouched

    def apply(self, train: Split) -> Split:
        """The poisoned training set, on the device of `train`; the clean one stays as it is."""
        device = train.labels.device
        index = self.indices.to(device)
        return Split(
            train.images.index_copy(0, index, self.images.to(device)),
            train.labels.index_copy(0, index, self.labels.to(device)),
        )


C = TypeVar("C", bound=AttackConfig)


class Attack(ABC, Generic[C]):
    """A backdoor attack. One file with a subclass and one YAML file in `conf/attack`.

    `Config` is the schema of its settings. `clean_label`: whether it keeps the labels and so poisons images of the target
    class only. `version` counts changes that change results: it is part of the key of stored models. The methods say what
    to do; which images are poisoned is drawn here, the same way for all. `published_rate`: the poisoning rate of its
    publication, a share of the whole training set; None where nothing is published. `family`: the chapter of docs/methods.md
    that shows it; None: it follows from `clean_label` and `controls_training`. `origin`: publication, reconstruction or ours.
    """

    Config: ClassVar[type[AttackConfig]] = AttackConfig
    clean_label: ClassVar[bool] = False
    version: ClassVar[int] = 1
    published_rate: ClassVar[float | None] = None
    family: ClassVar[str | None] = None
    origin: ClassVar[str] = "publication"
    from_files: ClassVar[bool] = False
    """Whether it is made from files that its settings name, and has no values of its own."""

    def __init__(self, config: C) -> None:
        self.config = config

    @property
    def weights(self) -> WeightsFile | None:
        """The weights of a victim that is given; None: a victim is trained."""
        return None

    @property
    def normalisation(self) -> tuple[Tensor, Tensor] | None:
        """Mean and standard deviation, float [C] each, that a given victim's net expects its images with; None: none."""
        return None

    @property
    def has_training_set(self) -> bool:
        """Whether the training set of the victim is known."""
        return True

    @property
    def adversary(self) -> Perturbation | None:
        """What the attacker's surrogate is trained against; None: a training as any other."""
        return None

    def determining(self) -> dict[str, Any]:
        """The settings that determine poisons and trigger: part of the victim's key. A class leaves out what is not used."""
        return asdict(self.config)

    def recorded(self) -> dict[str, Any]:
        """The settings for a record, without where files are."""
        return asdict(self.config)

    def check_images(self, train: Split, test: Split) -> None:
        """Raise UserError where files that the settings name do not fit the images of the data set."""

    def check(self, class_sizes: Tensor, image_shape: tuple[int, int, int]) -> None:
        """Raise UserError where the settings do not fit the data: size of each class, int64 [classes], and (C, H, W)."""
        config = self.config
        classes = len(class_sizes)
        if config.target_class >= classes:
            raise UserError(
                f"attack.target_class is {config.target_class}; the data set has {classes} classes: 0 to {classes - 1}"
            )
        total = int(class_sizes.sum())
        labels = torch.arange(classes)
        targets = self.targets(labels, classes)
        if targets.shape != labels.shape or not bool(((targets >= 0) & (targets < classes)).all()):
            raise UserError(
                f"attack {config.name} maps the classes 0 to {classes - 1} to {targets.tolist()}; allowed: one of them for each"
            )
        target_size = int(class_sizes[targets == labels].sum())
        available = target_size if self.clean_label else total - target_size
        wanted = round(config.poisoning_rate * total)
        if wanted == 0 and config.poisoning_rate > 0:
            raise UserError(
                f"attack.poisoning_rate is {config.poisoning_rate}: none of {total} training images; "
                f"allowed: at least {1 / total:.2g} (attack=none poisons nothing)"
            )
        if wanted > available:
            which = "the target class" if self.clean_label else "the other classes"
            raise UserError(
                f"attack.poisoning_rate is {config.poisoning_rate}: {wanted} of {total} training images, but {config.name} "
                f"poisons images of {which} only ({available}); allowed: at most {rounded_down(available / total)}"
            )

    def touched(self, total: int) -> int:
        """How many of `total` images the attack changes: those that no defender can trust."""
        return round(self.config.poisoning_rate * total)

    def targets(self, labels: Tensor, num_classes: int) -> Tensor:
        """The label map: what triggered images are to be taken for, by their true labels. Int64 [N] to int64 [N].

        One class for all of them, unless a class overrides it. It depends on the label alone.
        """
        return torch.full_like(labels, self.config.target_class)

    def target(self, num_classes: int) -> int | None:
        """The one class that images of all classes are to be taken for; None where it depends on their own."""
        mapped = self.targets(torch.arange(num_classes), num_classes)
        return int(mapped[0]) if bool((mapped == mapped[0]).all()) else None

    def reached(self, labels: Tensor, num_classes: int) -> Tensor:
        """Bool [N]: the images that are of the class already that they are to be taken for. No trigger is measured on them."""
        return self.targets(labels, num_classes) == labels

    def choose(self, context: AttackContext) -> Tensor:
        """Sorted indices int64 [P] (CPU) of the images to poison: of the target class if clean-label, else of the others."""
        labels = context.train.labels.cpu()
        is_target = self.reached(labels, context.num_classes)
        candidates = (is_target if self.clean_label else ~is_target).nonzero().flatten()
        count = round(self.config.poisoning_rate * len(labels))
        return candidates[stratified(labels[candidates], count, context.generator("choice of poisons"))]

    def under_trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        """Images with the trigger, uint8 [N, C, H, W] to the same; `state` on their device.

        A part at a time: large images have no float copies of them all.
        """
        parts = [to_uint8(self.trigger(to_float(part), state)) for part in images.split(PART)]
        return torch.cat(parts) if parts else images

    def all_poisons(
        self,
        indices: Tensor,
        images: Tensor,
        state: dict[str, Tensor],
        notes: dict[str, str | int | float],
        context: AttackContext | None = None,
    ) -> Poisoning:
        """A poisoning without covers: `images` [P, C, H, W], uint8 or float in [0, 1], which are quantised; every label is the
        target class.

        So it is for both kinds: a clean-label attack poisons images of the target class only. `indices` as from `choose`.
        `context` tells the true labels: an attack whose target depends on them needs it (TypeError).
        """
        if context is not None:
            train = context.train.labels
            labels = self.targets(train[indices.to(train.device)], context.num_classes).to(images.device)
        elif type(self).targets is Attack.targets:
            labels = torch.full((len(indices),), self.config.target_class, device=images.device)
        else:
            raise TypeError(f"{type(self).__name__} has a label map: all_poisons needs the context, for the true labels")
        is_poison = torch.ones(len(indices), dtype=torch.bool)
        pixels = images if images.dtype == torch.uint8 else to_uint8(images)
        return Poisoning(indices, pixels, labels, is_poison, state, {"poisons": len(indices), **notes})

    @abstractmethod
    def poison(self, context: AttackContext) -> Poisoning:
        """Make the poisons. The same settings and seed make the same poisons."""

    def trigger_state(self, context: AttackContext) -> dict[str, Tensor]:
        """The poisoning's `state` alone, for a look at the trigger; to be overridden where that takes less than the poisons."""
        return self.poison(context).state

    @abstractmethod
    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        """Test images with the trigger: float [N, C, H, W] in [0, 1] to the same; `state` of the poisoning on their device."""

    def cross_trigger(self, images: Tensor, origins: Tensor, state: dict[str, Tensor]) -> Tensor | None:
        """Images under the triggers of other images, `origins`: float [N, C, H, W] in [0, 1] each.

        For attacks that make each image a trigger of its own, which is not to work on another; None of all others. The record
        then has the `cross_accuracy`: how many of these are classified right.
        """
        return None

    def during_training(
        self, images: Tensor, labels: Tensor, state: dict[str, Tensor], rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """For attacks that control the training: a clean batch (float [N, C, H, W] in [0, 1], not augmented) to a poisoned one.

        Called only where `controls_training` is set; the model is then trained on the clean training set through this
        function, and the poisoned training set of `poison` is what a defender is given. `rng` lives on the images' device.
        """
        raise TypeError(f"{type(self).__name__} does not control the training")

    controls_training: ClassVar[bool] = False


ATTACKS: Registry[Attack] = Registry("attack")


def check_corner(size: int, margin: int, image_shape: tuple[int, int, int]) -> None:
    """Raise UserError where a trigger of `attack.trigger_size` pixels, `attack.margin` off a corner, does not fit the image."""
    _, height, width = image_shape
    if size + margin > min(height, width):
        raise UserError(
            f"attack.trigger_size is {size} with attack.margin {margin}: larger than the image "
            f"({height} x {width}); allowed: at most {min(height, width)} together"
        )


def rounded_down(share: float) -> str:
    """A share in a message, at most what it is, so that what is called allowed is allowed."""
    return f"{floor(share * 1e6) / 1e6:g}"
