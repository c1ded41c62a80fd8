"""Expressions of the YAML files: a learning rate that follows that of the victim's training."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from ntml_bench.app import composition  # registers the resolvers

__all__ = ["composition"]


def rate(expression: str, batch_size: Any, training: dict[str, Any]) -> Any:
    recipe = {"batch_size": batch_size, "learning_rate": expression}
    config = OmegaConf.create({"training": training, "defense": {"recipe": recipe}})
    assert isinstance(config, DictConfig)
    return config.defense.recipe.learning_rate


@pytest.mark.parametrize(
    ("expression", "batch_size", "training", "expected"),
    [
        ("${linear_scaling:${.batch_size}}", 128, {"learning_rate": 0.1, "batch_size": 128}, 0.1),
        ("${linear_scaling:${.batch_size}}", 32, {"learning_rate": 0.1, "batch_size": 128}, 0.025),
        ("${linear_scaling:${.batch_size},0.5}", 64, {"learning_rate": 0.1, "batch_size": 128}, 0.025),
        ("${linear_scaling:${.batch_size},0.5}", 64, {"learning_rate": 0.4, "batch_size": 256}, 0.05),
        # 0.1 * 96 / 128 has a last bit of its own.
        ("${linear_scaling:96}", 64, {"learning_rate": 0.1, "batch_size": 128}, 0.075),
        ("${linear_scaling:${.batch_size},0.005}", 64, {"learning_rate": 0.1, "batch_size": 128}, 0.00025),
    ],
)
def test_a_rate_follows_the_training_an_image(
    expression: str, batch_size: int, training: dict[str, Any], expected: float
) -> None:
    assert rate(expression, batch_size, training) == expected


@given(
    learning_rate=st.floats(1e-6, 10),
    sizes=st.tuples(st.integers(1, 10_000), st.integers(1, 10_000)),
    factor=st.floats(1e-3, 1e3),
)
def test_the_rate_of_an_image_is_kept(learning_rate: float, sizes: tuple[int, int], factor: float) -> None:
    batch_size, own = sizes
    found = rate(
        f"${{linear_scaling:${{.batch_size}},{factor}}}", own, {"learning_rate": learning_rate, "batch_size": batch_size}
    )
    assert found / own == pytest.approx(factor * learning_rate / batch_size, rel=1e-9)


@pytest.mark.parametrize(
    ("batch_size", "training"),
    [
        (64, {"learning_rate": "high", "batch_size": 128}),
        (64, {"learning_rate": 0.1, "batch_size": 0}),
        (64, {"learning_rate": 0.1}),
        ("many", {"learning_rate": 0.1, "batch_size": 128}),
        (-1, {"learning_rate": 0.1, "batch_size": 128}),
    ],
)
def test_what_is_no_rate_or_size_is_left_to_who_reads_the_settings(batch_size: Any, training: dict[str, Any]) -> None:
    assert rate("${linear_scaling:${.batch_size}}", batch_size, training) == training["learning_rate"]


@pytest.mark.parametrize(("passes", "expected"), [(12, 6), (15, 8), (1, 1), ("many", "many"), (None, None)])
def test_half_of_the_passes_is_rounded_up(passes: Any, expected: Any) -> None:
    assert OmegaConf.create({"epochs": passes, "teacher": "${half:${epochs}}"}).teacher == expected
