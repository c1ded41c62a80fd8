"""Distances by hand and against loops, the plane on features made by hand, and what is chosen to be shown."""

from dataclasses import replace
from math import exp, inf, log10, sqrt
from typing import Any

import numpy as np
import pytest
import torch
from builders import CLASSES, ENGINE, classifier, images_of, split
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ntml_bench.data import ImageData, Split
from ntml_bench.evaluation import TriggeredTest, evaluate, triggered_test
from ntml_bench.exhibits.choice import by_turns, sample
from ntml_bench.exhibits.distances import linf, psnr, ssim
from ntml_bench.exhibits.gallery import gallery
from ntml_bench.exhibits.model import exhibit, features_and_logits
from ntml_bench.exhibits.plane import plane_of
from ntml_bench.models import Classifier


def noise(count: int, shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


# Distances.


def test_psnr_by_hand() -> None:
    black = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    other = black.clone()
    other[1, 0, 0, 0] = 10  # a mean squared error of 25
    other[2] = 255
    assert psnr(black, other).tolist() == [inf, pytest.approx(20 * log10(255 / 5)), 0.0]


def test_linf_counts_levels_in_both_directions() -> None:
    one, other = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8), torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    other[0, 2, 3, 3], other[0, 0, 0, 0] = 0, 130
    assert linf(one, other).tolist() == [100.0, 0.0]


def ssim_by_loop(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any], side: int) -> float:
    """Of two images [C, H, W], with a window of side x side, place by place as the publication has it."""
    half = side // 2
    window = [[exp(-(i * i + j * j) / (2 * 1.5**2)) for j in range(-half, half + 1)] for i in range(-half, half + 1)]
    total = sum(map(sum, window))
    values = []
    for channel in range(one.shape[0]):
        for row in range(one.shape[1] - side + 1):
            for column in range(one.shape[2] - side + 1):
                weights, xs, ys = [], [], []
                for i in range(side):
                    for j in range(side):
                        weights.append(window[i][j] / total)
                        xs.append(float(one[channel, row + i, column + j]))
                        ys.append(float(other[channel, row + i, column + j]))
                mx = sum(w * x for w, x in zip(weights, xs, strict=True))
                my = sum(w * y for w, y in zip(weights, ys, strict=True))
                vx = sum(w * (x - mx) ** 2 for w, x in zip(weights, xs, strict=True))
                vy = sum(w * (y - my) ** 2 for w, y in zip(weights, ys, strict=True))
                cov = sum(w * (x - mx) * (y - my) for w, x, y in zip(weights, xs, ys, strict=True))
                c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
                values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2)))
    return sum(values) / len(values)


@pytest.mark.parametrize(("shape", "side"), [((3, 13, 14), 11), ((1, 11, 12), 11), ((1, 8, 8), 7), ((1, 5, 5), 5)])
def test_ssim_against_a_loop(shape: tuple[int, int, int], side: int) -> None:
    one = noise(3, shape)
    other = one.clone()
    other[1] = (one[1].float() * 0.7 + 30).to(torch.uint8)
    other[2] = noise(1, shape, seed=5)[0]
    expected = [ssim_by_loop(a.numpy(), b.numpy(), side) for a, b in zip(one, other, strict=True)]
    assert ssim(one, other).tolist() == pytest.approx(expected, abs=1e-9)


@given(seed=st.integers(0, 1000), channels=st.sampled_from([1, 3]), height=st.integers(1, 20), width=st.integers(1, 20))
@settings(max_examples=40)
def test_what_holds_for_any_images(seed: int, channels: int, height: int, width: int) -> None:
    one, other = noise(2, (channels, height, width), seed), noise(2, (channels, height, width), seed + 1)
    assert ssim(one, one).tolist() == pytest.approx([1.0, 1.0], abs=1e-12)
    assert torch.allclose(ssim(one, other), ssim(other, one))
    assert bool((ssim(one, other) <= 1 + 1e-12).all())
    assert torch.equal(psnr(one, other), psnr(other, one))
    # No pixel differs by more than the largest difference.
    assert bool((psnr(one, other) >= 20 * (255 / linf(one, other)).log10() - 1e-9).all())


