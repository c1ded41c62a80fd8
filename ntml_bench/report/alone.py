"""An attack's trigger on a data set, to look at: nothing is trained, nothing is written but the cache of the data."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from ntml_bench.app.cell import Cell
from ntml_bench.app.loading import LoadedData
from ntml_bench.app.words import composed_settings
from ntml_bench.errors import UserError
from ntml_bench.exhibits.gallery import gallery
from ntml_bench.report.data import Gallery
from ntml_bench.report.stored import gallery_from


def gallery_of(attack: str, dataset: str, settings: Sequence[str]) -> Gallery:
    """Test images of a data set under an attack's trigger.

    `settings`: more words as they would stand behind `ntml-bench` (`attack.alpha=0.3`, `--config-dir FOLDER`). The trigger is
    that of the stored victim, where there is one; else it is made. Raises UserError, also where that takes a model which is not
    trained.
    """
    words = [f"attack={attack}", f"dataset={dataset}", "defense=none", "tracking=none"]
    config_dir, overrides = _parted(settings)
    chosen = composed_settings([*words, *overrides], config_dir)
    if chosen.attack.config.name == "none":
        raise UserError("attack=none has no trigger to look at; ntml-bench --help lists the attacks")
    cell = Cell(chosen, LoadedData().of(chosen))
    again = shlex.join(["ntml-bench", *words[:3], *settings])
    made = gallery(cell.data, cell.stages.triggered_by(_state(cell, again)))
    arrays = {name: tensor.numpy() for name, tensor in made.tensors.items()}
    changed = ", ".join(word.removeprefix("attack.") for word in overrides if word.startswith("attack."))
    label = chosen.labels["attack"] + (f" ({changed})" if changed else "")
    return gallery_from(made.record, arrays, chosen.labels["dataset"], label)


def _state(cell: Cell, command: str) -> dict[str, Tensor]:
    """The tensors of the trigger; `command`: what trains the models that it may need."""
    victims, attack = cell.stages.victims, cell.settings.attack
    stored = victims.stored_state()
    if stored is not None:
        return stored

    def surrogate() -> nn.Module:
        found = victims.stored_surrogate()
        if found is None:
            raise UserError(
                f"the trigger of '{attack.config.name}' is made with a model that is trained first, and {cell.store.root} has "
                f"none for these settings; run the cell: {command}"
            )
        return found

    return attack.trigger_state(victims.attack_context(surrogate))


def _parted(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The folder of the user's own options, where one is named, and the settings."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config-dir", "-cd", type=Path)
    try:
        options, overrides = parser.parse_known_args(list(words))
    except argparse.ArgumentError as error:
        raise UserError(str(error)) from None
    for word in overrides:
        if word.startswith("-"):
            raise UserError(
                f"unknown flag '{word}'; settings are given as key=value, and --config-dir names a folder of options"
            )
    if options.config_dir is not None and not options.config_dir.is_dir():
        raise UserError(f"--config-dir {options.config_dir} is not a folder")
    return options.config_dir, overrides
