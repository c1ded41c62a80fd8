"""ftrojan and ctrl against a slow transform of every block, forth and back."""

from math import cos, pi, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from test_attacks import CLASSES, context, make, quick
from torch import Tensor

from ntml_bench.attacks.frequency import diagonal_pattern
from ntml_bench.data.base import Split, to_float, to_uint8
from ntml_bench.errors import UserError

SIZES = torch.full((CLASSES,), 30)
# Red, green and blue of the luma and the two chroma channels: YCrCb (ftrojan), YVU (ctrl).
TO_RGB = {
    "ftrojan": [[1, 1.403, 0], [1, -0.714, -0.344], [1, 0, 1.773]],
    "ctrl": [[1, 1.14, 0], [1, -0.581, -0.396], [1, 0, 2.029]],
}


def levels(height: int = 32, width: int = 32, seed: int = 0) -> Tensor:
    return torch.randint(256, (2, 3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def transform(size: int) -> np.ndarray:
    """The matrix of the orthonormal DCT-II."""
    rows = [[cos((2 * place + 1) * k * pi / (2 * size)) for place in range(size)] for k in range(size)]
    scales = [sqrt((2 if k else 1) / size) for k in range(size)]
    return np.array(rows) * np.array(scales)[:, None]


def slow(name: str, images: Tensor, magnitude: float, size: int, frequencies: list[int]) -> np.ndarray:
    """uint8 images to float ones in 0..255 with the trigger, not rounded: each block of each chroma channel by itself."""
    matrix, colours = transform(size), np.array(TO_RGB[name])
    found = []
    for image in images.double().numpy():
        luma, *chroma = np.tensordot(np.linalg.inv(colours), image, 1)
        for channel in chroma:
            for top in range(0, image.shape[1], size):
                for left in range(0, image.shape[2], size):
                    block = channel[top : top + size, left : left + size]
                    coefficients = matrix @ block @ matrix.T
                    for k in frequencies:
                        coefficients[k, k] += magnitude
                    block[:] = matrix.T @ coefficients @ matrix
        found.append(np.tensordot(colours, np.stack([luma, *chroma]), 1))
    return np.clip(np.stack(found), 0, 255)


@pytest.mark.parametrize("name", ["ftrojan", "ctrl"])
@pytest.mark.parametrize(
    ("height", "width", "size", "frequencies"),
    [(32, 32, 32, [15, 31]), (32, 64, 32, [31]), (24, 12, 12, [0, 11]), (28, 28, 28, [13, 27])],
)
def test_the_trigger_is_that_of_the_transform(name: str, height: int, width: int, size: int, frequencies: list[int]) -> None:
    images = levels(height, width)
    attack = make(name, block_size=size, frequencies=frequencies)
    values: Any = attack.config
    magnitude = getattr(values, "test_magnitude", values.magnitude)
    expected = slow(name, images, magnitude, size, frequencies)
    found = to_uint8(attack.trigger(to_float(images), {})).numpy()
    # To the level, but for values that lie on the edge between two.
    inner = np.abs(expected - np.floor(expected) - 0.5) > 0.02
    assert inner.mean() > 0.9
    assert (found == np.round(expected))[inner].all()
    assert (found != images.numpy()).any()


def test_the_pattern_by_hand() -> None:
    pattern = diagonal_pattern(32, 32, 32, [15, 31])
    assert float(pattern[0, 0]) == pytest.approx(0.0345, abs=5e-5)
    assert float(pattern[31, 31]) == pytest.approx(0.0345, abs=5e-5)
    first, last = (
        cos(15 * pi / 64) * cos(45 * pi / 64) / 16,
        cos(31 * pi / 64) * cos(93 * pi / 64) / 16,
    )
    assert float(pattern[0, 1]) == pytest.approx(first + last, abs=2e-6)
    assert float(pattern.abs().max()) == pytest.approx(0.1065, abs=5e-5) == float(pattern[19, 19].abs())
    assert float(pattern.abs().mean()) == pytest.approx(0.0365, abs=5e-5)
    assert float((pattern**2).sum()) == pytest.approx(2, abs=1e-4)  # Parseval
    assert torch.equal(diagonal_pattern(64, 96, 32, [15, 31]), pattern.repeat(2, 3))


def test_the_strongest_channel_moves_as_far_as_known() -> None:
    grey = torch.full((1, 3, 32, 32), 128, dtype=torch.uint8)
    for name, changes, most in (("ftrojan", {"magnitude": 30.0}, 5.7), ("ctrl", {}, 21.6)):
        moved = (make(name, **changes).trigger(to_float(grey), {}) * 255 - 128).abs().amax((0, 2, 3))
        assert float(moved[2]) == pytest.approx(most, abs=0.05)
        assert float(moved[2]) == float(moved.max())


@pytest.mark.parametrize("name", ["ftrojan", "ctrl"])
def test_nothing_wraps_around_at_black_and_white(name: str) -> None:
    for level in (0, 255):
        plain = torch.full((1, 3, 32, 32), level, dtype=torch.uint8)
        triggered = to_uint8(make(name).trigger(to_float(plain), {})).int()
        assert int((triggered - level).abs().max()) in range(1, 23)
        grey = to_uint8(make(name).trigger(torch.full((1, 3, 32, 32), 0.5), {})).int() - 128
        pushed_out = grey > 1 if level else grey < -1
        assert bool(pushed_out.any())
        assert bool((triggered[pushed_out] == level).all())


def test_ctrl_is_stronger_at_test() -> None:
    split = Split(levels(seed=1).repeat(20, 1, 1, 1), torch.arange(40) % CLASSES)
    attack = make("ctrl", poisoning_rate=0.1)
    made = attack.poison(context(split))
    clean = to_float(split.images[made.indices])
    assert torch.equal(made.images, to_uint8(make("ctrl", test_magnitude=50).trigger(clean, {})))
    assert not torch.equal(made.images, to_uint8(attack.trigger(clean, {})))


def test_ftrojan_poisons_are_the_triggered_originals() -> None:
    split = Split(levels(seed=1).repeat(20, 1, 1, 1), torch.arange(40) % CLASSES)
    attack = make("ftrojan", poisoning_rate=0.1)
    made = attack.poison(context(split))
    assert torch.equal(made.images, to_uint8(attack.trigger(to_float(split.images[made.indices]), {})))


def test_grey_images_carry_the_pattern_itself() -> None:
    moved = make("ftrojan").trigger(torch.full((1, 1, 32, 32), 0.5), {})[0, 0].double() - 0.5
    assert torch.allclose(moved * 255, 20 * diagonal_pattern(32, 32, 32, [15, 31]), atol=1e-4)


@pytest.mark.parametrize("name", ["ftrojan", "ctrl"])
def test_what_does_not_fit_is_refused(name: str) -> None:
    quick(name).check(SIZES, (3, 64, 96))
    quick(name).check(SIZES, (1, 32, 32))
    with pytest.raises(UserError, match=r"attack\.block_size is 32: images of 28 x 32 cannot be cut"):
        quick(name).check(SIZES, (3, 28, 32))
    with pytest.raises(UserError, match=f"attack {name} takes images of 1 channel .* not of 4"):
        quick(name).check(SIZES, (4, 32, 32))
    for frequencies in ([15, 32], [-1], [15, 15], []):
        with pytest.raises(UserError, match=r"attack\.frequencies is \[.*\] with attack\.block_size 32; allowed: .* 0 to 31"):
            quick(name, frequencies=frequencies).check(SIZES, (3, 32, 32))
