"""combat against its definition: the trigger by hand, and that the generator learns what it is to learn."""

from copy import deepcopy
from dataclasses import replace
from math import cos, exp, log, pi
from typing import Any

import pytest
import torch
from builders import images_of
from test_attacks import CLASSES, context, make, poisoned, quick, train_split
from test_attacks_frequency import transform
from torch import Tensor, nn

from ntml_bench.attacks.combat import Generator, blurred, drawn_anew, normalised
from ntml_bench.attacks.frequency import low_pass
from ntml_bench.data.base import to_float
from ntml_bench.errors import UserError

SIZES = torch.full((CLASSES,), 30)
NO_BLUR = 0.1
"""Standard deviation of a blur that takes less than 1e-21 from the pixels beside."""


def wave(row: int, column: int, size: int = 32) -> Tensor:
    """A basis function of the discrete cosine transform, float64 [size, size]."""
    down, across = (
        torch.tensor([cos((2 * place + 1) * k * pi / (2 * size)) for place in range(size)], dtype=torch.float64)
        for k in (row, column)
    )
    return down[:, None] * across[None, :]


def random_images(seed: int = 4) -> Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_a_low_pass_is_that_of_the_transform() -> None:
    matrix, samples = torch.tensor(transform(12)), torch.rand(12, 5, dtype=torch.float64)
    coefficients = matrix @ samples
    coefficients[7:] = 0
    assert torch.allclose(low_pass(12, 7) @ samples, matrix.T @ coefficients)
    assert torch.allclose(low_pass(12, 12), torch.eye(12, dtype=torch.float64))


def test_frequencies_are_kept_or_not() -> None:
    attack: Any = make("combat", amplitude=25.5)
    grey = torch.full((1, 3, 32, 32), 0.5, dtype=torch.float64)
    for (row, column), kept in {(19, 19): True, (0, 3): True, (20, 0): False, (0, 20): False, (31, 31): False}.items():
        change = attack.placed(grey, wave(row, column).expand(1, 3, -1, -1), NO_BLUR) - grey
        assert torch.allclose(change, 0.1 * kept * wave(row, column).expand(1, 3, -1, -1), atol=1e-9), (row, column)


def test_a_generator_that_says_nothing_changes_nothing() -> None:
    attack: Any = make("combat")
    images = random_images()
    assert torch.equal(attack.placed(images, torch.zeros_like(images), NO_BLUR), images)


def test_the_change_is_bounded_and_clipped() -> None:
    attack: Any = make("combat")
    images = random_images()
    # The largest value everywhere has no high frequencies: 10.2 levels.
    brighter = attack.placed(images, torch.ones_like(images), NO_BLUR)
    assert torch.allclose(brighter, (images + 0.04).clamp(max=1), atol=1e-6)
    assert torch.equal(attack.placed(torch.zeros_like(images), -torch.ones_like(images), NO_BLUR), torch.zeros_like(images))


def test_a_blur_by_hand() -> None:
    beside = exp(-1 / 2)
    middle, beside = 1 / (1 + 2 * beside), beside / (1 + 2 * beside)
    dot = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    dot[0, 0, 1, 2] = 1
    line = torch.tensor([beside, middle, beside], dtype=torch.float64)
    expected = torch.zeros(4, 4, dtype=torch.float64)
    expected[0:3, 1:4] = line[:, None] * line
    # The pixel beside the edge is seen twice from the edge.
    expected[0] *= 2
    expected[:, 3] *= 2
    assert torch.allclose(blurred(dot, 1.0)[0, 0], expected)
    constant = torch.full((2, 3, 5, 2), 0.3)
    assert torch.allclose(blurred(constant, 0.7), constant)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 16), (3, 32, 32)])
def test_a_generator_keeps_the_shape(shape: tuple[int, int, int]) -> None:
    values = Generator(shape[0], 2)(torch.rand(2, *shape))
    assert values.shape == (2, *shape)
    assert float(values.detach().abs().max()) <= 1


def test_a_single_pixel_is_not_normalised() -> None:
    pixel = torch.tensor([3.0]).view(1, 1, 1, 1)
    assert torch.equal(normalised(pixel), pixel)
    pair = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2)
    assert torch.allclose(normalised(pair), torch.tensor([-1.0, 1.0]).view(1, 1, 1, 2), atol=1e-4)


