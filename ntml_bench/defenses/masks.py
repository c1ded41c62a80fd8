"""Factors on the channels of BatchNorm layers, what `anp`, `rnp` and `ban` share, and pruning by them, as the first two do."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from ntml_bench.data.base import Split
from ntml_bench.defenses.base import DefenseConfig, DefenseContext
from ntml_bench.errors import UserError
from ntml_bench.evaluation import accuracy
from ntml_bench.models import Classifier
from ntml_bench.schema import number

BatchNorm = nn.modules.batchnorm._BatchNorm
Masks = dict[str, Tensor]
"""The mask of each BatchNorm layer, in [0, 1] [channels], by the layer's name."""


def batch_norms(model: nn.Module) -> dict[str, BatchNorm]:
    """The BatchNorm layers that have a weight, by name."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, BatchNorm) and module.weight is not None
    }


def require_batch_norms(defense: str, model: Classifier, *, does: str = "prunes") -> None:
    """Raise UserError for a net without such layers; `defense`: the name of the one that needs them, `does`: what it does to
    their channels."""
    if not batch_norms(model):
        raise UserError(f"defense {defense} {does} channels of BatchNorm layers; {type(model.net).__name__} has none")


class Channels:
    """The channels of a model's BatchNorm layers in one row of C: `names` and `sizes` of the layers."""

    def __init__(self, model: nn.Module) -> None:
        norms = batch_norms(model)
        self.model = model
        self.names = list(norms)
        self.norms = list(norms.values())
        self.sizes = [len(norm.weight) for norm in self.norms]

    @property
    def weight(self) -> Tensor:
        """[C], of the model as it is now; where its weights learn, a gradient goes through to them."""
        return torch.cat([norm.weight for norm in self.norms])

    @property
    def bias(self) -> Tensor:
        """As `weight`."""
        return torch.cat([norm.bias for norm in self.norms])

    def loss(self, weight_factor: Tensor, bias_factor: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of the model with the weights and biases of its channels times these factors [C]."""
        weights = (self.weight * weight_factor).split(self.sizes)
        biases = (self.bias * bias_factor).split(self.sizes)
        scaled = {f"{name}.weight": value for name, value in zip(self.names, weights, strict=True)}
        scaled |= {f"{name}.bias": value for name, value in zip(self.names, biases, strict=True)}
        return functional.cross_entropy(functional_call(self.model, scaled, (images,)), labels)

    def masks(self, row: Tensor) -> Masks:
        """A row [C] by layers."""
        return dict(zip(self.names, row.split(self.sizes), strict=True))


@dataclass(frozen=True, kw_only=True)
class MaskPruningConfig(DefenseConfig):
    """`threshold`: channels with a mask at or below it are pruned (null: chosen); `selection_share`: of the budget, held out of
    the learning of the masks to choose a threshold that is null; `tolerance`: the share of the accuracy there that may be lost
    (both unused where the threshold is fixed).
    """

    threshold: float | None = number(at_least=0, at_most=1)
    tolerance: float = number(at_least=0, at_most=1)
    selection_share: float = number(above=0, below=1)


def prune_by_masks(context: DefenseContext, learn: Callable[[Split], Masks], config: MaskPruningConfig) -> None:
    """Learn masks on the clean budget and prune the model by them, in place; logged as `pruning`.

    Where the threshold is chosen, `learn` is given the rest of the budget alone; UserError where nothing is left of it. Where
    it is fixed, the masks are learned once for all its values.
    """
    model, threshold, selection_share = context.model, config.threshold, config.selection_share
    if threshold is None:
        held_out, rest = context.divided_budget(selection_share)
        if len(rest) == 0:
            raise UserError(
                f"defense.threshold=null holds out {selection_share:g} of the clean budget to choose a threshold; "
                f"of {len(held_out)} images nothing is left to learn masks from"
            )
        masks = learn(rest)
        threshold = choose_threshold(context, masks, held_out, config.tolerance)
    else:
        learned_by = replace(config, threshold=0.0, tolerance=0.0)  # all else that the masks depend on
        masks = context.once(f"masks {learned_by!r}", lambda: learn(context.clean_budget))
    pruned = prune(model, masks, threshold)
    values = {
        "epoch": 1,
        "threshold": threshold,
        "pruned_channels": float(pruned),
        "channels": float(sum(map(len, masks.values()))),
    }
    context.log("pruning", values)


def choose_threshold(context: DefenseContext, masks: Masks, held_out: Split, tolerance: float) -> float:
    """The largest of 0, 0.05, ..., 0.95 up to which the accuracy on `held_out` stays at (1 - tolerance) of before, else -1."""
    lowest = (1 - tolerance) * accuracy(context.engine, context.model, held_out)
    chosen = -1.0  # prunes nothing
    for candidate in torch.linspace(0, 0.95, 20).tolist():
        trial = deepcopy(context.model)
        prune(trial, masks, candidate)
        if accuracy(context.engine, trial, held_out) < lowest:
            break
        chosen = candidate
    return chosen


def prune(model: nn.Module, masks: Masks, threshold: float) -> int:
    """Zero the weights of the channels whose mask is at or below the threshold, in place; returns how many."""
    count = 0
    with torch.no_grad():
        for name, norm in batch_norms(model).items():
            kept = masks[name] > threshold
            norm.weight.mul_(kept)
            count += int((~kept).sum())
    return count
