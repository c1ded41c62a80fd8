"""TSBD: weights that change most while the model unlearns clean images are set to 0, and the rest is fine-tuned flatly.

Lin, Liu, Wei, Li, Xiong, "Unveiling and Mitigating Backdoor Vulnerabilities based on Unlearning Weight Changes and Backdoor
Activeness", NeurIPS 2024 (arXiv 2405.20291).

A copy of the model ascends the cross-entropy on the clean budget until its accuracy there is no more than `unlearned_accuracy`.
The change of a filter of a convolution is the sum of |w' - w| over its weights; convolutions of shortcuts are left out. Of the
share `neuron_share` of all filters that changed most, all layers together, the share `weight_share` of the weights that changed
most, all these filters together, become 0 in the backdoored model.

Then it is fine-tuned. With the gradient g at the weights, and g' that on the same batch at weights that were moved, each tensor
of them by `radius` g / ||g|| of its own, SGD takes (1 - alpha) g + alpha g'. That holds down the norm of the gradient, which is
said to be larger in backdoored models. No weight decay, and a constant rate. All this is as in the official code.

`neuron_share`: that code goes through eleven values and prints accuracy and attack success on the test set for each; the reader
picks. Here (`neuron_share: null`) it is the largest of them at which the accuracy on the clean budget, behind the zeros and
before the fine-tuning, stays within `tolerance`; none where none does.

Deviations: the images are shuffled and the accuracy that ends the unlearning is that of images without augmentation; the
running statistics of BatchNorm see the first of the two passes of a step, not a third one behind the step; the official loop
fine-tunes for one pass more than it says.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ntml_bench.defenses.base import DEFENSES, Defense, DefenseConfig, DefenseContext
from ntml_bench.defenses.convolutions import convolutions
from ntml_bench.defenses.displaced import displaced, running_statistics_kept
from ntml_bench.defenses.unlearning import unlearn
from ntml_bench.errors import UserError
from ntml_bench.evaluation import accuracy
from ntml_bench.models import Classifier
from ntml_bench.schema import number
from ntml_bench.training import Recipe, cross_entropy_of

NEURON_SHARES = (0.01, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 0.9)
"""Those that the official code goes through."""


@dataclass(frozen=True, kw_only=True)
class TSBDConfig(DefenseConfig):
    """`unlearning`: recipe of the ascent, `epochs` at most; `unlearned_accuracy`: of the clean budget, at which it ends.
    `neuron_share`: of all filters, which lose weights (null: chosen); `tolerance`: the share of the accuracy that may be lost
    where it is chosen; `weight_share`: of the weights of these filters, which become 0. `radius`: how far each tensor of
    weights is moved; `alpha`: share of the gradient there; `recipe`: of the fine-tuning."""

    unlearning: Recipe
    unlearned_accuracy: float = number(at_least=0, at_most=1)
    neuron_share: float | None = number(at_least=0, at_most=1)
    tolerance: float = number(at_least=0, at_most=1)
    weight_share: float = number(at_least=0, at_most=1)
    radius: float = number(at_least=0)
    alpha: float = number(at_least=0, at_most=1)
    recipe: Recipe


@DEFENSES.register("tsbd")
class TSBD(Defense[TSBDConfig]):
    Config = TSBDConfig
    family = "pruning"

    def check(self, model: Classifier, image_shape: tuple[int, int, int]) -> None:
        if not convolutions(model.net):
            raise UserError(f"defense tsbd sets weights of convolutions to 0; {type(model.net).__name__} has none")

    def purify(self, context: DefenseContext) -> Classifier:
        config, model = self.config, context.model
        changes = context.once(
            f"changes {config.unlearning!r}, {config.unlearned_accuracy}",
            lambda: weight_changes(model, self._unlearned(context)),
        )
        share = config.neuron_share
        if share is None:
            share = self._chosen_share(context, changes)
        zeroed = zero_most_changed(model, changes, share, config.weight_share)
        context.log("zeroing", {"epoch": 1, "neuron_share": share, "weights": float(zeroed)})

        def take_step(optimizer: torch.optim.Optimizer, gradient_again: Callable[[], object]) -> None:
            parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            first = gradients_of(parameters)
            with displaced(parameters, [config.radius * g / (g.norm() + 1e-12) for g in first]), running_statistics_kept(model):
                gradient_again()
            second = gradients_of(parameters)
            for parameter, here, there in zip(parameters, first, second, strict=True):
                parameter.grad = (1 - config.alpha) * here + config.alpha * there
            optimizer.step()

        context.fine_tune(model, config.recipe, "fine-tuning", take_step=take_step)
        return model

    def _unlearned(self, context: DefenseContext) -> Classifier:
        """A copy of the model that has unlearned the clean images."""
        model = deepcopy(context.model)

        def reached() -> float:
            found = accuracy(context.engine, model, context.clean_budget)
            model.train()
            return found

        config, loss = self.config, cross_entropy_of(model)
        unlearn(
            context,
            model,
            context.clean_budget,
            config.unlearning,
            loss=loss,
            accuracy=reached,
            until=config.unlearned_accuracy,
        )
        return model

    def _chosen_share(self, context: DefenseContext, changes: dict[str, Tensor]) -> float:
        """The largest of NEURON_SHARES up to which the accuracy on the clean budget stays within `tolerance`, else 0."""
        lowest = (1 - self.config.tolerance) * accuracy(context.engine, context.model, context.clean_budget)
        chosen = 0.0
        for candidate in NEURON_SHARES:
            trial = deepcopy(context.model)
            zero_most_changed(trial, changes, candidate, self.config.weight_share)
            if accuracy(context.engine, trial, context.clean_budget) < lowest:
                break
            chosen = candidate
        return chosen


def gradients_of(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Copies of the gradients of parameters that have one."""
    return [parameter.grad.detach().clone() for parameter in parameters if parameter.grad is not None]


def weight_changes(model: Classifier, unlearned: Classifier) -> dict[str, Tensor]:
    """|w' - w| of each convolution, [O, I, k, k], by its name in the net."""
    others = convolutions(unlearned.net)
    return {name: (others[name].weight - layer.weight).detach().abs() for name, layer in convolutions(model.net).items()}


def zero_most_changed(model: Classifier, changes: dict[str, Tensor], neuron_share: float, weight_share: float) -> int:
    """Set the weights that changed most of the filters that changed most to 0, in place; returns how many.

    The shares are rounded to whole filters and whole weights. Ties at the border fall together.
    """
    filters = torch.cat([change.flatten(1).sum(dim=1) for change in changes.values()])
    chosen = torch.zeros(len(filters), dtype=torch.bool, device=filters.device)
    chosen[filters.topk(round(neuron_share * len(filters))).indices] = True
    of_layers = dict(zip(changes, chosen.split([len(change) for change in changes.values()]), strict=True))
    pooled = torch.cat([changes[name][there].flatten() for name, there in of_layers.items()])
    count = round(weight_share * len(pooled))
    if count == 0:
        return 0
    border = pooled.topk(count).values[-1]
    zeroed = 0
    with torch.no_grad():
        for name, layer in convolutions(model.net).items():
            gone = (changes[name] >= border) & of_layers[name][:, None, None, None]
            layer.weight.masked_fill_(gone, 0)
            zeroed += int(gone.sum())
    return zeroed
