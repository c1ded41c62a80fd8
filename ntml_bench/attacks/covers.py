"""Covers: training images that an attack changes and leaves their right labels, so that not any change means the target."""

from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from ntml_bench.attacks.base import Attack, AttackConfig, AttackContext, Poisoning, rounded_down, to_uint8
from ntml_bench.errors import UserError
from ntml_bench.schema import number
from ntml_bench.seeding import stratified


@dataclass(frozen=True)
class CoveredConfig(AttackConfig):
    """`cover_ratio`: covers for one poison (0: none)."""

    cover_ratio: float = number(at_least=0)


C = TypeVar("C", bound=CoveredConfig)


class CoveredAttack(Attack[C]):
    """A dirty-label attack with covers. `covers_of_target`: whether images of the target class are among them."""

    covers_of_target: ClassVar[bool]

    def check(self, class_sizes: Tensor, image_shape: tuple[int, int, int]) -> None:
        super().check(class_sizes, image_shape)
        config, total = self.config, int(class_sizes.sum())
        available = total if self.covers_of_target else total - int(class_sizes[config.target_class])
        if config.poisoning_rate * (1 + config.cover_ratio) > available / total:
            which = "all images" if self.covers_of_target else "all images of the other classes"
            raise UserError(
                f"attack.poisoning_rate is {config.poisoning_rate} with attack.cover_ratio {config.cover_ratio}: more than "
                f"{which} together; allowed: at most {rounded_down(available / total / (1 + config.cover_ratio))}"
            )

    def counts(self, total: int) -> tuple[int, int]:
        """How many of `total` images are poisons and covers; never more than there are."""
        poisons = round(self.config.poisoning_rate * total)
        return poisons, min(round(self.config.cover_ratio * poisons), total - poisons)

    def touched(self, total: int) -> int:
        return sum(self.counts(total))

    def choose_covers(self, context: AttackContext, poisons: Tensor) -> Tensor:
        """Sorted indices int64 [Q] (CPU) of the covers, none of them among the `poisons` [P]."""
        labels = context.train.labels.cpu()
        free = torch.ones(len(labels), dtype=torch.bool).index_fill_(0, poisons, False)
        if not self.covers_of_target:
            free &= labels != self.config.target_class
        candidates = free.nonzero().flatten()
        count = min(self.counts(len(labels))[1], len(candidates))
        return candidates[stratified(labels[candidates], count, context.generator("choice of covers"))]

    def poisons_and_covers(
        self, context: AttackContext, poisons: Tensor, covers: Tensor, images: Tensor, state: dict[str, Tensor]
    ) -> Poisoning:
        """The poisoning of `poisons` [P] and `covers` [Q]; float `images` [P + Q, C, H, W], in this order, are quantised."""
        labels = context.train.labels.cpu()
        given = torch.cat([torch.full_like(poisons, self.config.target_class), labels[covers]])
        is_poison = torch.arange(len(given)) < len(poisons)
        indices, order = torch.cat([poisons, covers]).sort()
        return Poisoning(
            indices,
            to_uint8(images)[order.to(images.device)],
            given[order].to(images.device),
            is_poison[order],
            state,
            {"poisons": len(poisons), "covers": len(covers)},
        )
