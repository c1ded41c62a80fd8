"""Fine-tuning: the model is trained on with the clean budget, the baseline that a defense must beat.

It has no publication of its own. The recipe is a setting. That of the BackdoorBench leaderboard: SGD, learning rate 0.01,
batch 256, 100 epochs, cosine, so as many passes as its training made over the training set, at half of that one's peak rate
for each image.
"""

from dataclasses import dataclass

from ntml_bench.defenses.base import DEFENSES, Defense, DefenseConfig, DefenseContext
from ntml_bench.models import Classifier
from ntml_bench.training import Recipe


@dataclass(frozen=True, kw_only=True)
class FineTuningConfig(DefenseConfig):
    """`recipe`: of the fine-tuning."""

    recipe: Recipe


@DEFENSES.register("ft")
class FineTuning(Defense[FineTuningConfig]):
    Config = FineTuningConfig
    family = "fine-tuning"
    origin = "ours"

    def purify(self, context: DefenseContext) -> Classifier:
        context.fine_tune(context.model, self.config.recipe, "fine-tuning")
        return context.model
