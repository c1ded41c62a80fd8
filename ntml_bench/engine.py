"""How tensors are computed with: device, precision, determinism, compilation. One object, for all that trains or evaluates."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any, TypeVar, cast

import torch
import torch.utils.deterministic
from torch import Tensor, nn

from ntml_bench.errors import UserError
from ntml_bench.precision import BFLOAT16, FLOAT32, automatic

M = TypeVar("M", bound=nn.Module)
F = TypeVar("F", bound=Callable[..., Any])

NOT_COMPILED = "none"
COMPILATIONS = (NOT_COMPILED, "default", "reduce-overhead")
"""Beside `none` the modes of torch.compile; `reduce-overhead` uses CUDA graphs where there is a GPU."""


@dataclass(frozen=True)
class Engine:
    """`half`: whether forward passes run under bfloat16 autocast (parameters stay float32). `compilation`: see `compiled`.

    `chosen_by`: in words, what chose the precision.
    """

    device: torch.device
    half: bool
    compilation: str = NOT_COMPILED
    chosen_by: str = "asked for"

    @classmethod
    def create(
        cls, device: str, precision: str, deterministic: bool, compilation: str = NOT_COMPILED, cache_dir: Path | None = None
    ) -> "Engine":
        """`device`: auto, cpu, cuda, cuda:N; `precision`: auto, float32, bfloat16; `compilation`: one of COMPILATIONS.

        `cache_dir`: where the measurement is kept that `auto` goes by (None: in this process). UserError where the device is
        not there, or nothing to compile with.

        Determinism is a switch of the whole process. On a CPU it costs one thread a cell; on a GPU it costs speed.
        """
        chosen = device_of(device)
        if compilation != NOT_COMPILED and chosen.type == "cpu" and which(os.environ.get("CXX", "g++")) is None:
            raise UserError(
                f"compile is '{compilation}', but there is no C++ compiler (g++, or what CXX names); use compile=none"
            )
        torch.use_deterministic_algorithms(deterministic)
        # Filling every new tensor would only find reads of uninitialised memory, at a cost.
        cast(Any, torch.utils.deterministic).fill_uninitialized_memory = False
        torch.backends.cudnn.benchmark = not deterministic
        chosen_by = "asked for"
        if precision == "auto":
            precision, chosen_by = automatic(chosen, deterministic, cache_dir)
        torch.set_float32_matmul_precision("highest" if precision == FLOAT32 else "high")
        return cls(chosen, precision == BFLOAT16, compilation, chosen_by)

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)

    def compiled(self, function: F) -> F:
        """The function through torch.compile where that is asked for: worth its minute in a long training only."""
        if self.compilation == NOT_COMPILED:
            return function
        return cast(F, torch.compile(function, mode=self.compilation, dynamic=False))

    def images(self, pixels: Tensor) -> Tensor:
        """uint8 [N, C, H, W] 0..255 on this device to float32 [0, 1], channels last (what convolutions like best)."""
        return pixels.to(memory_format=torch.channels_last).float().div_(255)

    def model(self, model: M) -> M:
        """The model on this device, channels last, in place."""
        return cast(Any, model).to(self.device, memory_format=torch.channels_last)


def device_of(name: str) -> torch.device:
    """What the setting `device` names. UserError where it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise UserError(f"device is '{name}'; allowed: auto, cpu, cuda, cuda:N") from None
    if chosen.type == "cuda" and (not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count()):
        raise UserError(f"device is '{name}', but torch sees {torch.cuda.device_count()} CUDA devices here")
    if chosen.type not in ("cpu", "cuda"):
        raise UserError(f"device is '{name}'; allowed: auto, cpu, cuda, cuda:N")
    return chosen
