"""Each attack against its definition, computed again by loops, by hand or by its bounds."""

from dataclasses import asdict, replace
from math import pi, sin
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_attacks import CLASSES, context, make, poisoned, quick, train_split
from torch import Tensor, nn

from ntml_bench.attacks import Poisoning
from ntml_bench.attacks.blended import noise_pattern, shape_pattern
from ntml_bench.attacks.perturbation import Perturbation
from ntml_bench.attacks.wanet import jittered, warp, warping_grid
from ntml_bench.data.augmentation import augment
from ntml_bench.data.base import AugmentationConfig, Split
from ntml_bench.errors import UserError
from ntml_bench.seeding import generator

SIZES = torch.full((CLASSES,), 30)


def random_images(count: int = 3, height: int = 12, width: int = 10) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(4))


def as_file(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


def originals(made: Poisoning, split: Split) -> Tensor:
    return split.images[made.indices]


@pytest.mark.parametrize(("size", "margin"), [(3, 0), (2, 1), (10, 0)])
def test_badnets_pixels(size: int, margin: int) -> None:
    images = random_images()
    expected = images.clone()
    for image in range(3):
        for channel in range(3):
            for row in range(12):
                for column in range(10):
                    if 12 - margin - size <= row < 12 - margin and 10 - margin - size <= column < 10 - margin:
                        expected[image, channel, row, column] = 1.0
    assert torch.equal(make("badnets", trigger_size=size, margin=margin).trigger(images, {}), expected)


def test_badnets_poisons_are_the_triggered_originals() -> None:
    made, split = poisoned("badnets"), train_split()
    expected = originals(made, split).clone()
    expected[:, :, 9:, 7:] = 255
    assert torch.equal(made.images, expected)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("checker", [[1, 0, 1], [0, 1, 0], [1, 0, 1]]),
        ("half_checker", [[0, 0, 1], [0, 1, 0], [1, 0, 1]]),  # as backdoor-toolbox draws it
        ("checker", [[1, 0], [0, 1]]),
        ("half_checker", [[0, 0], [0, 1]]),
        ("half_checker", [[1]]),
    ],
)
def test_badnets_patterns_are_opaque(pattern: str, expected: list[list[int]]) -> None:
    images, size = random_images(), len(expected)
    triggered = make("badnets", trigger_size=size, margin=1, pattern=pattern).trigger(images, {})
    square = triggered[:, :, 11 - size : 11, 9 - size : 9]
    assert torch.equal(square, torch.tensor(expected).float().expand_as(square))
    triggered[:, :, 11 - size : 11, 9 - size : 9] = images[:, :, 11 - size : 11, 9 - size : 9]
    assert torch.equal(triggered, images)


@pytest.mark.parametrize("name", ["badnets", "badnets_all_to_all"])
def test_what_has_a_white_square_keeps_the_key_of_before_there_were_others(name: str) -> None:
    assert "pattern" not in make(name).determining()
    assert make(name).determining() | {"pattern": "white"} == asdict(make(name).config)
    assert make(name, pattern="checker").determining()["pattern"] == "checker"


def test_badnets_refuses_a_square_beyond_the_image() -> None:
    make("badnets", trigger_size=9, margin=1).check(SIZES, (3, 12, 10))
    with pytest.raises(UserError, match=r"attack\.trigger_size is 9 with attack\.margin 2: larger than the image \(12 x 10\)"):
        make("badnets", trigger_size=9, margin=2).check(SIZES, (3, 12, 10))


@pytest.mark.parametrize("pattern", ["noise", "shape"])
def test_blended_pixels(pattern: str) -> None:
    attack, images = quick("blended", pattern=pattern), random_images()
    made = attack.poison(context(train_split()))
    key = made.state["pattern"]
    triggered = attack.trigger(images, made.state)
    for channel, row, column in [(0, 0, 0), (1, 5, 9), (2, 11, 4), (0, 7, 7)]:
        expected = 0.8 * float(images[1, channel, row, column]) + 0.2 * float(key[channel, row, column])
        assert float(triggered[1, channel, row, column]) == pytest.approx(expected, abs=1e-6)
    assert torch.equal(made.images, as_file(attack.trigger(originals(made, train_split()).float() / 255, made.state)))


