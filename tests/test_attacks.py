"""What every attack owes, tested for whatever the registry holds: a new attack is covered without an edit here."""

from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor, nn

from ntml_bench.attacks import ATTACKS, Attack, AttackContext, Poisoning
from ntml_bench.data.base import AugmentationConfig, Split
from ntml_bench.errors import UserError
from ntml_bench.schema import build

CONF = Path(__file__).parents[1] / "conf" / "attack"
NAMES = [path.stem for path in sorted(CONF.glob("*.yaml")) if path.stem in set(ATTACKS) and not ATTACKS[path.stem].from_files]
POISONING = [name for name in NAMES if name != "none"]
CLASSES, PER_CLASS = 4, 30
TOTAL = CLASSES * PER_CLASS
# The published values, where they would take long or would leave no poison among 120 images.
NO_AUGMENTATION = AugmentationConfig(crop_padding=0, horizontal_flip=False)
QUICK: dict[str, Any] = {"steps": 3, "rounds": 40, "batch_size": 16, "warmup_epochs": 1, "poisoning_rate": 0.1}
QUICK |= {"width": 2, "mask_epochs": 0, "pattern_epochs": 1, "generator_epochs": 1}
# Of one attack: a trigger that fits into the smallest images here.
QUICK_OF: dict[str, dict[str, Any]] = {"trojannn": {"trigger_size": 5, "margin": 1}}


def values(name: str) -> dict[str, Any]:
    loaded = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml"))
    assert isinstance(loaded, dict)
    return {str(key): value for key, value in loaded.items()}


def make(name: str, **changes: Any) -> Attack:
    attack = ATTACKS[name]
    return attack(build(attack.Config, values(name) | changes, "attack"))


def quick(name: str, **changes: Any) -> Attack:
    known = values(name)
    small = {key: value for key, value in QUICK.items() if known.get(key)}
    return make(name, **small | QUICK_OF.get(name, {}) | changes)


