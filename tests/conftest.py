"""One thread a test process: pytest-xdist uses the cores, and threads of two processes would wait for each other."""

import os

import torch
from hypothesis import settings

torch.set_num_threads(1)
# On a busy machine an example takes as long as it takes. In CI hypothesis has a profile of its own, of the same mind.
if "CI" not in os.environ:
    settings.register_profile("busy machine", deadline=None)
    settings.load_profile("busy machine")
