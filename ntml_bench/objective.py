"""What a search over settings maximises: named by a setting, and named after what it reads.

A search that looks at the test set overstates what it finds, so an objective of the test set is called an oracle wherever it
is written. `dataset.holdout` measures on training images that were held out: then nothing of the test set is read, but the
trigger is known. A defender has neither; what a defender can see is the clean budget. The higher, the better, for all of them.
"""

from ntml_bench.errors import UserError, unknown

CLEAN_BUDGET_ACCURACY = "clean_budget_accuracy"
MEASURED = ("clean_accuracy", "robust_accuracy", "defense_effectiveness_rating")
HOLDOUT, ORACLE = "holdout_", "oracle_"
OBJECTIVES = (CLEAN_BUDGET_ACCURACY, *(prefix + metric for prefix in (HOLDOUT, ORACLE) for metric in MEASURED))
WITHOUT_ATTACK = ("clean_accuracy",)
"""What has a value without a trigger."""


def check_objective(name: str, holdout: float, attack: str, defense: str) -> None:
    """Raise UserError for an objective that is none, is not called what it is here, or has no value in such a cell."""
    right = HOLDOUT if holdout > 0 else ORACLE
    images = "held-out training images" if holdout > 0 else "the test set"
    where = f"with dataset.holdout={holdout:g} it is measured on {images}"
    if name in MEASURED:
        raise UserError(f"objective is '{name}', but {where}: write objective={right}{name}")
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    if name == CLEAN_BUDGET_ACCURACY:
        return
    metric = metric_of(name)
    if not name.startswith(right):
        raise UserError(f"objective is '{name}', but {where}: write objective={right}{metric}, or change dataset.holdout")
    if attack == "none" and metric not in WITHOUT_ATTACK:
        raise UserError(f"objective={name} has no value without an attack")
    if defense == "none" and metric == "defense_effectiveness_rating":
        raise UserError(f"objective={name} has no value without a defense")


def metric_of(name: str) -> str:
    """The metric of a record that an objective other than the clean budget's is."""
    return name.removeprefix(HOLDOUT).removeprefix(ORACLE)


def described(name: str) -> str:
    """What an objective reads, for whoever reads the outcome."""
    if name == CLEAN_BUDGET_ACCURACY:
        return "accuracy on the defender's clean images, which the defense has trained on; it says nothing of the attack"
    if name.startswith(HOLDOUT):
        return "measured on held-out training images, with the trigger known, and not on the test set"
    return "an oracle: it reads the test set, so the best trial is no fair result"
