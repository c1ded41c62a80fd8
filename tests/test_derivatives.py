"""Second derivatives, where torch's own kernels have none."""

from collections.abc import Callable
from threading import Thread

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from ntml_bench.derivatives import TwiceDifferentiable

ATTENTION = functional.scaled_dot_product_attention
MASK = torch.rand(5, 5, generator=torch.Generator().manual_seed(0)) > 0.4
MASK.fill_diagonal_(True)
TOKENS = nn.MultiheadAttention(4, 2, batch_first=True).eval()

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "attention": lambda x: ATTENTION(x, x, x),
    "masked": lambda x: ATTENTION(x, x, x, MASK),
    "masked by numbers": lambda x: ATTENTION(x, x, x, attn_mask=MASK.float()),
    "causal": lambda x: ATTENTION(x, x, x, is_causal=True),
    "scaled": lambda x: ATTENTION(x, x, x, scale=0.3),
    "tokens": lambda x: TOKENS(x, x, x, need_weights=False)[0],
    "hard sigmoid": lambda x: functional.hardsigmoid(3 * x) * x,
}


def twice(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
    return torch.autograd.grad(gradient.square().sum(), x)[0]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_same_values_with_a_second_derivative(name: str) -> None:
    function = FUNCTIONS[name]
    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))
    x = x[None] if name not in ("tokens", "hard sigmoid") else x
    x.requires_grad_()
    with pytest.raises(RuntimeError, match="not implemented"):
        twice(function, x)
    with TwiceDifferentiable():
        inside, second = function(x), twice(function, x)
    assert torch.allclose(inside, function(x), atol=1e-6)
    assert second.isfinite().all()
    assert second.abs().max() > 0


def test_tokens_keep_their_weights_where_they_are_asked_for() -> None:
    x = torch.randn(2, 5, 4)
    with TwiceDifferentiable():
        assert TOKENS(x, x, x, need_weights=False)[1] is None
        weights = TOKENS(x, x, x)[1]
    assert torch.allclose(weights, TOKENS(x, x, x)[1])


def test_other_threads_compute_as_ever() -> None:
    x = torch.randn(1, 2, 5, 4, requires_grad=True)
    kinds: list[str] = []
    with TwiceDifferentiable():
        thread = Thread(target=lambda: kinds.append(str(ATTENTION(x, x, x).grad_fn)))
        thread.start()
        thread.join()
        kinds.append(str(ATTENTION(x, x, x).grad_fn))
    assert "Attention" in kinds[0]
    assert "Attention" not in kinds[1]
