"""I-BAU (Zeng et al., "Adversarial Unlearning of Backdoors via Implicit Hypergradient", ICLR 2022).

Min-max: a universal perturbation delta, at most `radius` in L2, raises the loss on the clean budget (inner problem); the
weights are moved to lower the loss under it (outer problem), by a gradient that accounts for the answer of delta to the
weights (section 3.2): with the map Phi(delta, theta) = delta - step grad_delta L_inner, the implicit part v dPhi/dtheta,
where v solves v = v dPhi/ddelta + dL_outer/ddelta, by fixed-point iteration.

A round: delta from 0 by gradient steps over the batches of the budget, then one step of Adam on the weights for each
batch. In the outer loss a share of a batch carries delta, at least one image, the rest is clean: where all images carried
it, the weights were lost to a perturbation that no training image has. BatchNorm keeps its running statistics (eval mode).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ntml_bench.defenses.base import DEFENSES, Defense, DefenseConfig, DefenseContext
from ntml_bench.derivatives import TwiceDifferentiable
from ntml_bench.errors import UserError
from ntml_bench.models import Classifier
from ntml_bench.schema import number


@dataclass(frozen=True, kw_only=True)
class IBAUConfig(DefenseConfig):
    """`perturbed_share`: of the images of an outer batch; `penalty`: weight of |delta|^2 in the inner loss;
    `inner_learning_rate`: of the search for delta; `fixed_point_step`: step of the map Phi."""

    rounds: int = number(at_least=1)
    batch_size: int = number(at_least=1)
    learning_rate: float = number(above=0)
    radius: float = number(above=0)
    penalty: float = number(at_least=0)
    inner_passes: int = number(at_least=1)
    inner_learning_rate: float = number(above=0)
    fixed_point_iterations: int = number(at_least=0)
    fixed_point_step: float = number(above=0)
    perturbed_share: float = number(above=0, at_most=1)


@DEFENSES.register("i_bau")
class IBAU(Defense[IBAUConfig]):
    Config = IBAUConfig

    def check(self, model: Classifier, image_shape: tuple[int, int, int]) -> None:
        model.eval()
        image = torch.rand(1, *image_shape, generator=torch.Generator().manual_seed(0))
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

        def loss(delta: Tensor) -> Tensor:
            return model(image + delta).float().logsumexp(dim=1).sum()

        try:
            hypergradient(loss, loss, torch.zeros_like(image), parameters, step=1.0, iterations=1)
        except RuntimeError as error:
            raise UserError(
                f"defense i_bau needs second derivatives of the net, and {type(model.net).__name__} has none: {error}"
            ) from None

    def purify(self, context: DefenseContext) -> Classifier:
        config, model, budget = self.config, context.model, context.clean_budget
        model.eval()
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=config.learning_rate)
        rng = context.generator("order")
        count = len(budget)
        for round_number in range(1, config.rounds + 1):
            order = torch.randperm(count, generator=rng, device=context.engine.device)
            batches = [
                (context.engine.images(budget.images[index]), budget.labels[index])
                for index in order.split(min(config.batch_size, count))
            ]
            delta = self._find_perturbation(context, batches)
            total = 0.0
            for images, labels in batches:
                gradients, loss = hypergradient(
                    self._outer_loss(context, images, labels),
                    self._inner_loss(context, images, labels),
                    delta,
                    parameters,
                    config.fixed_point_step,
                    config.fixed_point_iterations,
                )
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient
                optimizer.step()
                total += loss
            values = {"epoch": round_number, "loss": total / len(batches), "perturbation_norm": float(delta.norm())}
            context.log("unlearning", values)
        return model

    def _find_perturbation(self, context: DefenseContext, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
        delta = torch.zeros_like(batches[0][0][:1])
        for _ in range(self.config.inner_passes):
            for images, labels in batches:
                delta.requires_grad_()
                (gradient,) = torch.autograd.grad(self._inner_loss(context, images, labels)(delta), delta)
                delta = (delta - self.config.inner_learning_rate * gradient).detach()
        return delta * (self.config.radius / delta.norm().clamp_min(self.config.radius))

    def _inner_loss(self, context: DefenseContext, images: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
        def loss(delta: Tensor) -> Tensor:
            with context.engine.autocast():
                raised = functional.cross_entropy(context.model(images + delta), labels)
            return self.config.penalty * delta.square().sum() - raised

        return loss

    def _outer_loss(self, context: DefenseContext, images: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
        carriers = max(1, round(self.config.perturbed_share * len(labels)))
        carries = (torch.arange(len(labels), device=labels.device) < carriers)[:, None, None, None]

        def loss(delta: Tensor) -> Tensor:
            with context.engine.autocast():
                return functional.cross_entropy(context.model(images + delta * carries), labels)

        return loss


def hypergradient(
    outer: Callable[[Tensor], Tensor],
    inner: Callable[[Tensor], Tensor],
    delta: Tensor,
    parameters: Sequence[Tensor],
    step: float,
    iterations: int,
) -> tuple[list[Tensor], float]:
    """The gradient of `outer` for the parameters, with delta seen as the minimiser of `inner`, and the outer loss.

    Both losses are functions of delta that read the parameters. `iterations` of 0 leaves v = dL_outer/ddelta.
    """
    delta = delta.detach().requires_grad_()
    value = outer(delta)
    wanted = [delta, *parameters]
    by_delta, *direct = torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True)
    with TwiceDifferentiable():
        (inner_gradient,) = torch.autograd.grad(inner(delta), delta, create_graph=True)
    mapped = delta - step * inner_gradient
    v = by_delta
    for _ in range(iterations):
        v = torch.autograd.grad(mapped, delta, v, retain_graph=True)[0] + by_delta
    implicit = torch.autograd.grad(mapped, parameters, v, allow_unused=True, materialize_grads=True)
    return [a + b for a, b in zip(direct, implicit, strict=True)], value.item()
