"""No attack: the clean training set and the identity as trigger.

The model of this cell is the clean model of a recipe: what it answers to another attack's trigger is that attack's floor.
Its own "attack success rate" is the share of clean images of other classes that are classified as the target class.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ntml_bench.attacks.base import ATTACKS, Attack, AttackConfig, AttackContext, Poisoning
from ntml_bench.errors import UserError


@dataclass(frozen=True)
class NoneConfig(AttackConfig):
    """`poisoning_rate`: can only be 0; `target_class`: the class for which its own "attack success rate" is counted."""


@ATTACKS.register("none")
class NoAttack(Attack[NoneConfig]):
    Config: ClassVar[type[AttackConfig]] = NoneConfig
    family = "none"
    origin = "ours"

    def check(self, class_sizes: Tensor, image_shape: tuple[int, int, int]) -> None:
        super().check(class_sizes, image_shape)
        if self.config.poisoning_rate > 0:
            raise UserError(
                f"attack.poisoning_rate is {self.config.poisoning_rate}; {self.config.name} poisons nothing; allowed: 0 "
                "(or another attack)"
            )

    def poison(self, context: AttackContext) -> Poisoning:
        nothing = torch.empty(0, dtype=torch.int64)
        return self.all_poisons(nothing, context.train.images[:0].float(), {}, {})

    def trigger(self, images: Tensor, state: dict[str, Tensor]) -> Tensor:
        return images
