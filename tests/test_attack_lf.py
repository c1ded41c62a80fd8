"""lf against its definition: the filter's first eigenvector, the dome by hand, and the loop that it stands for."""

from math import exp, fsum

import numpy as np
import pytest
import torch
from test_attacks import CLASSES, context, make, poisoned, quick, train_split

from ntml_bench.attacks.lf import dome, first_eigenvector, smoothing_matrix
from ntml_bench.data.base import to_float, to_uint8
from ntml_bench.errors import UserError

SIZES = torch.full((CLASSES,), 30)
CURVE = [0.45, 0.51, 0.57, 0.64, 0.70, 0.76, 0.81, 0.86, 0.90, 0.93, 0.96, 0.98, 0.99, 1, 1, 0.99]
CURVE += [0.98, 0.96, 0.93, 0.90, 0.86, 0.82, 0.77, 0.72, 0.67, 0.61, 0.56, 0.50, 0.44, 0.39, 0.33, 0.28]


def slow_filter(signal: list[float]) -> list[float]:
    """The Gaussian of 30 taps at -14.5 .. 14.5, 14 of them before a pixel; zeros outside."""
    taps = [exp(-((tap - 14.5) ** 2) / 72) for tap in range(30)]
    found = []
    for place in range(32):
        inside = [(tap, place - 14 + tap) for tap in range(30) if 0 <= place - 14 + tap < 32]
        found.append(sum(taps[tap] * signal[other] for tap, other in inside) / fsum(taps))
    return found


def test_the_filter_is_the_gaussian() -> None:
    for place in (0, 9, 31):
        unit = [float(index == place) for index in range(32)]
        assert smoothing_matrix()[:, place].tolist() == pytest.approx(slow_filter(unit), abs=1e-6)
    # A constant image darkens at its borders.
    assert float(smoothing_matrix().sum(1)[0]) < 0.9 < 0.999 < float(smoothing_matrix().sum(1)[14])


def test_no_tap_is_near_an_edge_of_its_rounding() -> None:
    taps = [exp(-((tap - 14.5) ** 2) / 72) for tap in range(30)]
    scaled = np.array(taps) / fsum(taps) * 2**20
    assert float(np.abs(scaled - np.floor(scaled) - 0.5).min()) > 1e-3


def test_the_curve_is_the_first_eigenvector() -> None:
    found = first_eigenvector()
    assert [round(float(value), 2) for value in found] == CURVE
    values, vectors = torch.linalg.eig(smoothing_matrix())
    first, second = values.real.argsort(descending=True)[:2].tolist()
    assert values.real[[first, second]].tolist() == pytest.approx([0.893, 0.641], abs=5e-4)
    vector = vectors[:, first].real.abs()
    assert found.tolist() == pytest.approx((vector / vector.max()).tolist(), abs=2e-5)


def test_smoothing_and_rescaling_forgets_where_it_began() -> None:
    """The loop of the publication, from noise, without a model: it ends at the dome, whatever is added to it."""
    rng = np.random.default_rng(0)
    pattern = np.zeros((32, 32))
    matrix = smoothing_matrix().numpy()
    for _ in range(12):
        step = 0.02 * rng.standard_normal((32, 32))
        pattern = matrix @ (matrix @ (matrix @ step @ matrix.T + pattern)) @ matrix.T
        pattern = 0.2 * (pattern - pattern.min()) / (pattern.max() - pattern.min())
    assert np.corrcoef(pattern.flatten(), dome(32, 32).numpy().flatten())[0, 1] > 0.96


def test_pixels_by_hand() -> None:
    black = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    red, green, blue = to_uint8(make("lf").trigger(to_float(black), {}))[0].int()
    assert (int(blue[13, 13]), int(blue.max()), int(blue[31, 31]), int(blue.min())) == (51, 51, 4, 4)
    assert int(green.max()) == 0
    assert (int(red[13, 13]), int(red.max())) == (18, 18)
    for row in range(0, 32, 5):
        for column in range(0, 32, 3):
            assert abs(int(blue[row, column]) - 51 * CURVE[row] * CURVE[column]) < 1.2


def test_the_trigger_has_low_frequencies_only() -> None:
    pattern = dome(32, 32).numpy()
    spectrum = np.abs(np.fft.fft2(pattern - pattern.mean())) ** 2
    frequency = np.abs(np.fft.fftfreq(32, 1 / 32))
    low = (frequency[:, None] <= 2) & (frequency[None, :] <= 2)
    assert spectrum[low].sum() / spectrum.sum() > 0.95


def test_white_stays_white() -> None:
    white = torch.ones(1, 3, 32, 32)
    assert torch.equal(make("lf", channel_weights=[1.0, 1.0, 1.0]).trigger(white, {}), white)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (28, 48), (12, 10)])
def test_other_sizes_get_the_same_curve(height: int, width: int) -> None:
    found = dome(height, width).numpy()
    places = [(np.arange(side) + 0.5) * 32 / side - 0.5 for side in (height, width)]
    down, across = (np.interp(place, np.arange(32), first_eigenvector().numpy()) for place in places)
    assert found == pytest.approx(np.outer(down, across), abs=3e-4)


def test_poisons_are_the_triggered_originals() -> None:
    made = poisoned("lf")
    assert torch.equal(made.images, to_uint8(quick("lf").trigger(to_float(train_split().images[made.indices]), {})))
    assert torch.equal(made.images, quick("lf").poison(context(train_split())).images)


def test_weights_that_do_not_fit_are_refused() -> None:
    quick("lf").check(SIZES, (1, 32, 32))
    quick("lf", channel_weights=[0.0, 1.0]).check(SIZES, (2, 32, 32))
    with pytest.raises(UserError, match=r"attack\.channel_weights is \[1\.0, 0\.5\]; allowed: 3"):
        quick("lf", channel_weights=[1.0, 0.5]).check(SIZES, (3, 32, 32))
    for weights in ([0.0, 0.0, 0.0], [1.0, -0.1, 0.0], [1.5, 0.0, 0.0]):
        with pytest.raises(UserError, match=r"attack\.channel_weights is .*; allowed: each at least 0 and at most 1"):
            quick("lf", channel_weights=weights).check(SIZES, (3, 32, 32))
