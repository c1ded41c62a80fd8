"""Fine-pruning: channels that clean images hardly activate are pruned, and the rest is fine-tuned.

Liu, Dolan-Gavitt, Garg, "Fine-Pruning: Defending Against Backdooring Attacks on Deep Neural Networks", RAID 2018.

Channels of the last feature layer that clean images hardly activate are pruned, the least active first, while the
accuracy on a part of the clean budget stays within a tolerance; the rest is fine-tuned.

Deviations: the layer is pruned where the classifier reads it (behind the last activation and the pool), by its columns of the
last linear layer. For the logits that is the same as zeroing the channel, and it works for any net that ends in a linear layer.
The published tolerance is on the accuracy of a validation set; here that is a part of the clean budget, never the test set.
Tolerance and fine-tuning are those of the BackdoorBench leaderboard, not of the publication.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ntml_bench.data.base import Split
from ntml_bench.defenses.base import DEFENSES, Defense, DefenseConfig, DefenseContext
from ntml_bench.errors import UserError
from ntml_bench.models import Classifier
from ntml_bench.schema import number
from ntml_bench.training import Recipe


@dataclass(frozen=True, kw_only=True)
class FinePruningConfig(DefenseConfig):
    """`tolerance`: the share of the accuracy before that may be lost; `selection_share`: of the budget, to measure it on;
    `recipe`: of the fine-tuning."""

    tolerance: float = number(at_least=0, at_most=1)
    selection_share: float = number(above=0, at_most=1)
    recipe: Recipe


@DEFENSES.register("fp")
class FinePruning(Defense[FinePruningConfig]):
    Config = FinePruningConfig
    family = "pruning"

    def check(self, model: Classifier, image_shape: tuple[int, int, int]) -> None:
        # One row of channels for each image: of a net that classifies each of its patches, none is a channel of the image.
        inputs = _inputs_of(model, lambda: model(torch.zeros(2, *image_shape)))
        if [value.shape for value in inputs] != [(2, model.head.in_features)]:
            raise UserError(
                f"defense fp prunes the channels [N, D] that the last linear layer reads; that of {type(model.net).__name__} "
                f"reads {' and '.join(str(list(value.shape)) for value in inputs) or 'nothing'} of 2 images"
            )

    def purify(self, context: DefenseContext) -> Classifier:
        model = context.model
        selection = context.part_of_budget(self.config.selection_share)
        activity = head_inputs(context, model, context.clean_budget).mean(dim=0)
        features = head_inputs(context, model, selection)
        order = activity.argsort()
        weight = model.head.weight
        with torch.no_grad():
            kept = channels_to_keep(features, selection.labels, weight, model.head.bias, order, self.config.tolerance)
        context.log("pruning", {"epoch": 1, "pruned_channels": float((~kept).sum()), "channels": float(len(kept))})
        with torch.no_grad():
            weight.mul_(kept)
        # Pruned stays pruned: without a gradient, weight decay and momentum leave a zero at zero.
        hook = weight.register_hook(lambda gradient: gradient * kept)
        try:
            context.fine_tune(model, self.config.recipe, "fine-tuning")
        finally:
            hook.remove()
        return model


def channels_to_keep(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None, order: Tensor, tolerance: float
) -> Tensor:
    """Which channels stay, bool [D], where `order` [D] is pruned from its front.

    Pruning goes on while the accuracy is at least (1 - tolerance) of before; at least one channel stays. `features` [N, D]
    are the inputs of the last linear layer with `weight` [classes, D] and `bias` [classes], if any.
    """
    logits = features @ weight.T
    if bias is not None:
        logits = logits + bias
    accuracies = torch.empty(len(order), dtype=torch.float64, device=order.device)
    for pruned, channel in enumerate(order):  # logits with the first `pruned` channels gone
        accuracies[pruned] = (logits.argmax(dim=1) == labels).double().mean()
        logits = logits - features[:, channel, None] * weight[:, channel]
    too_low = accuracies < (1 - tolerance) * accuracies[0]
    first_too_low = int(too_low.long().argmax()) if bool(too_low.any()) else len(order)
    kept = torch.ones(len(order), dtype=torch.bool, device=order.device)
    kept[order[: first_too_low - 1]] = False  # accuracies[0] is never too low: something always stays
    return kept


def head_inputs(context: DefenseContext, model: Classifier, split: Split) -> Tensor:
    """What the last linear layer reads, float32 [N, D], in eval mode without augmentation."""

    def classify() -> None:
        with context.engine.autocast():
            for start in range(0, len(split), 500):
                model(context.engine.images(split.images[start : start + 500]))

    return torch.cat(_inputs_of(model, classify))


def _inputs_of(model: Classifier, forward: Callable[[], object]) -> list[Tensor]:
    """What the last linear layer reads in each of the forward passes, float32, in eval mode."""
    collected: list[Tensor] = []
    hook = model.head.register_forward_pre_hook(lambda _, inputs: collected.append(inputs[0].float()))
    model.eval()
    try:
        with torch.no_grad():
            forward()
    finally:
        hook.remove()
    return collected
