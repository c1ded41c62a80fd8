"""Images that are not 8-bit RGB: each of Pillow's modes becomes what a viewer shows, or is refused with its name and mode."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ntml_bench.data.image_files import decode
from ntml_bench.errors import UserError

RAMP = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
RED = Image.new("RGB", (8, 8), (200, 10, 30))
DRAWING = np.zeros((8, 8), np.uint8)
DRAWING[2:4], DRAWING[4:6] = 255, 100
"""What lives in an alpha channel: nothing but two bars, one of them thin."""
ON_WHITE = [255, 255, 0, 0, 155, 155, 255, 255]


def decoded(image: Image.Image, path: Path, **options: Any) -> tuple[torch.Tensor, list[str]]:
    """The pixels [3, S, S] of an image as its file gives them, and what is said of it."""
    image.save(path, **options)
    remarks: list[str] = []
    return decode([path], image.width, remarks)[0], remarks


@pytest.mark.parametrize(
    ("name", "order"), [("ramp.png", "<u2"), ("ramp.tif", "<u2"), ("ramp.tif", ">u2"), ("ramp.pgm", "<u2"), ("ramp.jp2", "<u2")]
)
def test_grey_of_16_bits_is_scaled_by_its_range(name: str, order: str, tmp_path: Path) -> None:
    pixels, remarks = decoded(Image.fromarray(RAMP.astype(order)), tmp_path / name)
    assert torch.equal(pixels[0], torch.from_numpy((RAMP.astype(np.uint16) / 257).round()).to(torch.uint8))
    assert torch.equal(pixels, pixels[:1].expand(3, -1, -1))
    assert remarks == []


def test_12_bits_in_a_file_of_16_are_remarked_on(tmp_path: Path) -> None:
    pixels, remarks = decoded(Image.fromarray((RAMP / 16).astype(np.uint16)), tmp_path / "scan.png")
    assert pixels.max() == 16
    (remark,) = remarks
    assert "scan.png) are dark, no pixel above 16 of 255: 16-bit images are scaled by their whole range" in remark


def test_masks_of_0_and_1_are_remarked_on(tmp_path: Path) -> None:
    _, remarks = decoded(Image.fromarray(DRAWING // 255), tmp_path / "mask.png")
    assert "dark, no pixel above 1 of 255: images are taken as they are" in remarks[0]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_values_without_a_range_are_refused(kind: type, tmp_path: Path) -> None:
    mode = {np.int32: "I", np.float32: "F"}[kind]
    with pytest.raises(UserError, match=rf"cannot decode the image .*deep\.tif: its mode is {mode} \(TIFF\), numbers of which"):
        decoded(Image.fromarray(RAMP.astype(kind)), tmp_path / "deep.tif")


MODES = [
    *(("1", "png"), ("L", "png"), ("LA", "png"), ("P", "png"), ("RGBA", "png"), ("P", "gif"), ("PA", "tif"), ("CMYK", "jpg")),
    *(("CMYK", "tif"), ("YCbCr", "tif"), ("LAB", "tif"), ("RGBA", "webp")),
]


@pytest.mark.parametrize(("mode", "suffix"), MODES)
def test_other_modes_look_as_they_do_in_rgb(mode: str, suffix: str, tmp_path: Path) -> None:
    image = (RED.convert("P") if mode == "PA" else RED).convert(mode)
    pixels, _ = decoded(image, tmp_path / f"red.{suffix}")
    # What the mode itself cannot hold is lost before the file is written.
    expected = {"1": RED.convert("1"), "L": RED.convert("L"), "LA": RED.convert("L")}
    expected |= {"P": RED.convert("P"), "PA": RED.convert("P")}
    wanted = torch.from_numpy(np.array(expected.get(mode, RED).convert("RGB"))).permute(2, 0, 1)
    assert (pixels.int() - wanted.int()).abs().max() <= 3


def transparent(how: str) -> tuple[Image.Image, dict[str, Any]]:
    """Black bars on nothing, in each of the ways that a PNG can say so."""
    alpha = Image.fromarray(DRAWING)
    black = Image.new("RGBA", alpha.size)
    black.putalpha(alpha)
    match how:
        case "alpha":
            return black, {}
        case "grey alpha":
            return black.convert("LA"), {}
        case "palette":
            return black.quantize(4), {}
        case "colour":
            return Image.fromarray(255 - DRAWING).convert("RGB"), {"transparency": (255, 255, 255)}
        case "grey":
            return Image.fromarray(255 - DRAWING), {"transparency": 255}
        case _:
            return Image.fromarray((255 - DRAWING).astype(np.uint16) * 257), {"transparency": 65535}


@pytest.mark.parametrize("how", ["alpha", "grey alpha", "palette", "colour", "grey", "16 bits"])
def test_what_is_transparent_lies_on_white(how: str, tmp_path: Path) -> None:
    image, options = transparent(how)
    pixels, remarks = decoded(image, tmp_path / "drawing.png", **options)
    assert pixels[:, :, 0].tolist() == [ON_WHITE] * 3
    assert remarks == []


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "I;16"])
def test_a_transparent_value_is_not_shown(mode: str, tmp_path: Path) -> None:
    """The background is transparent, and black if one looks below."""
    shown = Image.fromarray(DRAWING.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(DRAWING).convert(mode)
    pixels, _ = decoded(shown, tmp_path / "drawing.png", transparency=(0, 0, 0) if mode == "RGB" else 0)
    assert pixels[:, 0, 0].tolist() == [255] * 3
    assert pixels[:, 2, 0].tolist() == [255] * 3


@pytest.mark.parametrize(
    ("suffix", "deep"), [("jpg", False), ("webp", False), ("png", False), ("png", True), ("tif", False), ("tif", True)]
)
def test_orientation_is_applied(suffix: str, deep: bool, tmp_path: Path) -> None:
    left = np.zeros((8, 8), np.uint8)
    left[:, :4] = 255
    orientation = Image.Exif()
    orientation[0x0112] = 6  # the camera was turned: left is up
    image = Image.fromarray(left.astype(np.uint16) * 257 if deep else left)
    pixels, _ = decoded(image, tmp_path / f"photo.{suffix}", exif=orientation)
    assert ((pixels[0].int() - torch.tensor([255] * 4 + [0] * 4)[:, None]).abs() < 20).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"])
def test_damaged_notes_of_a_camera_do_no_harm(exif: bytes, tmp_path: Path) -> None:
    pixels, _ = decoded(RED, tmp_path / "photo.jpg", exif=exif)
    assert (pixels[:, 0, 0].int() - torch.tensor([200, 10, 30])).abs().max() <= 2


@pytest.mark.parametrize("suffix", ["gif", "png", "tif", "webp"])
def test_the_first_of_several_frames_is_taken_with_a_word(suffix: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(DRAWING, shift, 0)) for shift in range(3)]
    pixels, remarks = decoded(frames[0], tmp_path / f"film.{suffix}", save_all=True, append_images=frames[1:])
    assert pixels[0, :2].max() < 20
    assert pixels[0, 2:4].min() > 235
    assert [remark.partition(")")[2] for remark in remarks] == [" hold more than one frame or page: the first is taken"]


def test_images_of_a_single_value_are_counted(tmp_path: Path) -> None:
    files = [tmp_path / f"{index}.png" for index in range(4)]
    for index, file in enumerate(files):
        (RED if index in (1, 3) else Image.fromarray(DRAWING)).save(file)
    remarks: list[str] = []
    decode(files, 8, remarks)
    assert remarks == [
        f"2 of 4 images (the first is {files[1]}) are of a single value (or colour): there is nothing to see in them"
    ]


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "tif", "bmp", "webp", "jp2", "ico", "tga", "pgm"])
def test_a_damaged_file_is_named(suffix: str, tmp_path: Path) -> None:
    """Wherever it is cut off or broken, an image comes out, or an error that names it."""
    path = tmp_path / f"broken.{suffix}"
    Image.fromarray(RAMP.astype(np.uint8)).save(path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(content[: int(rng.integers(1, len(content)))])
        for place in rng.integers(0, len(damaged), int(rng.integers(0, 4))):
            damaged[place] = int(rng.integers(0, 256))
        path.write_bytes(damaged)
        said = ""
        try:
            decode([path], 8, [])
        except UserError as error:
            said = str(error)
        assert said == "" or said.startswith(f"cannot decode the image {path}: ")
