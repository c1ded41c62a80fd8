"""trojannn, ssba and input_aware against their definitions: cases by hand, and that what is trained for them works."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from test_attacks import CLASSES, context, make, poisoned, quick, train_split
from torch import Tensor, nn

from ntml_bench.attacks.input_aware import Generator, bounded, diversity, mixed, sharpened
from ntml_bench.attacks.ssba import Decoder, Encoder, encoded
from ntml_bench.attacks.trojannn import inputs_of, last_linear, ring, strongest_inputs
from ntml_bench.data.base import Split
from ntml_bench.errors import UserError
from ntml_bench.evaluation import cross_test

SIZES = torch.full((CLASSES,), 30)


def random_images(count: int = 4, height: int = 12, width: int = 10, seed: int = 4) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


# trojannn


def test_neurons_are_those_of_the_largest_weights() -> None:
    weight = torch.tensor([[1.0, -3, 0], [0, 2, 1]])  # sums of absolute weights: 1, 5, 1
    assert strongest_inputs(weight, 1).tolist() == [1]
    assert strongest_inputs(weight, 2).tolist() == [1, 0]
    assert sorted(strongest_inputs(weight, 7).tolist()) == [0, 1, 2]


def test_a_ring_by_hand() -> None:
    assert ring(4, 4, 4, 1, 0).int().tolist() == [[0, 1, 1, 0], [1, 0, 0, 1], [1, 0, 0, 1], [0, 1, 1, 0]]
    solid = ring(5, 6, 3, 2, 1)
    assert solid.int().tolist() == [[0] * 6, [0, 0, 1, 1, 1, 0], [0, 0, 1, 1, 1, 0], [0, 0, 1, 1, 1, 0], [0] * 6]
    assert int(ring(32, 32, 12, 2, 3).sum()) == 60


class Linear(nn.Module):
    """Features that are sums of pixels: the first of the left half, the second, with a minus, of all."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, CLASSES)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[5.0, 1]] * CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        half = images.shape[3] // 2
        return self.head(torch.stack([images[..., :half].sum((1, 2, 3)), -images.sum((1, 2, 3))], dim=1))


@pytest.mark.parametrize(("neurons", "heavy", "expected"), [(1, [5.0, 1], 1.0), (1, [1.0, 5], 0.4)])
def test_pixels_go_to_the_end_of_the_box(neurons: int, heavy: list[float], expected: float) -> None:
    model = Linear()
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([heavy] * CLASSES))
    attack: Any = make("trojannn", steps=20, neurons=neurons, activation=1000.0)
    mask = torch.zeros(3, 6, 6, dtype=torch.bool)
    mask[:, 2:4, :3] = True
    pattern, told = attack.make_trigger(model, mask, CLASSES)
    assert torch.allclose(pattern[mask], torch.full((18,), expected), atol=1e-6)
    assert float(pattern[~mask].abs().max()) == 0
    assert told["activation of the trigger"] > told["activation of the start"]


def test_it_ends_where_the_neurons_fire_as_they_should() -> None:
    calls: list[int] = []
    model = Linear()
    model.head.register_forward_pre_hook(lambda *_: calls.append(1))
    mask = torch.ones(3, 2, 2, dtype=torch.bool)
    # Six pixels of the left half at 0.7 sum to 4.2; two steps of 0.1 make 5.4.
    attack: Any = make("trojannn", neurons=1, activation=5.4, steps=500)
    pattern, told = attack.make_trigger(model, mask, CLASSES)
    assert len(calls) < 10
    assert torch.allclose(pattern[:, :, 0], torch.tensor(230 / 255))
    assert told["activation of the trigger"] == pytest.approx(6 * 230 / 255)


def test_outside_of_the_mask_nothing_changes() -> None:
    made = poisoned("trojannn")
    mask, pattern = made.state["mask"], made.state["pattern"]
    images = random_images()
    triggered = quick("trojannn").trigger(images, made.state)
    assert torch.equal(triggered[:, :, ~mask], images[:, :, ~mask])
    assert torch.equal(triggered[:, :, mask], pattern[:, mask].expand(4, -1, -1))
    assert mask.sum() == ring(12, 10, 5, 2, 1).sum() > 0
    # Whole levels: test and training show the same.
    assert torch.allclose(pattern * 255, (pattern * 255).round(), atol=1e-4)
    assert float(made.notes["activation of the trigger"]) >= float(made.notes["activation of the start"])
    split = train_split()
    assert torch.equal(made.images[:, :, ~mask], split.images[made.indices][:, :, ~mask])


