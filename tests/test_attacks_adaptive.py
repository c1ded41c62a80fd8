"""adaptive_blend and adaptive_patch against their definitions: blocks, groups, opacities, counts of poisons and covers."""

from collections import Counter
from typing import Any

import pytest
import torch
from test_attacks import CLASSES, context, make, quick
from torch import Tensor

from ntml_bench.attacks.adaptive_blend import block_mask
from ntml_bench.attacks.adaptive_patch import NAMES, patch_mask
from ntml_bench.attacks.base import Poisoning
from ntml_bench.data.base import Split, to_float, to_uint8
from ntml_bench.errors import UserError

SIZES = torch.full((CLASSES,), 30)
ADAPTIVE = ["adaptive_blend", "adaptive_patch"]


def black(count: int = 120, size: int = 32) -> Split:
    return Split(torch.zeros(count, 3, size, size, dtype=torch.uint8), torch.arange(count) % CLASSES)


def made_on(split: Split, name: str, seed: int = 0, **changes: Any) -> Poisoning:
    return quick(name, **changes).poison(context(split, seed))


@pytest.mark.parametrize(("name", "covers"), [("adaptive_blend", 12), ("adaptive_patch", 24)])
def test_counts_and_labels_of_poisons_and_covers(name: str, covers: int) -> None:
    split = black()
    made = made_on(split, name)
    assert (
        (int(made.is_poison.sum()), int((~made.is_poison).sum()))
        == (12, covers)
        == (made.notes["poisons"], made.notes["covers"])
    )
    assert torch.equal(made.labels[~made.is_poison], split.labels[made.indices][~made.is_poison])
    assert bool((made.labels[made.is_poison] == 0).all())
    # None is of the target class, where a cover would be a poison.
    assert bool((split.labels[made.indices] != 0).all())


def test_the_published_counts() -> None:
    for name, covers in (("adaptive_blend", 150), ("adaptive_patch", 300)):
        attack: Any = make(name)
        assert attack.counts(50_000) == (150, covers)
        assert attack.touched(50_000) == 150 + covers


@pytest.mark.parametrize("name", ADAPTIVE)
def test_covers_fit_beside_the_poisons(name: str) -> None:
    allowed = quick(name, poisoning_rate=0.25, cover_ratio=2)
    allowed.check(SIZES, (3, 32, 32))
    made = allowed.poison(context(black()))
    assert (int(made.is_poison.sum()), len(made.indices)) == (30, 90)
    with pytest.raises(UserError, match=r"attack\.cover_ratio 2\.0: more than all images of the other classes.*at most 0\.25"):
        quick(name, poisoning_rate=0.3, cover_ratio=2).check(SIZES, (3, 32, 32))
    assert len(made_on(black(), name, cover_ratio=0).indices) == 12


def test_blend_keeps_its_own_half_of_the_blocks() -> None:
    split = black()
    # The pattern is noise of 0 to 255; alpha 1 shows it as it is, so that every block that is kept is seen.
    made = made_on(split, "adaptive_blend", alpha=1.0)
    pattern = (made.state["pattern"] * 255).round().to(torch.uint8)
    drawn = Counter()
    places = [(row, column) for row in range(4) for column in range(4)]
    wanted = pattern.unfold(1, 8, 8).unfold(2, 8, 8)
    for image in made.images:
        blocks = image.unfold(1, 8, 8).unfold(2, 8, 8)
        kept = tuple(place for place in places if torch.equal(blocks[:, *place], wanted[:, *place]))
        assert len(kept) == 8
        assert all(int(blocks[:, *place].max()) == 0 for place in places if place not in kept)
        drawn[kept] += 1
    assert len(drawn) > 20
    assert all(any(place in kept for kept in drawn) for place in ((0, 0), (0, 3), (3, 0), (3, 3)))


def test_blend_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ntml_bench.attacks.adaptive_blend.noise_pattern", lambda *shape_and_rng: torch.ones(shape_and_rng[:3]))
    made = made_on(black(), "adaptive_blend")
    assert set(made.images.flatten().tolist()) == {0, 38}
    assert ((made.images == 38).sum((1, 2, 3)) == 3 * 512).all()
    triggered = to_uint8(make("adaptive_blend").trigger(torch.zeros(2, 3, 32, 32), made.state))
    assert set(triggered.flatten().tolist()) == {51}


def test_a_mask_of_blocks_goes_row_by_row() -> None:
    kept = torch.zeros(1, 4, dtype=torch.bool)
    kept[0, 1] = True
    assert block_mask(kept, 4, 6)[0, 0].tolist() == [[0, 0, 0, 1, 1, 1]] * 2 + [[0] * 6] * 2


def test_blend_refuses_what_cannot_be_cut() -> None:
    make("adaptive_blend", poisoning_rate=0.1).check(SIZES, (3, 12, 28))
    with pytest.raises(UserError, match=r"attack\.grid_size is 4: images of 30 x 32 cannot be cut"):
        quick("adaptive_blend").check(SIZES, (3, 30, 32))
    with pytest.raises(UserError, match=r"attack\.kept_blocks is 17 with attack\.grid_size 4; allowed: at most 16"):
        quick("adaptive_blend", kept_blocks=17).check(SIZES, (3, 32, 32))


