"""What attacks share whose trigger a net draws: its minibatches, its steps, and the net of a trigger's state."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ntml_bench.attacks.base import AttackContext

AT_ONCE = 500
"""Images that a trigger is made for at a time."""


def minibatches(context: AttackContext, batch_size: int, epochs: int, purpose: str) -> Iterator[Tensor]:
    """Indices int64 [B] of the training images, on their device; what is left of a pass is left out."""
    count, rng = len(context.train), context.generator(purpose)
    size = min(batch_size, count)
    for _ in range(epochs):
        order = torch.randperm(count, generator=rng).to(context.train.images.device)
        yield from order[: steps_of_a_pass(count, batch_size) * size].split(size)


def steps_of_a_pass(count: int, batch_size: int) -> int:
    """Minibatches of a pass over `count` images."""
    return max(1, count // batch_size)


def step(loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    for optimizer in optimizers:
        optimizer.step()


def falling(optimizer: torch.optim.Optimizer, steps: int, shares: tuple[float, float]) -> torch.optim.lr_scheduler.MultiStepLR:
    """A learning rate that falls to a tenth at each of those shares of all steps."""
    return torch.optim.lr_scheduler.MultiStepLR(optimizer, [round(share * steps) for share in shares])


def state_of(net: nn.Module, prefix: str) -> dict[str, Tensor]:
    """A net's weights as tensors of a trigger's state."""
    return {prefix + name: value.detach().clone() for name, value in net.state_dict().items()}


def made_by(net: nn.Module, prefix: str, images: Tensor, state: Mapping[str, Tensor]) -> Tensor:
    """What `net`, of which only the layout counts, makes of float images [N, C, H, W] with the weights of a `state`."""
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    with torch.no_grad():
        return torch.cat([functional_call(net, weights, (part,)) for part in images.float().split(AT_ONCE)])
