"""The embedded data: plain digits, and scenes composed of them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from ntml_bench.data import DATASETS
from ntml_bench.data.base import Split
from ntml_bench.data.digit_scenes import LUMINANCE, DigitScenes, DigitScenesConfig, _colours, _of_class, _placed, compose
from ntml_bench.data.digits import Digits, DigitsConfig, split_digits
from ntml_bench.errors import UserError
from ntml_bench.schema import build

CONF = Path(__file__).parents[1] / "conf" / "dataset"


@pytest.fixture(scope="module")
def config() -> DigitScenesConfig:
    values = OmegaConf.to_container(OmegaConf.load(CONF / "digit_scenes.yaml"))
    assert isinstance(values, dict)
    return replace(
        build(DigitScenesConfig, {str(key): value for key, value in values.items()}, "dataset"), train_size=205, test_size=30
    )


@pytest.fixture(scope="module")
def digits() -> tuple[Split, Split]:
    return split_digits(0.25, 0)


def test_no_source_digit_is_in_both_sets(digits: tuple[Split, Split]) -> None:
    train, test = digits
    assert (len(train), len(test)) == (1348, 449)
    pixels = torch.cat([train.images, test.images]).flatten(1)
    assert len(pixels.unique(dim=0)) == 1797
    assert pixels.min() == 0
    assert pixels.max() == 1
    assert (test.labels.bincount() - 44.9).abs().max() < 2
    assert not torch.equal(split_digits(0.25, 1)[1].images, test.images)


def test_scenes_are_balanced_and_depend_on_the_recipe_seed_alone(config: DigitScenesConfig) -> None:
    train, test, names = DigitScenes(config).raw(Path())
    assert names == tuple("0123456789")
    assert train.images.shape == (205, 3, 32, 32)
    assert train.images.dtype == torch.uint8
    assert sorted(train.labels.bincount().tolist()) == [20] * 5 + [21] * 5
    assert test.labels.bincount().tolist() == [3] * 10
    again, _, _ = DigitScenes(replace(config, train_limit=3, holdout=0.1)).raw(Path())
    assert torch.equal(train.images, again.images)
    other, _, _ = DigitScenes(replace(config, recipe_seed=1)).raw(Path())
    assert not torch.equal(train.images, other.images)


def test_scenes_fill_the_range_of_light(config: DigitScenesConfig, digits: tuple[Split, Split]) -> None:
    scenes = compose(digits[0], 100, config, torch.Generator().manual_seed(0)).images.float()
    assert 90 < scenes.mean() < 165
    assert scenes.std() > 50
    # No corner is a feature: over many scenes it is as varied as the rest.
    assert scenes[:, :, 29:, 29:].mean((2, 3)).std() > 40


def test_without_any_disturbance_a_scene_is_two_colours(config: DigitScenesConfig, digits: tuple[Split, Split]) -> None:
    calm = replace(config, noise=0.0, texture=0.0, gradient=0.0, neighbour_share=0.0, shift=0.0, tilt=0.0)
    scenes = compose(digits[0], 20, calm, torch.Generator().manual_seed(0)).images.float()
    light = (scenes * LUMINANCE.view(1, 3, 1, 1)).sum(1)
    paper = light[:, 0, 0]
    contrast = (light - paper[:, None, None]).abs().flatten(1).amax(1)
    assert (contrast >= calm.contrast_min - 2).all()
    assert (contrast <= calm.contrast_max + 2).all()


def test_contrast_is_guaranteed_and_colours_are_in_range(config: DigitScenesConfig) -> None:
    paper, pen = _colours(2000, config, torch.Generator().manual_seed(0))
    colours = torch.cat([paper, pen]).flatten(1)
    assert colours.min() >= -1e-5
    assert colours.max() <= 1 + 1e-5
    contrast = ((pen - paper).flatten(1) @ LUMINANCE).abs() * 255
    assert contrast.min() >= config.contrast_min - 0.01
    assert contrast.max() <= config.contrast_max + 0.01


def test_a_digit_is_placed_where_it_should_be() -> None:
    full = torch.ones(1, 1, 8, 8)
    drawn = _placed(full, torch.tensor([16.0]), torch.tensor([0.0]), torch.tensor([[4.0, -4.0]]))[0, 0]
    # 16 pixels wide, 4 pixels right of and above the middle; half a source pixel (1) of soft edge around it.
    assert drawn[5:19, 13:27].min() == 1
    outside = drawn.clone()
    outside[3:21, 11:29] = 0
    assert outside.abs().max() == 0


def test_source_digits_are_of_the_wanted_class_and_all_are_used() -> None:
    source = torch.tensor([3, 1, 0, 2, 4, 5, 6, 7, 8, 9, 3, 3])
    wanted = torch.tensor([3] * 100 + [9])
    chosen = _of_class(source, wanted, torch.Generator().manual_seed(0))
    assert torch.equal(source[chosen], wanted)
    assert set(chosen.tolist()) == {0, 10, 11, 9}


def test_a_range_the_wrong_way_round_is_refused(config: DigitScenesConfig) -> None:
    with pytest.raises(UserError, match=r"dataset\.digit_size_min is 28.5; allowed: at most dataset\.digit_size_max"):
        DigitScenes(replace(config, digit_size_min=28.5)).source()


def test_source_names_the_recipe_only(config: DigitScenesConfig) -> None:
    source = DigitScenes(config).source()
    assert source == DigitScenes(replace(config, train_limit=7, holdout=0.2)).source()
    assert source != DigitScenes(replace(config, noise=11.0)).source()


def test_plain_digits() -> None:
    assert DATASETS["digits"] is Digits
    values = OmegaConf.to_container(OmegaConf.load(CONF / "digits.yaml"))
    assert isinstance(values, dict)
    config = build(DigitsConfig, {str(key): value for key, value in values.items()}, "dataset")
    train, test, names = Digits(replace(config, image_size=16)).raw(Path())
    assert train.images.shape == (1348, 3, 16, 16)
    assert (len(test), len(names)) == (449, 10)
    assert torch.equal(train.images[:, 0], train.images[:, 2])
    assert train.images.max() == 255
    assert Digits(config).source() != Digits(replace(config, image_size=16)).source()
