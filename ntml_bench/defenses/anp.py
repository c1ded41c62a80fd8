"""Adversarial Neuron Pruning (Wu & Wang, "Adversarial Neuron Pruning Purifies Backdoored Deep Models", NeurIPS 2021).

Each channel of a BatchNorm layer has a mask m in [0, 1] on its weight. Its weight and bias are perturbed by the factors d
and e, |d|, |e| <= eps, to raise the loss (section 4.2, one sign step from 0); the masks minimise a CE(m) + (1 - a) CE(m +
d, 1 + e). Channels with a mask at or below a threshold are pruned: weight and bias become 0, in the model itself, so that
it reloads as it was measured.

The threshold is a setting, or (`threshold: null`) the largest at which the accuracy on a part of the clean budget stays
within `tolerance`. The leaderboard picks it by the success rate on the test set, which no defender has; its column is
better than an honest one.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from ntml_bench.data.augmentation import augment
from ntml_bench.defenses.base import DEFENSES, Defense, DefenseConfig, DefenseContext
from ntml_bench.errors import UserError
from ntml_bench.evaluation import accuracy
from ntml_bench.models import Classifier
from ntml_bench.schema import number

BatchNorm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True, kw_only=True)
class ANPConfig(DefenseConfig):
    """`eps`: bound of the relative perturbation; `trade_off`: weight a of the clean loss; `steps` of SGD on the masks."""

    eps: float = number(at_least=0)
    trade_off: float = number(at_least=0, at_most=1)
    steps: int = number(at_least=1)
    batch_size: int = number(at_least=1)
    learning_rate: float = number(above=0)
    momentum: float = number(at_least=0, at_most=1)
    threshold: float | None = number(at_least=0, at_most=1)
    tolerance: float = number(at_least=0, at_most=1)
    selection_share: float = number(above=0, at_most=1)


@DEFENSES.register("anp")
class ANP(Defense[ANPConfig]):
    Config = ANPConfig

    def check(self, model: Classifier, image_shape: tuple[int, int, int]) -> None:
        if not batch_norms(model):
            raise UserError(f"defense anp prunes channels of BatchNorm layers; {type(model.net).__name__} has none")

    def purify(self, context: DefenseContext) -> Classifier:
        config, model = self.config, context.model
        masks = self._learn_masks(context)
        threshold = config.threshold
        if threshold is None:
            threshold = self._choose_threshold(context, masks)
        pruned = prune(model, masks, threshold)
        values = {
            "epoch": 1,
            "threshold": threshold,
            "pruned_channels": float(pruned),
            "channels": float(sum(map(len, masks.values()))),
        }
        context.log("pruning", values)
        return model

    def _learn_masks(self, context: DefenseContext) -> dict[str, Tensor]:
        """The mask of each BatchNorm layer, by the layer's name."""
        config, engine, budget = self.config, context.engine, context.clean_budget
        # A copy, because the forward passes in training mode move the running statistics.
        model = deepcopy(context.model).requires_grad_(False)
        norms = batch_norms(model)
        masks = {name: torch.ones_like(norm.weight).requires_grad_() for name, norm in norms.items()}
        optimizer = torch.optim.SGD(masks.values(), lr=config.learning_rate, momentum=config.momentum)
        order_rng, batch_rng = context.generator("order"), context.generator("augmentation")
        batch_size = min(config.batch_size, len(budget))
        per_epoch = max(1, len(budget) // batch_size)
        order = torch.empty(0, dtype=torch.long)
        total = torch.zeros((), device=engine.device)
        model.train()
        for step in range(config.steps):
            if step % per_epoch == 0:
                order = torch.randperm(len(budget), generator=order_rng, device=engine.device)
            position = step % per_epoch * batch_size
            index = order[position : position + batch_size]
            images, labels = augment(engine.images(budget.images[index]), context.augmentation, batch_rng), budget.labels[index]
            with engine.autocast():
                value = objective(model, norms, masks, images, labels, config.eps, config.trade_off)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            with torch.no_grad():
                for mask in masks.values():
                    mask.clamp_(0, 1)
            total += value.detach()
            if (step + 1) % 100 == 0 or step + 1 == config.steps:
                context.log("masks", {"epoch": step + 1, "loss": float(total) / (step % 100 + 1)})
                total.zero_()
        return {name: mask.detach() for name, mask in masks.items()}

    def _choose_threshold(self, context: DefenseContext, masks: dict[str, Tensor]) -> float:
        part = context.part_of_budget(self.config.selection_share)
        lowest = (1 - self.config.tolerance) * accuracy(context.engine, context.model, part)
        chosen = -1.0  # prunes nothing
        for candidate in torch.linspace(0, 0.95, 20).tolist():
            trial = deepcopy(context.model)
            prune(trial, masks, candidate)
            if accuracy(context.engine, trial, part) < lowest:
                break
            chosen = candidate
        return chosen


def batch_norms(model: nn.Module) -> dict[str, BatchNorm]:
    """The BatchNorm layers that have a weight, by name."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, BatchNorm) and module.weight is not None
    }


def masked_parameters(norms: dict[str, BatchNorm], weights: dict[str, Tensor], biases: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weight and bias of each BatchNorm layer times the given factors, by the parameters' names."""
    scaled = {f"{name}.weight": norm.weight * weights[name] for name, norm in norms.items()}
    return scaled | {f"{name}.bias": norm.bias * biases[name] for name, norm in norms.items()}


def objective(
    model: nn.Module,
    norms: dict[str, BatchNorm],
    masks: dict[str, Tensor],
    images: Tensor,
    labels: Tensor,
    eps: float,
    trade_off: float,
) -> Tensor:
    """a CE(m) + (1 - a) CE(m + d, 1 + e), with d, e = eps times the sign of the gradient of CE(m + d, 1 + e) at 0."""

    def loss(weights: dict[str, Tensor], biases: dict[str, Tensor]) -> Tensor:
        return functional.cross_entropy(functional_call(model, masked_parameters(norms, weights, biases), (images,)), labels)

    ones = {name: torch.ones_like(norm.bias) for name, norm in norms.items()}
    clean = loss(masks, ones)
    if eps == 0:
        return clean
    at = {name: mask.detach().clone().requires_grad_() for name, mask in masks.items()}
    one = {name: value.clone().requires_grad_() for name, value in ones.items()}
    gradients = torch.autograd.grad(loss(at, one), [*at.values(), *one.values()])
    signs = [eps * gradient.sign() for gradient in gradients]
    weights = {name: mask + sign for (name, mask), sign in zip(masks.items(), signs[: len(masks)], strict=True)}
    biases = {name: value + sign for (name, value), sign in zip(ones.items(), signs[len(masks) :], strict=True)}
    return trade_off * clean + (1 - trade_off) * loss(weights, biases)


def prune(model: nn.Module, masks: dict[str, Tensor], threshold: float) -> int:
    """Zero the channels whose mask is at or below the threshold, in place; returns how many."""
    count = 0
    with torch.no_grad():
        for name, norm in batch_norms(model).items():
            kept = masks[name] > threshold
            norm.weight.mul_(kept)
            norm.bias.mul_(kept)
            count += int((~kept).sum())
    return count
