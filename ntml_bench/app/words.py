"""From the words that would stand behind `ntml-bench` to settings, without running anything."""

from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ntml_bench.app.arguments import check_setting
from ntml_bench.app.composition import config_folder, split_config
from ntml_bench.app.explain import explain
from ntml_bench.app.settings import Settings, read_settings
from ntml_bench.errors import UserError


def composed_settings(words: Sequence[str], config_dir: Path | None) -> Settings:
    """As `ntml-bench` would compose and read them; `config_dir`: a folder of the user's own options. Raises UserError."""
    for word in words:
        check_setting(word)
    if config_dir is not None and not config_dir.is_dir():
        raise UserError(f"{config_dir} is no folder; it would hold options of your own")
    searched = [] if config_dir is None else [f"hydra.searchpath=['file://{config_dir.resolve()}']"]
    # Hydra 1.3 wants to be told which version's defaults to use; 1.4 warns of being told.
    version = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}
    try:
        with initialize_config_dir(str(config_folder("conf")), **version):
            composed = compose("config", [*words, *searched], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from None
    return read_settings(*split_config(composed))
