"""Many image files at once: what they are, whether they changed, and their pixels (`pixels` says what becomes of each mode).

Nothing is taken for something else without a word: what cannot be read is refused by name, and what a user should know of
images that can be (a single value, dark, several frames) is said in remarks.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ntml_bench.data.pixels import as_rgb, is_deep
from ntml_bench.errors import UserError

BATCH = 256
"""Files that a thread decodes in one go."""
DARK = 64
"""Where no pixel of any image is brighter, the numbers in the files hardly have the range that their type has."""


class ImageFile(Protocol):
    """What `decode` reads: a Path, or a file in an archive. As text it is the place that messages name."""

    def open(self, mode: Literal["rb"]) -> BinaryIO: ...


@dataclass(frozen=True)
class _Look:
    """What may be remarkable about an image: its brightest value, of one colour, grey of 16 bits, more than one frame."""

    largest: int
    plain: bool
    deep: bool
    frames: bool


def decode(files: Sequence[ImageFile], size: int, remarks: list[str]) -> Tensor:
    """The images as RGB, resized to `size` x `size` (bilinear, antialiased; the aspect ratio is not kept): uint8 [N, 3, S, S].

    `remarks` gets a line for what a user should know of them. Raises UserError with the name of the first file that cannot
    be decoded.
    """
    pixels = np.empty((len(files), 3, size, size), dtype=np.uint8)
    looks: list[_Look | None] = [None] * len(files)

    def decode_batch(start: int) -> None:
        for index in range(start, min(start + BATCH, len(files))):
            pixels[index], looks[index] = _decoded(files[index], size)

    with ThreadPoolExecutor() as threads:
        # The results are asked for, so that an error in a thread is raised here.
        list(threads.map(decode_batch, range(0, len(files), BATCH)))
    remarks += _remarks(files, [look for look in looks if look is not None])
    return torch.from_numpy(pixels)


def decode_as_they_are(files: Sequence[ImageFile], shape: tuple[int, int, int], setting: str) -> Tensor:
    """Images that must have the size of the data set's, `shape` (C, H, W), and are not resized: uint8 [N, C, H, W].

    `setting`: what named them, for messages. Raises UserError with the name of the first file that is of another size, is
    coloured where the data set is grey, or cannot be decoded.
    """
    channels, height, width = shape
    pixels = np.empty((len(files), channels, height, width), dtype=np.uint8)

    def decode_batch(start: int) -> None:
        for index in range(start, min(start + BATCH, len(files))):
            image, _, _ = _opened(files[index])
            if image.size != (width, height):
                raise UserError(
                    f"{setting}: {shown(files[index])} is {image.height}x{image.width} pixels; the images of the data set are "
                    f"{height}x{width}"
                )
            found = np.asarray(image).transpose(2, 0, 1)
            if channels == 1 and bool((found != found[:1]).any()):
                raise UserError(f"{setting}: {shown(files[index])} is coloured; the images of the data set are grey")
            pixels[index] = found[:channels]

    with ThreadPoolExecutor() as threads:
        list(threads.map(decode_batch, range(0, len(files), BATCH)))
    return torch.from_numpy(pixels)


def _decoded(file: ImageFile, size: int) -> tuple[np.ndarray, _Look]:
    image, deep, frames = _opened(file)
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    look = _Look(int(pixels.max()), bool((pixels == pixels[0, 0]).all()), deep, frames)
    return pixels.transpose(2, 0, 1), look


def _opened(file: ImageFile) -> tuple[Image.Image, bool, bool]:
    """The image as RGB, whether its file is grey of 16 bits, and whether it has more than one frame. Raises UserError."""
    try:
        with file.open("rb") as content, Image.open(content) as encoded:
            frames = getattr(encoded, "is_animated", False)
            return as_rgb(encoded), is_deep(encoded), frames
    except UserError:
        raise
    except UnidentifiedImageError:
        # Pillow's own message would name the open file by its address in memory.
        raise UserError(f"cannot decode the image {shown(file)}: cannot identify the image format") from None
    except OSError as error:
        raise UserError(f"cannot decode the image {shown(file)}: {error.strerror or error}") from None
    except Exception as error:
        # Pillow's readers raise whatever a damaged file makes them stumble over.
        said = str(error) or type(error).__name__
        raise UserError(f"cannot decode the image {shown(file)}: {said}") from None


def _remarks(files: Sequence[ImageFile], looks: Sequence[_Look]) -> Iterator[str]:
    def first(of: Sequence[int]) -> str:
        return f"{len(of)} of {len(files)} images (the first is {shown(files[of[0]])})"

    plain = [index for index, look in enumerate(looks) if look.plain]
    if plain:
        yield f"{first(plain)} are of a single value (or colour): there is nothing to see in them"
    for deep, what in ((True, "16-bit images are scaled by their whole range"), (False, "images are taken as they are")):
        kind = [index for index, look in enumerate(looks) if look.deep == deep]
        largest = max((looks[index].largest for index in kind), default=255)
        if 0 < largest <= DARK:
            yield f"{first(kind)} are dark, no pixel above {largest} of 255: {what}; stretch them where that is not meant"
    several = [index for index, look in enumerate(looks) if look.frames]
    if several:
        yield f"{first(several)} hold more than one frame or page: the first is taken"


def state(root: Path, folders: Iterable[str]) -> str:
    """16 hex digits that change with the relative path, size or time of change of any file below these folders of `root`.

    No file is opened; hidden ones do not count. Raises UserError where a file or folder cannot be read.
    """
    return digest(line for folder in folders for line in _states(os.path.join(root, folder), folder))  # noqa: PTH118


def digest(lines: Iterable[str]) -> str:
    """16 hex digits of lines in any order."""
    return hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()[:16]


def _states(folder: str, relative: str) -> Iterator[str]:
    # Plain strings: a Path object for each of some ten thousand files takes several times as long as the rest.
    for entry in entries(folder):
        if entry.name.startswith("."):
            continue
        status = status_of(entry)
        if stat.S_ISDIR(status.st_mode):
            _refuse_loop(entry)
            yield from _states(entry.path, f"{relative}/{entry.name}")
        else:
            yield file_state(f"{relative}/{entry.name}", status)


def file_state(relative: str, status: os.stat_result) -> str:
    return f"{relative}\0{status.st_size}\0{status.st_mtime_ns}"


def entries(folder: str | Path) -> list["os.DirEntry[str]"]:
    """What is in a folder, hidden or not, by name. Raises UserError with its name where it cannot be read."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"cannot read the folder {shown(folder)}: {error.strerror}") from None


def status_of(entry: "os.DirEntry[str]") -> os.stat_result:
    """Of the file or folder, or what a link points to. Raises UserError with its name where there is nothing to be had."""
    try:
        return entry.stat()
    except OSError as error:
        name = shown(entry.path)
        if entry.is_symlink():
            target = shown(os.readlink(entry.path))  # noqa: PTH115
            raise UserError(f"{name} is a link to {target}, which leads nowhere: {error.strerror}") from None
        raise UserError(f"cannot read {name}: {error.strerror}") from None


def _refuse_loop(entry: "os.DirEntry[str]") -> None:
    if entry.is_symlink():
        target, place = os.path.realpath(entry.path), os.path.realpath(os.path.dirname(entry.path))  # noqa: PTH120
        if os.path.commonpath([target, place]) == target:
            raise UserError(f"{shown(entry.path)} is a link to a folder that holds it, {shown(target)}")


def shown(place: object) -> str:
    """A path for a message: one line of printable text, whatever bytes its name is made of."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in str(place))
