"""Hydra parses the same files in each of the thousands of compositions of a test run: here once, while they are unchanged."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource

_load = ConfigRepository.load_config
_known: dict[Any, ConfigResult] = {}


def install() -> None:
    yaml.SafeLoader = yaml.CSafeLoader  # the same parser, in C
    ConfigRepository.load_config = _load_once


def _load_once(self: ConfigRepository, config_path: str) -> ConfigResult | None:
    """Each composition has a copy: Hydra moves what it loads into what it composes."""
    source = self._find_object_source(config_path=config_path, object_type=ObjectType.CONFIG)
    state = source and _state(source, config_path)
    if source is None or state is None:
        return _load(self, config_path)
    key = (source.provider, config_path, *state)
    if key not in _known:
        loaded = _load(self, config_path)
        assert loaded is not None
        _known[key] = loaded
    return replace(_known[key], config=copy.deepcopy(_known[key].config))


def _state(source: ConfigSource, config_path: str) -> tuple[object, ...] | None:
    """What tells that it is still the same file; None where there is none."""
    if source.scheme() == "pkg":  # Hydra's own
        return (source.path,)
    if source.scheme() != "file":
        return None
    path = Path(source.path) / f"{config_path.removesuffix('.yaml')}.yaml"
    found = path.stat()
    return path, found.st_ino, found.st_size, found.st_mtime_ns
