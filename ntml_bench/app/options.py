"""The options that a config was composed of, held against their files: what they are called is what runs.

A table names a cell by the options that were chosen. Two things would put another method under that name: a setting `name`
beside the option's own, and an option of the user's that has the name of one that is found before it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ntml_bench.app.unread import check_unread
from ntml_bench.errors import UserError

FREE = {"model": "timm"}
"""The options that leave `name` open: the table then says the name."""
OWN = ("main", "ntml_bench")
"""Who puts the folders of the package on Hydra's search path."""


def check_options(config: DictConfig, runtime: Any) -> None:
    """Raise UserError where the options chosen in a composed config are not what runs; `runtime`: Hydra's, of the config."""
    sources = [(Path(source.path), source.provider) for source in runtime.config_sources if source.schema == "file"]
    folders = [folder for folder, _ in sources]
    check_unread([folder for folder, provider in sources if provider not in OWN], folders, runtime.choices)
    for group, option in runtime.choices.items():
        if not isinstance(option, str) or group.startswith("hydra/"):
            continue
        key = group
        group, _, package = key.partition("@")  # dataset@attack: what the data set says of the attack
        found = [(folder / group / f"{option}.yaml", provider) for folder, provider in sources]
        found = [(path, provider) for path, provider in found if path.is_file()]
        _check_hidden(key, option, found)
        values = None if package else config.get(group)
        if found and isinstance(values, DictConfig) and "name" in values and FREE.get(group) != option:
            name = cast(dict[str, Any], OmegaConf.to_container(values, resolve=False))["name"]
            _check_name(group, option, name, folders)


def _check_hidden(key: str, option: str, found: Sequence[tuple[Path, str]]) -> None:
    folder, slash, name = option.rpartition("/")
    for path, provider in found[1:]:
        if provider not in OWN and path.read_bytes() != found[0][0].read_bytes():
            raise UserError(
                f"{path} is never read, because {key}={option} comes with ntml-bench; give the file another name: "
                f"{key}={folder}{slash}my_{name}"
            )


def _check_name(group: str, option: str, name: Any, folders: Sequence[Path]) -> None:
    for own in _names(folders, group, option):
        if name != own:
            free = FREE.get(group)
            other = f"{group}={free} {group}.name={name}" if free else f"{group}={name}"
            raise UserError(
                f"{group}.name is '{name}', but the chosen option {group}={option} is '{own}'; "
                f"choose another option instead: {other}"
            )
        return


def _names(folders: Sequence[Path], group: str, option: str) -> Iterator[Any]:
    """What an option's file says of its `name`, and behind it what the options say that it extends."""
    for folder in folders:
        path = folder / group / f"{option}.yaml"
        if not path.is_file():
            continue
        try:
            values = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        except (OSError, YAMLError, OmegaConfBaseException):
            return  # Hydra has read it, or says why not
        if not isinstance(values, dict):
            return
        for level in (values, values.get(group)):
            if isinstance(level, dict) and "name" in level:
                yield level["name"]
        for base in reversed(values.get("defaults") or []):
            if isinstance(base, str) and base != "_self_":
                yield from _names(folders, group, base)
        return