def test_places_and_sizes_of_the_patches() -> None:
    masks = {name: patch_mask(name, 32, 32) for name in NAMES}
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"emblem": 25, "disc": 137, "square": 64, "checkers": 36}

    def box(mask: Tensor) -> tuple[int, int, int, int]:
        rows, columns = mask.nonzero().T.tolist()
        return min(rows), max(rows), min(columns), max(columns)

    assert box(masks["emblem"]) == (27, 31, 27, 31)
    assert box(masks["disc"]) == (1, 13, 18, 30)
    assert box(masks["square"]) == (21, 28, 21, 28)
    corners = torch.zeros(32, 32)
    for rows in (slice(0, 3), slice(29, 32)):
        for columns in (slice(0, 3), slice(29, 32)):
            corners[rows, columns] = 1
    assert torch.equal(masks["checkers"], corners)
    both = patch_mask("emblem", 32, 32, test=True)
    assert torch.equal(both, (masks["emblem"] + masks["emblem"].flip(1)).clamp(max=1))
    # Twice the side, four times the pixels, in the same place.
    for name in NAMES:
        assert torch.equal(patch_mask(name, 64, 64), masks[name].repeat_interleave(2, 0).repeat_interleave(2, 1))


@pytest.mark.parametrize("side", [11, 12, 17, 28, 31, 48])
def test_every_patch_is_there_in_every_size_that_is_allowed(side: int) -> None:
    for name in NAMES:
        mask = patch_mask(name, side, side)
        assert int(mask.sum()) > 0
        if name == "checkers":
            assert float(mask[0, 0] + mask[0, -1] + mask[-1, 0] + mask[-1, -1]) == 4


def test_patch_groups_are_equal_and_carry_one_faint_trigger_each() -> None:
    split = Split(torch.full((120, 3, 32, 32), 100, dtype=torch.uint8), torch.arange(120) % CLASSES)
    attack: Any = quick("adaptive_patch")
    made = attack.poison(context(split))
    opacities = {"emblem": 0.5, "disc": 0.2, "square": 0.3, "checkers": 0.5}
    expected = {
        name: 100 + opacity * patch_mask(name, 32, 32) * (255 * attack.colours(name, to_float(split.images)) - 100)
        for name, opacity in opacities.items()
    }
    for part in (made.is_poison, ~made.is_poison):
        found = Counter()
        for image in made.images[part]:
            (name,) = [name for name, picture in expected.items() if float((image - picture).abs().max()) < 0.51]
            found[name] += 1
        assert max(found.values()) - min(found.values()) <= 1
        assert set(found) == set(NAMES)
    # Which image carries which is drawn: it does not follow the order of the images.
    first, second = (made_on(split, "adaptive_patch", seed).images for seed in (0, 1))
    assert not torch.equal(first, second)


def test_patches_at_test_are_opaque() -> None:
    attack: Any = quick("adaptive_patch")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = attack.trigger(images, {})
    colours = {name: attack.colours(name, images) for name in NAMES}
    corners, emblems = patch_mask("checkers", 32, 32).bool(), patch_mask("emblem", 32, 32, test=True).bool()
    for row in range(32):
        for column in range(32):
            pixel = found[:, :, row, column]
            if corners[row, column]:
                assert bool((pixel == colours["checkers"][:, row, column]).all())
                inner = min(row, 31 - row) + min(column, 31 - column)
                assert pixel.unique().tolist() == [1.0 - inner % 2]
            elif emblems[row, column]:
                assert bool((pixel == colours["emblem"][:, row, column]).all())
            else:
                assert torch.equal(pixel, images[:, :, row, column])
    assert torch.equal(colours["emblem"][:, -5:, :5], colours["emblem"][:, -5:, -5:])
    other = quick("adaptive_patch", test_triggers=["disc", "square"]).trigger(images, {})
    changed = (other != images).any(0).any(0)
    assert torch.equal(changed, (patch_mask("disc", 32, 32) + patch_mask("square", 32, 32)).bool())


def test_patch_colours_follow_their_own_seed() -> None:
    images = torch.zeros(1, 3, 32, 32)
    first, again, other = (quick("adaptive_patch", pattern_seed=seed).trigger(images, {}) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(to_float(to_uint8(first)), first)


def test_patch_refuses_what_does_not_fit() -> None:
    with pytest.raises(UserError, match="takes images of at least 11 x 11 pixels, not of 12 x 10"):
        quick("adaptive_patch").check(SIZES, (3, 12, 10))
    for asked in ([], ["emblem", "emblem"], ["emblem", "disk"]):
        with pytest.raises(UserError, match=r"attack\.test_triggers is .*; allowed: .* of emblem, disc, square, checkers"):
            quick("adaptive_patch", test_triggers=asked).check(SIZES, (3, 32, 32))