def test_distances_do_not_depend_on_batches() -> None:
    one, other = noise(120, (1, 12, 12)), noise(120, (1, 12, 12), seed=3)
    for distance in (psnr, ssim, linf):
        alone = torch.cat([distance(one[[i]], other[[i]]) for i in range(0, 120, 17)])
        assert torch.allclose(distance(one, other)[::17], alone)


# What is chosen.


@given(labels=st.lists(st.integers(0, 12), min_size=1, max_size=60), count=st.integers(1, 10))
def test_images_are_chosen_by_turns(labels: list[int], count: int) -> None:
    chosen = by_turns(torch.tensor(labels), count).tolist()
    assert len(chosen) == len(set(chosen)) == min(count, len(labels))
    found = [labels[index] for index in chosen]
    # As many classes as there can be, and no second image of one before the first of each.
    assert len(set(found)) == min(count, len(set(labels)))
    assert len(set(found[: len(set(labels))])) == min(count, len(set(labels)))
    if len(set(labels)) > count > 1:
        assert {min(labels), max(labels)} <= set(found)
    for label in set(found):
        positions = [index for index, given_label in enumerate(labels) if given_label == label]
        assert [index for index in chosen if labels[index] == label] == positions[: found.count(label)]


def test_a_sample_is_one_list_of_all_classes() -> None:
    labels = torch.arange(1000) % 10
    chosen = sample(labels, 300, "clean")
    assert torch.equal(chosen, sample(labels, 300, "clean"))
    assert not torch.equal(chosen, sample(labels, 300, "triggered"))
    assert labels[chosen].bincount().tolist() == [30] * 10
    assert sample(labels[:7], 300, "clean").tolist() == list(range(7))


def data_of(count: int = 80, shape: tuple[int, int, int] = (3, 12, 12)) -> ImageData:
    return ImageData(split(16, shape), split(count, shape, seed=4), ("ant", "bee", "cat", "dog"), "0" * 16, "0" * 16)


def corner(images: Tensor) -> Tensor:
    result = images.clone()
    result[:, :, -3:, -3:] = 1.0
    return result


def test_a_gallery_shows_the_evaluators_images() -> None:
    data = data_of()
    triggered = triggered_test(data.test, corner, 1)
    made = gallery(data, triggered)
    clean, shown = made.tensors["clean"], made.tensors["triggered"]
    assert clean.dtype == shown.dtype == torch.uint8
    assert clean.shape == shown.shape == (8, 12, 12, 3)
    assert made.record["classes"] == ["ant", "cat", "dog", "ant", "cat", "dog", "ant", "cat"]
    assert made.record["target"] == "bee"
    names = {tuple(image.flatten().tolist()): data.class_names[label] for image, label in zip(*pair(data.test), strict=True)}
    for image, changed, name in zip(clean, shown, made.record["classes"], strict=True):
        channels_first = image.permute(2, 0, 1)
        assert names[tuple(channels_first.flatten().tolist())] == name
        expected = (corner(channels_first[None].float() / 255) * 255).round().to(torch.uint8)[0]
        assert torch.equal(changed.permute(2, 0, 1), expected)
    # All 60 images of other classes are fewer than are measured at most.
    others = data.test[data.test.labels != 1].images
    assert made.record["images"] == 60
    assert made.record["psnr"] == pytest.approx(float(psnr(others, triggered.split.images).mean()))
    assert made.record["ssim"] == pytest.approx(float(ssim(others, triggered.split.images).mean()))
    assert made.record["linf"] == pytest.approx(float(linf(others, triggered.split.images).mean()))


def pair(images: Split) -> tuple[Tensor, Tensor]:
    return images.images, images.labels


def test_images_that_are_not_changed_have_no_part_in_the_mean_psnr() -> None:
    data = data_of(8)
    # Two of the six other images are changed, by 10 levels everywhere.
    triggered = triggered_test(data.test, lambda images: images, 0)
    triggered.split.images[:2] = 50
    data.test.images[data.test.labels != 0] = triggered.split.images
    triggered.split.images[:2] = 60
    record = gallery(data, triggered).record
    assert record["psnr"] == pytest.approx(20 * log10(25.5))
    assert record["linf"] == pytest.approx(10 * 2 / 6)
    unchanged = gallery(data, triggered_test(data.test, lambda images: images, 0)).record
    assert (unchanged["psnr"], unchanged["linf"]) == (None, 0.0)
    assert unchanged["ssim"] == pytest.approx(1.0)


