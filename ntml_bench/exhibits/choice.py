"""Which images are shown: the same ones on every run, whatever the cell's seed."""

from itertools import zip_longest

import torch
from torch import Tensor

from ntml_bench.seeding import generator, stratified


def by_turns(labels: Tensor, count: int) -> Tensor:
    """Indices int64 of `count` images (all, where there are no more): one of each class, then a second of each, and so on.

    Of more classes than `count`, as many are taken as are asked for, at equal distances.
    """
    labels = labels.cpu()
    classes = labels.unique()
    if len(classes) > count:
        classes = classes[torch.linspace(0, len(classes) - 1, count).round().long()]
    queues = [(labels == label).nonzero().flatten()[:count].tolist() for label in classes]
    turns = [index for turn in zip_longest(*queues) for index in turn if index is not None]
    return torch.tensor(turns[:count], dtype=torch.int64)


def sample(labels: Tensor, most: int, purpose: str) -> Tensor:
    """Sorted indices int64 (CPU) of at most `most` images, drawn by classes."""
    return stratified(labels.cpu(), min(most, len(labels)), generator(0, f"exhibits/{purpose}"))
