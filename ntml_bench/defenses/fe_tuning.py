"""FE-tuning: the last linear layer is made anew and frozen, and the features are fine-tuned towards it.

Min, Qin, Shen, Cheng, "Towards Stable Backdoor Purification through Feature Shift Tuning", NeurIPS 2023.

The features of clean images have to move to where a random head puts the classes. The recipe is that of `fst`. The head has the
norm of the backdoored one, as in the official script; the paper's text does not say so. As it is drawn it is several times
smaller, and then few clean images do not suffice: on digit_scenes (badnets, seed 0) accuracy falls from 94.8 to 70.0, with
that norm to 90.9.

Deviations: the official script scales the head behind the first step, here before it. Its learning rate falls behind each
epoch, here behind each step.
"""

from dataclasses import dataclass

from ntml_bench.defenses.base import DEFENSES, Defense, DefenseConfig, DefenseContext
from ntml_bench.defenses.heads import reinitialise_head, scale_to
from ntml_bench.models import Classifier
from ntml_bench.training import Recipe


@dataclass(frozen=True, kw_only=True)
class FETuningConfig(DefenseConfig):
    """`recipe`: of the fine-tuning."""

    recipe: Recipe


@DEFENSES.register("fe_tuning")
class FETuning(Defense[FETuningConfig]):
    Config = FETuningConfig
    version = 2
    family = "fine-tuning"

    def check(self, model: Classifier, image_shape: tuple[int, int, int]) -> None:
        _ = model.head  # says of a net without a linear layer at its end that it has none

    def purify(self, context: DefenseContext) -> Classifier:
        head = context.model.head
        norm = head.weight.detach().norm()
        reinitialise_head(context, head)
        scale_to(head.weight, norm)
        head.requires_grad_(False)
        try:
            context.fine_tune(context.model, self.config.recipe, "fine-tuning")
        finally:
            head.requires_grad_(True)
        return context.model
