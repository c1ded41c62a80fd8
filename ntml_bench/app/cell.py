"""One cell: checked, run through its stages, recorded."""

import json
import os
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname
from typing import Any

import torch

from ntml_bench.app.checks import check_cell, patch_size_of
from ntml_bench.app.environment import environment
from ntml_bench.app.failure import describe, is_out_of_memory
from ntml_bench.app.keys import code_of
from ntml_bench.app.settings import Settings
from ntml_bench.app.stages import Stages
from ntml_bench.data import ImageData
from ntml_bench.data.image_files import shown
from ntml_bench.data.loading import cache_dir
from ntml_bench.engine import Engine
from ntml_bench.evaluation import defense_effectiveness_rating
from ntml_bench.files import StorageError
from ntml_bench.objective import CLEAN_BUDGET_ACCURACY, metric_of
from ntml_bench.records.manifest import failure_path, running_path
from ntml_bench.records.targets import Target, mapped
from ntml_bench.store import Artifact, Store, key_of, plain, write_json

RECORD_VERSION = 2
RECORDED = ("presets", "seed", "clean_budget", "compile", "deterministic")
"""The settings outside the groups that belong to a cell; `precision` beside them is the one that is computed in."""


class Cell:
    """A cell with its data loaded and its settings checked against them; nothing is trained before `run`."""

    def __init__(self, settings: Settings, data: ImageData) -> None:
        general = settings.general
        self.settings = settings
        self.data = data
        kept = cache_dir(Path(general.data_dir))
        self.engine = Engine.create(general.device, general.precision, general.deterministic, general.compile, kept)
        self.store = Store(Path(general.outputs) / "store")
        check_cell(settings, data)
        self._say: Callable[[str], None] = lambda _: None
        self.stages = self._stages(lambda text: self._say(text))
        determined = {
            "stage": "cell",
            "version": RECORD_VERSION,
            "victim": self.stages.keys.victim,
            "purified": self.stages.keys.purified,
            "floor": general.floor,
            "labels": {group: settings.labels[group] for group in ("dataset", "model", "attack", "defense")},
        }
        if settings.retuning is not None:  # absent where nothing is re-tuned, so that older cells keep their keys
            determined["retuning"] = plain(settings.retuning)
        self.key = key_of(determined)

    @property
    def name(self) -> str:
        labels = self.settings.labels
        return f"{labels['attack']} x {labels['defense']}, seed {self.settings.general.seed}"

    @property
    def failure_path(self) -> Path:
        """Where the traceback of a failed run is."""
        return failure_path(self.store, self.key)

    @property
    def running_path(self) -> Path:
        """Where it says who runs the cell. It stays where that process was killed; whether it lives, the cell's lock tells."""
        return running_path(self.store, self.key)

    def record(self) -> dict[str, Any] | None:
        """The record of a finished run, or None."""
        return self.store.record("cell", self.key)

    @property
    def needs_floor(self) -> bool:
        """Whether a clean model is measured under the trigger, and that is not done yet."""
        return self.has_floor and self.record() is None

    @property
    def has_floor(self) -> bool:
        """Whether the cell's record holds what a clean model does under the trigger."""
        return self.settings.general.floor and self.settings.attack.config.name != "none"

    def train_clean(self, say: Callable[[str], None]) -> None:
        """Make the clean model of the floor, unless it is stored. A failure shows in the cells that need it."""
        self._stages(say).clean_model()

    def run(self, say: Callable[[str], None]) -> dict[str, Any]:
        """The record, from the store or made now. A failure is written down beside the store's artifacts, and raised."""
        self._say = say
        try:
            self.store.get_or_make("cell", self.key, self._make)
        except Exception as error:
            # On a full disk this fails too; what is raised is what went wrong first.
            with suppress(StorageError):
                self.write_failure(error)
            with suppress(OSError):
                self.running_path.unlink(missing_ok=True)
            if is_out_of_memory(error) and torch.cuda.is_available():
                torch.cuda.empty_cache()  # for the cells after this one
            raise
        finally:
            self.stages.release()
        with suppress(OSError):  # a finished cell can be read where nothing can be written
            self.running_path.unlink(missing_ok=True)
            self.failure_path.unlink(missing_ok=True)
        # As the store holds it, so that a first run and a later one return the same to the letter.
        record = self.record()
        assert record is not None
        return record

    def write_failure(self, error: Exception) -> None:
        """Leave on disk what a run ended with."""
        write_json(self.failure_path, {"error": describe(error), "traceback": "".join(traceback.format_exception(error))})

    def failure(self) -> str | None:
        """The line that a failed run ended with; None where there is none that can be read."""
        try:
            return str(json.loads(self.failure_path.read_text())["error"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @property
    def searched(self) -> bool:
        """Whether the cell is a trial of a search."""
        return self.settings.general.objective is not None

    def objective(self, record: dict[str, Any]) -> float | None:
        """What `objective` names, in percent, of this cell and its record; None where it names nothing."""
        name = self.settings.general.objective
        if name is None:
            return None
        if name == CLEAN_BUDGET_ACCURACY:
            return self.stages.clean_budget_accuracy()
        metric = metric_of(name)
        return record[metric] if metric in record else record["after"][metric]

    @property
    def target(self) -> Target | None:
        """What the attack aims at; None of a cell without an attack."""
        labels, attack = self.settings.labels, self.settings.attack
        if attack.config.name == "none":
            return None
        number = attack.target(self.data.num_classes)
        name = mapped(self._targets or []) if number is None else self.data.class_names[number]
        return Target(labels["dataset"], labels["attack"], number, name)

    @property
    def _targets(self) -> list[int] | None:
        """The label map of an attack whose target depends on an image's class, by class; None of any other."""
        attack, classes = self.settings.attack, self.data.num_classes
        return attack.targets(torch.arange(classes), classes).tolist() if attack.target(classes) is None else None

    def manifest_entry(self) -> dict[str, Any]:
        """What the table must know of a cell before it is done."""
        labels = self.settings.labels
        return {
            "key": self.key,
            "seed": self.settings.general.seed,
            "needs": list(self.settings.needs),
            "settings": self.resolved_settings(),
            "data": self._data(),
            "code": code_of(self.settings),
            "fitted": self.settings.fitted,
            "published_rate": self.settings.attack.published_rate,
            "target_name": self.target and self.target.name,
            **({} if self._targets is None else {"targets": self._targets}),
            "artifacts": self.stages.keys.artifacts(self.has_floor),
            **{group: labels[group] for group in ("dataset", "model", "attack", "defense")},
        }

    def resolved_settings(self) -> dict[str, Any]:
        """All settings that belong to the cell, as plain values (no paths, nothing of tracking)."""
        settings = self.settings
        dataset = plain(settings.dataset.config)
        dataset.pop("root", None)
        return {
            "dataset": dataset,
            "model": settings.model.recorded(),
            "attack": plain(settings.attack.recorded()),
            "defense": self._defense_settings(),
            "training": plain(settings.training),
            **{name: getattr(settings.general, name) for name in RECORDED},
            **({} if settings.retuning is None else {"retuning": plain(settings.retuning)}),
            "precision": "bfloat16" if self.engine.half else "float32",
        }

    def _defense_settings(self) -> dict[str, Any]:
        """The settings of the defense; of one that is tuned its strengths in place of the setting that is tuned."""
        values, tuning = plain(self.settings.defense.config), self.settings.tuning
        if tuning is None:
            return values
        strength = tuning.strength
        tuned = {
            "tuning": "price",
            "price": tuning.price,
            "validation_share": tuning.validation_share,
            "strength": {"setting": strength.setting, "values": list(strength.values)},
        }
        return {**strength.applied(values, "tuned"), **tuned}

    def _data(self) -> dict[str, Any]:
        """Which images: what tells data sets of one name apart, but not where anybody's folders are."""
        place = self._place
        return {
            "whole": self.data.whole,
            "folder": place and place.name,
            "place": place and key_of({"place": place}),
        }

    @property
    def _place(self) -> Path | None:
        """Where the images are, if they are in a folder of the user's."""
        root = getattr(self.settings.dataset.config, "root", None)
        return None if root is None else Path(root).expanduser().resolve()

    def _remarks(self) -> list[str]:
        """What is said of the images, without where they are."""
        place = self._place
        return [remark if place is None else remark.replace(f"{shown(place)}/", "") for remark in self.data.remarks]

    def _stages(self, say: Callable[[str], None]) -> Stages:
        patch_size = patch_size_of(self.settings.model, self.data.num_classes, self.data.image_shape)
        return Stages(self.settings, self.store, self.engine, self.data, say, patch_size)

    def _make(self) -> Artifact:
        start = time.perf_counter()
        self.failure_path.unlink(missing_ok=True)
        write_json(
            self.running_path,
            {"host": gethostname(), "process": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")},
        )
        stages, settings = self.stages, self.settings
        victim = stages.victim()
        before = stages.evaluation("the victim", stages.keys.victim, lambda: victim.model)
        purified = stages.purified()
        after = stages.evaluation("the purified model", purified.key, lambda: purified.model)
        floor = None
        if self.needs_floor:
            floor = stages.evaluation("the floor", stages.keys.clean, stages.clean_model)["metrics"]
        retuned = None
        if settings.retuning is not None:
            retuned = {"after": stages.retuned("the purified model", purified.key, lambda: purified.model)["metrics"]}
            if floor is not None:
                retuned["floor"] = stages.retuned("the floor", stages.keys.clean, stages.clean_model)["metrics"]
        exhibits = stages.exhibits(purified)
        return Artifact(
            {
                "version": RECORD_VERSION,
                "state": "done",
                **self.manifest_entry(),
                "before": before["metrics"],
                "after": after["metrics"],
                "floor": floor,
                **({} if retuned is None else {"retuned": retuned}),
                "defense_effectiveness_rating": None
                if settings.defense.config.name == "none"
                else defense_effectiveness_rating(before["metrics"], after["metrics"]),
                "seconds": {
                    "attack": sum(victim.record["seconds"].values()),
                    "defense": purified.record["seconds"],
                    "evaluation": before["seconds"] + after["seconds"],
                    "total": time.perf_counter() - start,
                },
                "history": victim.record["history"] + purified.record["history"],
                "stages": purified.record["stages"],
                "tuning": purified.record.get("tuning"),
                "notes": victim.record["notes"],
                **({"defense_notes": purified.record["notes"]} if "notes" in purified.record else {}),
                "exhibits": exhibits,
                "models": {"victim": stages.keys.victim, "purified": purified.key},
                "data": {
                    **self._data(),
                    "fingerprint": self.data.fingerprint,
                    "training_images": len(self.data.train),
                    "test_images": len(self.data.test),
                    "classes": list(self.data.class_names),
                    "remarks": self._remarks(),
                },
                "environment": environment(self.engine),
            },
            {},
        )
