"""Unlearning of clean images until they are no longer classified right: what `rnp` and `tsbd` begin with."""

from collections.abc import Callable

from torch import Tensor

from ntml_bench.data.base import Split
from ntml_bench.defenses.base import DefenseContext
from ntml_bench.models import Classifier
from ntml_bench.training import Loss, Recipe, fit


def unlearn(
    context: DefenseContext,
    model: Classifier,
    budget: Split,
    recipe: Recipe,
    *,
    loss: Loss,
    accuracy: Callable[[], float],
    until: float,
) -> None:
    """Ascend `loss` on the clean images of `budget`, in place, at most as long as the recipe says; logged as `unlearning`.

    `accuracy()`: asked behind each epoch, 0 to 1; where it is at most `until`, that was the last one.
    """
    reached = 1.0

    def ascent(images: Tensor, labels: Tensor) -> Tensor:
        return -loss(images, labels)

    def log(values: dict[str, float]) -> None:
        nonlocal reached
        reached = accuracy()
        context.log("unlearning", {**values, "loss": -values["loss"], "accuracy": reached})

    fit(
        context.engine,
        budget,
        recipe,
        models=[model],
        loss=ascent,
        augmentation=context.augmentation,
        seed=context.seed,
        purpose="defense/unlearning",
        log=log,
        stop=lambda: reached <= until,
    )
