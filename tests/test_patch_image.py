"""A trigger that is a file of the user's: where it lies, how strongly, and that badnets and blended are cases of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_attacks import CLASSES, TOTAL, context, make, sizes, train_split, values
from torch import Tensor

from ntml_bench.attacks import ATTACKS, Attack
from ntml_bench.attacks.blended import noise_pattern
from ntml_bench.errors import UserError
from ntml_bench.schema import build
from ntml_bench.seeding import generator

SHAPE = (3, 12, 10)


def patch(**image: Any) -> Attack:
    found = values("patch_image")
    found["image"] = found["image"] | image
    return ATTACKS["patch_image"](build(ATTACKS["patch_image"].Config, found, "attack"))


def saved(path: Path, pixels: Any) -> str:
    array = np.asarray(pixels, dtype=np.uint8)
    Image.fromarray(array).save(path)
    return str(path)


def triggered(attack: Attack, image: float = 0.0) -> Tensor:
    """One image of a single value under the trigger, [3, H, W]."""
    attack.check(sizes(train_split()), SHAPE)
    return attack.trigger(torch.full((1, *SHAPE), image), attack.trigger_state(context(train_split())))[0]


def test_it_lies_where_it_is_told_and_nowhere_else(tmp_path: Path) -> None:
    file = saved(tmp_path / "t.png", [[[255, 0, 51], [0, 255, 51]]])
    for row, column, where in ((2, 3, (2, 3)), (-1, -2, (11, 8))):
        found = triggered(patch(file=file, row=row, column=column), 0.5)
        top, left = where
        assert found[:, top, left].tolist() == pytest.approx([1, 0, 0.2])
        assert found[:, top, left + 1].tolist() == pytest.approx([0, 1, 0.2])
        assert int((found != 0.5).any(0).sum()) == 2


def test_mask_transparency_and_opacity_say_how_strongly(tmp_path: Path) -> None:
    file = saved(tmp_path / "t.png", [[[255, 255, 255], [255, 255, 255]]])
    mask = saved(tmp_path / "m.png", [[0, 51]])
    assert triggered(patch(file=file, mask=mask))[0, 0, :2].tolist() == pytest.approx([0, 0.2])
    assert triggered(patch(file=file, mask=mask, opacity=0.5))[0, 0, :2].tolist() == pytest.approx([0, 0.1])
    alpha = saved(tmp_path / "a.png", [[[255, 255, 255, 102], [255, 255, 255, 0]]])
    assert triggered(patch(file=alpha), 0.5)[0, 0, :3].tolist() == pytest.approx([0.7, 0.5, 0.5])


def test_a_white_square_is_badnets_and_a_faint_pattern_blended(tmp_path: Path) -> None:
    white = patch(file=saved(tmp_path / "w.png", np.full((3, 3, 3), 255)), row=-3, column=-3)
    pattern = noise_pattern(*SHAPE, generator(0, "attack/blended/pattern"))
    faint = patch(file=saved(tmp_path / "p.png", (pattern * 255).round().byte().permute(1, 2, 0)), opacity=0.2)
    for own, name in ((white, "badnets"), (faint, "blended")):
        one, other = own.poison(context(train_split())), make(name).poison(context(train_split()))
        assert torch.equal(one.indices, other.indices)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.images, other.images)


def test_the_key_is_the_content_and_a_record_has_no_place(tmp_path: Path) -> None:
    one = patch(file=saved(tmp_path / "one.png", np.full((2, 2, 3), 9)))
    same = patch(file=saved(tmp_path / "two.png", np.full((2, 2, 3), 9)))
    other = patch(file=saved(tmp_path / "three.png", np.full((2, 2, 3), 8)))
    assert one.determining() == same.determining() != other.determining()
    assert one.recorded()["image"]["file"].startswith("one.png (sha256 ")
    assert str(tmp_path) not in str(one.recorded())


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ({"file": None}, "attack.image.file is null"),
        ({"file": "nothing.png"}, "attack.image.file is 'nothing.png'; it cannot be used: no such file"),
        ({"row": 10}, "attack.image.row is 10.*allowed: -12 to 9"),
        ({"column": -2}, "attack.image.column is -2.*allowed: -10 to 7"),
        ({"file": "large.png"}, "the trigger must be smaller"),
        ({"file": "text.png"}, "it is no image"),
    ],
)
def test_what_does_not_fit_is_refused(
    image: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(Path("t.png"), np.full((3, 3, 3), 255))
    saved(Path("large.png"), np.full((13, 13, 3), 255))
    Path("text.png").write_text("no image")
    with pytest.raises(UserError, match=said):
        patch(**{"file": "t.png", **image}).check(torch.full((CLASSES,), TOTAL // CLASSES), SHAPE)
