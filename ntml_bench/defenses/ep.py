"""EP: channels whose largest activations over the training set fall into lumps, as two mixed populations do, are pruned.

Zheng, Tang, Li, Liu, "Pre-activation Distributions Expose Backdoor Neurons", NeurIPS 2022 (entropy-based pruning).

Of each channel of a BatchNorm layer the largest value over the places is taken for each image of the poisoned training set, and
standardised over the images. The entropy of its histogram, with bins of 0.01 over the range of all channels of the layer, is
low where poisoned images lie apart from the others. Channels below the mean minus 3 standard deviations of their layer lose
their weight.

Deviations: the official code draws 500 images (`images: 500`) and the BackdoorBench leaderboard's 256; the publication finds
more to be better, and few poisons may have none among so few, so that here all are taken. A value on the border of two bins, or
the least of a layer, is counted, which the official code does not do. A channel that is the same for all images is not pruned.
"""

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from ntml_bench.defenses.base import DEFENSES, POISONED_TRAINING_SET, Defense, DefenseConfig, DefenseContext
from ntml_bench.defenses.masks import require_batch_norms
from ntml_bench.defenses.outliers import pre_activations, prune_outliers
from ntml_bench.models import Classifier
from ntml_bench.schema import number


@dataclass(frozen=True, kw_only=True)
class EPConfig(DefenseConfig):
    """`deviations`: channels with an entropy more than so many standard deviations below the mean of their layer are pruned;
    `prune_bias`: whether a pruned channel loses its bias, too; `images`: drawn from the training set (null: all);
    `bin_width`: of the histogram, in standard deviations of a channel."""

    deviations: float = number(at_least=0)
    prune_bias: bool
    images: int | None = number(at_least=2)
    bin_width: float = number(at_least=0.001)


@DEFENSES.register("ep")
class EP(Defense[EPConfig]):
    Config = EPConfig
    needs = (POISONED_TRAINING_SET,)
    family = "pruning"

    def check(self, model: Classifier, image_shape: tuple[int, int, int]) -> None:
        require_batch_norms("ep", model)

    def purify(self, context: DefenseContext) -> Classifier:
        config = self.config
        made_by = f"entropies {config.images}, {config.bin_width}"
        scores = context.once(made_by, lambda: self._negative_entropies(context))
        prune_outliers(context, scores, config.deviations, with_bias=config.prune_bias)
        return context.model

    def _negative_entropies(self, context: DefenseContext) -> dict[str, Tensor]:
        images = context.poisoned_train
        if self.config.images is not None and self.config.images < len(images):
            order = torch.randperm(len(images), generator=context.generator("images"), device=context.engine.device)
            images = images[order[: self.config.images]]
        largest: dict[str, list[Tensor]] = defaultdict(list)
        pre_activations(context, images, lambda name, values: largest[name].append(values.amax(dim=2)))
        return {name: -entropies(torch.cat(parts).T, self.config.bin_width) for name, parts in largest.items()}


def entropies(values: Tensor, bin_width: float) -> Tensor:
    """Of each row of `values` [C, N], standardised, the entropy of its histogram, float64 [C] in nats; NaN of a constant row.

    The bins are `bin_width` wide and begin at the least of all standardised values.
    """
    exact = values.double()
    deviation = exact.std(dim=1, keepdim=True)
    standardised = (exact - exact.mean(dim=1, keepdim=True)) / deviation
    found = torch.full((len(values),), torch.nan, dtype=torch.float64, device=values.device)
    varies = (exact != exact[:, :1]).any(dim=1)
    rows = standardised[varies]
    if len(rows) == 0:
        return found
    bins = ((rows - rows.min()) / bin_width).floor().long()
    width = int(bins.max()) + 1
    first = width * torch.arange(len(rows), device=rows.device)[:, None]
    shares = (bins + first).flatten().bincount(minlength=width * len(rows)).view(len(rows), width).double() / rows.shape[1]
    found[varies] = -torch.special.xlogy(shares, shares).sum(dim=1)
    return found
