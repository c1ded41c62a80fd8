"""What a defense is: a backdoored model and what the defender has go in, a purified model comes out."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from ntml_bench.data.base import AugmentationConfig, Split
from ntml_bench.engine import Engine
from ntml_bench.models import Classifier
from ntml_bench.registry import Registry
from ntml_bench.seeding import generator, stratified
from ntml_bench.training import Loss, Recipe, Step, cross_entropy_of, fit

CLEAN_BUDGET = "clean_budget"
POISONED_TRAINING_SET = "poisoned_training_set"


@dataclass(frozen=True)
class DefenseConfig:
    """Settings that every defense has; a defense's own schema adds to them."""

    name: str


@dataclass(frozen=True)
class DefenseContext:
    """What the defender has; never the trigger, the list of poisons or a test image.

    `model`: the backdoored model, in eval mode; the defense may change it. `clean_budget`: clean training images; read it
    only where `needs` says so. `poisoned_train`: the training set as the attacker left it; likewise. `image_shape`: (C, H, W)
    of the images, also for a defense that is given none. `new_model()`: the same net with fresh weights. `log(stage, values)`:
    training curves. `observe(name, model)`: has a model of a stage measured for the record; it returns nothing, so that nothing
    can be chosen by it. `note(name, value)`: something that the defense found, in plain values, for the record.
    `once(key, make)`: what `make()` returns, kept for the other strengths at which the defense is run on this model; `key` says
    all settings of the defense that it depends on, and nobody may change what is returned.
    """

    engine: Engine
    model: Classifier
    clean_budget: Split
    poisoned_train: Split
    num_classes: int
    image_shape: tuple[int, int, int]
    seed: int
    augmentation: AugmentationConfig
    new_model: Callable[[], Classifier]
    log: Callable[[str, dict[str, float]], None]
    observe: Callable[[str, Classifier], None]
    note: Callable[[str, Any], None]
    once: Callable[[str, Callable[[], Any]], Any]

    def generator(self, purpose: str) -> torch.Generator:
        """A random stream, on the engine's device, for one purpose of the defense."""
        return generator(self.seed, f"defense/{purpose}", self.engine.device)

    def copy_of_model(self) -> Classifier:
        return deepcopy(self.model)

    def fine_tune(
        self,
        model: torch.nn.Module,
        recipe: Recipe,
        stage: str,
        cutout: int = 0,
        loss: Loss | None = None,
        take_step: Step | None = None,
    ) -> None:
        """Cross-entropy (or `loss`) on the clean budget with the training augmentation, in place: what most defenses contain.

        `cutout`, `loss`, `take_step`: as `fit` has them.
        """
        fit(
            self.engine,
            self.clean_budget,
            recipe,
            models=[model],
            loss=loss or cross_entropy_of(model),
            augmentation=self.augmentation,
            seed=self.seed,
            purpose=f"defense/{stage}",
            log=lambda values: self.log(stage, values),
            cutout=cutout,
            take_step=take_step,
        )

    def part_of_budget(self, share: float) -> Split:
        """A seeded, stratified part of the clean budget, to select on."""
        return self.divided_budget(share)[0]

    def divided_budget(self, share: float) -> tuple[Split, Split]:
        """The same part of the clean budget, and the rest of it: to select on images from which nothing was learned.

        The part has at least one image; the rest is empty where rounding leaves nothing of a small budget.
        """
        labels = self.clean_budget.labels.cpu()
        count = max(1, round(share * len(labels)))
        index = stratified(labels, count, generator(self.seed, "defense/part of the budget"))
        in_part = torch.zeros(len(labels), dtype=torch.bool)
        in_part[index] = True
        device = self.engine.device
        return self.clean_budget[index.to(device)], self.clean_budget[(~in_part).nonzero().flatten().to(device)]


C = TypeVar("C", bound=DefenseConfig)


class Defense(ABC, Generic[C]):
    """A defense after the training. One file with a subclass and one YAML file in `conf/defense`.

    `Config` is the schema of its settings. `needs` names what it is given: `clean_budget`, `poisoned_training_set`, both or
    nothing (`()`); the table shows it. `version` counts changes that change results: it is part of the key of stored models.
    `family`: the chapter of docs/methods.md that shows it; None: the last one. `origin`: publication, reconstruction or ours.
    """

    Config: ClassVar[type[DefenseConfig]] = DefenseConfig
    needs: ClassVar[tuple[str, ...]] = (CLEAN_BUDGET,)
    version: ClassVar[int] = 1
    family: ClassVar[str | None] = None
    origin: ClassVar[str] = "publication"

    def __init__(self, config: C) -> None:
        self.config = config

    def check(self, model: Classifier, image_shape: tuple[int, int, int]) -> None:
        """Raise UserError where the settings clash, or do not fit such a model (untrained, on the CPU)."""

    @abstractmethod
    def purify(self, context: DefenseContext) -> Classifier:
        """The purified model, whose saved weights load without the defense: of the same net, or of it with a layer inserted by
        `ntml_bench.models.polarize`."""


DEFENSES: Registry[Defense] = Registry("defense")


def feature_maps(model: Classifier, modules: list[torch.nn.Module], images: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits, and the outputs of the given modules of the model, in their order."""
    found: dict[torch.nn.Module, Tensor] = {}

    def keep(module: torch.nn.Module, _: object, output: Tensor) -> None:
        found[module] = output

    hooks = [module.register_forward_hook(keep) for module in modules]
    try:
        logits = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return logits, [found[module] for module in modules]
