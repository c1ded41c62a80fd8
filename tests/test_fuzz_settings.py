"""Whatever stands in a config, it becomes settings or a message for the user."""

from typing import Any

import pytest
from builders import CONF
from damage import JSON, SHARE, with_leaf
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from ntml_bench.app.composition import split_config
from ntml_bench.app.settings import Settings, read_settings
from ntml_bench.errors import UserError

PAIRS = [("badnets", "nt_ml"), ("narcissus", "anp"), ("wanet", "nt_ml_selective"), ("lc", "i_bau"), ("sig", "nad")]


@pytest.fixture(scope="module")
def composed() -> dict[tuple[str, str], tuple[Any, Any]]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return {pair: config_of(*pair) for pair in PAIRS}


def config_of(attack: str, defense: str) -> tuple[Any, Any]:
    config, *options = split_config(compose("config", [f"attack={attack}", f"defense={defense}"], return_hydra_config=True))
    return OmegaConf.to_container(config), options


@given(pair=st.sampled_from(PAIRS), changes=st.lists(st.tuples(SHARE, JSON), max_size=3))
@settings(deadline=None, max_examples=150)
def test_any_config_is_settings_or_a_message(
    composed: dict[tuple[str, str], tuple[Any, Any]], pair: tuple[str, str], changes: list[tuple[float, Any]]
) -> None:
    values, options = composed[pair]
    for share, leaf in changes:
        values = with_leaf(values, share, leaf)
    try:
        config = OmegaConf.create(values)
    except Exception:
        return  # no config at all: Hydra would have refused it
    assert isinstance(config, DictConfig)
    message = ""
    try:
        assert isinstance(read_settings(config, *options), Settings)
    except UserError as error:
        message = str(error)
    assert not message or changes