def test_trojannn_needs_a_linear_layer_and_room() -> None:
    with pytest.raises(UserError, match="ends in a linear layer"):
        last_linear(nn.Sequential(nn.Linear(3, CLASSES + 1), nn.Conv2d(3, CLASSES, 1)), CLASSES)
    with pytest.raises(UserError, match=r"attack\.trigger_size is 12 with attack\.margin 3: larger than the image \(12 x 10\)"):
        make("trojannn").check(SIZES, (3, 12, 10))


def test_what_a_layer_reads_leaves_no_hook() -> None:
    model = Linear()
    images = random_images()
    features = inputs_of(model.head, model)(images)
    assert torch.allclose(features[:, 1], -images.sum((1, 2, 3)), atol=1e-4)
    assert not model.head._forward_pre_hooks


# ssba


def test_an_encoder_that_says_nothing_changes_nothing() -> None:
    images = random_images()
    assert torch.equal(encoded(images, torch.zeros_like(images), 30.0), images)


def test_a_residual_is_scaled_down_to_its_bound_only() -> None:
    grey = torch.full((2, 1, 4, 4), 0.5)
    residuals = torch.stack([torch.full((1, 4, 4), 0.3), torch.full((1, 4, 4), 0.05)])
    made = encoded(grey, residuals, 20.0)  # 20 dB: a root mean square of 0.1
    assert torch.allclose(made[0], torch.tensor(0.6))
    assert torch.allclose(made[1], torch.tensor(0.55))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 16), (3, 32, 32)])
def test_encoder_and_decoder_fit_any_images(shape: tuple[int, int, int]) -> None:
    images, secrets = torch.rand(2, *shape), torch.tensor([[0.0, 1, 1], [1, 0, 1]])
    assert Encoder(shape, 3, 2)(images, secrets).shape == images.shape
    assert Decoder(shape, 3, 2)(images).shape == (2, 3)


def test_what_is_hidden_is_read_from_a_file_and_differs_from_image_to_image() -> None:
    images = torch.randint(0, 256, (120, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    smooth = nn.functional.avg_pool2d(images.float(), 5, 1, 2).to(torch.uint8)
    split = Split(smooth, torch.arange(120) % CLASSES)
    attack: Any = make("ssba", bits=4, width=4, steps=160, batch_size=16, learning_rate=0.005)
    made = attack.poison(context(split))
    assert float(made.notes["bit accuracy, triggered"]) > 95
    assert 20 < float(made.notes["bit accuracy, clean"]) < 80
    assert float(made.notes["mean PSNR"]) >= 29.9
    assert float(made.notes["likeness of residuals"]) < 0.999
    clean = smooth[made.indices].float()
    errors = (made.images.float() - clean).square().mean((1, 2, 3))
    # The bound, and half a level of rounding.
    assert float(errors.max().sqrt()) <= 255 * 10 ** (-30 / 20) + 0.5
    first, second = attack.trigger(smooth[:2] / 255, made.state) - smooth[:2] / 255
    assert not torch.allclose(first, second, atol=1 / 255)


# input_aware


def test_masks_and_patterns_by_hand() -> None:
    u = torch.tensor([0.5, 0.6, 1.0])
    z = torch.atanh((u * 2 - 1).clamp(max=1 - 1e-7))
    assert torch.allclose(sharpened(z), torch.tensor([0.5, 0.98201, 1.0]), atol=1e-4)
    assert bounded(torch.tensor([-50.0, 0, 50])).tolist() == [0, 0.5, 1]
    images = random_images()
    a, c = torch.tensor(0.25), torch.tensor(0.8)
    made = mixed(images, a.expand(4, 1, 12, 10), c.expand(4, 3, 12, 10))
    assert torch.allclose(made, 0.75 * images + 0.2)


def test_diversity_by_hand() -> None:
    zero = torch.zeros(2, 3, 4, 4)
    # Images that differ by 0.3 everywhere, patterns by 0.1: 3.
    assert float(diversity(zero, zero + 0.3, zero, zero + 0.1)) == pytest.approx(3, rel=1e-4)
    pattern = zero.clone().requires_grad_(True)
    diversity(zero, zero + 0.3, pattern, zero).backward()
    assert pattern.grad is not None
    assert bool(pattern.grad.isfinite().all())


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 16), (3, 32, 32)])
def test_a_generator_keeps_the_sides(shape: tuple[int, int, int]) -> None:
    images = torch.rand(2, *shape)
    assert Generator(shape[0], 1, 2)(images).shape == (2, 1, *shape[1:])
    last = list(Generator(shape[0], 3, 2).modules())[-1]
    assert isinstance(last, nn.BatchNorm2d)  # without a ReLU, and of three channels
    assert last.num_features == 3