# The plane.


def test_the_plane_by_hand() -> None:
    # Others around (1, 1, 1): spread along the third coordinate; the target class 4 to the right of them.
    features = torch.tensor([[1.0, 1, 3], [1, 1, -1], [1, 1.5, 1], [1, 0.5, 1], [5, 1, 1], [5, 1, 1]])
    labels = torch.tensor([0, 2, 2, 2, 1, 1])
    plane = plane_of(features, labels, 1)
    assert plane.origin.tolist() == [1, 1, 1]
    places = plane.places(features)
    # In units of the distance of the means; class 0, the first of the others, lies above.
    expected = [[0, 0.5], [0, -0.5], [0, 0], [0, 0], [1, 0], [1, 0]]
    assert torch.allclose(places, torch.tensor(expected), atol=1e-6)
    assert torch.allclose(plane.places(torch.tensor([[3.0, 77, 2]])), torch.tensor([[0.5, 0.25]]), atol=1e-6)
    below = plane_of(features, torch.tensor([2, 0, 2, 2, 1, 1]), 1)
    assert torch.allclose(below.places(features), places * torch.tensor([1, -1]), atol=1e-6)


@given(seed=st.integers(0, 10_000), size=st.integers(2, 12), target=st.integers(0, 3))
@settings(max_examples=50)
def test_what_the_plane_promises(seed: int, size: int, target: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(40) % 4
    features = torch.randn(40, size, generator=rng) * (1 + torch.arange(size)) + 3 * labels[:, None]
    plane = plane_of(features, labels, target)
    places = plane.places(features).double()
    is_target = labels == target
    assert torch.allclose(places[is_target].mean(0)[0], torch.tensor(1.0, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(places[~is_target].mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-5)
    x, y = plane.axes.T
    assert float(x @ y) == pytest.approx(0, abs=1e-9)
    assert float(x.norm()) == pytest.approx(float(y.norm()))
    # No direction across x has more spread than y.
    unit = x / x.norm()
    rest = features.double() - features.double().mean(0)
    rest = rest - (rest @ unit)[:, None] * unit
    largest = float(torch.linalg.svdvals(rest)[0])
    assert float((rest @ y / y.norm()).norm()) == pytest.approx(largest, rel=1e-6)
    moved = plane_of(2.5 * features + 7, labels, target).places(2.5 * features + 7).double()
    assert torch.allclose(moved, places, atol=1e-3)


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 0, 2], [0, 1, 2]])
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_where_nothing_differs_all_is_at_the_origin(labels: list[int], value: float) -> None:
    features = torch.full((3, 5), value)
    places = plane_of(features, torch.tensor(labels), 1).places(features)
    assert torch.allclose(places, torch.zeros(3, 2), atol=1e-6)


def test_without_the_target_class_x_is_silent() -> None:
    features = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    places = plane_of(features, torch.arange(20) % 3 + 1, 0).places(features)
    assert places[:, 0].abs().max() == 0
    assert places[:, 1].abs().max() > 0


def test_without_one_target_the_plane_is_of_the_two_largest_spreads() -> None:
    # Around (1, 2, 3): the largest spread along the second coordinate (3, 3, -3, -3), then along the third.
    features = torch.tensor([[1.0, 5, 4], [1, 5, 2], [1, -1, 4], [1, -1, 2]])
    plane = plane_of(features, torch.arange(4), None)
    assert plane.origin.tolist() == [1, 2, 3]
    places = plane.places(features)
    assert torch.allclose(places.abs(), torch.tensor([[1, 1 / 3]] * 4), atol=1e-6)
    assert places[:, 0].sum() == pytest.approx(0, abs=1e-6)
    assert float((places[:, 0] * places[:, 1]).sum()) == pytest.approx(0, abs=1e-6)
    same = torch.ones(3, 5)
    assert torch.equal(plane_of(same, torch.arange(3), None).places(same), torch.zeros(3, 2))


# The exhibit of a model.


def scene(count: int = 60) -> tuple[Split, TriggeredTest]:
    test = split(count, seed=3)
    return test, triggered_test(test, corner, 2)


