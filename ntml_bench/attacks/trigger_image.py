"""A trigger that is an image file: where it lies on an image, and how strongly each of its pixels covers what is below."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ntml_bench.data.image_files import shown
from ntml_bench.data.pixels import as_rgb
from ntml_bench.errors import UserError
from ntml_bench.models.weights import file_digest
from ntml_bench.schema import number

LARGEST = 4096
"""Pixels of a side."""


@dataclass(frozen=True, kw_only=True)
class TriggerImageConfig:
    """`file`: the image (null: none). `mask`: an image of the same size that says in grey how strongly each pixel covers
    (white: fully, black: not at all); null: the image's own transparency, else fully. `row`, `column`: where its upper left
    corner lies, in pixels from that of the images, negative ones from their lower right corner (-4 and -4 for a file of 4x4
    pixels: that corner). `opacity`: a factor on the mask.
    """

    file: str | None
    mask: str | None
    row: int
    column: int
    opacity: float = number(above=0, at_most=1)

    def marked(self, setting: str, word: Any) -> dict[str, Any]:
        """The settings with `word(path, digest)` in place of each path. Raises UserError for a file that is not there."""
        values: dict[str, Any] = {"row": self.row, "column": self.column, "opacity": self.opacity}
        for name in ("file", "mask"):
            path = getattr(self, name)
            values[name] = None if path is None else word(path, file_digest(f"{setting}.{name}", path))
        return values


@dataclass(frozen=True)
class TriggerImage:
    """`pattern` float [C, H, W] in [0, 1] and `cover` float [1, H, W] in [0, 1], of the size of the data set's images."""

    pattern: Tensor
    cover: Tensor

    @classmethod
    def read(cls, config: TriggerImageConfig, shape: tuple[int, int, int], setting: str) -> "TriggerImage":
        """For images of `shape` (C, H, W). `setting`: the dotted name of the group. Raises UserError for what is no image, or
        does not fit."""
        channels, height, width = shape
        assert config.file is not None
        colours, alpha = _opened(f"{setting}.file", config.file)
        if channels == 1:
            if bool((colours != colours[:1]).any()):
                raise UserError(f"{setting}.file is '{config.file}', which is coloured; the images of the data set are grey")
            colours = colours[:1]
        tall, wide = colours.shape[1:]
        if config.mask is not None:
            alpha = _opened(f"{setting}.mask", config.mask)[0].mean(0)
            if alpha.shape != (tall, wide):
                raise UserError(
                    f"{setting}.mask is {alpha.shape[0]}x{alpha.shape[1]} pixels, {setting}.file is {tall}x{wide}; both must "
                    "be of one size"
                )
        top = _start(f"{setting}.row", config.row, tall, height)
        left = _start(f"{setting}.column", config.column, wide, width)
        pattern, cover = torch.zeros(channels, height, width), torch.zeros(1, height, width)
        pattern[:, top : top + tall, left : left + wide] = colours
        cover[0, top : top + tall, left : left + wide] = alpha * config.opacity
        if not bool((cover > 0).any()):
            raise UserError(f"{setting}: the mask covers nothing: no pixel of it is brighter than black")
        return cls(pattern, cover)

    @property
    def state(self) -> dict[str, Tensor]:
        return {"pattern": self.pattern, "cover": self.cover}


def put_on(images: Tensor, state: dict[str, Tensor]) -> Tensor:
    """Float images [N, C, H, W] in [0, 1] under a trigger image's `state`: (1 - cover) x + cover pattern."""
    pattern, cover = state["pattern"].to(images.dtype), state["cover"].to(images.dtype)
    return ((1 - cover) * images + cover * pattern).clamp(0, 1)


def _start(setting: str, given: int, length: int, side: int) -> int:
    start = given if given >= 0 else side + given
    if start < 0 or start + length > side:
        raise UserError(
            f"{setting} is {given}: a trigger of {length} pixels then leaves the image of {side} pixels; "
            + (f"allowed: {-side} to {side - length}" if length <= side else "the trigger must be smaller")
        )
    return start


def _opened(setting: str, path: str) -> tuple[Tensor, Tensor]:
    """Colours float [3, H, W] and the transparency's opposite float [H, W], both in [0, 1]."""
    try:
        with Path(path).expanduser().open("rb") as content, Image.open(content) as image:
            if max(image.size) > LARGEST:
                raise UserError(
                    f"{setting} is '{path}', of {image.height}x{image.width} pixels; allowed: at most {LARGEST} a side"
                )
            has_alpha = "A" in image.getbands() or "transparency" in image.info
            if has_alpha:
                layers = np.asarray(image.convert("RGBA"))
                colours, alpha = layers[..., :3], layers[..., 3]
            else:
                colours = np.asarray(as_rgb(image))
                alpha = np.full(colours.shape[:2], 255, dtype=np.uint8)
    except UserError:
        raise
    except OSError as error:
        reason = (error.strerror or "it is no image that can be read").lower()
        raise UserError(f"{setting} is '{shown(path)}'; it cannot be used: {reason}") from None
    except Exception as error:  # whatever a damaged file makes Pillow stumble over
        raise UserError(f"{setting} is '{shown(path)}'; it cannot be decoded: {error or type(error).__name__}") from None
    return torch.tensor(colours).permute(2, 0, 1).float() / 255, torch.tensor(alpha).float() / 255
