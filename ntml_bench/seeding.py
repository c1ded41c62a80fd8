"""Every random draw has a name: its stream depends on the seed and that name alone.

So nothing depends on the order in which cells run, on what ran before in the process, or on a resume.
"""

import hashlib

import torch
from torch import Tensor


def derive(seed: int, purpose: str) -> int:
    """A 63-bit seed for one purpose."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh random generator for one purpose."""
    return torch.Generator(device).manual_seed(derive(seed, purpose))


def stratified(labels: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """Indices int64 [count] of a random subset in which the classes have (within one) the shares that they have in `labels`.

    `labels` int64 [N] and `rng` live on the CPU; the result is sorted. The rounding favours the classes with the largest
    remainder, ties at random. ValueError where `count` is not in 0..N.
    """
    total = len(labels)
    if not 0 <= count <= total:
        raise ValueError(f"cannot take {count} of {total}")
    order = torch.randperm(total, generator=rng)
    if count == 0:
        return order[:0]
    classes, sizes = labels.unique(return_counts=True)
    exact = sizes.double() * (count / total)
    quota = exact.floor().long()
    ties = torch.rand(len(classes), generator=rng, dtype=torch.float64) * 1e-6
    extra = (exact - quota + ties).topk(count - int(quota.sum())).indices
    quota[extra] += 1
    chosen = [order[labels[order] == label][:take] for label, take in zip(classes.tolist(), quota.tolist(), strict=True)]
    return torch.cat(chosen).sort().values
