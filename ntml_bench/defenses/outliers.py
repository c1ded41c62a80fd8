"""Pruning of the channels of BatchNorm layers whose score lies far above the others of their layer: what `clp`, `bnp` and `ep`
share.

The rule of Zheng et al. (ECCV 2022, section 3.4; NeurIPS 2022): of each layer, the channels with a score above the mean plus so
many standard deviations (unbiased) of the layer's scores. One outlier among n channels is at most (n - 1) / sqrt(n) deviations
from the mean, so that 3 of them prune nothing in layers of up to 10 channels.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from ntml_bench.data.base import Split
from ntml_bench.defenses.base import DefenseContext
from ntml_bench.defenses.masks import batch_norms
from ntml_bench.evaluation import batches


def outliers(scores: Tensor, deviations: float) -> Tensor:
    """Which of the scores [C] are more than so many standard deviations above their mean, bool [C].

    A score that is no finite number (of a dead channel) is no outlier and left out of mean and deviation.
    """
    known = scores.isfinite()
    given = scores[known].double()
    if len(given) < 2:
        return torch.zeros_like(known)
    return known & (scores.double() > given.mean() + deviations * given.std())


def prune_outliers(context: DefenseContext, scores: Mapping[str, Tensor], deviations: float, *, with_bias: bool) -> None:
    """Prune the outliers of each layer in place, and log how many.

    `scores` [channels] by the name of a BatchNorm layer; other layers stay as they are. `with_bias`: whether weight and bias
    become 0, or the weight alone, so that the channel is constant at its bias.
    """
    norms = batch_norms(context.model)
    pruned = 0
    with torch.no_grad():
        for name, of_layer in scores.items():
            found = outliers(of_layer, deviations)
            norms[name].weight[found] = 0
            if with_bias:
                norms[name].bias[found] = 0
            pruned += int(found.sum())
    values = {
        "epoch": 1,
        "pruned_channels": float(pruned),
        "channels": float(sum(map(len, scores.values()))),
        "layers": float(len(scores)),
        "layers_left_out": float(len(norms) - len(scores)),
    }
    context.log("pruning", values)


def pre_activations(context: DefenseContext, split: Split, keep: Callable[[str, Tensor], None]) -> None:
    """Have `keep` see what each BatchNorm layer reads of the images: its name and float32 [N, C, places], batch by batch.

    In eval mode, without augmentation, and in float32 whatever the engine's precision: statistics of single values are taken
    of it, and those of bfloat16 are steps of a size that depends on the channel.
    """

    def hook_of(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: keep(name, inputs[0].float().reshape(*inputs[0].shape[:2], -1))

    model = context.model.eval()
    hooks = [norm.register_forward_pre_hook(hook_of(name)) for name, norm in batch_norms(model).items()]
    try:
        with torch.no_grad():
            for images in _batches(context, split):
                model(images)
    finally:
        for hook in hooks:
            hook.remove()


def _batches(context: DefenseContext, split: Split) -> Iterator[Tensor]:
    for part in batches(split.images):
        yield context.engine.images(split.images[part])
