"""The re-tuning attack: does a purified model take the backdoor up again from a handful of poisons?

Min, Qin, Zhang, Shen, Cheng, "Uncovering, Explaining, and Mitigating the Superficial Safety of Backdoor Defense", NeurIPS 2024
(arXiv 2410.09838): a purified model is fine-tuned on a few clean images among which a handful are the attack's poisons; a
backdoor that was only covered is back within some steps. The same is done to a clean model: what that learns from the same
images is the floor, below which nothing was taken up again.

Settings as in the authors' code (fine_tune/ft_poison.py): 2 % of the training set, 5 of these images poisons, 5 passes with
SGD at 0.01, momentum 0.9, no weight decay, batches of 128.

Deviations: the clean images are drawn by class, from those that the attack left as they are; the poisons are augmented as the
clean images are; an incomplete last batch is left out (another part in each pass).
"""

from dataclasses import dataclass

import torch

from ntml_bench.attacks.base import Poisoning
from ntml_bench.data.base import Split
from ntml_bench.errors import UserError
from ntml_bench.schema import number
from ntml_bench.seeding import generator, stratified
from ntml_bench.training import Recipe


@dataclass(frozen=True, kw_only=True)
class RetuningConfig:
    """`share`: of the training set, the images that a model is re-tuned on; `poisons`: how many of them are the attack's;
    `recipe`: of the re-tuning."""

    share: float = number(above=0, at_most=1)
    poisons: int = number(at_least=1)
    recipe: Recipe


def check_retuning(config: RetuningConfig, total: int, poisoned: int) -> None:
    """Raise UserError where `total` training images, of which the attack touches `poisoned`, do not have what is asked for."""
    if config.poisons > poisoned:
        raise UserError(f"retuning.poisons is {config.poisons}; allowed: at most {poisoned}, as many as the attack poisons")
    count = round(config.share * total)
    if not config.poisons < count <= total - poisoned:
        raise UserError(
            f"retuning.share is {config.share:g} of {total} training images, {count}; allowed: more than retuning.poisons "
            f"({config.poisons}), at most the {total - poisoned} that the attack leaves as they are"
        )


def retuning_split(config: RetuningConfig, train: Split, poisoning: Poisoning, seed: int) -> Split:
    """What a model is re-tuned on: uint8 images and labels, poisons in front, on the device of `train`.

    `train`: the clean training set. A wrapped or covered image that keeps its label is no poison.
    """
    labels, device = train.labels.cpu(), train.labels.device
    clean = poisoning.untouched(len(labels)).nonzero().flatten()
    count = round(config.share * len(labels)) - config.poisons
    clean = clean[stratified(labels[clean], count, generator(seed, "retuning/clean images"))].to(device)
    poisons = poisoning.is_poison.nonzero().flatten()
    order = torch.randperm(len(poisons), generator=generator(seed, "retuning/poisons"))
    taken = poisons[order[: config.poisons]]
    return Split(
        torch.cat([poisoning.images[taken].to(device), train.images[clean]]),
        torch.cat([poisoning.labels[taken].to(device), train.labels[clean]]),
    )
