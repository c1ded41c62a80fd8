"""The images of a gallery as inline PNG, and the difference that a trigger makes, made visible."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from math import isfinite, isqrt

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ntml_bench.report.data import Gallery
from ntml_bench.report.figures.gallery import difference

BUDGET = 3_000_000
"""Bytes that all images of a page may take; larger ones are shown reduced, so that the page can be sent by mail."""
BASE64 = 4 / 3
IMAGES_A_TRIPLE = 3


@dataclass(frozen=True)
class Triple:
    """One test image as it is, under the trigger, and the difference; each a `data:` URI."""

    clean: str
    triggered: str
    difference: str
    true_class: str


@dataclass(frozen=True)
class ShownGallery:
    """A gallery in words and URIs. `reduced`: the size that the images are shown at where that is not their own."""

    gallery: Gallery
    triples: tuple[Triple, ...]
    factor: str
    distances: tuple[tuple[str, str, str], ...]
    """Name, value, explanation."""
    size: str
    reduced: str


def shown_galleries(galleries: Sequence[Gallery]) -> list[ShownGallery]:
    """All galleries of a page; they share its budget."""
    count = sum(IMAGES_A_TRIPLE * len(gallery.clean) for gallery in galleries)
    return [_shown(gallery, count) for gallery in galleries]


def _shown(gallery: Gallery, images_of_page: int) -> ShownGallery:
    factor, change = difference(gallery)
    height, width, channels = gallery.clean.shape[1:]
    affordable = isqrt(int(BUDGET / BASE64 / max(1, images_of_page) / channels))
    side = affordable if max(height, width) > affordable else 0
    images = zip(gallery.clean, gallery.triggered, change, gallery.classes, strict=True)
    triples = tuple(
        Triple(png_uri(clean, side), png_uri(triggered, side), png_uri(changed, side), true_class)
        for clean, triggered, changed, true_class in images
    )
    reduced = "" if not side else f"reduced to {max(1, width * side // max(height, width))} pixels in width"
    return ShownGallery(gallery, triples, str(factor), _distances(gallery), f"{width} x {height}", reduced)


def _distances(gallery: Gallery) -> tuple[tuple[str, str, str], ...]:
    psnr = f"{gallery.psnr:.1f} dB" if isfinite(gallery.psnr) else "infinite"
    return (
        ("PSNR", psnr, "the higher, the less visible"),
        ("SSIM", f"{gallery.ssim:.3f}", "1 is no change"),
        ("L-inf", f"{gallery.linf:.1f} / 255", "the largest change of a pixel"),
    )


def png_uri(image: NDArray[np.uint8], side: int = 0) -> str:
    """The image [height, width, 1 or 3 channels]; its longer side at most `side` pixels, unless that is 0."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    if side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    content = BytesIO()
    picture.save(content, "png", optimize=True)
    return f"data:image/png;base64,{b64encode(content.getvalue()).decode()}"