def test_blended_pattern_follows_its_own_seed_and_not_the_cells() -> None:
    first, other = poisoned("blended").state["pattern"], poisoned("blended", seed=1).state["pattern"]
    assert torch.equal(first, other)
    changed = quick("blended", pattern_seed=1).poison(context(train_split())).state["pattern"]
    assert not torch.equal(first, changed)


@pytest.mark.parametrize("channels", [1, 3])
def test_blended_patterns_are_full_size_pictures(channels: int) -> None:
    noise = noise_pattern(channels, 32, 24, generator(0, "test"))
    shape = shape_pattern(channels, 32, 24, generator(0, "test"))
    for picture in (noise, shape):
        assert picture.shape == (channels, 32, 24)
        assert torch.equal(as_file(picture).float() / 255, picture)
        assert float(picture.min()) < 0.01
        assert float(picture.max()) > 0.99
    assert float(noise.mean()) == pytest.approx(0.5, abs=0.05)
    # A drawing, not noise: most neighbours agree, and both colours fill more than a tenth of it.
    assert float((shape[:, :, 1:] == shape[:, :, :-1]).float().mean()) > 0.8
    assert 0.1 < float((shape[0] == shape[0, 0, 0]).float().mean()) < 0.9


def test_sig_pixels() -> None:
    images = random_images(1)
    triggered = make("sig", amplitude=40, frequency=2.5).trigger(images, {})
    for channel in range(3):
        for row in range(12):
            for column in range(10):
                wave = 40 / 255 * sin(2 * pi * column * 2.5 / 10)
                expected = min(1.0, max(0.0, float(images[0, channel, row, column]) + wave))
                assert float(triggered[0, channel, row, column]) == pytest.approx(expected, abs=1e-6)


def test_sig_poisons_are_the_triggered_originals() -> None:
    made = poisoned("sig")
    assert torch.equal(made.images, as_file(quick("sig").trigger(originals(made, train_split()).float() / 255, {})))


@pytest.mark.parametrize("amplitude", [1.0, 0.25])
def test_lc_pixels(amplitude: float) -> None:
    images = random_images(1)
    expected = images.clone()
    checkerboard = [[1, -1, 1], [-1, 1, -1], [1, -1, 1]]
    for top in (0, 12 - 3):
        for left in (0, 10 - 3):
            for row in range(3):
                for column in range(3):
                    here = expected[0, :, top + row, left + column]
                    here += amplitude * checkerboard[row][column]
                    here.clamp_(0, 1)
    assert torch.equal(make("lc", amplitude=amplitude).trigger(images, {}), expected)


def test_lc_even_patches_are_mirrored_in_the_corners() -> None:
    corners = make("lc", patch_size=2).trigger(torch.full((1, 1, 8, 9), 0.5), {})[0, 0]
    assert corners[:2, :2].tolist() == [[1, 0], [0, 1]]
    assert torch.equal(corners, corners.flip(0))
    assert torch.equal(corners, corners.flip(1))
    assert int((corners != 0.5).sum()) == 16


def test_lc_refuses_corners_that_meet() -> None:
    make("lc", patch_size=5).check(SIZES, (3, 12, 10))
    with pytest.raises(UserError, match=r"attack\.patch_size is 6.*at most 5"):
        make("lc", patch_size=6).check(SIZES, (3, 12, 10))


@pytest.mark.parametrize("epsilon", [0, 4, 16])
def test_lc_perturbation_is_bounded_apart_from_the_corners(epsilon: int) -> None:
    split = train_split()
    made = quick("lc", epsilon=epsilon).poison(context(split))
    corners = torch.zeros(12, 10, dtype=torch.bool)
    for rows in (slice(0, 3), slice(9, 12)):
        for columns in (slice(0, 3), slice(7, 10)):
            corners[rows, columns] = True
    difference = (made.images.int() - originals(made, split).int())[:, :, ~corners].abs()
    assert int(difference.max()) == epsilon
    assert set(made.images[:, :, corners].flatten().tolist()) == {0, 255}


