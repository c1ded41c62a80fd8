"""clean_budget: a seeded, stratified list of untouched training images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntml_bench.data.budget import clean_budget
from ntml_bench.errors import UserError

LABELS = torch.arange(1000) % 10


def test_five_percent_of_a_balanced_set() -> None:
    untouched = torch.ones(1000, dtype=torch.bool)
    untouched[::20] = False
    chosen = clean_budget(LABELS, untouched, 0.05, seed=0)
    assert len(chosen) == 50
    assert untouched[chosen].all()
    # Class 0 keeps 50 of its 100 images, the others all; the shares are those of the whole set.
    assert LABELS[chosen].bincount(minlength=10).tolist() == [5] * 10
    assert torch.equal(chosen, clean_budget(LABELS, untouched, 0.05, seed=0))
    assert not torch.equal(chosen, clean_budget(LABELS, untouched, 0.05, seed=1))


@given(share=st.floats(0.02, 0.5), poisoned=st.floats(0, 0.4), seed=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_size_and_shares(share: float, poisoned: float, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    untouched = torch.rand(1000, generator=rng) >= poisoned
    chosen = clean_budget(LABELS, untouched, share, seed)
    assert len(chosen) == round(share * 1000)
    assert len(chosen.unique()) == len(chosen)
    assert untouched[chosen].all()
    # A tenth of the budget for each of the ten classes, as long as the class has so many.
    left = LABELS[untouched].bincount(minlength=10)
    got = LABELS[chosen].bincount(minlength=10)
    assert (got >= torch.minimum(left, torch.tensor(len(chosen) // 10))).all()
    if (left >= -(-len(chosen) // 10)).all():
        assert int(got.max() - got.min()) <= 1


def test_a_class_with_too_few_untouched_images_is_filled_up_by_others() -> None:
    untouched = torch.ones(1000, dtype=torch.bool)
    untouched[LABELS == 3] = False
    untouched[3] = True
    chosen = clean_budget(LABELS, untouched, 0.2, seed=0)
    got = LABELS[chosen].bincount(minlength=10)
    assert int(got[3]) == 1
    assert len(chosen) == 200
    assert int(got[got > 1].max() - got[got > 1].min()) <= 1 + 2


def test_fewer_images_than_classes_is_refused() -> None:
    with pytest.raises(UserError, match=r"at least one for each of the 10 classes, a share of 0\.01"):
        clean_budget(LABELS, torch.ones(1000, dtype=torch.bool), 0.009, seed=0)


def test_more_images_than_untouched_is_refused() -> None:
    untouched = torch.zeros(1000, dtype=torch.bool)
    untouched[:90] = True
    with pytest.raises(UserError, match="100 images; allowed: at most the 90 images"):
        clean_budget(LABELS, untouched, 0.1, seed=0)
