"""One thread a test process: pytest-xdist uses the cores, and threads of two processes would wait for each other."""

import torch

torch.set_num_threads(1)
