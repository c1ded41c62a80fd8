"""The primary config that a command line names, as Hydra loads it: whether it is a sweep."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_automatic_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.errors import HydraException
from hydra.types import RunMode

from ntml_bench.app.arguments import COMMANDS
from ntml_bench.app.composition import config_folder
from ntml_bench.errors import UserError


def loader_of(arguments: Namespace) -> ConfigLoaderImpl:
    """As Hydra makes it of these flags. Raises UserError for a folder of configs that is none."""
    beside = str(Path(__file__).with_name("main.py"))
    path = create_automatic_config_search_path(beside, None, arguments.config_path or str(config_folder("conf")))
    if arguments.config_dir is not None:
        folder = Path(arguments.config_dir).absolute()
        if not folder.is_dir():
            raise UserError(f"--config-dir {arguments.config_dir} is not a folder")
        path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    return ConfigLoaderImpl(path)


def is_sweep(loader: ConfigLoaderImpl, arguments: Namespace, overrides: Sequence[str]) -> bool:
    """Whether the primary config says that it is a sweep, with these settings. Raises what Hydra raises."""
    whole = loader.load_configuration(
        arguments.config_name or "config", list(overrides), run_mode=RunMode.MULTIRUN, validate_sweep_overrides=False
    )
    return whole.hydra.mode == RunMode.MULTIRUN


def said_to_be_a_sweep(words: Sequence[str], error: HydraException) -> list[str] | None:
    """The words of a command line with `--multirun` where Hydra took a sweep for a single run; None where it did not.

    Hydra asks the config whether it is a sweep with all settings in it, and takes a setting that cannot be composed for "no".
    """
    arguments = get_args_parser().parse_args(list(words))
    if "Ambiguous value for argument" not in str(error) or any(getattr(arguments, flag) for flag in COMMANDS):
        return None
    return ["--multirun", *words] if is_sweep(loader_of(arguments), arguments, []) else None
