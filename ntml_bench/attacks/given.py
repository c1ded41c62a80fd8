"""Given: a victim from outside, or poisons from outside that a victim is trained on here.

The victim is a file of weights, its trigger a function of the user's, two folders of test images or an image. Nothing of it is
trained or changed; defenses and evaluation take it as any other victim. What of its training set is known goes to the defenses
that need it, and they are refused where it is not.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from sys import modules
from typing import Any, ClassVar

import torch
from torch import Tensor

from ntml_bench.attacks.base import ATTACKS, Attack, AttackConfig, AttackContext, Poisoning, to_float, to_uint8
from ntml_bench.attacks.given_images import Pairs, Poisons, content_digest, places_of
from ntml_bench.attacks.trigger_image import TriggerImage, TriggerImageConfig, put_on
from ntml_bench.data.base import Split
from ntml_bench.data.image_files import decode_as_they_are
from ntml_bench.errors import UserError
from ntml_bench.models.weights import WeightsFile
from ntml_bench.source import source_mark

FUNCTION = "trigger"
"""What the user's module calls it."""
PROBES = 4
"""Images that a function is tried on."""
KINDS = ("attack.module", "attack.folders", "attack.image")


@dataclass(frozen=True, kw_only=True)
class FoldersConfig:
    """`clean`: test images without the trigger; `triggered`: the same ones with it, under the same names."""

    clean: str | None
    triggered: str | None


@dataclass(frozen=True, kw_only=True)
class GivenConfig(AttackConfig):
    """`weights`: the victim, a file of safetensors or a `state_dict` in .pt or .pth (null: it is trained here, on the poisons).
    `mean`, `std`: of each channel, what its net expects images in [0, 1] to be normalised with (null: the net does it itself).

    The trigger is one of three. `module`: a module of `imports` with a function `trigger(images)`, float [N, C, H, W] in [0, 1]
    to the same. `folders`: test images without and with it. `image`: an image that lies on others.

    `poisoned`: the training set of the victim: a folder with `train.csv`, or a list with the index of each poison (null: not
    known). `poisoning_rate`: 0; nothing is poisoned here.
    """

    weights: str | None
    mean: list[float] | None
    std: list[float] | None
    module: str | None
    folders: FoldersConfig
    image: TriggerImageConfig
    poisoned: str | None


