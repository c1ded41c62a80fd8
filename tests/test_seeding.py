"""Named random streams and stratified draws."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntml_bench.seeding import derive, generator, stratified


@given(seed=st.integers(0, 2**31), purpose=st.text(max_size=20))
@settings(deadline=None)
def test_a_derived_seed_is_one_that_torch_takes(seed: int, purpose: str) -> None:
    value = derive(seed, purpose)
    assert 0 <= value < 2**63
    assert value == derive(seed, purpose)
    assert value not in (derive(seed + 1, purpose), derive(seed, purpose + "x"))


def test_derive_stays_what_it_was() -> None:
    """Of published numbers every draw hangs on it. (The first 8 bytes of SHA-256 of "0/a" and "1/a", halved.)"""
    assert [derive(0, "a"), derive(1, "a")] == [7606779636460171844, 6885665436231814845]


def test_streams_do_not_depend_on_each_other() -> None:
    alone = torch.rand(5, generator=generator(0, "one"))
    other = generator(0, "other")
    torch.rand(100, generator=other)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(5, generator=generator(0, "one")), alone)
    assert not torch.equal(torch.rand(5, generator=generator(0, "other")), alone)
    assert not torch.equal(torch.rand(5, generator=generator(1, "one")), alone)


def test_the_global_stream_is_left_alone() -> None:
    before = torch.get_rng_state()
    stratified(torch.arange(20) % 3, 7, generator(0, "x"))
    assert torch.equal(torch.get_rng_state(), before)


@st.composite
def labels_and_count(draw: st.DrawFn) -> tuple[list[int], int]:
    labels = draw(st.lists(st.integers(0, 5), min_size=1, max_size=80))
    return labels, draw(st.integers(0, len(labels)))


@given(labels_and_count(), st.integers(0, 10))
@settings(max_examples=150, deadline=None)
def test_stratified(case: tuple[list[int], int], seed: int) -> None:
    labels, count = torch.tensor(case[0]), case[1]
    chosen = stratified(labels, count, generator(seed, "x"))
    assert chosen.dtype == torch.int64
    assert len(chosen) == count
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert ((chosen >= 0) & (chosen < len(labels))).all()
    sizes, taken = labels.bincount(minlength=6), labels[chosen].bincount(minlength=6)
    assert ((taken - sizes * count / len(labels)).abs() < 1).all()
    assert torch.equal(chosen, stratified(labels, count, generator(seed, "x")))


def test_the_largest_remainders_get_the_rest() -> None:
    # 4 of 10: exact shares 2.4, 1.2, 0.4; 2 + 1 + 0 leave one, for one of the classes with remainder 0.4.
    labels = torch.tensor([0] * 6 + [1] * 3 + [2])
    taken = {tuple(labels[stratified(labels, 4, generator(seed, "x"))].bincount(minlength=3).tolist()) for seed in range(30)}
    assert taken == {(3, 1, 0), (2, 1, 1)}


def test_every_image_of_a_class_may_be_drawn() -> None:
    labels = torch.arange(12) % 2
    drawn = torch.cat([stratified(labels, 4, generator(seed, "x")) for seed in range(60)])
    counts = drawn.bincount(minlength=12)
    assert counts.min() > 8
    assert counts.max() < 34


@pytest.mark.parametrize("count", [-1, 11])
def test_more_than_there_is_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"cannot take {count} of 10"):
        stratified(torch.zeros(10, dtype=torch.long), count, generator(0, "x"))
