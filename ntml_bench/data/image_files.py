"""Many image files at once: what they are, whether they changed, and their pixels."""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ntml_bench.errors import UserError

BATCH = 256
"""Files that a thread decodes in one go."""


class ImageFile(Protocol):
    """What `decode` reads: a Path, or a file in an archive. As text it is the place that messages name."""

    def open(self, mode: Literal["rb"]) -> BinaryIO: ...


def decode(files: Sequence[ImageFile], size: int) -> Tensor:
    """The images as RGB, resized to `size` x `size` (bilinear, antialiased; the aspect ratio is not kept): uint8 [N, 3, S, S].

    Raises UserError with the name of the first file that cannot be decoded.
    """
    pixels = np.empty((len(files), 3, size, size), dtype=np.uint8)

    def decode_batch(start: int) -> None:
        for index in range(start, min(start + BATCH, len(files))):
            pixels[index] = _decoded(files[index], size)

    with ThreadPoolExecutor() as threads:
        # The results are asked for, so that an error in a thread is raised here.
        list(threads.map(decode_batch, range(0, len(files), BATCH)))
    return torch.from_numpy(pixels)


def _decoded(file: ImageFile, size: int) -> np.ndarray:
    try:
        with file.open("rb") as content, Image.open(content) as encoded:
            image = encoded.convert("RGB")
    except UnidentifiedImageError:
        # Pillow's own message would name the open file by its address in memory.
        raise UserError(f"cannot decode the image {file}: cannot identify the image format") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot decode the image {file}: {error}") from None
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def state(root: Path, folders: Iterable[str]) -> str:
    """16 hex digits that change with the relative path, size or time of change of any file below these folders of `root`.

    No file is opened. Raises UserError where a folder cannot be read.
    """
    lines = [line for folder in folders for line in _states(os.path.join(root, folder), folder)]  # noqa: PTH118
    return hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()[:16]


def _states(folder: str, relative: str) -> Iterator[str]:
    # Plain strings: a Path object for each of some ten thousand files takes several times as long as the rest.
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    yield from _states(entry.path, f"{relative}/{entry.name}")
                elif not entry.name.startswith("."):
                    status = entry.stat()
                    yield f"{relative}/{entry.name}\0{status.st_size}\0{status.st_mtime_ns}"
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}") from None
