"""The clean budget: the training images that a defense may trust, the same list for every defense."""

import torch
from torch import Tensor

from ntml_bench.errors import UserError
from ntml_bench.seeding import generator, stratified


def clean_budget(labels: Tensor, untouched: Tensor, share: float, seed: int) -> Tensor:
    """Sorted indices int64 [round(share * N)], on the CPU, of training images that the attacker did not touch.

    `labels` int64 [N], `untouched` bool [N], `share` of all N training images. Stratified: the classes have the shares
    that they have in the whole training set, also where the attacker touched most of one class; where a class has too
    few untouched images, others fill up. UserError where that is fewer images than classes, or more than are untouched.
    """
    labels, candidates = labels.cpu(), untouched.cpu().nonzero().flatten()
    total, classes = len(labels), len(labels.unique())
    count = round(share * total)
    asked = f"the clean budget is {share:g} of {total} training images, {count} images"
    if count < classes:
        raise UserError(f"{asked}; allowed: at least one for each of the {classes} classes, a share of {classes / total:.2g}")
    if count > len(candidates):
        raise UserError(f"{asked}; allowed: at most the {len(candidates)} images that the attack leaves untouched")
    rng = generator(seed, "clean_budget")
    quota = torch.bincount(labels[stratified(labels, count, rng)], minlength=int(labels.max()) + 1)
    order = candidates[torch.randperm(len(candidates), generator=rng)]
    chosen = torch.cat([order[labels[order] == label][:take] for label, take in enumerate(quota.tolist())])
    rest = candidates[~torch.isin(candidates, chosen)]
    fill = rest[stratified(labels[rest], count - len(chosen), rng)]
    return torch.cat([chosen, fill]).sort().values
