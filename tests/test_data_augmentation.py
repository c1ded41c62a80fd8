"""augment: each image is exactly a shift with zeros coming in, and perhaps its mirror image."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import pad

from ntml_bench.data.augmentation import augment, cut_out
from ntml_bench.data.base import AugmentationConfig

CONFIGS = [AugmentationConfig(crop_padding=p, horizontal_flip=f) for p in (0, 1, 3) for f in (False, True)]


def moves(image: Tensor, config: AugmentationConfig) -> list[Tensor]:
    """Every result that augment may give for one image [C, H, W]."""
    p, (height, width) = config.crop_padding, image.shape[1:]
    padded = pad(image, (p, p, p, p))
    crops = [padded[:, y : y + height, x : x + width] for y in range(2 * p + 1) for x in range(2 * p + 1)]
    return crops + [crop.flip(2) for crop in crops if config.horizontal_flip]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_every_image_is_one_of_the_allowed_moves(config: AugmentationConfig, channels_last: bool) -> None:
    images = torch.rand(40, 3, 6, 5)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    result = augment(images, config, torch.Generator().manual_seed(1))
    assert result.shape == images.shape
    assert result.stride() == images.stride()
    for before, after in zip(images, result, strict=True):
        assert any(torch.equal(after, move) for move in moves(before, config))


@given(
    count=st.integers(1, 6),
    channels=st.integers(1, 4),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    padding=st.integers(0, 5),
    flip=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    channels_last=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_shape_and_type(count, channels, height, width, padding, flip, dtype, channels_last) -> None:
    images = torch.rand(count, channels, height, width).to(dtype)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    config = AugmentationConfig(crop_padding=padding, horizontal_flip=flip)
    result = augment(images, config, torch.Generator().manual_seed(0))
    assert result.shape == images.shape
    assert result.dtype == dtype
    for before, after in zip(images, result, strict=True):
        assert any(torch.equal(after, move) for move in moves(before, config))


@pytest.mark.parametrize("config", CONFIGS)
def test_both_layouts_give_the_same_images(config: AugmentationConfig) -> None:
    images = torch.rand(16, 3, 8, 8)
    plain = augment(images, config, torch.Generator().manual_seed(3))
    last = augment(images.contiguous(memory_format=torch.channels_last), config, torch.Generator().manual_seed(3))
    assert torch.equal(plain, last)


def test_all_moves_come_up_and_the_input_stays_as_it_was() -> None:
    config = AugmentationConfig(crop_padding=1, horizontal_flip=True)
    image = torch.rand(2, 4, 4)
    images = image.repeat(600, 1, 1, 1)
    result = augment(images, config, torch.Generator().manual_seed(0))
    shares = [(result == move).flatten(1).all(1).float().mean() for move in moves(image, config)]
    assert len(shares) == 18
    assert min(shares) > 0.02
    assert sum(shares) == pytest.approx(1)
    assert torch.equal(images, image.repeat(600, 1, 1, 1))


def test_a_view_that_has_neither_layout() -> None:
    images = torch.rand(4, 6, 3, 5).transpose(1, 2)[..., ::2]
    config = AugmentationConfig(crop_padding=1, horizontal_flip=True)
    result = augment(images, config, torch.Generator().manual_seed(0))
    for before, after in zip(images, result, strict=True):
        assert any(torch.equal(after, move) for move in moves(before, config))


def test_nothing_to_do_gives_the_images_themselves() -> None:
    images = torch.rand(2, 3, 4, 4)
    assert augment(images, AugmentationConfig(crop_padding=0, horizontal_flip=False), torch.Generator()) is images


def holes(image: Tensor, side: int) -> list[Tensor]:
    """Every result that cut_out may give for one image [C, H, W], by the definition: a square around each of its pixels."""
    results = []
    for y in range(image.shape[1]):
        for x in range(image.shape[2]):
            result = image.clone()
            for row in range(max(0, y - side // 2), min(image.shape[1], y - side // 2 + side)):
                for column in range(max(0, x - side // 2), min(image.shape[2], x - side // 2 + side)):
                    result[:, row, column] = 0
            results.append(result)
    return results


@pytest.mark.parametrize("side", [1, 2, 3, 8])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_hole_lies_around_any_pixel_alike(side: int, channels_last: bool) -> None:
    image = 0.5 + torch.rand(2, 4, 3)
    images = image.repeat(1200, 1, 1, 1)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    before = images.clone()
    result = cut_out(images, side, torch.Generator().manual_seed(0))
    assert torch.equal(images, before)
    assert result.stride() == images.stride()
    allowed = holes(image, side)
    same = torch.stack([(result == hole).flatten(1).all(1) for hole in allowed])
    assert same.any(dim=0).all()
    assert same.float().mean(dim=1).min() > 0.5 / 12


def test_no_hole_draws_nothing() -> None:
    images, rng = torch.rand(2, 3, 4, 4), torch.Generator().manual_seed(1)
    before = rng.get_state()
    assert cut_out(images, 0, rng) is images
    assert torch.equal(rng.get_state(), before)
