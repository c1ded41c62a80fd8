"""FT-SAM: fine-tuning by the gradient at weights that were moved to raise the loss, the large weights most.

Zhu, Wei, Shen, Fan, Wu, "Enhancing Fine-Tuning Based Backdoor Defense with Sharpness-Aware Minimization", ICCV 2023.

A step on a batch: with the gradient g at the weights w, all in one vector, the weights move by e = rho w^2 g / || |w| g ||,
elementwise; the gradient there on the same batch takes the step of SGD from w. Biases and BatchNorm move, too. BatchNorm
normalises by the batch both times, and its running statistics see the first pass alone. The loss is the cross-entropy with 1 -
s on the label and s / (K - 1) on each other of K classes.

Deviation: the official code lowers the learning rate by a cosine of 100 *batches*, so that it swings between 0.01 and 0 and
ends at 0.01; here one cosine falls over all steps.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ntml_bench.defenses.base import DEFENSES, Defense, DefenseConfig, DefenseContext
from ntml_bench.defenses.displaced import displaced, running_statistics_kept
from ntml_bench.models import Classifier
from ntml_bench.schema import number
from ntml_bench.training import Recipe


@dataclass(frozen=True, kw_only=True)
class FTSAMConfig(DefenseConfig):
    """`rho`: how far the weights are moved; `smoothing`: s, the share of the label that goes to the other classes; `recipe`: of
    the fine-tuning."""

    rho: float = number(at_least=0)
    smoothing: float = number(at_least=0, at_most=0.5)
    recipe: Recipe


@DEFENSES.register("ft_sam")
class FTSAM(Defense[FTSAMConfig]):
    Config = FTSAMConfig
    family = "fine-tuning"

    def purify(self, context: DefenseContext) -> Classifier:
        model, config = context.model, self.config

        def take_step(optimizer: torch.optim.Optimizer, gradient_again: Callable[[], object]) -> None:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            with moved(parameters, config.rho), running_statistics_kept(model):
                gradient_again()
            optimizer.step()

        def loss(images: Tensor, labels: Tensor) -> Tensor:
            return smoothed_cross_entropy(model(images), labels, config.smoothing)

        context.fine_tune(model, config.recipe, "fine-tuning", loss=loss, take_step=take_step)
        return model


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Against 1 - smoothing on the label and the rest on the other classes alike; logits [N, K], labels [N] to a scalar."""
    classes = logits.shape[1]
    # torch's smoothing gives a share to all classes, the label among them.
    return functional.cross_entropy(logits, labels, label_smoothing=smoothing * classes / (classes - 1))


@contextmanager
def moved(parameters: list[nn.Parameter], rho: float) -> Iterator[None]:
    """Within, parameters that have a gradient stand at w + rho w^2 g / || |w| g ||; behind it exactly where they were."""
    there = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [parameter.grad.detach() for parameter in there if parameter.grad is not None]
    norms = [(weight.detach().abs() * gradient).norm() for weight, gradient in zip(there, gradients, strict=True)]
    scale = rho / (torch.stack(norms).norm() + 1e-12)
    by = [scale * weight.detach().square() * gradient for weight, gradient in zip(there, gradients, strict=True)]
    with displaced(there, by):
        yield
