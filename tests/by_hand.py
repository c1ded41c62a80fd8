"""What the tests of defenses against their definitions share: random tensors, and a look at how `fit` is called."""

from typing import Any

import torch
from builders import state_of
from torch import Tensor

from ntml_bench.data.base import Split
from ntml_bench.training import fit


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class FitSpy:
    """Stands in for `fit`: notes how it is called and, where asked, does it."""

    def __init__(self, run: bool = False) -> None:
        self.calls: list[dict[str, Any]] = []
        self.run = run

    def __call__(self, engine: Any, data: Split, settings: Any, **named: Any) -> None:
        before = [state_of(model) for model in named["models"]]
        self.calls.append({"data": data, "recipe": settings, "before": before, **named})
        if self.run:
            fit(engine, data, settings, **named)
