"""One thread a test process: the suite runs on all cores through pytest-xdist, and threads of two processes would wait for each other."""

import torch

torch.set_num_threads(1)
