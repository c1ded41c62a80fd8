"""No defense: the backdoored model as it is, the first column of the table."""

from ntml_bench.defenses.base import DEFENSES, Defense, DefenseConfig, DefenseContext
from ntml_bench.models import Classifier


@DEFENSES.register("none")
class NoDefense(Defense[DefenseConfig]):
    needs = ()
    family = "none"
    origin = "ours"

    def purify(self, context: DefenseContext) -> Classifier:
        return context.model
