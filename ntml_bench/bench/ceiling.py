"""What the device can do at best, and what a net asks of it. FLOP: a multiply-add counts as two, as everywhere."""

import time

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ntml_bench.bench.timing import Clock, seconds_of

# Forward, and backward for the inputs and for the weights of each layer.
TRAINING_OVER_FORWARD = 3
LEAST_REPEATS = 3


def matrix_size(device: torch.device) -> int:
    """Rows of the square matrices: large enough to come near the device's peak, small enough for a fraction of a second."""
    return 8192 if device.type == "cuda" else 2048


def matrix_product_rate(
    device: torch.device, dtype: torch.dtype, size: int, seconds: float, clock: Clock = time.perf_counter
) -> float:
    """FLOP a second of the product of two square matrices: the best of the repeats that fit into `seconds`."""
    first, second = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    result = torch.empty_like(first)

    def product() -> None:
        torch.mm(first, second, out=result)

    seconds_of(product, device, clock)
    taken: list[float] = []
    while len(taken) < LEAST_REPEATS or sum(taken) < seconds:
        taken.append(seconds_of(product, device, clock))
    return 2 * size**3 / min(taken)


def forward_flop(net: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """FLOP of convolutions and matrix products for one image, counted in a forward pass of `net`, which is on the CPU."""
    mode = net.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(torch.zeros(1, *image_shape))
    net.train(mode)
    return counter.get_total_flops()
