"""`ntml-bench ... --where [KEY]`: the values of a cell, each with the file that it is from and what it overrides there.

A sweep has many cells: the first one that has the setting is shown, and a line says which it is.
"""

from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import yaml
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobRuntime, setup_globals
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ntml_bench.app.arguments import COMMANDS
from ntml_bench.app.explain import explain, unknown_setting
from ntml_bench.app.options import check_options
from ntml_bench.app.origins import Key, Origins, Setting, origins_of
from ntml_bench.app.primary import is_sweep, loader_of
from ntml_bench.errors import UserError

FLAG = "--where"
WIDEST = 40
"""Characters of a column; what is longer sticks out."""


def asked_where(words: Sequence[str]) -> tuple[list[str], str | None]:
    """The words of a command line without the flag, and the setting that it asks for: "" for all, None where it is not there.

    Raises UserError where it is there twice.
    """
    places = [place for place, word in enumerate(words) if word == FLAG or word.startswith(f"{FLAG}=")]
    if not places:
        return list(words), None
    first, *others = places
    if others:
        raise UserError(f"{FLAG} stands once: {FLAG} KEY shows a setting or a group of them, {FLAG} alone shows all")
    before, behind = list(words[:first]), list(words[first + 1 :])
    key = words[first].partition("=")[2]
    if words[first] == FLAG and behind and behind[0].replace(".", "").replace("_", "").isalnum():
        key = behind.pop(0)
    return [*before, *behind], key


def show_where(words: Sequence[str], key: str) -> None:
    """Print where the values of the cell of a checked command line are from; `key`: a setting or a group of them, "" for all.

    Raises UserError where there is no such setting, where an option is not what runs, or for a flag that asks for something
    else; and what Hydra raises where nothing can be composed.
    """
    arguments = get_args_parser().parse_args(list(words))
    _check_flags(arguments)
    setup_globals()
    JobRuntime.instance().set("name", "main")
    for origins, line in _cells(loader_of(arguments), arguments, key.partition(".")[0]):
        HydraConfig.instance().set_config(origins.config)  # for values that refer to it
        check_options(origins.config, origins.config.hydra.runtime)
        lines = list(_lines(origins, key))
        if lines:
            print("\n".join([*line, *lines]))
            return
    if key.partition(".")[0] == "hydra":
        raise UserError(f"{key} is a setting of Hydra's own; --cfg hydra shows these")
    raise UserError(unknown_setting(key))


def _check_flags(found: Namespace) -> None:
    flags = {**COMMANDS, "help": "--help", "hydra_help": "--hydra-help"}
    for flag in [flag for name, flag in flags.items() if getattr(found, name)]:
        if flag != "--multirun" and (flag, found.cfg) != ("--cfg", "job"):
            raise UserError(f"{flag} and {FLAG} exclude each other; {FLAG} stands alone, or beside --cfg job")
    if found.package:
        raise UserError(f"--package belongs to --cfg; {FLAG} {found.package} shows that part of the settings")


def _cells(loader: ConfigLoaderImpl, arguments: Namespace, group: str) -> Iterator[tuple[Origins, list[str]]]:
    """The one cell; of a sweep the first one of each option of the group, each with lines that say which it is."""
    name, overrides = arguments.config_name or "config", list(arguments.overrides)
    if not arguments.multirun and not is_sweep(loader, arguments, overrides):
        yield origins_of(loader, name, overrides, RunMode.RUN), []
        return
    sweep = origins_of(loader, name, overrides, RunMode.MULTIRUN)
    axes = {key[-1]: settings[-1] for key, settings in sweep.values.items() if key[:-1] == ("hydra", "sweeper", "params")}
    typed = {override.get_key_element() for override in OverridesParser.create().parse_overrides(overrides)}
    sources = {axis: setting.source for axis, setting in axes.items() if axis not in typed}
    of_hydra = cast(list[str], OmegaConf.to_container(sweep.config.hydra.overrides.hydra))
    grid = _grid(loader, sweep.config, axes)
    seen = set()
    for cell in grid:
        option = next((word for word in cell if word.startswith(f"{group}=")), None)
        if option not in seen:
            seen.add(option)
            said = [f"One of {len(grid)} cells: {' '.join(cell)} (KEY=VALUE shows another)", ""] if len(grid) > 1 else []
            yield origins_of(loader, name, [*of_hydra, *cell], RunMode.RUN, sources), said


def _grid(loader: ConfigLoaderImpl, sweep: DictConfig, axes: Mapping[str, Setting]) -> list[list[str]]:
    """The cells of a sweep, as our sweeper makes them. Raises UserError where a search chooses values."""
    from hydra_plugins.ntml_bench import GridSweeper

    words = [*(f"{axis}={setting.value}" for axis, setting in axes.items()), *sweep.hydra.overrides.task]
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(words)
    last = {override.get_key_element(): override for override in parsed}
    searched = [key for key, override in last.items() if override.is_sweep_override() and not override.is_discrete_sweep()]
    if searched:
        values = " ".join(f"{key}=VALUE" for key in searched)
        raise UserError(f"a search chooses {', '.join(searched)}; {FLAG} shows one cell, with values for them: {values}")
    sweeper = GridSweeper(max_batch_size=None)
    sweeper.config, sweeper.hydra_context = sweep, HydraContext(config_loader=loader, callbacks=Callbacks())
    return sweeper.split_arguments(list(last.values()), None)[0]


def _lines(origins: Origins, key: str) -> Iterator[str]:
    """A line for each option that was chosen and each value below the key; none where there is neither."""
    options = [
        (f"{group}={setting.value}", f"chosen by {setting.source}")
        for group, setting in origins.choices.items()
        if "@" not in group and key in ("", group)
    ]
    values = [
        (".".join(parts), _text(_resolved(origins.config, parts, settings[-1])), _history(settings))
        for parts, settings in origins.values.items()
        if parts[0] != "hydra" and (not key or f"{'.'.join(parts)}.".startswith(f"{key}."))
    ]
    yield from _columns(sorted(options))
    if options and values:
        yield ""
    yield from _columns(values)


def _history(settings: Sequence[Setting]) -> str:
    """Where the value stands, as an expression where it is one, and what it overrides, the strongest first."""
    last, *before = reversed(settings)
    expression = f": {last.value}" if _is_expression(last.value) else ""
    over = [f"over {_text(setting.value)} in {setting.source}" for setting in before]
    return ", ".join([f"{last.source}{expression}", *over])


def _resolved(config: DictConfig, key: Key, setting: Setting) -> Any:
    """Raises UserError for a value that refers to what is not there."""
    node: Any = config
    for part in key[:-1]:
        node = node[part]
    if OmegaConf.is_missing(node, key[-1]):
        return setting.value
    try:
        value = node[key[-1]]
        return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    except OmegaConfBaseException as error:
        what = explain(error).splitlines()[0]
        raise UserError(f"{'.'.join(key)} refers to what is not there: {what} ({_history([setting])})") from None


def _is_expression(value: Any) -> bool:
    return "${" in repr(value)


def _text(value: Any) -> str:
    """As it is written in a YAML file, on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [min(WIDEST, max(map(len, column))) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)) + f"  {row[-1]}"