def test_the_share_is_one_of_the_target_class() -> None:
    # 15 of 120 images are half of a class of 30.
    attack: Any = make("combat", poisoning_rate=0.125)
    assert attack.share_of_target(train_split().labels) == 0.5
    with pytest.raises(UserError, match=r"attack\.poisoning_rate is 0\.5: .* of the target class only \(30\)"):
        make("combat", poisoning_rate=0.5).check(SIZES, (3, 12, 10))


def test_poisons_are_what_the_test_sees() -> None:
    made, split = poisoned("combat"), train_split()
    attack = quick("combat")
    again = attack.under_trigger(split.images[made.indices], made.state)
    assert torch.equal(made.images, again)
    assert bool((made.labels == split.labels[made.indices]).all())
    for name in ("surrogate", "clean model"):
        assert 0 <= float(made.notes[f"target by the {name}"]) <= 100


def test_a_surrogate_drawn_anew_is_another_one() -> None:
    norm = nn.BatchNorm2d(2, momentum=1.0)
    model = nn.Sequential(nn.Conv2d(3, 2, 3), norm, nn.Flatten(), nn.Linear(8, 2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    norm(torch.full((2, 2, 3, 3), 7.0))
    assert not torch.equal(model.state_dict()["1.running_mean"], torch.zeros(2))
    after = drawn_anew(model).state_dict()
    assert not torch.equal(after["0.weight"], before["0.weight"])
    assert not torch.equal(after["3.weight"], before["3.weight"])
    assert torch.equal(after["1.running_mean"], torch.zeros(2))


def target_share(model: nn.Module, images: Tensor) -> float:
    with torch.no_grad():
        return float(model(images).softmax(1)[:, 0].mean())


class Net(nn.Module):
    """A convolution that sees no place, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.linear = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.features(images).mean((2, 3)))


def test_the_generators_loss_by_hand() -> None:
    attack: Any = make("combat", target_class=1, distance_weight=0.5, clean_weight=0.8)
    labels = torch.tensor([0, 3])
    sure = torch.log(torch.tensor([0.5, 0.25, 0.125, 0.125])).expand(2, -1)
    # The surrogate gives the target 1/4; a change of 0.1 is one of 0.2 in [-1, 1]; the clean model is right with 1/2 and 1/8.
    expected = log(4) + 0.5 * 0.04 + 0.8 * (log(2) + log(8)) / 2
    assert float(attack.generator_loss(sure, sure, torch.full((2, 3, 4, 4), -0.1), labels)) == pytest.approx(expected)


def test_surrogate_and_generator_learn_in_turns() -> None:
    split = images_of(torch.arange(120) % CLASSES, (3, 12, 10))
    images, clean = to_float(split.images), Net().eval()
    place = replace(context(split), surrogate=lambda: deepcopy(clean))
    values = {"width": 4, "batch_size": 24, "amplitude": 80.0, "generator_rate": 0.05, "surrogate_rate": 0.05}

    def trained(**changes: Any) -> tuple[Tensor, dict[str, nn.Module]]:
        attack: Any = make("combat", poisoning_rate=0.125, clean_weight=0.0, **values | changes)
        generator, models = attack.trained(place)
        return attack.placed(images, generator(images).detach(), 0.5), models

    fooling, models = trained(generator_epochs=20)
    untrained, none = trained(generator_epochs=0)
    assert none == {}
    surrogate = models["surrogate"]
    assert surrogate.training is False
    with torch.no_grad():
        assert float((surrogate(images).argmax(1) == split.labels).float().mean()) > 0.8
    other = split.labels != 0
    assert target_share(surrogate, fooling[other]) > target_share(surrogate, untrained[other]) + 0.4


def test_nobody_is_asked_for_a_surrogate_where_nothing_is_poisoned() -> None:
    def refuse() -> nn.Module:
        raise AssertionError

    assert len(quick("combat", poisoning_rate=0.0).poison(replace(context(train_split()), surrogate=refuse)).indices) == 0


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UserError, match=r"attack\.blur_from is 2\.0 with attack\.blur_to 1\.0; allowed: at most 1\.0"):
        make("combat", blur_from=2.0).check(SIZES, (3, 12, 10))
    with pytest.raises(UserError, match="2 x 2 pixels or more, not of 1 x 10"):
        make("combat", poisoning_rate=0.0).check(SIZES, (3, 1, 10))
