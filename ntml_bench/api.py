"""The public Python API: records, models, triggers and poisons of what was run, and a cell run from Python.

Loading runs nothing that stands in a record: methods, nets and data sets are those that are registered. One of your own is
registered by importing its module first. A mistake is a `UserError` that says what is wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ntml_bench.attacks.base import Poisoning
from ntml_bench.errors import UserError
from ntml_bench.models import Classifier
from ntml_bench.records.cells import read_sweep
from ntml_bench.records.find import find_sweep
from ntml_bench.records.labels import METHOD_GROUPS

if TYPE_CHECKING:
    from ntml_bench.app.stored import StoredCell


def load_records(sweep: str | Path, *, outputs: str | Path = "outputs") -> list[dict[str, Any]]:
    """A row for each cell of a sweep, in the order of its grid: flat, for `pandas.DataFrame(rows)`.

    `sweep`: its name, or the folder of its manifest; `outputs`: where runs were written.

    A row has the labels as the table shows them (`dataset`, `model`, `attack`, `defense`), `seed`, `state` (done, running,
    failed, missing), `key`, `seconds`; in percent `clean_accuracy`, `attack_success_rate`, `robust_accuracy` and
    `true_class_probability` behind the defense, the same with `undefended_` before it and with `floor_` of a clean model,
    and `defense_effectiveness_rating`; and each setting under its dotted name (`attack.poisoning_rate`). What there is no
    number of is None. Raises UserError where there is no such sweep.
    """
    rows = []
    for cell in read_sweep(find_sweep(str(sweep), Path(outputs))).cells:
        row: dict[str, Any] = {name: getattr(cell, name) for name in (*METHOD_GROUPS, "seed", "state", "key")}
        for prefix, metrics in (("", cell.after), ("undefended_", cell.before), ("floor_", cell.floor)):
            row |= {prefix + name: value for name, value in asdict(metrics).items()}
        row |= {"defense_effectiveness_rating": cell.defense_effectiveness_rating, "seconds": cell.seconds}
        rows.append(row | {key: value for key, value in _flat(cell.settings) if key not in row})
    return rows


def load_model(
    sweep: str | Path,
    *,
    attack: str | None = None,
    defense: str | None = None,
    seed: int | None = None,
    dataset: str | None = None,
    model: str | None = None,
    outputs: str | Path = "outputs",
) -> Classifier:
    """A stored model, on the CPU, in eval mode: `model(images)` takes float images [N, C, H, W] in [0, 1] to logits
    [N, classes]; the normalisation is in it.

    With `defense` the model behind it, without one the backdoored model. The other names say which cell; those that the sweep
    has one of only can be left out. Raises UserError where none or several fit, and where the model is not in the store.
    """
    from ntml_bench.app.stored import only, stored_cells

    if defense is None:
        return _victim_cell(sweep, outputs, dataset=dataset, model=model, attack=attack, seed=seed).backdoored()
    chosen = {"dataset": dataset, "model": model, "attack": attack, "defense": defense}
    cells = stored_cells(sweep, Path(outputs), seed=seed, **chosen)
    return only(cells, lambda cell: cell.keys[1], "models").purified()


def load_trigger(
    sweep: str | Path,
    *,
    attack: str | None = None,
    seed: int | None = None,
    dataset: str | None = None,
    model: str | None = None,
    outputs: str | Path = "outputs",
) -> Callable[[Tensor], Tensor]:
    """The trigger of a cell's attack, as its victim was made with it: float images [N, C, H, W] in [0, 1] to the same.

    The result is rounded to the 256 levels of an image file, as the evaluation measures it. Names and errors as `load_model`.
    """
    return _victim_cell(sweep, outputs, dataset=dataset, model=model, attack=attack, seed=seed).trigger()


def load_poisons(
    sweep: str | Path,
    *,
    attack: str | None = None,
    seed: int | None = None,
    dataset: str | None = None,
    model: str | None = None,
    outputs: str | Path = "outputs",
) -> Poisoning:
    """The training images that a cell's attack changed, on the CPU: `indices` int64 [P] of the training set, `images` uint8
    [P, C, H, W] and `labels` int64 [P] in their place, `is_poison` bool [P] (False: covers).

    Of an attack that poisons each batch of the training it is the fixed draw that a defender is given; P is 0 where a given
    victim came without its poisons. Names and errors as `load_model`; UserError, too, where the cell has no attack.
    """
    return _victim_cell(sweep, outputs, dataset=dataset, model=model, attack=attack, seed=seed).poisoning


def weights_of(model: Classifier) -> dict[str, Tensor]:
    """The weights of a loaded model as a plain `state_dict` of its net, under the names that timm gives them, on the CPU.

    The net takes normalised images: `(images - model.mean) / model.std`.
    Those of a model with a layer that a defense inserted have it under `polarizer`, and fit no net without it.
    """
    return {name: value.detach().cpu().clone() for name, value in model.net.state_dict().items()}


def run_cell(*settings: str, config_dir: str | Path | None = None, quiet: bool = True) -> dict[str, Any]:
    """Run one cell, or read it where it is stored, and return its record.

    `settings`: as behind `ntml-bench` (`"attack=sig"`, `"seed=1"`); `config_dir`: a folder with options of your own; `quiet`:
    no progress is printed. The record's `before` and `after` hold the metrics in percent, `settings` what they
    were made with. The cell is collected under `sweep=NAME` (single), as on the command line. Raises UserError for settings
    that do not fit, and where the cell fails.
    """
    from rich.console import Console

    from ntml_bench.app.manifest import add_to_manifest
    from ntml_bench.app.runners import runners_of
    from ntml_bench.app.session import Session
    from ntml_bench.app.words import composed_settings

    chosen = composed_settings(settings, None if config_dir is None else Path(config_dir))
    session = Session(1, Console(quiet=quiet))
    try:
        cell = session.cell(chosen)
        add_to_manifest([cell])
        (record,) = session.run([cell], runners_of(chosen, single=True))
    finally:
        session.close()
    if record is None:
        raise UserError(f"the cell failed: {session.failed[0]} (its traceback: {cell.failure_path})")
    return record


def _victim_cell(sweep: str | Path, outputs: str | Path, **chosen: Any) -> "StoredCell":
    """A cell of the one victim that fits."""
    from ntml_bench.app.stored import only, stored_cells

    return only(stored_cells(sweep, Path(outputs), **chosen), lambda cell: cell.keys[0], "backdoored models")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Sequence[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(prefix + key, value)]
    return found
