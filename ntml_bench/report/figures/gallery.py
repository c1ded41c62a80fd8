"""Test images without and with the trigger, and what it changes, many times stronger than it is."""

from collections.abc import Iterator, Sequence
from math import isinf

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ntml_bench.figures.canvas import DOUBLE, SINGLE, SIZE, SMALL, Canvas
from ntml_bench.figures.colours import QUIET
from ntml_bench.figures.image import DOTS_PER_INCH
from ntml_bench.figures.text import shortened
from ntml_bench.report.data import Gallery
from ntml_bench.report.figures.drawing import Drawing
from ntml_bench.report.figures.names import Names

MOST_IMAGES = 4
FACTORS = (1, 2, 4, 8, 16, 32)
GREY = 128
TYPICAL = 95
"""The percentile of the changes that fits into the picture; the few above it show as black or white."""
GAP = 0.03
TIMES = "\N{MULTIPLICATION SIGN}"


def galleries(dataset: str, found: Sequence[Gallery], names: Names, several: bool) -> Iterator[Drawing]:
    """All attacks of a data set as rows of one figure, and a figure for each."""
    labels, where = ((dataset,), f" ({dataset})") if several else ((), "")
    shown = [gallery for gallery in found if gallery.dataset == dataset and len(gallery.clean)]
    if len(shown) > 1:
        yield Drawing(
            name=names.new("gallery", *labels),
            kind="gallery",
            dataset=dataset,
            title=f"Test images under each trigger{where}",
            alt=f"Test images, the same triggered, and the difference. {'; '.join(map(_words, shown))}.",
            draw=lambda: _overview(shown),
        )
    for gallery in shown:
        yield Drawing(
            name=names.new("gallery", *labels, gallery.attack),
            kind="gallery",
            dataset=dataset,
            attack=gallery.attack,
            title=f"Test images under the trigger of {gallery.attack}{where}",
            alt=f"Test images ({', '.join(gallery.classes[:MOST_IMAGES])}), the same triggered so that they are taken for "
            f"{gallery.target or 'another class each'}, and the difference. {_words(gallery)}, means over {gallery.images} "
            "images.",
            draw=lambda gallery=gallery: _one(gallery),
        )


def difference(gallery: Gallery) -> tuple[int, NDArray[np.uint8]]:
    """What the trigger changes, times the factor that comes first: grey where nothing is."""
    change = gallery.triggered.astype(np.int16) - gallery.clean
    changed = np.abs(change[change != 0])
    typical = float(np.percentile(changed, TYPICAL)) if len(changed) else 1.0
    factor = max((each for each in FACTORS if each * typical < GREY), default=1)
    return factor, np.clip(GREY + factor * change.astype(np.int32), 0, 255).astype(np.uint8)


def distances(gallery: Gallery) -> tuple[str, str, str]:
    """PSNR, SSIM and L-inf in words."""
    psnr = "PSNR ∞ dB" if isinf(gallery.psnr) else f"PSNR {gallery.psnr:.1f} dB"
    return psnr, f"SSIM {gallery.ssim:.3f}", f"L∞ {gallery.linf:.0f} of 255"


def _words(gallery: Gallery) -> str:
    return f"{gallery.attack}: {', '.join(distances(gallery))}, difference shown {difference(gallery)[0]} times"


def _overview(found: Sequence[Gallery]) -> Figure:
    left, right, least = 0.95, 0.3, 0.08
    side, height = _sizes(found, (DOUBLE - left - right - 2 * least) / (3 * MOST_IMAGES) - GAP)
    width = MOST_IMAGES * (side + GAP)
    apart = (DOUBLE - left - right - 3 * width) / 2
    row = max(height, 0.44) + 0.06
    canvas = Canvas(DOUBLE, 0.2 + row * len(found))
    for column, heading in enumerate(("clean", "triggered", "difference (grey: none)")):
        middle = left + column * (width + apart) + (width - GAP) / 2
        canvas.write(middle, 0.13, heading, across="center")
    for index, gallery in enumerate(found):
        top = 0.2 + index * row
        factor, change = difference(gallery)
        canvas.write(0.04, top + 0.1, shortened(gallery.attack, SIZE, left - 0.1, "bold"), weight="bold")
        for line, text in enumerate(distances(gallery)):
            canvas.write(0.04, top + 0.21 + 0.1 * line, text, size=SMALL, colour=QUIET)
        canvas.write(DOUBLE - 0.02, top + height / 2, f"{TIMES} {factor}", across="right", up="center_baseline")
        for column, images in enumerate((gallery.clean, gallery.triggered, change)):
            _place(canvas, images, left + column * (width + apart), top, side, height)
    return canvas.figure


def _one(gallery: Gallery) -> Figure:
    side, height = _sizes([gallery], (SINGLE - 0.7) / MOST_IMAGES - GAP)
    left = SINGLE - MOST_IMAGES * (side + GAP)
    shown = min(MOST_IMAGES, len(gallery.clean))
    canvas = Canvas(SINGLE, 0.36 + 3 * (height + GAP) + 0.02)
    canvas.head(0.13, gallery.attack, ", ".join(distances(gallery)))
    for index in range(shown):
        name = shortened(gallery.classes[index], SMALL, side)
        canvas.write(left + index * (side + GAP) + side / 2, 0.31, name, size=SMALL, colour=QUIET, across="center")
    factor, change = difference(gallery)
    rows = [("clean", gallery.clean), ("triggered", gallery.triggered), ("difference", change)]
    for row, (name, images) in enumerate(rows):
        top = 0.36 + row * (height + GAP)
        middle = top + height / 2
        if name == "difference":
            canvas.write(0.04, middle + 0.06, f"{TIMES} {factor}", up="center_baseline")
            middle -= 0.06
        canvas.write(0.04, middle, name, up="center_baseline")
        _place(canvas, images, left, top, side, height)
    return canvas.figure


def _sizes(found: Sequence[Gallery], room: float) -> tuple[float, float]:
    """Width and height of an image in inches: whole printer's dots a pixel, where there is a dot for each."""
    height, width = max((gallery.clean.shape[1:3] for gallery in found), key=lambda shape: shape[1])
    dots = int(room * DOTS_PER_INCH)
    dots = dots // width * width if dots >= width else dots
    return dots / DOTS_PER_INCH, dots * height / width / DOTS_PER_INCH


def _place(canvas: Canvas, images: NDArray[np.uint8], left: float, top: float, side: float, height: float) -> None:
    for index, image in enumerate(images[:MOST_IMAGES]):
        # On whole dots, so that no pixel comes out wider than its neighbour.
        x, y = (round(inches * DOTS_PER_INCH) / DOTS_PER_INCH for inches in (left + index * (side + GAP), top))
        pixels = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
        crisp = pixels.shape[1] <= side * DOTS_PER_INCH
        canvas.picture(x, y, side, height, pixels, "nearest" if crisp else "antialiased")
