"""FT-init: the last linear layer is made anew, and the whole model is fine-tuned on the clean budget.

Min, Qin, Shen, Cheng, "Towards Stable Backdoor Purification through Feature Shift Tuning", NeurIPS 2023.

A new head has to learn its classes from the features of clean images alone, which moves the features more than plain
fine-tuning. The recipe is that of `fst`.

Deviation: the official script scales the head, after each step, to the norm of the backdoored one in this mode, too; here that
is a part of `fst` alone, as in the publication. Its learning rate falls behind each epoch, here behind each step.
"""

from dataclasses import dataclass

from ntml_bench.defenses.base import DEFENSES, Defense, DefenseConfig, DefenseContext
from ntml_bench.defenses.heads import reinitialise_head
from ntml_bench.models import Classifier
from ntml_bench.training import Recipe


@dataclass(frozen=True, kw_only=True)
class FTInitConfig(DefenseConfig):
    """`recipe`: of the fine-tuning."""

    recipe: Recipe


@DEFENSES.register("ft_init")
class FTInit(Defense[FTInitConfig]):
    Config = FTInitConfig
    family = "fine-tuning"

    def check(self, model: Classifier, image_shape: tuple[int, int, int]) -> None:
        _ = model.head  # says of a net without a linear layer at its end that it has none

    def purify(self, context: DefenseContext) -> Classifier:
        reinitialise_head(context, context.model.head)
        context.fine_tune(context.model, self.config.recipe, "fine-tuning")
        return context.model