@cache
def train_split(shape: tuple[int, int, int] = (3, 12, 10)) -> Split:
    images = torch.randint(0, 256, (TOTAL, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Split(images, torch.arange(TOTAL) % CLASSES)


class Surrogate(nn.Module):
    """A convolution and a linear layer, not trained, in eval mode."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, 8, 3, padding=1)
        self.linear = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.convolution(images).relu().mean((2, 3)) * 10)


def context(
    split: Split,
    seed: int = 0,
    fine_tune: Callable[..., None] = lambda *_: None,
    augmentation: AugmentationConfig = NO_AUGMENTATION,
) -> AttackContext:
    def surrogate() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return Surrogate(split.images.shape[1]).eval()

    return AttackContext(split, CLASSES, seed, surrogate, fine_tune, augmentation)


@cache
def poisoned(name: str, seed: int = 0, shape: tuple[int, int, int] = (3, 12, 10)) -> Poisoning:
    return quick(name).poison(context(train_split(shape), seed))


@pytest.mark.parametrize("name", NAMES)
def test_the_published_rate_is_the_one_of_the_attacks_file(name: str) -> None:
    assert ATTACKS[name].published_rate == (values(name)["poisoning_rate"] or None)


def sizes(split: Split) -> Tensor:
    return split.labels.bincount(minlength=CLASSES)


def test_an_attack_is_a_class_and_a_yaml_file() -> None:
    assert {"none", "badnets", "blended", "sig", "lc", "wanet", "narcissus"} <= set(NAMES)
    assert {path.stem for path in CONF.glob("*.yaml")} <= set(ATTACKS)


@pytest.mark.parametrize("name", NAMES)
def test_every_value_of_the_yaml_reaches_the_config(name: str) -> None:
    assert asdict(make(name).config) == values(name)
    assert values(name)["name"] == name
    for key, value in values(name).items():
        if isinstance(value, int | float):
            changed = value / 2 if isinstance(value, float) else value + 1
            assert getattr(make(name, **{key: changed}).config, key) == changed


@pytest.mark.parametrize("name", NAMES)
def test_yaml_header_gives_the_command(name: str) -> None:
    assert f"#   ntml-bench attack={name}\n" in (CONF / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_poisoning_is_well_formed(name: str) -> None:
    attack, split, made = quick(name), train_split(), poisoned(name)
    assert made.indices.dtype == torch.int64
    assert made.indices.tolist() == sorted(set(made.indices.tolist()))
    assert made.images.dtype == torch.uint8
    assert made.images.shape == (len(made.indices), *split.images.shape[1:])
    assert made.labels.dtype == torch.int64
    assert len(made.labels) == len(made.is_poison) == len(made.indices)
    assert made.is_poison.dtype == torch.bool
    assert int(made.is_poison.sum()) == round(attack.config.poisoning_rate * TOTAL) == made.notes["poisons"]
    assert all(not tensor.requires_grad for tensor in made.state.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_state_of_the_trigger_alone_is_that_of_the_poisoning(name: str) -> None:
    alone, made = quick(name).trigger_state(context(train_split())), poisoned(name).state
    assert alone.keys() == made.keys()
    assert all(torch.equal(alone[key], value) for key, value in made.items())


@pytest.mark.parametrize("name", NAMES)
def test_labels_and_classes_of_the_poisons(name: str) -> None:
    attack, split, made = quick(name), train_split(), poisoned(name)
    true = split.labels[made.indices]
    targets = attack.targets(true, CLASSES)
    assert bool((made.labels[made.is_poison] == targets[made.is_poison]).all())
    assert bool((made.labels[~made.is_poison] == true[~made.is_poison]).all())
    assert bool(((true == targets)[made.is_poison] == attack.clean_label).all())


@pytest.mark.parametrize("name", NAMES)
def test_apply_changes_the_logged_images_and_no_other(name: str) -> None:
    split, made = train_split(), poisoned(name)
    images, labels = split.images.clone(), split.labels.clone()
    after = made.apply(split)
    assert torch.equal(split.images, images)
    assert torch.equal(split.labels, labels)
    used = (after.images != images).flatten(1).any(1).nonzero().flatten()
    assert used.tolist() == made.indices.tolist()
    assert set((after.labels != labels).nonzero().flatten().tolist()) <= set(made.indices.tolist())


@pytest.mark.parametrize("name", POISONING)
def test_the_seed_decides(name: str) -> None:
    again, other = quick(name).poison(context(train_split(), 0)), poisoned(name, seed=1)
    made = poisoned(name)
    assert torch.equal(again.indices, made.indices)
    assert torch.equal(again.images, made.images)
    assert torch.equal(again.labels, made.labels)
    assert all(torch.equal(again.state[key], made.state[key]) for key in made.state)
    assert made.indices.tolist() != other.indices.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_random_state_of_the_process_does_not_matter(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(123)
        before = torch.get_rng_state()
        again = quick(name).poison(context(train_split()))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(again.images, poisoned(name).images)


@pytest.mark.parametrize("name", POISONING)
def test_no_poison_at_rate_0(name: str) -> None:
    made = quick(name, poisoning_rate=0.0).poison(context(train_split()))
    assert len(made.indices) == 0
    assert torch.equal(made.apply(train_split()).images, train_split().images)


@pytest.mark.parametrize("name", POISONING)
def test_rate_beyond_the_available_images_names_the_largest_allowed(name: str) -> None:
    labels = torch.tensor([0] * 7 + [1] * 5 + [2] * 7 + [3] * 4)
    class_sizes = labels.bincount()
    if quick(name).target(CLASSES) is None:
        quick(name, poisoning_rate=1.0).check(class_sizes, (3, 32, 32))
        return  # every image can be poisoned
    with pytest.raises(UserError, match=r"attack\.poisoning_rate is 1\.0.*allowed: at most ") as caught:
        quick(name, poisoning_rate=1.0).check(class_sizes, (3, 32, 32))
    largest = float(str(caught.value).rsplit("at most ", 1)[1])
    allowed = quick(name, poisoning_rate=largest)
    target_size = int(class_sizes[allowed.config.target_class])
    available = target_size if allowed.clean_label else len(labels) - target_size
    assert largest == pytest.approx(available / len(labels), abs=1e-5)


@pytest.mark.parametrize("name", [name for name in POISONING if quick(name).target(CLASSES) is not None])
def test_the_largest_rate_that_the_message_allows_is_allowed(name: str) -> None:
    class_sizes = torch.tensor([7001, 5003, 7013, 3989])
    attack = quick(name, poisoning_rate=1.0)
    # An attack with covers has a second bound, for both together, which is the next message.
    for _ in range(2 if {"cross_ratio", "cover_ratio"} & values(name).keys() else 1):
        with pytest.raises(UserError, match="at most") as caught:
            attack.check(class_sizes, (3, 32, 32))
        attack = quick(name, poisoning_rate=float(str(caught.value).rsplit("at most ", 1)[1]))
    attack.check(class_sizes, (3, 32, 32))


@pytest.mark.parametrize("name", NAMES)
def test_target_class_beyond_the_classes(name: str) -> None:
    with pytest.raises(UserError, match=r"attack\.target_class is 4; the data set has 4 classes"):
        quick(name, target_class=CLASSES).check(sizes(train_split()), (3, 32, 32))


@pytest.mark.parametrize("name", NAMES)
def test_published_values_fit_cifar10(name: str) -> None:
    make(name).check(torch.full((10,), 5000), (3, 32, 32))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_trigger_keeps_kind_and_input(name: str, dtype: torch.dtype) -> None:
    images = torch.rand(5, 3, 12, 10, dtype=dtype, generator=torch.Generator().manual_seed(2))
    before = images.clone()
    triggered = quick(name).trigger(images, poisoned(name).state)
    assert torch.equal(images, before)
    assert triggered.shape == images.shape
    assert triggered.dtype == dtype
    assert triggered.device == images.device
    assert not triggered.requires_grad
    assert torch.equal(triggered, images) == (name == "none")


@pytest.mark.parametrize("name", NAMES)
def test_memory_layout_does_not_matter(name: str) -> None:
    images = torch.rand(5, 3, 12, 10, generator=torch.Generator().manual_seed(2))
    attack, state, labels = quick(name), poisoned(name).state, torch.arange(5) % CLASSES
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert torch.allclose(attack.trigger(channels_last, state), attack.trigger(images, state), atol=1e-6)
    if attack.controls_training:
        first, other = (
            attack.during_training(batch, labels, state, torch.Generator().manual_seed(0))[0]
            for batch in (images, channels_last)
        )
        assert torch.allclose(first, other, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=12)
@given(
    shape=st.sampled_from([(1, 8, 8), (3, 12, 10), (3, 9, 16)]),
    count=st.integers(0, 4),
    seed=st.integers(0, 1000),
    extreme=st.booleans(),
)
def test_triggered_images_are_images(name: str, shape: tuple[int, int, int], count: int, seed: int, extreme: bool) -> None:
    images = torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))
    images = images.round() if extreme else images
    state = poisoned(name, shape=shape).state
    triggered = quick(name).trigger(images, state)
    assert triggered.shape == images.shape
    assert triggered.dtype == images.dtype
    assert bool(((triggered >= 0) & (triggered <= 1)).all())
    # An image's trigger depends on that image alone.
    if count > 1:
        assert torch.allclose(quick(name).trigger(images[1:2], state), triggered[1:2], atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_only_an_attack_that_controls_the_training_is_asked_during_it(name: str) -> None:
    attack, split = quick(name), train_split()
    images, rng = split.images[:32].float() / 255, torch.Generator().manual_seed(0)
    if not attack.controls_training:
        with pytest.raises(TypeError, match="does not control the training"):
            attack.during_training(images, split.labels[:32], {}, rng)
        return
    before = images.clone()
    batch, labels = attack.during_training(images, split.labels[:32], poisoned(name).state, rng)
    assert torch.equal(images, before)
    assert batch.shape == images.shape
    assert batch.dtype == images.dtype
    assert labels.dtype == torch.int64
    assert bool(((batch >= 0) & (batch <= 1)).all())
