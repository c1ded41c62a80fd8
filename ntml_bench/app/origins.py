"""Who set each value of a composed config: the files of its defaults list, in their order, then the settings behind them.

Hydra tells what a config is composed of, but not which of the files a value is from. So the composition is done once more, a
step at a time; that both come to the same config is checked each time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ntml_bench.app.composition import config_folder

COMMAND_LINE = "command line"
MISSING = "???"
Key = tuple[str, ...]
"""A dotted name in its parts."""


@dataclass(frozen=True)
class Setting:
    """A value as it is written in one place: `source` names the file, interpolations stand as they are."""

    source: str
    value: Any


@dataclass(frozen=True)
class Origins:
    """A composed config, and where it is from.

    `values`: for each value who set it, the last one last, Hydra's own values among them. `choices`: for each group of options
    the chosen one, and who chose it.
    """

    config: DictConfig
    values: dict[Key, list[Setting]]
    choices: dict[str, Setting]


def origins_of(
    loader: ConfigLoaderImpl, name: str, overrides: Sequence[str], mode: RunMode, sources: Mapping[str, str] | None = None
) -> Origins:
    """The config that Hydra composes of a primary config and overrides, and who set what.

    `sources`: for the key of an override (`seed`, `attack`) who set it, where it is not the command line. Raises what Hydra
    raises where nothing can be composed.
    """
    composed = loader.load_configuration(name, list(overrides), run_mode=mode)
    defaults = loader.compute_defaults_list(name, list(overrides), run_mode=mode)
    parsed, files = loader._parse_overrides_and_create_caching_repo(name, list(overrides))
    known = sources or {}
    by_key = {override.get_key_element(): known.get(override.get_key_element(), COMMAND_LINE) for override in parsed}

    again = OmegaConf.create()
    values: dict[Key, list[Setting]] = {}
    paths: dict[str, str] = {}
    parents: dict[str, str | None] = {}
    for default in defaults.defaults:
        assert default.config_path is not None
        loaded = loader._load_single_config(default, files)
        paths[default.config_path] = _place(default, loaded)
        parents[default.config_path] = default.parent
        _note(values, loaded.config, paths[default.config_path])
        again.merge_with(loaded.config)
    OmegaConf.set_struct(again, True)
    for override in defaults.config_overrides:
        _note(values, _alone(override), by_key[override.get_key_element()])
        loader._apply_overrides_to_config([override], again)
    left = dict(leaves(_plain(composed)))
    said = {key: values[key] for key in left if key in values}
    _check_same(left, dict(leaves(_plain(again))))
    _check_same(left, {key: settings[-1].value for key, settings in said.items()})

    choices = {}
    for group, option in defaults.overrides.known_choices.items():
        path = f"{group}/{option}"
        if path in paths and not group.startswith("hydra/"):
            by = defaults.overrides.override_metadata.get(group)
            parent = parents[path] if by is None else by.containing_config_path
            choices[group] = Setting(by_key[group] if parent is None else paths[parent], option)
    return Origins(composed, said, choices)


def leaves(values: Any, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    """The values within nested dictionaries, with their keys; an empty dictionary is one, too."""
    if isinstance(values, dict) and (values or not key):
        for name, value in values.items():
            yield from leaves(value, (*key, str(name)))
    else:
        yield key, values


def _note(found: dict[Key, list[Setting]], config: Any, source: str) -> None:
    for key, value in leaves(_plain(config)):
        if value != MISSING or key not in found:  # what is missing takes nothing's place
            found.setdefault(key, []).append(Setting(source, value))


def _alone(override: Override) -> DictConfig:
    """What an override from the command line says, and nothing else."""
    said = OmegaConf.create()
    if not override.is_delete():
        OmegaConf.update(said, override.key_or_group, override.value(), force_add=True)
    return said


def _place(default: ResultDefault, loaded: ConfigResult) -> str:
    """The file of a step: from the project's folder, from the working directory (./...), or its whole path."""
    if not loaded.path.startswith("file://"):
        return f"{loaded.path}/{default.config_path}"
    path = Path(loaded.path.removeprefix("file://")) / f"{default.config_path}".removesuffix(".yaml")
    path = path.with_name(f"{path.name}.yaml")
    for name in ("conf", "sweeps"):
        if path.is_relative_to(config_folder(name)):
            return f"{name}/{path.relative_to(config_folder(name))}"
    return f"./{path.relative_to(Path.cwd())}" if path.is_relative_to(Path.cwd()) else str(path)


def _plain(config: Any) -> Any:
    return OmegaConf.to_container(config, resolve=False)


def _check_same(composed: Mapping[Key, Any], again: Mapping[Key, Any]) -> None:
    """Hydra fills in its own values behind the composition; all others come from its steps, or this tells what is not so."""
    one, other = ([(key, repr(value)) for key, value in found.items() if key[0] != "hydra"] for found in (composed, again))
    assert one == other, f"the steps of a composition come to another config: {set(one) ^ set(other)}"