def test_lc_pushes_images_off_their_class() -> None:
    split, setting = train_split(), context(train_split())
    clean = split.images[split.labels == 0].float() / 255
    judge = setting.surrogate().requires_grad_(False)

    def loss(images: Tensor) -> float:
        return float(nn.functional.cross_entropy(judge(images), torch.zeros(30, dtype=torch.int64)))

    losses = [loss(clean)]
    for steps in (1, 10):
        attack: Any = quick("lc", steps=steps, step_size=2)
        pushed = attack.push_off(setting.surrogate(), clean, setting.generator("test"))
        assert not pushed.requires_grad
        assert float((pushed - clean).abs().max()) <= 16 / 255 + 1e-6
        losses.append(loss(pushed))
    assert losses == sorted(losses)
    assert losses[2] > losses[0] + 0.01


def test_a_perturbation_follows_the_signs_of_the_gradient() -> None:
    """Of softmax regression on 2 images of 2 pixels, whose gradient is W^T (p - y)."""
    weight = torch.tensor([[1.0, -2.0], [-3.0, 0.5]])
    images = torch.tensor([[0.5, 0.02], [0.3, 0.9]]).view(2, 1, 1, 2)
    labels = torch.tensor([0, 1])
    start = torch.rand(images.shape, generator=torch.Generator().manual_seed(3)) * 2 - 1
    found = Perturbation(epsilon=10, step_size=4, steps=5).push_off(
        lambda given: given.flatten(1) @ weight.T, images, labels, torch.Generator().manual_seed(3)
    )
    bound, expected = 10 / 255, (images + start * 10 / 255).clamp(0, 1).flatten(1)
    for _ in range(5):
        wrong = (expected @ weight.T).softmax(1) - torch.eye(2)[labels]
        moved = expected + 4 / 255 * (wrong @ weight).sign()
        clean = images.flatten(1)
        expected = torch.minimum(torch.maximum(moved, clean - bound), clean + bound).clamp(0, 1)
    assert torch.allclose(found.flatten(1), expected, atol=1e-6)
    assert float((found - images).abs().max()) == pytest.approx(bound, abs=1e-6)


def test_by_l2_a_perturbation_follows_the_direction_of_the_gradient() -> None:
    """Each image of its own: softmax regression on 2 images of 2 pixels, too far from black and white to be cut."""
    weight = torch.tensor([[1.0, -2.0], [-3.0, 0.5]], dtype=torch.float64)
    images = torch.tensor([[0.5, 0.4], [0.3, 0.6]], dtype=torch.float64).view(2, 1, 1, 2)
    labels = torch.tensor([0, 1])
    far, near = (
        Perturbation(epsilon=epsilon, step_size=4, steps=3).push_off(
            lambda given: given.flatten(1) @ weight.T, images, labels, torch.Generator().manual_seed(3), "l2"
        )
        for epsilon in (25, 1e-9)
    )
    assert torch.allclose(near, images)
    rng = torch.Generator().manual_seed(3)
    direction = nn.functional.normalize(torch.randn(images.shape, generator=rng).flatten(1)).double()
    bound = 25 / 255
    offset = direction * torch.rand(2, 1, generator=rng) * bound
    for _ in range(3):
        wrong = ((images.flatten(1) + offset) @ weight.T).softmax(1) - torch.eye(2)[labels]
        offset = offset + 4 / 255 * nn.functional.normalize(wrong @ weight)
        offset = torch.stack([one * min(1, bound / float(one.norm())) for one in offset])
    assert torch.allclose((far - images).flatten(1), offset, atol=1e-7)


