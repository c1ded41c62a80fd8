"""One thread a test process and in what it starts: pytest-xdist uses the cores, and threads would wait for each other.

Every test starts from the same state of torch's generator, whichever tests ran before it in its process.
What the shell of whoever runs the tests says to W&B, Hydra and rich is not heard.
"""

import gc
import os
from collections.abc import Generator

import files_read_once
import pytest
from hypothesis import settings

from ntml_bench.app.imports import lasting_imports

OF_THE_SHELL = ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COMP_LINE")
for name in list(os.environ):
    if name.startswith(("WANDB_", "HYDRA_")) or name in OF_THE_SHELL:
        del os.environ[name]
os.environ["OMP_NUM_THREADS"] = "1"  # PyTorch, which is not imported yet, takes it, too
files_read_once.install()
# On a busy machine an example takes as long as it takes. In CI hypothesis has a profile of its own, of the same mind.
if "CI" not in os.environ:
    settings.register_profile("busy machine", deadline=None)
    settings.load_profile("busy machine")


def pytest_runtest_setup() -> None:
    # Here, because the process that only hands out the tests does without.
    import torch

    torch.manual_seed(0)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    gc.set_threshold(20_000, 20, 20)  # there is memory for rarer collections of garbage
    with lasting_imports():
        return (yield)
