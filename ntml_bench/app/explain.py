"""Hydra's and OmegaConf's errors in one clear message, with the nearest valid name."""

import re
import sys
from argparse import ArgumentParser
from difflib import get_close_matches
from pathlib import Path

import yaml
from omegaconf.errors import OmegaConfBaseException

from ntml_bench.app.arguments import quoted
from ntml_bench.app.composition import config_folder
from ntml_bench.errors import did_you_mean


def explain(error: Exception) -> str:
    """What a user should read of an error of composition: no traceback, the names that would have been right."""
    if isinstance(error, yaml.YAMLError):
        return f"a config is no YAML: {' '.join(str(error).split())}"
    name = _config_name()
    if name in _sweeps(of_wandb=True):
        path = config_folder("sweeps") / f"{name}.yaml"
        return f"'{name}' is a sweep of W&B, not of Hydra: wandb sweep {path}, then wandb agent ID"
    message = str(error).strip()
    cause = error.__cause__
    missing = re.search(r"Could not find '(?:([\w/]+)/)?([^'/]+)'", message)
    if missing:
        options = re.findall(r"^\s+(\S+)$", message.partition("Available options")[2], re.MULTILINE)
        group, option = missing.groups()
        if (group, option) == ("hydra/sweeper", "optuna"):
            return "hydra/sweeper=optuna needs an extra that is not installed: pip install 'ntml-bench[optuna]'"
        if option == "ntml_bench_slurm":
            return "cluster=slurm needs hydra-submitit-launcher: pip install 'ntml-bench[slurm]'"
        available = ", ".join(options) or "see --help"
        own = f" One of your own stands in FOLDER/{group}/{option}.yaml, with --config-dir FOLDER." if group else ""
        return f"unknown {group or 'config'} '{option}'.{did_you_mean(option, options)} Available: {available}.{own}"
    if message.startswith("Primary config "):
        return (
            f"{message.splitlines()[0]} --config-path takes an absolute folder in place of the project's; --config-dir adds one"
        )
    sweep = re.search(r"Cannot find primary config '([^']*)'", message)
    if sweep:
        sweeps = _sweeps(of_wandb=False)
        available = ", ".join(sweeps)
        return (
            f"unknown sweep '{sweep[1]}'.{did_you_mean(sweep[1], sweeps)} Available: {available}; "
            "one in a folder of your own: -cd FOLDER -cn NAME."
        )
    key = refused_key(error)
    if key:
        return unknown_setting(key) + (f" ({cause})" if cause and "not in struct" not in str(cause) else "")
    several = re.search(r"Ambiguous value for argument '(.+)'", message)
    if several:
        typed = quoted(several[1])
        return f"{several[1]} names several values: -m makes a sweep of them" + (
            f"; one value is quoted: {typed}" if typed else ""
        )
    if "INTERVAL_SWEEP" in message:
        return "interval(...) is for a search (hydra/sweeper=optuna); a sweep takes key=one,two or key=range(0,3)"
    if isinstance(cause, OmegaConfBaseException) and str(cause) not in message:
        message += f" ({str(cause).splitlines()[0]})"
    return message


def refused_key(error: Exception) -> str | None:
    """The setting that an error of composition says there is none of; None for other errors."""
    key = re.search(r"Could not override '([^']+)'", str(error))
    return key and key[1]


def unknown_setting(key: str) -> str:
    """What to say of a setting that none of the chosen options has."""
    known = _known_keys()
    group, dot, _ = key.partition(".")
    of_chosen = _of_chosen(group) if dot else []
    nearest = _nearest_setting(key, of_chosen)
    if not any(f"{name}.".startswith(f"{key}.") for name in known):
        return f"unknown setting '{key}'.{nearest or (dot and _nearest_setting(key, known)) or did_you_mean(key, known)}"
    return f"the setting '{key}' is not one of the chosen {group}'s (in a sweep: of none of the chosen {group}s).{nearest}"


def _config_name() -> str | None:
    """The primary config that was asked for, as Hydra's own parser reads it."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-name", "-cn")
    name = parser.parse_known_args()[0].config_name
    return name and name.removesuffix(".yaml")


def _sweeps(*, of_wandb: bool) -> list[str]:
    """The names of the sweeps that come with the package: Hydra's primary configs, or the files for `wandb sweep`."""
    paths = sorted(config_folder("sweeps").glob("*.yaml"))
    return [path.stem for path in paths if is_of_wandb(path) == of_wandb]


def is_of_wandb(path: Path) -> bool:
    """Whether a file in `sweeps` is one for `wandb sweep`: it names a search method and its parameters."""
    return {"method", "parameters"} <= set(yaml.safe_load(path.read_text()))


def _nearest_setting(key: str, known: list[str]) -> str:
    """The setting whose last part is nearest: a group of settings in between is forgotten more easily than a name is."""
    last = key.rpartition(".")[2]
    ends = get_close_matches(last, {name.rpartition(".")[2] for name in known}, n=1)
    alike = [name for name in known if ends and name.rpartition(".")[2] == ends[0]]
    return did_you_mean(key, alike, cutoff=0)


def _of_chosen(group: str) -> list[str]:
    """The settings of the options of a group that the command line chooses, or of the default; none where that is not known."""
    folder = config_folder("conf")
    if not (folder / group).is_dir():
        return []
    typed = [word.removeprefix(f"{group}=") for word in sys.argv[1:] if word.startswith(f"{group}=")]
    defaults = yaml.safe_load((folder / "config.yaml").read_text())["defaults"]
    usual = next((entry[group] for entry in defaults if isinstance(entry, dict) and group in entry), "")
    names = (typed[-1] if typed else usual).split(",")
    paths = [folder / group / f"{name}.yaml" for name in names]
    if (not typed and _config_name() is not None) or not all(path.is_file() for path in paths):
        return []  # a sweep's own choice, or an option from elsewhere
    return _keys_of(paths, folder)


def _known_keys() -> list[str]:
    """Every setting of every option that comes with the package, dotted."""
    folder = config_folder("conf")
    return _keys_of([folder / "config.yaml", *folder.glob("*/*.yaml")], folder)


def _keys_of(paths: list[Path], folder: Path) -> list[str]:
    """The settings of these options, dotted, each where its header puts it, else its folder."""
    keys = set()
    for path in paths:
        text = path.read_text()
        header = re.match(r"# @package (\S+)", text)
        package = header[1] if header else path.relative_to(folder).parent.as_posix()
        prefix = "" if package in ("_global_", ".") else f"{package}."
        keys |= {prefix + key for key in _flat(yaml.safe_load(text) or {})}
    return sorted(keys)


def _flat(value: object, prefix: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {prefix.removesuffix(".")}
    return set().union(*(_flat(item, f"{prefix}{key}.") for key, item in value.items() if key not in ("hydra", "defaults")))
