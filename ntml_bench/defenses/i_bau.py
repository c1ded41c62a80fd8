"""I-BAU: the model unlearns the universal perturbation that harms it most, by an implicit gradient.

Zeng et al., "Adversarial Unlearning of Backdoors via Implicit Hypergradient", ICLR 2022.

Min-max: a universal perturbation delta, at most `radius` in L2, raises the loss on the clean budget (inner problem); the
weights are moved to lower the loss under it (outer problem), by a gradient that accounts for the answer of delta to the
weights (section 3.2): with the map Phi(delta, theta) = delta - step grad_delta L_inner, the implicit part v dPhi/dtheta,
where v solves v = v dPhi/ddelta + dL_outer/ddelta, by fixed-point iteration.

The budget is divided into batches once. A round: delta from 0 by gradient steps over the batches, away from the model's own
answers, then one step of Adam on the weights for each batch. In the outer loss `perturbed_share` of a batch, rounded down and
drawn anew, carries delta, the rest is clean. L_inner within Phi is that of the first batch with its true labels, whatever the
batch of the outer loss. BatchNorm keeps its running statistics (eval mode). All this is as in the official code.

Deviation: delta is put back into the ball of `radius`, as in the publication and the official notebook; the official script
has that line commented out (`radius: null`). Perturbed images are not clipped to [0, 1], as in the script; the notebook clips.
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
    """`rounds`: each a search for delta and a pass of the outer problem; `batch_size`: images of a batch; `learning_rate`:
    Adam's, on the weights. `perturbed_share`: of the images of an outer batch; `penalty`: weight of |delta|^2 in the inner
    loss; `radius`: bound of |delta| (null: unbounded); `inner_passes`: over the batches in a search for delta;
    `inner_learning_rate`: of that search; `fixed_point_step`: step of the map Phi; `fixed_point_iterations`: K, from v = 0 on
    (0 leaves the implicit part out).
    """

    rounds: int = number(at_least=1)
    batch_size: int = number(at_least=1)
    learning_rate: float = number(above=0)
    radius: float | None = number(above=0)
    penalty: float = number(at_least=0)
    inner_passes: int = number(at_least=1)
    inner_learning_rate: float = number(above=0)
    fixed_point_iterations: int = number(at_least=0)
    fixed_point_step: float = number(above=0)
    perturbed_share: float = number(above=0, at_most=1)


@DEFENSES.register("i_bau")
class IBAU(Defense[IBAUConfig]):
    Config = IBAUConfig
    family = "unlearning"
    version = 2

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
        order = torch.randperm(len(budget), generator=context.generator("order"), device=context.engine.device)
        batches = [
            (context.engine.images(budget.images[index]), budget.labels[index]) for index in order.split(config.batch_size)
        ]
        carrier_rng = context.generator("carriers")
        inner = self._inner_loss(context, *batches[0])
        for round_number in range(1, config.rounds + 1):
            delta = self._find_perturbation(context, [images for images, _ in batches])
            total = 0.0
            for images, labels in batches:
                outer = self._outer_loss(context, images, labels, carrier_rng)
                gradients, loss = hypergradient(
                    outer, inner, delta, parameters, config.fixed_point_step, config.fixed_point_iterations
                )
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient
                optimizer.step()
                total += loss
            values = {"epoch": round_number, "loss": total / len(batches), "perturbation_norm": float(delta.norm())}
            context.log("unlearning", values)
        return model

    def _find_perturbation(self, context: DefenseContext, batches: Sequence[Tensor]) -> Tensor:
        """A universal perturbation [1, C, H, W] of these batches of images that leads away from the model's own answers."""
        with torch.no_grad(), context.engine.autocast():
            answers = [context.model(images).argmax(dim=1) for images in batches]
        delta = torch.zeros_like(batches[0][:1])
        for _ in range(self.config.inner_passes):
            for images, labels in zip(batches, answers, strict=True):
                delta.requires_grad_()
                (gradient,) = torch.autograd.grad(self._inner_loss(context, images, labels)(delta), delta)
                delta = (delta - self.config.inner_learning_rate * gradient).detach()
        radius = self.config.radius
        return delta if radius is None else delta * (radius / delta.norm().clamp_min(radius))

    def _inner_loss(self, context: DefenseContext, images: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
        def loss(delta: Tensor) -> Tensor:
            with context.engine.autocast():
                raised = functional.cross_entropy(context.model(images + delta), labels)
            return self.config.penalty * delta.square().sum() - raised

        return loss

    def _outer_loss(
        self, context: DefenseContext, images: Tensor, labels: Tensor, rng: torch.Generator
    ) -> Callable[[Tensor], Tensor]:
        order = torch.randperm(len(labels), generator=rng, device=labels.device)
        carries = (order < int(self.config.perturbed_share * len(labels)))[:, None, None, None]

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

    Both losses are functions of delta that read the parameters. The `iterations` start from v = 0, so that the first gives
    v = dL_outer/ddelta; without any there is no implicit part.
    """
    delta = delta.detach().requires_grad_()
    value = outer(delta)
    wanted = [delta, *parameters]
    by_delta, *direct = torch.autograd.grad(value, wanted, allow_unused=True, materialize_grads=True)
    with TwiceDifferentiable():
        (inner_gradient,) = torch.autograd.grad(inner(delta), delta, create_graph=True)
    mapped = delta - step * inner_gradient
    v = by_delta if iterations > 0 else torch.zeros_like(by_delta)
    for _ in range(iterations - 1):
        v = torch.autograd.grad(mapped, delta, v, retain_graph=True)[0] + by_delta
    implicit = torch.autograd.grad(mapped, parameters, v, allow_unused=True, materialize_grads=True)
    return [a + b for a, b in zip(direct, implicit, strict=True)], value.item()
