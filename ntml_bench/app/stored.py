"""What the store holds of a cell that is done: its models, its trigger, its poisons. Nothing is trained, and nothing is run
that stands in a record: methods are those that are registered here, under the names and with the settings that a record gives.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ntml_bench.app.keys import exhibit_key
from ntml_bench.app.victims import MODEL, POISON, TRIGGER, tensors_named
from ntml_bench.attacks import ATTACKS, Attack, Poisoning
from ntml_bench.data import DATASETS, ImageData
from ntml_bench.data.base import to_float, to_uint8
from ntml_bench.data.loading import load
from ntml_bench.errors import UserError
from ntml_bench.integrity import DamagedError
from ntml_bench.models import Classifier, load_weights, make_classifier
from ntml_bench.models.classifier import ModelConfig, TimmConfig
from ntml_bench.records.find import find_sweep
from ntml_bench.records.labels import Labels, label_cells
from ntml_bench.records.manifest import NAMES, SweepFolder
from ntml_bench.registry import Registry
from ntml_bench.schema import build
from ntml_bench.store import Artifact, Store


@dataclass(frozen=True)
class StoredCell:
    """A cell of a sweep that is done. Raises UserError where something of it is missing in the store, or not known here."""

    label: Labels
    entry: Mapping[str, Any]
    record: Mapping[str, Any]
    store: Store

    @property
    def name(self) -> str:
        return (
            f"{self.label.attack} x {self.label.defense} on {self.label.dataset}, {self.label.model}, seed {self.entry['seed']}"
        )

    @cached_property
    def keys(self) -> tuple[str, str]:
        """Of the backdoored and of the purified model; of a cell without a defense twice the same."""
        named = self.record.get("models")
        if named is not None:
            return str(named["victim"]), str(named["purified"])
        return self._keys_of_before()

    def _keys_of_before(self) -> tuple[str, str]:
        """Of a record that does not name them: those of all models of the cell that its exhibits are of."""
        names = [name.partition("-")[::2] for name in self.entry.get("artifacts", ())]
        victims = [key for kind, key in names if kind == "victim"]
        purified = [key for kind, key in names if kind == "purified"]
        shown = self.record.get("exhibits")
        if shown is None:
            if len(victims) == 1 and len(purified) <= 1:
                return victims[0], (*purified, *victims)[0]
        else:
            for victim in victims:
                if exhibit_key(victim, victim) == shown["before"]:
                    after = [key for key in (victim, *purified) if exhibit_key(key, victim) == shown["after"]]
                    if after:
                        return victim, after[0]
        raise UserError(f"the record of {self.name} does not say which models it is of; it was made by an earlier version")

    @cached_property
    def victim(self) -> Artifact:
        return self._artifact("victim", self.keys[0])

    def backdoored(self) -> Classifier:
        """The backdoored model (of a cell without an attack the clean one), on the CPU, in eval mode."""
        return self._model(self.victim)

    def purified(self) -> Classifier:
        """The model behind the defense, on the CPU, in eval mode."""
        victim, purified = self.keys
        return self.backdoored() if purified == victim else self._model(self._artifact("purified", purified))

    def attack(self) -> Attack:
        return _method(ATTACKS, self.entry["settings"]["attack"], "attack")

    def trigger(self) -> Callable[[Tensor], Tensor]:
        """Float images [N, C, H, W] in [0, 1] to the same with the trigger, rounded to 8 bits, as they are measured."""
        self._check_attack("trigger")
        attack, state = self.attack(), tensors_named(TRIGGER, self.victim.tensors)

        def trigger(images: Tensor) -> Tensor:
            there = {name: value.to(images.device) for name, value in state.items()}
            with torch.inference_mode():
                return to_float(to_uint8(attack.trigger(images, there)))

        return trigger

    @property
    def poisoning(self) -> Poisoning:
        """What the attack did to the training set; without images where the victim was given and its poisons are not known."""
        self._check_attack("poisons")
        tensors = self.victim.tensors
        return Poisoning(
            **{name: tensors[POISON + name] for name in ("indices", "images", "labels", "is_poison")},
            state=tensors_named(TRIGGER, tensors),
            notes=self.victim.record["notes"],
        )

    def data(self, data_dir: Path, root: str | None) -> ImageData:
        """The cell's images, from the cache in `data_dir` or from `root`. UserError where they are others than the cell's."""
        values = dict(self.entry["settings"]["dataset"])
        name = str(values.get("name"))
        if "root" in {entry.name for entry in fields(DATASETS[name].Config)}:
            values["root"] = root
        elif root is not None:
            raise UserError(f"--root names a folder of images, but the data set {name} is in none")
        found = load(_method(DATASETS, values, "dataset"), data_dir, int(self.entry["seed"]))
        if found.fingerprint != self.record["data"]["fingerprint"]:
            raise UserError(
                f"the images of {name} are not those of the cell: their fingerprint is {found.fingerprint}, that of the cell "
                f"{self.record['data']['fingerprint']}"
            )
        return found

    def _check_attack(self, what: str) -> None:
        if self.entry["attack"] == "none":
            raise UserError(f"{self.name} has no attack, and so no {what}")

    def _model(self, artifact: Artifact) -> Classifier:
        values = self.entry["settings"]["model"]
        name, adapted = str(values["name"]), values.get("adapted")
        config = ModelConfig(name) if adapted is None else TimmConfig(name, bool(adapted))
        channels, height, width = self.victim.tensors[f"{POISON}images"].shape[1:]
        statistics = torch.zeros(channels), torch.ones(channels)
        model = make_classifier(config, len(self.record["data"]["classes"]), (channels, height, width), statistics, seed=0)
        try:
            load_weights(model, tensors_named(MODEL, artifact.tensors))
        except RuntimeError as error:
            raise UserError(f"the stored model of {self.name} is not of the net that {name} names here: {error}") from None
        return model.eval().requires_grad_(False)

    def _artifact(self, kind: str, key: str) -> Artifact:
        found = self.store.load(kind, key)
        if found is None:
            raise UserError(
                f"{kind}-{key} of {self.name} is not in {self.store.root}; the sweep's command makes it again, and an archive "
                "has it where it was exported with --models"
            )
        return found


def _method(registry: Registry[Any], values: Mapping[str, Any], group: str) -> Any:
    cls = registry[str(values.get("name"))]
    return cls(build(cls.Config, values, group))


def stored_cells(
    sweep: str | Path,
    outputs: Path,
    *,
    dataset: str | None = None,
    model: str | None = None,
    attack: str | None = None,
    defense: str | None = None,
    seed: int | None = None,
) -> list[StoredCell]:
    """The cells of a sweep (a name or a folder) that are done and have these labels, with or without the settings in brackets.

    Raises UserError where there is no such sweep, or no such cell.
    """
    folder = SweepFolder.open(find_sweep(str(sweep), outputs))
    wanted = {"dataset": dataset, "model": model, "attack": attack, "defense": defense}
    found = []
    for entry, label in zip(folder.entries, label_cells(folder.entries), strict=True):
        fits = all(value is None or value in (getattr(label, name), entry[name]) for name, value in wanted.items())
        if not fits or (seed is not None and entry["seed"] != seed):
            continue
        try:
            record = folder.record(entry)
        except DamagedError as error:
            raise UserError(f"the record of cell {entry['key']} of sweep '{folder.name}' cannot be read: {error}") from None
        if record is not None:
            found.append(StoredCell(label, entry, record, folder.store))
    if not found:
        asked = ", ".join(f"{name} {value}" for name, value in (*wanted.items(), ("seed", seed)) if value is not None)
        known = "; ".join(
            f"{name} {', '.join(sorted({str(entry[name]) for entry in folder.entries}))}" for name in (*NAMES, "seed")
        )
        raise UserError(f"sweep '{folder.name}' has no cell that is done{asked and f' with {asked}'}; it has {known}")
    return found


def only(cells: Sequence[StoredCell], key: Callable[[StoredCell], str], what: str) -> StoredCell:
    """The one of the cells, or the first of several that share what `key` gives; UserError with their names for several."""
    apart = {key(cell): cell for cell in reversed(cells)}
    if len(apart) > 1:
        names = [cell.name for cell in reversed(apart.values())]
        listed = "; ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        raise UserError(f"{len(apart)} {what} fit; say more of dataset, model, attack, defense and seed: {listed}")
    return next(iter(apart.values()))