@given(epsilon=st.floats(1, 2000), steps=st.integers(1, 4))
def test_by_l2_no_image_goes_further_than_epsilon(epsilon: float, steps: int) -> None:
    images = random_images(4)
    perturbation = Perturbation(epsilon=epsilon, step_size=epsilon, steps=steps)

    def darkness(batch: Tensor) -> Tensor:
        return torch.stack([batch.sum((1, 2, 3)), -batch.sum((1, 2, 3))], dim=1)

    found = perturbation.push_off(darkness, images, torch.zeros(4, dtype=torch.int64), torch.Generator().manual_seed(0), "l2")
    assert float((found - images).flatten(1).norm(dim=1).max()) <= epsilon / 255 * (1 + 1e-5)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1


def test_by_l2_an_image_without_a_gradient_stays_a_point_of_the_ball() -> None:
    images = random_images(2)
    found = Perturbation(epsilon=50, step_size=5, steps=3).push_off(
        lambda given: 0 * given.flatten(1)[:, :2], images, torch.tensor([0, 1]), torch.Generator().manual_seed(0), "l2"
    )
    assert 0 < float((found - images).flatten(1).norm(dim=1).max()) <= 50 / 255 + 1e-6


@pytest.mark.parametrize(("norm", "most"), [("linf", "255"), ("l2", "4838.28")])
@pytest.mark.parametrize("name", ["epsilon", "step_size"])
def test_lc_refuses_a_bound_that_no_two_images_reach(norm: str, most: str, name: str) -> None:
    make("lc", norm=norm, **{name: float(most) - 1}).check(SIZES, (3, 12, 10))
    with pytest.raises(UserError, match=rf"attack\.{name} is 6000: by {norm} .* at most {most}"):
        make("lc", norm=norm, **{name: 6000}).check(SIZES, (3, 12, 10))


def test_lc_by_l2_is_another_attack_by_linf_it_is_what_it_was() -> None:
    linf, l2 = (quick("lc", norm=norm) for norm in ("linf", "l2"))
    assert l2.determining() == linf.determining() | {"norm": "l2"}
    made = [attack.poison(context(train_split())).images for attack in (linf, l2)]
    assert not torch.equal(*made)


def test_lc_says_what_its_surrogate_is_trained_against() -> None:
    standard, adversarial = (quick("lc", surrogate=name) for name in ("standard", "adversarial"))
    assert standard.adversary is None
    assert adversarial.adversary == Perturbation(epsilon=8, step_size=2, steps=7)
    assert {"surrogate", "adversary"} == adversarial.determining().keys() - standard.determining().keys()
    notes = [attack.poison(context(train_split())).notes["surrogate"] for attack in (standard, adversarial)]
    assert notes[1] == f"{notes[0]} under perturbations (epsilon 8, 7 steps of 2)"


def test_lc_batch_size_is_a_matter_of_memory_only() -> None:
    whole, parts = (quick("lc", batch_size=size).poison(context(train_split())).images for size in (100, 5))
    # Rounding may turn a sign here and there.
    assert float((whole != parts).float().mean()) < 0.01


def test_wanet_grid_of_one_control_point() -> None:
    # (3, -1) has the mean absolute value 2, so it becomes (1.5, -0.5); strength 0.5, sides 5 and 4.
    grid = warping_grid(torch.tensor([3.0, -1.0]).view(2, 1, 1), height=4, width=5, strength=0.5)
    for row in range(4):
        for column in range(5):
            x = -1 + 2 * column / 4 + 0.5 * 1.5 / 5
            y = -1 + 2 * row / 3 - 0.5 * 0.5 / 4
            assert grid[row, column].tolist() == pytest.approx([min(x, 1.0), max(y, -1.0)], abs=1e-6)