@ATTACKS.register("given")
class Given(Attack[GivenConfig]):
    Config: ClassVar[type[AttackConfig]] = GivenConfig
    family: ClassVar[str | None] = "from outside"
    origin: ClassVar[str] = "ours"
    from_files: ClassVar[bool] = True

    @property
    def weights(self) -> WeightsFile | None:
        path = self.config.weights
        return None if path is None else WeightsFile.of("attack.weights", path)

    @property
    def normalisation(self) -> tuple[Tensor, Tensor] | None:
        mean, std = self.config.mean, self.config.std
        return None if mean is None or std is None else (torch.tensor(mean), torch.tensor(std))

    @property
    def has_training_set(self) -> bool:
        return self.config.poisoned is not None

    def determining(self) -> dict[str, Any]:
        return self._marked(lambda _, digest: digest)

    def recorded(self) -> dict[str, Any]:
        return self._marked(lambda path, digest: f"{Path(path).name} (sha256 {digest[:16]})")

    def _marked(self, word: Callable[[str, str], str]) -> dict[str, Any]:
        """The settings with `word(path, digest)` in place of each path."""
        config = self.config
        values = asdict(config)
        values["weights"] = self.weights and word(str(self.weights.path), self.weights.digest)
        values["folders"] = {
            name: path and word(path, content_digest(f"attack.folders.{name}", path))
            for name, path in asdict(config.folders).items()
        }
        values["image"] = config.image.marked("attack.image", word)
        values["poisoned"] = config.poisoned and word(config.poisoned, content_digest("attack.poisoned", config.poisoned))
        if config.module is not None:
            values["module"] = f"{config.module} (source {source_mark(config.module)})"
        return values

    def check(self, class_sizes: Tensor, image_shape: tuple[int, int, int]) -> None:
        super().check(class_sizes, image_shape)
        config = self.config
        if config.poisoning_rate > 0:
            raise UserError(
                f"attack.poisoning_rate is {config.poisoning_rate}; given poisons nothing itself; allowed: 0 (attack.poisoned "
                "names the poisons)"
            )
        if config.weights is None and config.poisoned is None:
            raise UserError(
                "attack=given needs attack.weights, the file of a victim, or attack.poisoned, poisons that one is trained on"
            )
        self._check_normalisation(image_shape[0])
        self._check_trigger()
        if config.image.file is not None:
            TriggerImage.read(config.image, image_shape, "attack.image")
        if config.poisoned is not None and self._poisons.files is None and config.folders.clean is not None:
            raise UserError(
                "attack.poisoned is a list, and attack.folders has the trigger on test images only: the poisoned training "
                "images cannot be made; give them as a folder"
            )

    def _check_normalisation(self, channels: int) -> None:
        mean, std = self.config.mean, self.config.std
        if (mean is None) != (std is None):
            raise UserError("attack.mean and attack.std belong together; give both, or neither where the net normalises itself")
        if mean is None or std is None:
            return
        if self.config.weights is None:
            raise UserError("attack.mean and attack.std are those of a given net; attack.weights is null")
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != channels:
                raise UserError(f"attack.{name} has {len(values)} values; the images have {channels} channels")
        if min(std) <= 0:
            raise UserError(f"attack.std is {std}; allowed: more than 0")

    def _check_trigger(self) -> None:
        config = self.config
        folders = [config.folders.clean, config.folders.triggered]
        if folders.count(None) == 1:
            raise UserError("attack.folders needs both: clean, and triggered with the same images under the trigger")
        stated = [config.module, folders[0], config.image.file]
        chosen = [name for name, value in zip(KINDS, stated, strict=True) if value is not None]
        if len(chosen) != 1:
            raise UserError(
                f"the trigger is said by {' and '.join(chosen) or 'nothing'}; one of: attack.module, attack.folders (clean and "
                "triggered), attack.image.file"
            )

    def check_images(self, train: Split, test: Split) -> None:
        shape = _shape(test)
        others = test.images[test.labels != self.config.target_class]
        if self.config.folders.clean is not None:
            _, there = places_of(others, self._pairs(shape).marks.to(others.device))
            if not bool(there.all()):
                raise UserError(
                    f"attack.folders.clean lacks {int((~there).sum())} of the {len(others)} test images of other classes than "
                    "the target class, pixel for pixel (PNG keeps pixels, JPEG does not); ntml-store images writes such folders"
                )
        elif self.config.module is not None:
            self.trigger(to_float(others[:PROBES]), {})
        if self.config.poisoned is not None:
            classes = int(torch.cat([train.labels, test.labels]).max()) + 1
            self._poisons.check(train, classes)
            if self._poisons.files is not None:
                _poisoned_images(self._poisons.files[:PROBES], shape)

    def touched(self, total: int) -> int:
        return 0 if self.config.poisoned is None else len(self._poisons.indices)

    @cached_property
    def _poisons(self) -> Poisons:
        assert self.config.poisoned is not None
        return Poisons.read(self.config.poisoned, self.config.target_class)

    def _pairs(self, shape: tuple[int, int, int]) -> Pairs:
        clean, triggered = self.config.folders.clean, self.config.folders.triggered
        assert clean is not None
        assert triggered is not None
        marks = tuple(content_digest(f"attack.folders.{n}", p) for n, p in (("clean", clean), ("triggered", triggered)))
        return _read_pairs(clean, triggered, shape, marks)

    def poison(self, context: AttackContext) -> Poisoning:
        state = self.trigger_state(context)
        train, device = context.train, context.train.images.device
        indices = torch.empty(0, dtype=torch.int64)
        images, labels, is_poison = train.images[:0], train.labels[:0], torch.empty(0, dtype=torch.bool)
        if self.config.poisoned is not None:
            found = self._poisons
            found.check_others(train)
            indices, labels, is_poison = found.indices, found.labels.to(device), found.is_poison
            if found.files is None:
                there = {name: value.to(device) for name, value in state.items()}
                images = self.under_trigger(train.images[indices.to(device)], there)
            else:
                images = _poisoned_images(found.files, _shape(train)).to(device)
        notes: dict[str, str | int | float] = {"victim": "given" if self.weights else "trained here on given poisons"}
        if self.weights is not None:
            notes |= {"weights": self.weights.path.name, "weights_sha256": self.weights.digest}
        if self.config.poisoned is None:
            notes["training set"] = "not given"
        return Poisoning(indices, images, labels, is_poison, state, notes)

    def trigger_state(self, context: AttackContext) -> dict[str, Tensor]:
        shape = _shape(context.train)
        if self.config.folders.clean is not None:
            return self._pairs(shape).state
        if self.config.image.file is not None:
            return TriggerImage.read(self.config.image, shape, "attack.image").state
        return {}

    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        """A state says all; without one there is a function. So a record's settings, which name no place, are enough."""
        if "marks" in state:
            places, there = places_of(to_uint8(images), state["marks"])
            if not bool(there.all()):
                raise UserError("the trigger is known on the images of attack.folders.clean only, and these are others")
            return to_float(state["triggered"][places]).to(images.dtype)
        if "cover" in state:
            return put_on(images, state)
        return self._of_module(images)

    def _of_module(self, images: Tensor) -> Tensor:
        name = str(self.config.module).partition(" ")[0]
        function = getattr(modules.get(name), FUNCTION, None)
        if not callable(function):
            raise UserError(
                f"attack.module is '{name}', and no module of that name that is imported has a function {FUNCTION}(images); "
                f"imports=[{name}] imports it"
            )
        found = function(images.clone())
        if not isinstance(found, Tensor) or found.shape != images.shape or not found.is_floating_point():
            what = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise UserError(f"{name}.{FUNCTION} made {what} of float images {list(images.shape)}; it must make the same")
        if not bool(((found >= 0) & (found <= 1)).all()):
            raise UserError(f"{name}.{FUNCTION} made values beyond 0 to 1")
        return found.to(images.dtype)


@lru_cache(maxsize=2)
def _read_pairs(clean: str, triggered: str, shape: tuple[int, int, int], digests: tuple[str, ...]) -> Pairs:
    return Pairs.read(clean, triggered, shape)


def _poisoned_images(files: tuple[Path, ...], shape: tuple[int, int, int]) -> Tensor:
    return decode_as_they_are(files, shape, "attack.poisoned")


def _shape(split: Split) -> tuple[int, int, int]:
    channels, height, width = split.images.shape[1:]
    return channels, height, width
