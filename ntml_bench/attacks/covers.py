"""Covers: training images that an attack changes and leaves their right labels, so that not any change means the target."""

from collections.abc import Mapping
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


C = TypeVar("C", bound=AttackConfig)


class CoveredAttack(Attack[C]):
    """A dirty-label attack with covers. `covers_of_target`: whether images of the target class are among them;
    `ratio_setting`: the setting that says how many covers there are for one poison.
    """

    covers_of_target: ClassVar[bool]
    ratio_setting: ClassVar[str] = "cover_ratio"

    @property
    def ratio(self) -> float:
        return getattr(self.config, self.ratio_setting)

    def check(self, class_sizes: Tensor, image_shape: tuple[int, int, int]) -> None:
        super().check(class_sizes, image_shape)
        config, total = self.config, int(class_sizes.sum())
        available = total if self.covers_of_target else total - int(class_sizes[config.target_class])
        if config.poisoning_rate * (1 + self.ratio) > available / total:
            which = "all images" if self.covers_of_target else "all images of the other classes"
            raise UserError(
                f"attack.poisoning_rate is {config.poisoning_rate} with attack.{self.ratio_setting} {self.ratio}: more than "
                f"{which} together; allowed: at most {rounded_down(available / total / (1 + self.ratio))}"
            )

    def counts(self, total: int) -> tuple[int, int]:
        """How many of `total` images are poisons and covers; never more than there are."""
        poisons = round(self.config.poisoning_rate * total)
        return poisons, min(round(self.ratio * poisons), total - poisons)

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
        self,
        context: AttackContext,
        poisons: Tensor,
        covers: Tensor,
        images: Tensor,
        state: dict[str, Tensor],
        notes: Mapping[str, str | int | float] | None = None,
    ) -> Poisoning:
        """The poisoning of `poisons` [P] and `covers` [Q]; float `images` [P + Q, C, H, W], in this order, are quantised.

        `notes`: facts for the record beside how many there are.
        """
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
            {"poisons": len(poisons), "covers": len(covers), **(notes or {})},
        )

    def chosen_in_batch(self, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Which images of a batch are its poisons, int64 [P], and its covers [Q], for an attack that controls the training."""
        total, device = len(labels), labels.device
        poison_count, cover_count = self.counts(total)
        is_target = labels == self.config.target_class
        # A random order with the target class at its end, found without asking the device how many images of it there are.
        order = (torch.rand(total, generator=rng, device=device) + is_target).argsort()
        poisons, rest = order[:poison_count], order[poison_count:]
        return poisons, rest[torch.rand(len(rest), generator=rng, device=device).argsort()[:cover_count]]

    def poisoned_batch(
        self, images: Tensor, labels: Tensor, poisons: tuple[Tensor, Tensor], covers: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """A batch with its poisons and its covers, each as their indices and their changed images."""
        (poisoned, triggered), (covered, changed) = poisons, covers
        # Where a batch has too few images of other classes, those of the target class stay clean.
        is_target = (labels[poisoned] == self.config.target_class)[:, None, None, None]
        placed = torch.where(is_target, images[poisoned], triggered)
        batch = images.index_copy(0, poisoned, placed).index_copy(0, covered, changed)
        return batch, labels.index_fill(0, poisoned, self.config.target_class)
