"""`ntml-bench ...` as a page has it: composed as it is written, and run in a small way."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from app_runner import SMALL, bench
from builders import CONF, leaves, method_values
from composed import composed
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from ntml_bench.app import planning
from ntml_bench.app.composition import split_config
from ntml_bench.app.partial import fitted
from ntml_bench.app.settings import Settings, read_settings
from ntml_bench.app.where import asked_where
from ntml_bench.data.base import DatasetConfig

LITTLE = {"epochs": 1, "warmup_epochs": 1, "steps": 1, "rounds": 1}
"""Values of a method's settings of these names, wherever they stand in its YAML file."""
REPLACED = ("dataset", "model", "device", "precision", "compile", "workers", "cluster", "tracking", "data_dir")
"""Groups and settings that have others in a small run."""
ENOUGH_POISONS = 0.05


@dataclass(frozen=True)
class Bench:
    """The words behind `ntml-bench`: flags that say which config, and settings."""

    config: str
    config_dir: str | None
    shows: bool
    multirun: bool
    settings: tuple[str, ...]

    @classmethod
    def of(cls, words: Sequence[str]) -> "Bench":
        plain, where = asked_where(words)
        found = get_args_parser().parse_intermixed_args(plain)
        shows = where is not None or any((found.help, found.hydra_help, found.cfg, found.info, found.shell_completion))
        return cls(found.config_name or "config", found.config_dir, shows, found.multirun, tuple(found.overrides))

    @property
    def flags(self) -> list[str]:
        named = [] if self.config == "config" else ["-cn", self.config]
        folder = [] if self.config_dir is None else ["--config-dir", self.config_dir]
        return [*named, *folder, *(["-m"] if self.multirun else [])]

    @property
    def search_path(self) -> list[str]:
        return [] if self.config_dir is None else [f"hydra.searchpath=[file://{Path(self.config_dir).resolve()}]"]

    @property
    def whole(self) -> DictConfig:
        """The config without the settings."""
        return _whole(self.config, *self.search_path)

    @property
    def is_sweep(self) -> bool:
        return self.multirun or self.whole.hydra.mode is not None


@cache
def _whole(name: str, *search_path: str) -> DictConfig:
    return composed(name, [*search_path])


def planned(command: Bench) -> list[Settings]:
    """The settings of its cells as it is written, of each value of each axis. Raises what is wrong with them.

    That is all that can be known without the images.
    """
    if not command.is_sweep:
        return [_settings(command, command.settings)]
    axes = {str(key): f"{key}={value}" for key, value in (command.whole.hydra.sweeper.params or {}).items()}
    axes |= {word.partition("=")[0]: word for word in command.settings}
    values = [_values(word) for word in axes.values()]
    grid = [[axis[0] if word is None else word for axis, word in zip(values, row, strict=True)] for row in zip_longest(*values)]
    cells, _ = fitted(grid, lambda overrides, _: _composes(command, overrides))
    return [_settings(command, cell) for cell in cells]


def _settings(command: Bench, overrides: Iterable[str]) -> Settings:
    config = composed(command.config, [*command.search_path, *overrides, "hydra.mode=RUN"])
    return read_settings(*split_config(config))


def _composes(command: Bench, overrides: Iterable[str]) -> bool:
    try:
        composed(command.config, [*command.search_path, *overrides, "hydra.mode=RUN"])
    except HydraException:
        return False
    return True


def _values(word: str) -> list[str]:
    """The word once for each value that it sweeps over; for both ends of an interval that is searched."""
    override = OverridesParser.create().parse_override(word)
    key = word.partition("=")[0]
    if not override.is_sweep_override():
        return [word]
    if override.is_interval_sweep():
        interval: Any = override.value()
        return [f"{key}={end}" for end in (interval.start, interval.end)]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def run_small(command: Bench, words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What the command prints, with the smallest data, the smallest net, one epoch and the first and the last of its cells."""
    if command.shows:
        outcome = bench(*words)
    elif command.is_sweep:
        original = planning.planned

        def first_and_last(session: Any, context: Any, config: Any, grid: Sequence[Sequence[str]], first: int) -> Any:
            ends = dict.fromkeys(tuple(_small(cell, config)) for cell in (grid[0], grid[-1]))
            return original(session, context, config, [list(cell) for cell in ends], first)

        with monkeypatch.context() as patch:
            patch.setattr(planning, "planned", first_and_last)
            outcome = bench(*words)
    else:
        outcome = bench(*command.flags, *_small(command.settings, command.whole))
    assert outcome.code == 0, outcome.errors
    return outcome.output


def _small(settings: Sequence[str], config: DictConfig) -> list[str]:
    """The settings of a cell, but for those that cost time; the method's own settings stay where they do not.

    `config` has what they leave open.
    """
    own = {group for group in ("dataset", "model") if _is_own(settings, group)}
    kept = [word for word in settings if word.partition("=")[0] in own or not _is_replaced(word.partition("=")[0])]
    added = [*SMALL, "model=resnet_tiny", "cluster=threads", "workers=1", "device=cpu"]
    # An option of the page's own may have no such setting, and a trigger image of the page's has its size.
    sized = "dataset" not in own and not any(word.startswith("attack.image.file=") for word in settings)
    added = [word for word in added if word.partition("=")[0] not in own and (sized or "image_size" not in word)]
    chosen: dict[str, str] = {}
    for group in ("attack", "defense"):
        name = chosen[group] = _chosen(settings, group) or config[group]["name"]
        if (CONF / group / f"{name}.yaml").is_file():
            keys = leaves(method_values(group, name))
            added += [f"{group}.{key}={LITTLE[last]}" for key in keys if (last := key.split(".")[-1]) in LITTLE]
    if chosen["attack"] not in ("none", "given"):
        added.append(f"attack.poisoning_rate={ENOUGH_POISONS}")
    replaced = {word.partition("=")[0] for word in added}
    return [*(word for word in kept if word.partition("=")[0] not in replaced), *added]


def _is_own(settings: Sequence[str], group: str) -> bool:
    """Whether an option of the page's own is chosen."""
    name = _chosen(settings, group)
    return name is not None and not (CONF / group / f"{name}.yaml").is_file()


def _chosen(settings: Sequence[str], group: str) -> str | None:
    found = [word.removeprefix(f"{group}=") for word in settings if word.startswith(f"{group}=")]
    return found[-1] if found else None


def _is_replaced(key: str) -> bool:
    group, _, name = key.partition(".")
    if group == "dataset" and name and name.partition(".")[0] in DatasetConfig.__dataclass_fields__:
        return name in ("train_limit", "test_limit")
    return group in REPLACED
