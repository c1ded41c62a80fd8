"""build: plain values to typed settings, or one clear message."""

from dataclasses import dataclass
from typing import Any

import pytest
from builders import CONF, leaves, method_values
from hypothesis import given, settings
from hypothesis import strategies as st

from ntml_bench.attacks import ATTACKS
from ntml_bench.data import DATASETS
from ntml_bench.defenses import DEFENSES
from ntml_bench.errors import UserError
from ntml_bench.models import ModelConfig
from ntml_bench.models.classifier import OWN, TimmSettings
from ntml_bench.schema import build, number, one_of
from ntml_bench.store import key_of, plain
from ntml_bench.tracking import TrackingConfig
from ntml_bench.training import TrainingConfig


@dataclass(frozen=True)
class Inner:
    depth: int = number(at_least=1, at_most=3)


@dataclass(frozen=True, kw_only=True)
class Outer:
    rate: float = number(above=0, at_most=1)
    anything: float
    count: int
    flag: bool
    title: str
    limit: int | None = number(above=0)
    weights: list[float]
    shape: str = one_of("round", "square")
    inner: Inner


GOOD: dict[str, Any] = {
    "rate": 0.5,
    "anything": -2.5,
    "count": 3,
    "flag": True,
    "title": "t",
    "limit": 7,
    "weights": [1.0, 2.5],
    "shape": "round",
    "inner": {"depth": 2},
}


def outer(**changes: Any) -> Outer:
    return build(Outer, GOOD | changes, "group")


def test_values_arrive_as_given() -> None:
    made = outer()
    assert plain(made) == GOOD
    assert isinstance(made.inner, Inner)
    assert type(made.weights) is list


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'group\.wieghts'\. Did you mean 'group\.weights'\?"):
        outer(wieghts=[1.0])


def test_unknown_key_in_a_nested_group() -> None:
    with pytest.raises(UserError, match=r"'group\.inner\.dept'\. Did you mean 'group\.inner\.depth'\?"):
        outer(inner={"depth": 1, "dept": 1})


def test_a_key_of_no_group_has_no_dot_in_front() -> None:
    with pytest.raises(UserError, match=r"'rte'\. Did you mean 'rate'\?"):
        build(Outer, GOOD | {"rte": 1}, "")


def test_missing_keys_are_all_named() -> None:
    with pytest.raises(UserError, match=r"missing setting: group\.count, group\.title"):
        build(Outer, {key: value for key, value in GOOD.items() if key not in ("count", "title")}, "group")
    with pytest.raises(UserError, match=r"missing setting: group\.inner\.depth"):
        outer(inner={})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", 1.5),
        ("count", "many"),
        ("count", True),
        ("count", None),
        ("rate", "high"),
        ("rate", None),
        ("rate", True),
        ("rate", [0.5]),
        ("anything", {"a": 1}),
        ("flag", "perhaps"),
        ("flag", 0.5),
        ("title", None),
        ("title", ["t"]),
        ("limit", "none at all"),
        ("weights", 1.0),
        ("weights", None),
        ("weights", ["heavy"]),
        ("weights", [1.0, None]),
        ("inner", None),
        ("inner", 3),
        ("inner", [1]),
    ],
)
def test_wrong_type(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"^group\.{name} is "):
        outer(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("rate", 0, "more than 0 and at most 1"),
        ("rate", 1.01, "more than 0 and at most 1"),
        ("rate", -1, "more than 0 and at most 1"),
        ("limit", 0, "more than 0"),
        ("shape", "oval", "round, square"),
    ],
)
def test_out_of_range(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(UserError, match=rf"^group\.{name} is .*; allowed: {allowed}$"):
        outer(**{name: value})


@pytest.mark.parametrize("depth", [0, 4])
def test_out_of_range_in_a_nested_group(depth: int) -> None:
    with pytest.raises(UserError, match=rf"^group\.inner\.depth is {depth}; allowed: at least 1 and at most 3$"):
        outer(inner={"depth": depth})


def test_the_ends_of_a_range_belong_to_it() -> None:
    assert outer(rate=1).rate == 1
    assert [outer(inner={"depth": depth}).inner.depth for depth in (1, 3)] == [1, 3]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), "nan", "inf"])
@pytest.mark.parametrize("name", ["rate", "anything", "weights"])
def test_what_is_no_finite_number_is_refused(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"^group\.{name} is "):
        outer(**{name: [1.0, value] if name == "weights" else value})


def test_none_for_an_optional() -> None:
    assert outer(limit=None).limit is None


def test_an_int_for_a_float_is_that_float_and_hashes_alike() -> None:
    one, other = outer(rate=1, anything=2, weights=[1, 2]), outer(rate=1.0, anything=2.0, weights=[1.0, 2.0])
    assert type(one.rate) is type(one.weights[0]) is float
    assert key_of(plain(one)) == key_of(plain(other))


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=1e-6, max_value=1))
@settings(deadline=None)
def test_spellings_of_a_number_hash_alike(rate: float) -> None:
    spelled = [outer(rate=rate), outer(rate=repr(rate)), outer(rate=f"{rate:.20e}")]
    assert len({key_of(plain(made)) for made in spelled}) == 1


def schema_of(group: str, name: str) -> type:
    registries: dict[str, Any] = {"attack": ATTACKS, "dataset": DATASETS, "defense": DEFENSES}
    if group in registries:
        return registries[group][name].Config
    if group == "model" and name not in OWN:
        return TimmSettings
    return {"model": ModelConfig, "training": TrainingConfig, "tracking": TrackingConfig}[group]


# Other folders hold parts of these; tests/test_conf.py sees to them.
GROUPS = ("attack", "dataset", "defense", "model", "tracking", "training")
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_yaml_value_reaches_the_settings(group: str, option: str) -> None:
    values = method_values(group, option)
    assert leaves(plain(build(schema_of(group, values["name"]), values, group))) != []
    assert plain(build(schema_of(group, values["name"]), values, group)) == values
