"""Where configs are, and what a composed config holds."""

from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf, open_dict

from ntml_bench.app.fitted import option_folders
from ntml_bench.app.options import check_options
from ntml_bench.app.resolvers import half, linear_scaling

OmegaConf.register_new_resolver("linear_scaling", linear_scaling, replace=True)
OmegaConf.register_new_resolver("half", half, replace=True)


def config_folder(name: str) -> Path:
    """`conf` or `sweeps`: inside the package where it was installed, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / name
    return installed if installed.is_dir() else package.parent / name


class SweepsOnSearchPath(SearchPathPlugin):
    """Makes the sweeps that come with the package known by name: `ntml-bench -cn digits_table`, from any folder."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append("ntml_bench", f"file://{config_folder('sweeps')}")


def split_config(composed: DictConfig) -> tuple[DictConfig, dict[str, Any], list[Path]]:
    """A composed config without Hydra's own node, the names of the options chosen in each group, and where their files are.

    Raises UserError where these are not what would run.
    """
    check_options(composed, composed.hydra.runtime)
    choices = OmegaConf.to_container(composed.hydra.runtime.choices)
    assert isinstance(choices, dict)
    config = composed.copy()
    with open_dict(config):
        del config["hydra"]
    return config, {str(group): option for group, option in choices.items()}, option_folders(composed.hydra.runtime)
