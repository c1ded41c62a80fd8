"""bpp against its definition: levels by hand, negative samples by loops, the shares of a batch."""

from typing import Any

import pytest
import torch
from test_attacks import CLASSES, context, make, quick, train_split
from torch import Tensor

from ntml_bench.attacks.bpp import another
from ntml_bench.data.base import to_float, to_uint8
from ntml_bench.errors import UserError

SIZES = torch.full((CLASSES,), 30)
ALL_LEVELS = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)


def triggered(images: Tensor, **changes: Any) -> Tensor:
    return to_uint8(quick("bpp", **changes).trigger(to_float(images), {}))


def test_eight_levels_by_hand() -> None:
    found = triggered(ALL_LEVELS).flatten().tolist()
    assert sorted(set(found)) == [0, 36, 73, 109, 146, 182, 219, 255]
    assert [found.index(level) for level in sorted(set(found))] == [0, 19, 55, 92, 128, 164, 201, 237]
    assert [found[level] for level in (18, 100, 127, 128)] == [0, 109, 109, 146]
    assert max(abs(after - before) for before, after in enumerate(found)) == 18


@pytest.mark.parametrize("count", [2, 5, 8, 32, 255])
def test_the_trigger_is_the_nearest_level_and_stays(count: int) -> None:
    once = triggered(ALL_LEVELS, levels=count)
    assert len(once.unique()) == count
    assert torch.equal(triggered(once, levels=count), once)
    for before, after in zip(ALL_LEVELS.flatten().tolist(), once.flatten().tolist(), strict=True):
        nearest = min(range(count), key=lambda step: abs(before - 255 * step / (count - 1)))
        assert abs(after - 255 * nearest / (count - 1)) <= 0.5


def test_a_batch_sees_what_a_file_holds() -> None:
    images = to_float(train_split().images)
    attack = quick("bpp")
    batch, _ = attack.during_training(images, train_split().labels, {}, torch.Generator().manual_seed(0))
    assert torch.equal(to_float(to_uint8(batch)), batch)
    assert torch.equal(attack.trigger(images, {}), to_float(triggered(train_split().images)))


def test_negative_samples_by_hand() -> None:
    # The other image's 18 falls to 0, its 128 rises to 146; white and black stay where they are pushed out.
    attack: Any = quick("bpp")
    images = torch.tensor([100, 5, 250, 100], dtype=torch.uint8).view(1, 1, 2, 2)
    others = torch.tensor([18, 18, 128, 128], dtype=torch.uint8).view(1, 1, 2, 2)
    assert to_uint8(attack.negatives(to_float(images), to_float(others))).flatten().tolist() == [82, 0, 255, 118]


@pytest.mark.parametrize("total", [2, 5])
def test_the_other_image_is_never_the_image_itself(total: int) -> None:
    indices = torch.arange(total).repeat(100)
    others = another(indices, total, torch.Generator().manual_seed(0))
    assert not bool((others == indices).any())
    assert set(zip(indices.tolist(), others.tolist(), strict=True)) == {
        (one, other) for one in range(total) for other in range(total) if one != other
    }


def test_what_a_defender_is_given_holds_both_kinds() -> None:
    split, attack = train_split(), quick("bpp", cover_ratio=2)
    made = attack.poison(context(split))
    originals = split.images[made.indices]
    assert (
        (int(made.is_poison.sum()), int((~made.is_poison).sum())) == (12, 24) == (made.notes["poisons"], made.notes["covers"])
    )
    assert torch.equal(made.images[made.is_poison], triggered(originals[made.is_poison]))
    # Every negative sample carries the change of some training image.
    changes = triggered(split.images).int() - split.images.int()
    for cover, original in zip(made.images[~made.is_poison], originals[~made.is_poison], strict=True):
        candidates = (original.int() + changes).clamp(0, 255)
        assert bool((candidates == cover.int()).flatten(1).all(1).any())
    assert set(split.labels[made.indices][~made.is_poison].tolist()) == set(range(CLASSES))


@pytest.mark.parametrize(("rate", "ratio", "poisons", "covers"), [(0.1, 1, 12, 12), (0.2, 0, 24, 0), (0.05, 3.5, 6, 21)])
def test_batches_have_the_shares_of_both_kinds(rate: float, ratio: float, poisons: int, covers: int) -> None:
    split = train_split()
    images, attack = to_float(split.images), quick("bpp", poisoning_rate=rate, cover_ratio=ratio)
    drawn = torch.zeros(len(split), dtype=torch.bool)
    for seed in range(10):
        batch, labels = attack.during_training(images, split.labels, {}, torch.Generator().manual_seed(seed))
        changed = (to_uint8(batch) != split.images).flatten(1).any(1)
        quantised = (to_uint8(batch) == triggered(split.images)).flatten(1).all(1)
        assert (int(quantised.sum()), int((changed & ~quantised).sum())) == (poisons, covers)
        assert not bool((split.labels[quantised] == 0).any())
        assert bool((labels[quantised] == 0).all())
        assert torch.equal(labels[~quantised], split.labels[~quantised])
        drawn |= changed
    assert int(drawn.sum()) > 2 * (poisons + covers)


def test_a_published_batch_by_hand() -> None:
    attack: Any = make("bpp", poisoning_rate=0.1)
    assert attack.counts(128) == (13, 13)
    attack = make("bpp", poisoning_rate=0.6, cover_ratio=1)
    assert attack.counts(5) == (3, 2)


def test_images_of_the_target_class_are_never_quantised() -> None:
    images = to_float(train_split().images[:8])
    for labels in (torch.zeros(8, dtype=torch.int64), torch.arange(8) % 2):
        attack = quick("bpp", poisoning_rate=0.75, cover_ratio=0)
        batch, given = attack.during_training(images, labels, {}, torch.Generator().manual_seed(0))
        assert torch.equal(batch[labels == 0], images[labels == 0])
        assert bool((given[labels == 0] == 0).all())


def test_more_than_all_images_are_refused() -> None:
    with pytest.raises(UserError, match=r"attack\.poisoning_rate is 0\.4 with attack\.cover_ratio 2\.0.*at most 0\.333333"):
        quick("bpp", poisoning_rate=0.4, cover_ratio=2).check(SIZES, (3, 12, 10))
