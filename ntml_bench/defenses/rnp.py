"""RNP: the model unlearns the clean images, masks recover them, and the channels that these masks close are pruned.

Li, Lyu, Ma, Koren, Lyu, Li, Jiang, "Reconstructive Neuron Pruning for Backdoor Defense", ICML 2023.

A copy of the model ascends the cross-entropy on the clean budget until it classifies no more than `unlearned_accuracy` of an
epoch's images right; what is left is said to be the backdoor. In that copy the weight of each BatchNorm channel gets a mask in
[0, 1], at first 1, and the masks alone descend 0.2 times the cross-entropy by SGD. Channels of the backdoored model with a mask
at or below a threshold lose their weight and keep their bias. BatchNorm is in training mode in both stages. All this is as in
the official code.

The threshold: that code prunes at each of 0, 0.05, ..., 0.9, prints accuracy and attack success on the test set, and the reader
picks. Here (`threshold: null`) it is the largest at which the accuracy on a held-out part of the clean budget stays within
`tolerance`, as for `anp`; both stages then use the rest of the budget alone.

Deviation: where the accuracy is still too high behind the last epoch, the model of that epoch is taken; the official code has
none then. It clips the gradient before it is there, so that nothing is clipped; nor is it here.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ntml_bench.data.augmentation import augment
from ntml_bench.data.base import Split
from ntml_bench.defenses.base import DEFENSES, Defense, DefenseContext
from ntml_bench.defenses.masks import Channels, MaskPruningConfig, Masks, prune_by_masks, require_batch_norms
from ntml_bench.defenses.unlearning import unlearn
from ntml_bench.models import Classifier
from ntml_bench.schema import number
from ntml_bench.training import SteppedRecipe


@dataclass(frozen=True, kw_only=True)
class RNPConfig(MaskPruningConfig):
    """`unlearning`: recipe of the ascent, `epochs` at most; `unlearned_accuracy`: it ends behind an epoch of whose images no
    larger share was classified right.

    `recovery_epochs`: passes in which the masks learn; `recovery_weight`: of the cross-entropy there; `batch_size`,
    `learning_rate`, `momentum`: of that SGD.
    """

    unlearning: SteppedRecipe
    unlearned_accuracy: float = number(at_least=0, at_most=1)
    recovery_epochs: int = number(at_least=1)
    recovery_weight: float = number(above=0)
    batch_size: int = number(at_least=1)
    learning_rate: float = number(above=0)
    momentum: float = number(at_least=0, at_most=1)


@DEFENSES.register("rnp")
class RNP(Defense[RNPConfig]):
    Config = RNPConfig
    family = "pruning"

    def check(self, model: Classifier, image_shape: tuple[int, int, int]) -> None:
        require_batch_norms("rnp", model)

    def purify(self, context: DefenseContext) -> Classifier:
        prune_by_masks(context, lambda budget: self._recover(context, self._unlearned(context, budget), budget), self.config)
        return context.model

    def _unlearned(self, context: DefenseContext, budget: Split) -> Classifier:
        """A copy of the model that has unlearned the clean images."""
        model = deepcopy(context.model)
        right = torch.zeros((), device=context.engine.device)
        seen = 0

        def loss(images: Tensor, labels: Tensor) -> Tensor:
            nonlocal seen
            logits = model(images)
            right.add_((logits.detach().argmax(dim=1) == labels).sum())
            seen += len(labels)
            return functional.cross_entropy(logits, labels)

        def accuracy() -> float:
            """Of the epoch's images, as they passed."""
            nonlocal seen
            share, seen = float(right) / seen, 0
            right.zero_()
            return share

        config = self.config
        unlearn(context, model, budget, config.unlearning, loss=loss, accuracy=accuracy, until=config.unlearned_accuracy)
        return model

    def _recover(self, context: DefenseContext, model: Classifier, budget: Split) -> Masks:
        """The masks that make the unlearned model classify the clean images again."""
        config, engine = self.config, context.engine
        channels = Channels(model.requires_grad_(False).train())
        mask, one = torch.ones_like(channels.weight).requires_grad_(), torch.ones_like(channels.weight)
        optimizer = torch.optim.SGD([mask], lr=config.learning_rate, momentum=config.momentum)
        order_rng, batch_rng = map(context.generator, ("recovery/order", "recovery/augmentation"))
        batch_size = min(config.batch_size, len(budget))
        for epoch in range(1, config.recovery_epochs + 1):
            order = torch.randperm(len(budget), generator=order_rng, device=engine.device)
            total = torch.zeros((), device=engine.device)
            # A last small batch would give BatchNorm poor statistics.
            batches = order[: len(order) // batch_size * batch_size].split(batch_size)
            for index in batches:
                images, labels = (
                    augment(engine.images(budget.images[index]), context.augmentation, batch_rng),
                    budget.labels[index],
                )
                with engine.autocast():
                    value = channels.loss(mask, one, images, labels)
                optimizer.zero_grad(set_to_none=True)
                (config.recovery_weight * value).backward()
                optimizer.step()
                with torch.no_grad():
                    mask.clamp_(0, 1)
                total += value.detach()
            context.log("recovery", {"epoch": epoch, "loss": float(total) / len(batches)})
        return channels.masks(mask.detach())
