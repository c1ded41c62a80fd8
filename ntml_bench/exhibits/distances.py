"""How far a trigger takes an image: PSNR, SSIM and L-inf between uint8 images, one number an image."""

import torch
from torch import Tensor

RANGE = 255
WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03
BATCH = 50
"""Images at a time: what SSIM computes with is five times as large as they are in double precision."""


def psnr(one: Tensor, other: Tensor) -> Tensor:
    """Decibels, float64 [N], of images uint8 [N, C, H, W]; infinite for two that are the same."""
    errors = torch.cat([(a.double() - b.double()).square().mean((1, 2, 3)) for a, b in _batches(one, other)])
    return 10 * (RANGE**2 / errors).log10()


def linf(one: Tensor, other: Tensor) -> Tensor:
    """The largest difference of a pixel in levels of 0..255, float64 [N], of images uint8 [N, C, H, W]."""
    return torch.cat([(a.int() - b.int()).abs().amax((1, 2, 3)).double() for a, b in _batches(one, other)])


def ssim(one: Tensor, other: Tensor) -> Tensor:
    """Structural similarity, float64 [N], of images uint8 [N, C, H, W].

    Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004,
    equation 13: a Gaussian window of 11x11 (sigma 1.5), K1 = 0.01, K2 = 0.03; the mean over channels and over the places
    where the window lies within the image. An image that is smaller than the window has the largest odd one that fits.
    """
    return torch.cat([_ssim(a.double(), b.double()) for a, b in _batches(one, other)])


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    height, width = x.shape[2:]
    # As products of matrices in double precision: a GPU's convolutions may round more than the differences below bear.
    down, across = _blur(height, x.device), _blur(width, x.device).T
    mean_x, mean_y, square_x, square_y, product = (down @ maps @ across for maps in (x, y, x * x, y * y, x * y))
    variance_x, variance_y, covariance = square_x - mean_x**2, square_y - mean_y**2, product - mean_x * mean_y
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    above = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    below = (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    return (above / below).mean((1, 2, 3))


def _blur(size: int, device: torch.device) -> Tensor:
    """Float64 [places, size]: a row is the window's weights at one place along a side."""
    length = min(WINDOW, size - (size + 1) % 2)
    offsets = torch.arange(length, dtype=torch.float64, device=device) - length // 2
    weights = (-(offsets**2) / (2 * SIGMA**2)).exp()
    rows = torch.zeros(size - length + 1, size, dtype=torch.float64, device=device)
    for place in range(len(rows)):
        rows[place, place : place + length] = weights / weights.sum()
    return rows


def _batches(one: Tensor, other: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(one.split(BATCH), other.split(BATCH), strict=True))
