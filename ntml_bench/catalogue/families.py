"""Families of attacks and defenses: what the chapters of docs/methods.md are, and their order."""

from ntml_bench.attacks import Attack
from ntml_bench.defenses import Defense

FAMILIES = {
    "attack": {
        "dirty label": "Training images of other classes carry the trigger and the label of the target class.",
        "clean label": "Training images of the target class are changed and keep their labels.",
        "training-controlled": "The attacker runs the training and poisons each batch of it.",
        "from outside": "The victim, or its poisons, come from files ([own.md](own.md)).",
        "none": "The clean model of a recipe. What it answers to another attack's trigger is that attack's floor.",
    },
    "defense": {
        "fine-tuning": "All weights are trained on with clean images.",
        "pruning": "Parts of the net that the backdoor needs and clean images do not are cut out.",
        "unlearning": "The model is trained not to answer to what could be a trigger.",
        "distillation and mutual learning": "A student learns from a teacher, but for what the backdoor taught it.",
        "none": "The backdoored model as it is: the first column of a table.",
    },
}
"""Of each kind, from the first chapter to the last; a family that a class names and that is not here comes behind them."""

OTHER = "other"


def family_of(method: type[Attack] | type[Defense]) -> str:
    """The family that a class names; of an attack that names none that of its labels and its training."""
    if method.family is not None:
        return method.family
    if not issubclass(method, Attack):
        return OTHER
    if method.controls_training:
        return "training-controlled"
    return "clean label" if method.clean_label else "dirty label"
