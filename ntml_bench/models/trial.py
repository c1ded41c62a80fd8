"""A net is tried before anything is trained: whether it runs, can be trained, and sees its whole image.

On images of a size that it was not made for a net may cut off the border, or read every second pixel: a trigger there does
nothing. It is looked at as it could become, with small random numbers on all weights, because branches that start at zero
(residual branches, layer scales, heads) are no blindness.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor

from ntml_bench.errors import UserError
from ntml_bench.models.classifier import Classifier, global_stream

IMAGES = 32
"""Random images that are tried at most: a pixel may happen to meet closed units only."""
FEW = 4
"""Of them, those that are also changed, and the batch of the step of training."""
SEED = 0


def check_net(name: str, model: Classifier, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Raise UserError for a model (on the CPU; `name` is its net's) that cannot be run or trained on such images, or has a
    pixel without a path to the logits. The model stays as it is, and so does torch's global generator."""
    height, width = image_shape[1:]
    try:
        with _without_onednn():
            hidden = _hidden(model, image_shape, num_classes)
    except _WrongLogitsError as error:
        raise UserError(f"model.name={name} makes {error}") from None
    except Exception as error:  # whatever a net of someone else's does
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"model.name={name} fails on images of {height}x{width} pixels: {what}") from None
    if hidden.any():
        row, column = hidden.nonzero()[0].tolist()
        raise UserError(
            f"model.name={name} does not see all of an image of {height}x{width} pixels: {int(hidden.sum())} of its "
            f"{height * width} pixels have no path to the logits, the first in row {row}, column {column}, and a trigger there "
            "does nothing; use images of another size, or another model"
        )


@contextmanager
def _without_onednn() -> Iterator[None]:
    """On a processor with AVX2 alone, backward passes of small strided convolutions by oneDNN (torch 2.15) were seen to end the
    process, or to corrupt its memory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a precision for other devices, which is not touched
        with torch.backends.mkldnn.flags(enabled=False):
            yield


class _WrongLogitsError(Exception):
    """Something else than logits [N, classes] came out of a net."""


def _hidden(model: Classifier, image_shape: tuple[int, int, int], num_classes: int) -> Tensor:
    """The pixels, bool [H, W], that no logit depends on. Raises what the net raises, or _WrongLogitsError."""
    # As the engine lays out models and images.
    probe = cast(Any, deepcopy(model)).to(memory_format=torch.channels_last)
    rng = torch.Generator().manual_seed(SEED)
    _disturb(probe, rng)
    images = torch.rand(IMAGES, *image_shape, generator=rng).contiguous(memory_format=torch.channels_last)
    weights = torch.randn(num_classes, generator=rng)

    def logits(batch: Tensor) -> Tensor:
        # What is drawn in a forward pass is the same in each.
        with global_stream(SEED):
            given = probe(batch)
        if not isinstance(given, Tensor) or given.shape != (len(batch), num_classes):
            shape = list(given.shape) if isinstance(given, Tensor) else type(given).__name__
            raise _WrongLogitsError(f"{shape} of {len(batch)} images; it must be logits {[len(batch), num_classes]}")
        return given

    seen = torch.zeros(image_shape[1:], dtype=torch.bool)
    probe.eval()
    for image in images.split(1):
        seen |= _reached(logits, image, weights)
        if seen.all():
            break
    hidden = ~seen if seen.all() else _unchanging(logits, images[:FEW], ~seen, rng)
    # Behind it, because a step of training moves the statistics of BatchNorm layers.
    probe.train()
    (logits(images[:FEW]) * weights).sum().backward()
    return hidden


def _disturb(model: Classifier, rng: torch.Generator) -> None:
    """Move each weight that can be trained a little, in place: a tenth of what a layer of its size usually starts with."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.is_floating_point() and parameter.numel():
                inputs = parameter[0].numel() if parameter.dim() > 1 else 1
                parameter.add_(torch.randn(parameter.shape, generator=rng), alpha=0.1 * inputs**-0.5)


def _reached(logits: Callable[[Tensor], Tensor], image: Tensor, weights: Tensor) -> Tensor:
    """The pixels, bool [H, W], of an image [1, C, H, W] that a weighted sum of its logits has a gradient by."""
    image = image.clone().requires_grad_()
    total = (logits(image) * weights).sum()
    if not total.requires_grad:
        return torch.zeros(image.shape[2:], dtype=torch.bool)
    (gradient,) = torch.autograd.grad(total, image, allow_unused=True, materialize_grads=True)
    return (gradient != 0).any(dim=1)[0]


def _unchanging(logits: Callable[[Tensor], Tensor], images: Tensor, suspects: Tensor, rng: torch.Generator) -> Tensor:
    """Those of the suspects, bool [H, W], in a row or a column of them that can be changed without a change of the logits.

    A net may be cut off from its gradient, by rounding for example, and see all the same.
    """
    with torch.no_grad():
        before = [logits(image) for image in images.split(1)]

        def unchanged(there: Tensor) -> bool:
            changed = torch.where(there, torch.rand(images.shape, generator=rng), images)
            return all(torch.equal(logits(image), old) for image, old in zip(changed.split(1), before, strict=True))

        if unchanged(suspects):
            return suspects
        hidden = torch.zeros_like(suspects)
        for along in (0, 1):
            for line in suspects.any(dim=1 - along).nonzero().flatten().tolist():
                there = torch.zeros_like(suspects)
                there.select(along, line).copy_(suspects.select(along, line))
                if unchanged(there):
                    hidden |= there
    return hidden
