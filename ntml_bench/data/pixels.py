"""One image of any of Pillow's modes as 8-bit RGB, or a reason why it cannot be that. No value is clipped.

- Grey of 16 bits is scaled by the whole range of the file, 0 to 65535 (0 to 4095 in a TIFF of 12 bits).
- 32-bit integers and floats have no range to scale by, and are refused.
- What is transparent, in any of the ways that a file can say so, lies on white.
- The orientation that a camera noted (EXIF) is applied; colour profiles are not.
"""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageOps

COLOURS = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
DEEP: Mapping[str, tuple[str, ...]] = {"I;16": ("PNG", "TIFF", "JPEG2000", "PPM"), "I": ("PNG", "PPM")}
"""Modes of 16-bit grey, and the formats in which they surely hold numbers from 0 to 65535."""
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262
"""Tags of TIFF."""


class NoRangeError(ValueError):
    """The values of an image have no range that its mode tells."""


def as_rgb(image: Image.Image) -> Image.Image:
    """An opened file as an upright image of mode RGB. Raises NoRangeError, and whatever Pillow raises on a damaged file."""
    image.load()
    _turn_upright(image)
    if is_deep(image):
        return _from_deep(image).convert("RGB")
    if image.mode in WITH_ALPHA or (image.mode in COLOURS and _is_transparent(image)):
        layer = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    if image.mode in COLOURS:
        return image.convert("RGB")
    raise NoRangeError(
        f"its mode is {image.mode} ({image.format}), numbers of which no range is known; "
        "allowed: 8 bits a channel, or grey of 16 bits without a sign (PNG, TIFF)"
    )


def is_deep(image: Image.Image) -> bool:
    """Whether it is grey of more than 8 bits, of a range that is known."""
    return image.format in DEEP.get("I;16" if image.mode.startswith("I;16") else image.mode, ())


def _turn_upright(image: Image.Image) -> None:
    try:
        exif = image.getexif()
    except Exception:
        # What a camera notes may be damaged where the pixels are not, and Pillow raises whatever it stumbles over.
        return
    if exif.get(0x0112, 1) != 1:
        ImageOps.exif_transpose(image, in_place=True)


def _is_transparent(image: Image.Image) -> bool:
    palette = image.palette if image.mode == "P" else None
    return "transparency" in image.info or (palette is not None and palette.mode.endswith("A"))


def _from_deep(image: Image.Image) -> Image.Image:
    tags = getattr(image, "tag_v2", {})
    (bits, *_) = tags.get(BITS_PER_SAMPLE, (16,))
    top = 2**bits - 1
    values = np.asarray(image).astype(np.int64)
    if tags.get(PHOTOMETRIC) == 0:  # white is zero
        values = top - values
    grey = ((values * 255 + top // 2) // top).astype(np.uint8)
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey)