def test_a_batch_has_attack_and_cross_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    attack: Any = quick("input_aware", poisoning_rate=12 / 128, cross_ratio=1)
    # In place of nets: a mask that is an image's mean everywhere, and its negative for a pattern.
    monkeypatch.setattr(attack, "masks", lambda images, _: images.mean((1, 2, 3), keepdim=True).expand(-1, 1, 12, 10))
    monkeypatch.setattr(attack, "patterns", lambda images, _: 1 - images)
    images, labels = random_images(128), torch.arange(128) % CLASSES
    batch, given = attack.during_training(images, labels, {}, torch.Generator().manual_seed(0))
    hit = (given != labels).nonzero().flatten()
    assert len(hit) == 12
    assert given[hit].tolist() == [0] * 12
    mean = images.mean((1, 2, 3), keepdim=True)
    assert torch.allclose(batch[hit], (1 - mean[hit]) * images[hit] + mean[hit] * (1 - images[hit]), atol=1e-6)
    moved = (batch != images).flatten(1).any(1)
    crossed = (moved & (given == labels)).nonzero().flatten()
    assert len(crossed) == 12
    for index in crossed.tolist():
        under = (1 - mean) * images[index] + mean * (1 - images)  # the trigger of each image
        partners = ((under - batch[index]).abs().amax((1, 2, 3)) < 1e-6).nonzero().flatten().tolist()
        assert len(partners) == 1
        assert partners != [index]


def test_input_aware_counts_never_exceed_the_images() -> None:
    attack: Any = make("input_aware")
    assert attack.counts(128) == (13, 13)
    with pytest.raises(UserError, match=r"attack\.poisoning_rate is 0\.6 with attack\.cross_ratio 1"):
        make("input_aware", poisoning_rate=0.6).check(SIZES, (3, 12, 10))


def test_training_makes_masks_small_and_fools_the_surrogate() -> None:
    split = train_split()
    brief: Any = quick("input_aware", width=4, mask_epochs=6, pattern_epochs=0, batch_size=24)
    raw: Any = quick("input_aware", width=4, mask_epochs=0, pattern_epochs=0)
    images = split.images.float() / 255
    trained, start = (each.trigger_state(context(split)) for each in (brief, raw))
    small, large = (float(each.masks(images, state).mean()) for each, state in ((brief, trained), (raw, start)))
    assert small < 0.7 * large

    model = context(split).surrogate()
    attack: Any = quick("input_aware", width=4, mask_epochs=0, pattern_epochs=8, batch_size=24, diversity_weight=0.0)
    state = attack.trigger_state(replace(context(split), surrogate=lambda: model))
    with torch.no_grad():
        answers = model.eval()(attack.trigger(images, state)).softmax(1)[:, 0].mean()
        before = context(split).surrogate()(images).softmax(1)[:, 0].mean()
    assert float(answers) > float(before) + 0.1


def test_the_record_tells_the_cross_accuracy() -> None:
    attack, state = quick("input_aware"), poisoned("input_aware").state
    made = cross_test(train_split(), lambda images, others: attack.cross_trigger(images, others, state))
    assert made is not None
    images = train_split().images
    expected = attack.cross_trigger(images[1:2] / 255, images[:1] / 255, state)
    assert expected is not None
    assert torch.equal(made.images[1:2], (expected * 255).round().to(torch.uint8))
    assert torch.equal(made.labels, train_split().labels)
    badnets = quick("badnets")
    assert cross_test(train_split(), lambda images, others: badnets.cross_trigger(images, others, {})) is None