def test_an_exhibit_is_of_the_features_that_the_head_reads() -> None:
    model, (test, triggered) = classifier(), scene()
    made = exhibit(ENGINE, model, test, triggered).tensors
    trunk = classifier()
    trunk.net.fc = nn.Identity()  # the same net without its head
    with torch.no_grad():
        clean, poisoned = (trunk(ENGINE.images(images)) for images in (test.images, triggered.split.images))
        answers = model(ENGINE.images(triggered.split.images)).softmax(1)
    plane = plane_of(clean, test.labels, 2)
    assert torch.allclose(made["clean_map"], plane.places(clean), atol=1e-5)
    assert torch.allclose(made["triggered_map"], plane.places(poisoned), atol=1e-5)
    assert torch.equal(made["clean_labels"], test.labels)
    assert torch.equal(made["triggered_labels"], triggered.split.labels)
    expected = 100 * answers[torch.arange(len(answers)), triggered.split.labels]
    assert torch.allclose(made["true_class_probability"], expected, atol=1e-3)
    metrics = evaluate(ENGINE, model, test, triggered)
    assert float(made["true_class_probability"].mean()) == pytest.approx(metrics["true_class_probability"], abs=1e-3)
    assert {value.dtype for value in made.values()} == {torch.float32, torch.int64}


def test_an_exhibit_is_the_same_every_time_and_holds_some_images_of_many() -> None:
    test = images_of(torch.arange(900) % CLASSES, seed=8)
    triggered = triggered_test(test, corner, 0)
    one, other = (exhibit(ENGINE, classifier(), test, triggered).tensors for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one["clean_map"].shape == one["triggered_map"].shape == (300, 2)
    assert one["clean_labels"].bincount().tolist() == [75] * 4
    assert one["triggered_labels"].bincount().tolist() == [0, 100, 100, 100]
    # The images do not depend on the model.
    assert torch.equal(exhibit(ENGINE, classifier(seed=5), test, triggered).tensors["clean_labels"], one["clean_labels"])


def test_a_look_leaves_no_hook_behind() -> None:
    model, (test, triggered) = classifier(), scene()
    exhibit(ENGINE, model, test, triggered)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_net_without_a_linear_head_is_seen_by_its_logits() -> None:
    class Headless(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, CLASSES)

        def get_classifier(self) -> nn.Module:
            return nn.Identity()

        def forward(self, images: Tensor) -> Tensor:
            return self.layer(images.mean((2, 3)))

    model = Classifier(Headless(), torch.full((3,), 0.5), torch.ones(3))
    features, logits = features_and_logits(ENGINE, model, split(10).images)
    assert torch.equal(features, logits)
    assert logits.shape == (10, CLASSES)


def test_a_model_of_no_numbers_is_at_the_origin() -> None:
    model, (test, triggered) = classifier(), scene()
    with torch.no_grad():
        for weights in model.parameters():
            weights.fill_(torch.nan)
    made = exhibit(ENGINE, model, test, triggered).tensors
    assert made["clean_map"].abs().max() == made["triggered_map"].abs().max() == made["true_class_probability"].max() == 0


def test_a_label_map_has_a_gallery_and_an_exhibit_of_all_images() -> None:
    data = data_of(40)
    triggered = triggered_test(data.test, corner, (data.test.labels + 1) % CLASSES)
    shown = gallery(data, triggered)
    assert (shown.record["target"], shown.record["images"]) == (None, 40)
    assert shown.record["classes"] == ["ant", "bee", "cat", "dog"] * 2
    made = exhibit(ENGINE, classifier(shape=(3, 12, 12)), data.test, triggered)
    assert made.record == {"target_class": None}
    assert len(made.tensors["triggered_map"]) == 40


def test_the_distance_of_the_means_is_one() -> None:
    model, (test, triggered) = classifier(), scene()
    made = exhibit(ENGINE, model, test, replace(triggered, target_class=2)).tensors
    of_target = made["clean_map"][made["clean_labels"] == 2].mean(0)
    assert float(of_target[0]) == pytest.approx(1.0, abs=1e-5)
    assert sqrt(float((made["clean_map"][made["clean_labels"] != 2].mean(0) ** 2).sum())) == pytest.approx(0, abs=1e-5)
