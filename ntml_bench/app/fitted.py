"""Which settings of an attack and a defense are not their option's own, but those of a data set or of a family of values.

The files of `conf/dataset/NAME/attack` and the like are composed over the option's. A table has to name what they changed, or
"values of the publications" would be believed of a method that has others.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ntml_bench.records.manifest import FITTED_BY

Fitted = dict[str, dict[str, list[str]]]
"""For `attack` and `defense`, by who set them (FITTED_BY), the dotted names of settings; nothing stands for none."""


def option_folders(runtime: Any) -> list[Path]:
    """Where the files of the options are; `runtime`: Hydra's, of a composed config."""
    return [Path(source.path) for source in runtime.config_sources if source.schema == "file"]


def fitted_settings(config: DictConfig, choices: Mapping[str, Any], folders: Sequence[Path]) -> Fitted:
    """The settings that a composed config has from these files and that the option's own file says otherwise.

    What was changed behind them, by a variant or on the command line, is not among them.
    """
    fitted: Fitted = {}
    for group in ("attack", "defense"):
        own = dict(_leaves(_values(folders, group, group, choices.get(group))))
        found = dict(_leaves(_plain(config.get(group))))
        setters: dict[str, str] = {}
        for setter in FITTED_BY:  # in the order in which they are composed
            for name, value in _said_by(setter, group, choices, folders):
                if found.get(name) == value != own.get(name):
                    setters[name] = setter
        for name, setter in setters.items():
            fitted.setdefault(group, {}).setdefault(setter, []).append(name)
    return fitted


def _said_by(setter: str, group: str, choices: Mapping[str, Any], folders: Sequence[Path]) -> Iterator[tuple[str, Any]]:
    """What the setter's file says of the group, and what the files say that it has asked for below its folder."""
    for key, option in choices.items():
        place, _, package = key.partition("@")
        if package == group and place.partition("/")[0] == setter:
            yield from _leaves(_values(folders, place, group, option))


def _values(folders: Sequence[Path], folder: str, group: str, option: Any) -> Any:
    """What the file of an option says of its group, interpolations as they are written; None where there is no file."""
    for path in (place / folder / f"{option}.yaml" for place in folders):
        if path.is_file():
            values = _plain(OmegaConf.load(path))
            inside = values.get(group) if isinstance(values, dict) else None
            return inside if isinstance(inside, dict) else values  # a file of the package _global_ names the group
    return None


def _plain(values: Any) -> Any:
    return OmegaConf.to_container(values, resolve=False) if OmegaConf.is_config(values) else values


def _leaves(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items() if isinstance(values, dict) else ():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
