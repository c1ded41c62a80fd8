"""FST: the model is fine-tuned with a new last layer that is pushed away from the backdoored one.

Min, Qin, Shen, Cheng, "Towards Stable Backdoor Purification through Feature Shift Tuning", NeurIPS 2023.

With W0 the weight of the last linear layer of the backdoored model and W that of the new one, the loss is the cross-entropy
plus alpha times the sum of W * W0; after each step W is scaled to the norm of W0, without which that sum has no lower bound.
The bias takes no part in either.

alpha is 0.2 on CIFAR-10, 0.1 on GTSRB, 0.001 on CIFAR-100 and Tiny ImageNet (with 15 epochs at a rate of 0.001). The
publication has 2 % of the training set clean; how much is clean here is a setting of all defenses.

Deviation: the official script's learning rate falls behind each epoch, here behind each step.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ntml_bench.defenses.base import DEFENSES, Defense, DefenseConfig, DefenseContext
from ntml_bench.defenses.heads import reinitialise_head, scale_to
from ntml_bench.models import Classifier
from ntml_bench.schema import number
from ntml_bench.training import Recipe


@dataclass(frozen=True, kw_only=True)
class FSTConfig(DefenseConfig):
    """`alpha`: weight of the likeness of the new and the backdoored last layer in the loss; `recipe`: of the fine-tuning."""

    alpha: float = number(at_least=0)
    recipe: Recipe


@DEFENSES.register("fst")
class FST(Defense[FSTConfig]):
    Config = FSTConfig
    family = "fine-tuning"

    def check(self, model: Classifier, image_shape: tuple[int, int, int]) -> None:
        _ = model.head  # says of a net without a linear layer at its end that it has none

    def purify(self, context: DefenseContext) -> Classifier:
        model, weight = context.model, context.model.head.weight
        backdoored = weight.detach().clone()
        reinitialise_head(context, model.head)

        def loss(images: Tensor, labels: Tensor) -> Tensor:
            return functional.cross_entropy(model(images), labels) + self.config.alpha * (weight * backdoored).sum()

        def take_step(optimizer: torch.optim.Optimizer, _: Callable[[], object]) -> None:
            optimizer.step()
            scale_to(weight, backdoored.norm())

        context.fine_tune(model, self.config.recipe, "fine-tuning", loss=loss, take_step=take_step)
        return model
