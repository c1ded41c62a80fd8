"""Configs composed as the application composes them, without running anything."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from builders import CONF
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig

from ntml_bench.app.composition import SweepsOnSearchPath, split_config
from ntml_bench.app.settings import Settings, read_settings

OPTUNA = dict.fromkeys(("sampler", "direction", "storage", "study_name", "n_trials", "n_jobs", "max_failure_rate", "params"))


def composed(name: str, overrides: list[str]) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, overrides=overrides, return_hydra_config=True)


def settings_of(name: str, *overrides: str) -> Settings:
    return read_settings(*split_config(composed(name, [*overrides, "hydra.mode=RUN"])))


@contextmanager
def sweeps_are_found() -> Iterator[None]:
    """As in the application, which registers this plugin itself; those of Optuna compose without the extra, too."""
    Plugins.instance().register(SweepsOnSearchPath)
    if find_spec("hydra_plugins.hydra_optuna_sweeper") is not None:
        yield
        return
    # The settings of the extra's sweeper.
    store = ConfigStore.instance()
    node = {**OPTUNA, "_target_": "", "sampler": {"seed": None}, "params": {}}
    store.store(group="hydra/sweeper", name="optuna", node=node, provider="tests")
    yield
    # Other tests of the same process see what is installed.
    del store.repo["hydra"]["sweeper"]["optuna.yaml"]
