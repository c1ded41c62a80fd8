"""CLP: channels whose convolution and BatchNorm together can change their output most are pruned, without any data.

Zheng, Tang, Li, Liu, "Data-Free Backdoor Removal Based on Channel Lipschitzness", ECCV 2022.

The score of a channel c of a BatchNorm layer behind a convolution is an upper bound of its Lipschitz constant: the largest
singular value of its filter as a matrix [inputs, k k], times |gamma_c| / sqrt(running variance). Channels with a score above
the mean plus 3 standard deviations of their layer lose weight and bias.

Deviations:
- Only a BatchNorm layer that reads the output of one convolution is scored, as it is seen in a forward pass of random noise.
  The official code, and the BackdoorBench leaderboard's, takes the last convolution that was registered before the layer. In a
  pre-activation net that is often another one: there 8 of 17 layers of a ResNet18 follow a sum, of which some are scored by the
  filters of a shortcut alone. Its authors ask for code for each architecture. What is left out is counted in the log.
- The layer's eps is added to the variance, as the layer adds it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ntml_bench.defenses.base import DEFENSES, Defense, DefenseConfig, DefenseContext
from ntml_bench.defenses.masks import batch_norms, require_batch_norms
from ntml_bench.defenses.outliers import prune_outliers
from ntml_bench.errors import UserError
from ntml_bench.models import Classifier
from ntml_bench.schema import number


@dataclass(frozen=True, kw_only=True)
class CLPConfig(DefenseConfig):
    """`deviations`: channels with a score more than so many standard deviations above the mean of their layer are pruned."""

    deviations: float = number(at_least=0)


@DEFENSES.register("clp")
class CLP(Defense[CLPConfig]):
    Config = CLPConfig
    needs = ()
    family = "pruning"

    def check(self, model: Classifier, image_shape: tuple[int, int, int]) -> None:
        require_batch_norms("clp", model)
        if not convolutions_before(model, image_shape):
            raise UserError(
                "defense clp prunes channels of BatchNorm layers right behind a convolution; "
                f"none of {type(model.net).__name__} is"
            )

    def purify(self, context: DefenseContext) -> Classifier:
        model = context.model
        norms = batch_norms(model)
        scores = {
            name: lipschitz_bounds(convolution.weight, norms[name])
            for name, convolution in convolutions_before(model, context.image_shape).items()
        }
        prune_outliers(context, scores, self.config.deviations, with_bias=True)
        return model


def convolutions_before(model: Classifier, image_shape: tuple[int, int, int]) -> dict[str, nn.Conv2d]:
    """The convolution whose output a BatchNorm layer reads, by the layer's name; layers that read anything else are missing.

    The model is run in eval mode on one image of noise.
    """
    model.eval()
    made: list[tuple[Any, Any]] = []
    found: dict[str, nn.Conv2d] = {}

    def keep(module: nn.Conv2d, _: object, output: Tensor) -> None:
        made.append((output, module))

    hooks = [module.register_forward_hook(keep) for module in model.modules() if isinstance(module, nn.Conv2d)]
    for name, norm in batch_norms(model).items():

        def look(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
            # The very tensor, not an equal one: the list keeps it alive, so that no other can have its place in memory.
            found.update((name, module) for output, module in made if output is inputs[0])

        hooks.append(norm.register_forward_pre_hook(look))
    image = torch.rand(1, *image_shape, generator=torch.Generator().manual_seed(0)).to(model.mean.device)
    try:
        with torch.no_grad():
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def lipschitz_bounds(weight: Tensor, norm: nn.modules.batchnorm._BatchNorm) -> Tensor:
    """The score [O] of each channel of a convolution with weight [O, I, k, k] and the BatchNorm layer behind it, in float32."""
    with torch.no_grad():
        assert norm.running_var is not None
        largest = torch.linalg.matrix_norm(weight.float().flatten(2), ord=2)
        return largest * norm.weight.float().abs() / (norm.running_var.float() + norm.eps).sqrt()