def test_wanet_grid_of_four_control_points() -> None:
    # Mean absolute value 1. With aligned corners the 3 x 3 field holds the control points in its corners; half way between two,
    # the cubic with a repeated border gives their mean, and in the centre the mean of all four.
    control = torch.tensor([[[0.5, -1.5], [1.0, 1.0]], [[-2.0, 0.0], [1.0, -1.0]]])
    field_x = [[0.5, -0.5, -1.5], [0.75, 0.25, -0.25], [1.0, 1.0, 1.0]]
    field_y = [[-2.0, -1.0, 0.0], [-0.5, -0.5, -0.5], [1.0, 0.0, -1.0]]
    grid = warping_grid(control, height=3, width=3, strength=0.6)
    for row in range(3):
        for column in range(3):
            x = min(1.0, max(-1.0, column - 1 + 0.6 * field_x[row][column] / 3))
            y = min(1.0, max(-1.0, row - 1 + 0.6 * field_y[row][column] / 3))
            assert grid[row, column].tolist() == pytest.approx([x, y], abs=1e-6)


def slow_warp(image: Tensor, grid: Tensor) -> Tensor:
    """Bilinear resampling of float [C, H, W] at [H, W, 2], a pixel at a time."""
    _, height, width = image.shape
    out = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            x = (float(grid[row, column, 0]) + 1) / 2 * (width - 1)
            y = (float(grid[row, column, 1]) + 1) / 2 * (height - 1)
            left, top = min(int(x), width - 2), min(int(y), height - 2)
            right_weight, bottom_weight = x - left, y - top
            out[:, row, column] = (
                (1 - bottom_weight) * (1 - right_weight) * image[:, top, left]
                + (1 - bottom_weight) * right_weight * image[:, top, left + 1]
                + bottom_weight * (1 - right_weight) * image[:, top + 1, left]
                + bottom_weight * right_weight * image[:, top + 1, left + 1]
            )
    return out


def test_wanet_trigger_pixels() -> None:
    images, grid = random_images(2), poisoned("wanet").state["grid"]
    assert grid.shape == (12, 10, 2)
    assert grid.dtype == torch.float32
    assert float(grid.abs().max()) <= 1
    triggered = quick("wanet").trigger(images, {"grid": grid})
    for image, expected in zip(triggered, images, strict=True):
        assert torch.allclose(image, slow_warp(expected, grid), atol=1e-5)
    identity = warping_grid(torch.ones(2, 1, 1), 12, 10, 1e-9)
    assert torch.allclose(warp(images, identity), images, atol=1e-5)


def test_wanet_grid_follows_the_cells_seed() -> None:
    assert not torch.equal(poisoned("wanet").state["grid"], poisoned("wanet", seed=1).state["grid"])


def test_wanet_jitter_moves_by_at_most_half_a_pixel() -> None:
    grid = poisoned("wanet").state["grid"]
    uniform = torch.rand(50, 12, 10, 2, generator=torch.Generator().manual_seed(0))
    moved = jittered(grid, uniform)
    assert moved.shape == (50, 12, 10, 2)
    assert float(moved.abs().max()) <= 1
    difference = (moved - grid).abs()
    assert 0.9 / 10 < float(difference[..., 0].max()) <= 1 / 10 + 1e-6
    assert 0.9 / 12 < float(difference[..., 1].max()) <= 1 / 12 + 1e-6
    inner = (grid.abs() < 0.8).all(-1)
    assert float((moved - grid)[:, inner].mean()) == pytest.approx(0, abs=0.005)
    assert torch.allclose(jittered(grid, torch.full((1, 12, 10, 2), 0.5))[0], grid)


@pytest.mark.parametrize("cross_ratio", [2, 0, 0.5])
def test_wanet_snapshot_holds_both_modes(cross_ratio: float) -> None:
    split, attack = train_split(), quick("wanet", cross_ratio=cross_ratio)
    made = attack.poison(context(split))
    assert int(made.is_poison.sum()) == 12
    assert int((~made.is_poison).sum()) == round(12 * cross_ratio) == made.notes["covers"]
    warped = as_file(attack.trigger(originals(made, split).float() / 255, made.state))
    same = (made.images == warped).flatten(1).all(1)
    assert torch.equal(same, made.is_poison)
    if cross_ratio == 2:
        assert bool((split.labels[made.indices][~made.is_poison] == 0).any())


