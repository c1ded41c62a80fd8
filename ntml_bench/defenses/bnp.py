"""BNP: channels that see clean images otherwise than they saw the training set are pruned.

Zheng, Tang, Li, Liu, "Pre-activation Distributions Expose Backdoor Neurons", NeurIPS 2022 (BN statistics-based pruning).

Of each channel of a BatchNorm layer the mean m1 and variance v1 of what it reads of the clean budget, over images and places,
is compared with the running statistics m2, v2, which are those of the poisoned training set: the divergence of the two normal
distributions, log sqrt(v2 / v1) + (v1 + (m1 - m2)^2) / (2 v2) - 1/2. Channels above the mean plus 3 standard deviations of
their layer lose their weight.

Deviations: the official code takes the first batch of its clean images, this the whole budget. The layer's eps is added to both
variances, so that the divergence of a dead channel is a number. The BackdoorBench leaderboard's code overwrites the statistics
of the clean images by those of a poisoned batch, so that its column `mbns` compares poisoned images with poisoned ones.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ntml_bench.defenses.base import DEFENSES, Defense, DefenseConfig, DefenseContext
from ntml_bench.defenses.masks import batch_norms, require_batch_norms
from ntml_bench.defenses.outliers import pre_activations, prune_outliers
from ntml_bench.errors import UserError
from ntml_bench.models import Classifier
from ntml_bench.schema import number


@dataclass(frozen=True, kw_only=True)
class BNPConfig(DefenseConfig):
    """`deviations`: channels with a divergence more than so many standard deviations above the mean of their layer are pruned;
    `prune_bias`: whether a pruned channel loses its bias, too."""

    deviations: float = number(at_least=0)
    prune_bias: bool


@DEFENSES.register("bnp")
class BNP(Defense[BNPConfig]):
    Config = BNPConfig
    family = "pruning"

    def check(self, model: Classifier, image_shape: tuple[int, int, int]) -> None:
        require_batch_norms("bnp", model)
        if any(norm.running_mean is None for norm in batch_norms(model).values()):
            raise UserError(
                f"defense bnp reads the running statistics of BatchNorm layers; {type(model.net).__name__} keeps none"
            )

    def purify(self, context: DefenseContext) -> Classifier:
        scores = context.once("divergences", lambda: divergences(context))
        prune_outliers(context, scores, self.config.deviations, with_bias=self.config.prune_bias)
        return context.model


def divergences(context: DefenseContext) -> dict[str, Tensor]:
    """Of each BatchNorm layer's channels, float64 [C], how far the clean budget is from the running statistics."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}

    def add(name: str, values: Tensor) -> None:
        exact = values.double()
        moments = torch.stack([exact.sum(dim=(0, 2)), exact.square().sum(dim=(0, 2))])
        sums[name] = sums[name] + moments if name in sums else moments
        counts[name] = counts.get(name, 0) + values.shape[0] * values.shape[2]

    pre_activations(context, context.clean_budget, add)
    found: dict[str, Tensor] = {}
    for name, norm in batch_norms(context.model).items():
        if name in sums:
            assert norm.running_mean is not None
            assert norm.running_var is not None
            mean, square = sums[name] / counts[name]
            variance = (square - mean.square()).clamp_min(0)
            found[name] = normal_divergence(
                mean, variance + norm.eps, norm.running_mean.double(), norm.running_var.double() + norm.eps
            )
    return found


def normal_divergence(mean: Tensor, variance: Tensor, other_mean: Tensor, other_variance: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of a normal distribution from another one, elementwise; in nats, at least 0."""
    ratio = (variance + (mean - other_mean).square()) / other_variance
    return ((other_variance / variance).log() + ratio - 1) / 2
