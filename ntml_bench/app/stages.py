"""The stages of a cell: train, purify, evaluate. Each is stored under the key of what determines it, and made once.

data -> backdoored model (one for all defenses) -> purified model -> evaluation, and what is left to look at
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ntml_bench.app.keys import Keys
from ntml_bench.app.settings import Settings
from ntml_bench.app.victims import MODEL, Curve, Victim, Victims
from ntml_bench.data import ImageData
from ntml_bench.data.budget import clean_budget
from ntml_bench.defenses.base import DefenseContext
from ntml_bench.engine import Engine
from ntml_bench.evaluation import TriggeredTest, accuracy, evaluate, triggered_test
from ntml_bench.exhibits.gallery import gallery
from ntml_bench.exhibits.model import exhibit
from ntml_bench.models import Classifier
from ntml_bench.seeding import derive
from ntml_bench.store import Artifact, Store

Metrics = dict[str, float | None]


class Stages:
    """The stages of one cell, made on demand; `say` is told what is going on. `patch_size`: as the classifier has it."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        engine: Engine,
        data: ImageData,
        say: Callable[[str], None],
        patch_size: int | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.engine = engine
        self.data = data
        self.say = say
        self.seed = settings.general.seed
        self.keys = Keys.of(settings, engine, data.fingerprint, patch_size)
        self.victims = Victims(settings, store, engine, data, self.keys, say)
        self._victim: Victim | None = None
        self._triggered: TriggeredTest | None = None

    def victim(self) -> Victim:
        """The backdoored model of the cell's attack."""
        if self._victim is None:
            self._victim = self.victims.of_attack()
        return self._victim

    def release(self) -> None:
        """Let go of what is held in memory; it is made again, or read, when it is asked for."""
        self._victim = None
        self._triggered = None

    def clean_model(self) -> Classifier:
        """A model of the same recipe and initialisation, trained on the clean training set."""
        return self.victims.clean().model

    def purified(self) -> tuple[Classifier, dict[str, Any]]:
        """The model behind the defense, as it loads from the store, and the record of the defense."""
        if self.settings.defense.config.name == "none":
            return self.victim().model, {"seconds": 0.0, "history": [], "stages": {}}
        artifact = self.store.get_or_make("purified", self.keys.purified, self._purify)
        return self.victims.model_from(artifact.tensors), artifact.record

    def evaluation(self, what: str, model_key: str, model: Callable[[], Classifier]) -> dict[str, Any]:
        """ACC, ASR, RA of a model under the attack's trigger (`metrics`) and what it took (`seconds`)."""

        def make() -> Artifact:
            self.say(f"evaluating {what}")
            start = time.perf_counter()
            metrics = self._measure(model())
            return Artifact({"metrics": metrics, "seconds": time.perf_counter() - start}, {})

        return self.store.get_or_make("evaluation", self.keys.evaluation(model_key), make).record

    def exhibits(self, purified: Classifier) -> dict[str, str] | None:
        """The keys of what the cell leaves to look at, made where it is missing; None of a cell without a trigger."""
        if not self.keys.has_trigger:
            return None
        self.store.get_or_make("gallery", self.keys.gallery, lambda: gallery(self.data, self._triggered_test()))
        for key, model in ((self.keys.victim, self.victim().model), (self.keys.purified, purified)):

            def look(model: Classifier = model) -> Artifact:
                return exhibit(self.engine, model, self.data.test, self._triggered_test())

            self.store.get_or_make("exhibit", self.keys.exhibit(key), look)
        return self.keys.exhibits

    def clean_budget_accuracy(self) -> float:
        """Percent of the defender's clean images that the purified model classifies right; a defense has trained on them."""

        def make() -> Artifact:
            budget = self._clean_budget(self.victim()).to(self.engine.device)
            return Artifact({"accuracy": 100 * accuracy(self.engine, self.purified()[0], self.data.train[budget])}, {})

        key = self.keys.clean_budget_accuracy(self.settings.general.clean_budget)
        try:
            return self.store.get_or_make("evaluation", key, make).record["accuracy"]
        finally:
            self.release()

    def _measure(self, model: nn.Module) -> Metrics:
        triggered = self._triggered_test() if self.keys.has_trigger else None
        return evaluate(self.engine, model, self.data.test, triggered)

    def _triggered_test(self) -> TriggeredTest:
        """The test images under the trigger of the cell's attack, made once."""
        if self._triggered is None:
            self._triggered = self.triggered_by(self.victim().poisoning.state)
        return self._triggered

    def triggered_by(self, state: dict[str, Tensor]) -> TriggeredTest:
        """The test images under the attack's trigger with these tensors."""
        attack = self.settings.attack
        there = {name: value.to(self.engine.device) for name, value in state.items()}
        return triggered_test(self.data.test, lambda images: attack.trigger(images, there), attack.config.target_class)

    # Defending.

    def _purify(self) -> Artifact:
        start = time.perf_counter()
        settings, defense, victim, train = self.settings, self.settings.defense, self.victim(), self.data.train
        name = defense.config.name
        self.say(f"defending with {name}")
        budget = self._clean_budget(victim)
        history: Curve = []
        observed: dict[str, Metrics] = {}
        observing = 0.0

        def log(stage: str, values: dict[str, float]) -> None:
            history.append({"stage": stage, **values})
            self.say(f"defending with {name}: {stage} {values['epoch']:.0f}")

        def observe(stage: str, model: Classifier) -> None:
            nonlocal observing
            begin = time.perf_counter()
            modes = [(module, module.training) for module in model.modules()]
            observed[stage] = self._measure(model)
            for module, training in modes:
                module.training = training
            observing += time.perf_counter() - begin

        model = defense.purify(
            DefenseContext(
                engine=self.engine,
                # From the store, not the one at hand: the defense may change it.
                model=self.victims.of_attack().model,
                clean_budget=train[budget.to(self.engine.device)],
                poisoned_train=victim.poisoning.apply(train),
                num_classes=self.data.num_classes,
                seed=self.seed,
                augmentation=settings.dataset.config.augmentation,
                new_model=lambda: self.victims.new_model(derive(self.seed, "defense/new model")),
                log=log,
                observe=observe,
            )
        )
        seconds = time.perf_counter() - start - observing
        record = {"history": history, "stages": observed, "seconds": seconds, "clean_budget_images": len(budget)}
        return Artifact(record, {MODEL + name: value for name, value in model.state_dict().items()})

    def _clean_budget(self, victim: Victim) -> Tensor:
        """The indices of the defender's clean images: of those that the attacker did not touch."""
        labels = self.data.train.labels
        untouched = torch.ones(len(labels), dtype=torch.bool)
        untouched[victim.poisoning.indices] = False
        return clean_budget(labels, untouched, self.settings.general.clean_budget, self.seed)
