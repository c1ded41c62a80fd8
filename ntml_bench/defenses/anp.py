"""ANP: channels that a small adversarial change of their weights turns against the labels are pruned.

Wu, Wang, "Adversarial Neuron Pruning Purifies Backdoored Deep Models", NeurIPS 2021.

Each channel of a BatchNorm layer has a mask m in [0, 1] on its weight. Its weight and bias are perturbed by the factors d
and e to raise the loss (section 4.2): from a random start in [-eps, eps] by one sign step of size eps. The masks minimise
a CE(m) + (1 - a) CE(m + d, 1 + e) on batches drawn with replacement. Channels with a mask at or below a threshold are pruned:
their weight becomes 0 and their bias stays, which is what the masks saw. That is done in the model itself, so that it reloads
as it was measured. All this is as in the official code.

The threshold is a setting (published: 0.2), or (`threshold: null`) the largest at which the accuracy on a held-out part of
the clean budget stays within `tolerance`; the masks then learn on the rest of the budget alone. The leaderboard picks it by
the success rate on the test set, which no defender has; its column is better than an honest one.

Deviation: the publication bounds |d| and |e| by eps. Its code, which this follows, does not: a step away from a random start
ends up to 2 eps from 0.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from ntml_bench.data.augmentation import augment
from ntml_bench.data.base import Split
from ntml_bench.defenses.base import DEFENSES, Defense, DefenseContext
from ntml_bench.defenses.masks import Channels, MaskPruningConfig, Masks, prune_by_masks, require_batch_norms
from ntml_bench.models import Classifier
from ntml_bench.schema import number


@dataclass(frozen=True, kw_only=True)
class ANPConfig(MaskPruningConfig):
    """`eps`: size of the random start and of the sign step; `trade_off`: weight a of the clean loss; `steps`: of SGD on the
    masks; `batch_size`: images of a step; `learning_rate`, `momentum`: of that SGD.
    """

    eps: float = number(at_least=0)
    trade_off: float = number(at_least=0, at_most=1)
    steps: int = number(at_least=1)
    batch_size: int = number(at_least=1)
    learning_rate: float = number(above=0)
    momentum: float = number(at_least=0, at_most=1)


@DEFENSES.register("anp")
class ANP(Defense[ANPConfig]):
    Config = ANPConfig
    family = "pruning"
    version = 2

    def check(self, model: Classifier, image_shape: tuple[int, int, int]) -> None:
        require_batch_norms("anp", model)

    def purify(self, context: DefenseContext) -> Classifier:
        prune_by_masks(context, lambda budget: self._learn_masks(context, budget), self.config)
        return context.model

    def _learn_masks(self, context: DefenseContext, budget: Split) -> Masks:
        """The mask of each BatchNorm layer, by the layer's name."""
        config, engine = self.config, context.engine
        # A copy, because the forward passes in training mode move the running statistics.
        model = deepcopy(context.model).requires_grad_(False).train()
        channels = Channels(model)
        mask = torch.ones_like(channels.weight).requires_grad_()
        optimizer = torch.optim.SGD([mask], lr=config.learning_rate, momentum=config.momentum)
        draw_rng, batch_rng, start_rng = map(context.generator, ("order", "augmentation", "perturbation"))
        total = torch.zeros((), device=engine.device)
        for step in range(1, config.steps + 1):
            index = torch.randint(len(budget), (config.batch_size,), generator=draw_rng, device=engine.device)
            images, labels = augment(engine.images(budget.images[index]), context.augmentation, batch_rng), budget.labels[index]
            start = config.eps * (2 * torch.rand(2, len(mask), generator=start_rng, device=engine.device) - 1)
            with engine.autocast():
                value = objective(channels, mask, start, images, labels, config.eps, config.trade_off)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            with torch.no_grad():
                mask.clamp_(0, 1)
            total += value.detach()
            if step % 100 == 0 or step == config.steps:
                context.log("masks", {"epoch": step, "loss": float(total) / ((step - 1) % 100 + 1)})
                total.zero_()
        return channels.masks(mask.detach())


def objective(
    channels: Channels, mask: Tensor, start: Tensor, images: Tensor, labels: Tensor, eps: float, trade_off: float
) -> Tensor:
    """a CE(m) + (1 - a) CE(m + d, 1 + e) of a batch, to be differentiated for the mask m [C].

    (d, e) [2, C] is `start` [2, C] plus eps times the sign of the gradient of CE(m + d, 1 + e) there.
    """
    at = start.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(channels.loss(mask.detach() + at[0], 1 + at[1], images, labels), at)
    d, e = start + eps * gradient.sign()
    clean = channels.loss(mask, torch.ones_like(mask), images, labels)
    return trade_off * clean + (1 - trade_off) * channels.loss(mask + d, 1 + e, images, labels)