def modes(attack: Any, split: Split, state: dict[str, Tensor], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """One training batch of the whole split: which images came out triggered, changed in another way; the labels."""
    images = split.images.float() / 255
    batch, labels = attack.during_training(images, split.labels, state, torch.Generator().manual_seed(seed))
    triggered = torch.isclose(batch, attack.trigger(images, state), atol=1e-6).flatten(1).all(1)
    changed = (batch != images).flatten(1).any(1)
    return triggered, changed & ~triggered, labels


@pytest.mark.parametrize(("rate", "cross_ratio", "poisons", "covers"), [(0.1, 2, 12, 24), (0.2, 0, 24, 0), (0.05, 3.5, 6, 21)])
def test_wanet_batches_have_the_shares_of_the_modes(rate: float, cross_ratio: float, poisons: int, covers: int) -> None:
    split, attack = train_split(), quick("wanet", poisoning_rate=rate, cross_ratio=cross_ratio)
    state = poisoned("wanet").state
    drawn = torch.zeros(len(split), 2)
    for seed in range(20):
        triggered, noisy, labels = modes(attack, split, state, seed)
        assert int(triggered.sum()) == poisons
        assert int(noisy.sum()) == covers
        assert not bool((split.labels[triggered] == 0).any())
        assert bool((labels[triggered] == 0).all())
        assert torch.equal(labels[~triggered], split.labels[~triggered])
        drawn += torch.stack([triggered, noisy], dim=1)
    # Every image of another class has its turn sooner or later; noise mode takes from all classes.
    assert float((drawn[:, 0] > 0).float().mean()) > 0.4
    if covers:
        assert set(split.labels[drawn[:, 1] > 0].tolist()) == set(range(CLASSES))


def test_wanet_batch_follows_the_generator() -> None:
    split, attack, state = train_split(), quick("wanet"), poisoned("wanet").state
    first, again, other = (modes(attack, split, state, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_wanet_small_batches_and_batches_of_the_target_class(size: int) -> None:
    attack, state = quick("wanet", poisoning_rate=1 / 3, cross_ratio=2), poisoned("wanet").state
    images = random_images(size)
    mixed = torch.arange(size) % 2
    for labels in (torch.zeros(size, dtype=torch.int64), mixed):
        batch, given = attack.during_training(images, labels, state, torch.Generator().manual_seed(0))
        assert batch.shape == images.shape
        triggered = torch.isclose(batch, attack.trigger(images, state), atol=1e-6).flatten(1).all(1)
        assert not bool((triggered & (labels == 0)).any())
        assert bool((given[labels == 0] == 0).all())


def test_wanet_refuses_more_than_all_images() -> None:
    with pytest.raises(UserError, match=r"attack\.poisoning_rate is 0\.4 with attack\.cross_ratio 2.*at most 0\.333333"):
        make("wanet", poisoning_rate=0.4).check(SIZES, (3, 12, 10))


def test_wanet_covers_never_exceed_the_images() -> None:
    attack: Any = make("wanet", poisoning_rate=0.5, cross_ratio=1)
    assert attack.counts(5) == (2, 2)
    assert attack.counts(7) == (4, 3)


def test_narcissus_poisons_carry_delta_and_tests_three_times_it() -> None:
    split, made = train_split(), poisoned("narcissus")
    delta = made.state["delta"]
    assert delta.shape == (3, 12, 10)
    assert 0 < float(delta.abs().max()) <= 16 / 255
    clean = originals(made, split).float() / 255
    assert torch.equal(made.images, as_file((clean + delta).clamp(0, 1)))
    assert int((made.images.int() - originals(made, split).int()).abs().max()) <= 16
    images = random_images()
    assert torch.allclose(quick("narcissus").trigger(images, made.state), (images + 3 * delta).clamp(0, 1))


def test_narcissus_reaches_its_bound_and_points_to_the_target_class() -> None:
    setting = context(train_split())
    attack = quick("narcissus", rounds=200, epsilon=8)
    delta = attack.poison(setting).state["delta"]
    assert float(delta.abs().max()) == pytest.approx(8 / 255)
    images = random_images(20)
    model = setting.surrogate().requires_grad_(False)
    target = attack.config.target_class
    before = model(images).softmax(1)[:, target].mean()
    after = model((images + delta).clamp(0, 1)).softmax(1)[:, target].mean()
    assert float(after) > float(before)


def test_narcissus_warms_the_surrogate_up_on_the_target_class_alone() -> None:
    split = train_split()
    calls: list[tuple[nn.Module, Split, int, float, str]] = []
    setting = context(split, fine_tune=lambda *given: calls.append(given))
    quick("narcissus", warmup_epochs=2, warmup_learning_rate=0.03).poison(setting)
    ((model, given, epochs, learning_rate, purpose),) = calls
    assert torch.equal(given.images, split.images[split.labels == 2])
    assert given.labels.tolist() == [2] * 30
    assert (epochs, learning_rate, purpose) == (2, 0.03, "narcissus/warm-up")
    # The model is only read afterwards: no gradient is left in it.
    assert all(parameter.grad is None for parameter in model.parameters())
    quick("narcissus", warmup_epochs=0).poison(setting)
    assert len(calls) == 1


class Normalised(nn.Module):
    """A linear layer behind a BatchNorm: what it makes of an image depends on the mode and on the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm2d(3), nn.Linear(360, CLASSES)
        nn.init.normal_(self.linear.weight, std=0.3, generator=torch.Generator().manual_seed(2))

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.norm(images).flatten(1))


def test_narcissus_follows_the_gradient_of_batch_statistics_on_augmented_images() -> None:
    split, augmentation = train_split(), AugmentationConfig(crop_padding=2, horizontal_flip=True)
    model = Normalised().eval()
    setting = replace(context(split, augmentation=augmentation), surrogate=lambda: model)
    attack = quick("narcissus", rounds=2, batch_size=8, warmup_epochs=0, learning_rate=0.05)
    delta = attack.poison(setting).state["delta"]

    weight, bias = model.linear.weight.detach(), model.linear.bias.detach()
    images = split.images[split.labels == 2]
    order, shifts = setting.generator("narcissus/minibatches"), setting.generator("narcissus/augmentation")
    expected = torch.zeros(3, 12, 10, requires_grad=True)
    optimizer = torch.optim.RAdam([expected], lr=0.05)
    for _ in range(2):
        passed = torch.randperm(30, generator=order)
        for start in (0, 8, 16, 24):
            seen = augment(images[passed[start : start + 8]].float() / 255, augmentation, shifts)
            carrying = (seen + expected).clamp(0, 1)
            mean, variance = carrying.mean((0, 2, 3)), carrying.var((0, 2, 3), unbiased=False)
            standard = (carrying - mean.view(3, 1, 1)) / (variance + 1e-5).sqrt().view(3, 1, 1)
            logits = standard.flatten(1) @ weight.T + bias
            optimizer.zero_grad()
            (logits.logsumexp(1) - logits[:, 2]).mean().backward()
            optimizer.step()
            with torch.no_grad():
                expected.clamp_(-16 / 255, 16 / 255)
    assert float(delta.abs().max()) > 0.004
    assert torch.allclose(delta, expected.detach(), atol=1e-4)


@pytest.mark.parametrize(("batch_size", "minibatches"), [(8, [8, 8, 8, 6]), (29, [29]), (64, [30])])
def test_a_round_of_narcissus_is_a_pass_over_the_target_class(batch_size: int, minibatches: list[int]) -> None:
    sizes: list[int] = []
    model = context(train_split()).surrogate()
    model.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    quick("narcissus", rounds=2, batch_size=batch_size).poison(replace(context(train_split()), surrogate=lambda: model))
    assert sizes == minibatches * 2


def test_narcissus_says_what_stands_in_for_the_public_data() -> None:
    assert "in place of" in str(poisoned("narcissus").notes["surrogate"])


def test_none_refuses_a_poisoning_rate() -> None:
    with pytest.raises(UserError, match=r"attack\.poisoning_rate is 0\.1; none poisons nothing"):
        make("none", poisoning_rate=0.1).check(SIZES, (3, 12, 10))
