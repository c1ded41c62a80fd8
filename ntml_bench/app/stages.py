"""The stages of a cell: train, purify, evaluate. Each is stored under the key of what determines it, and made once.

data -> backdoored model (one for all defenses) -> purified model -> evaluation, and what is left to look at

Where the defense is tuned, a purified model for each of its strengths, and the choice among them.
"""

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ntml_bench.app.keys import Keys
from ntml_bench.app.settings import Settings, Tuning
from ntml_bench.app.victims import MODEL, Curve, Victim, Victims
from ntml_bench.data import ImageData
from ntml_bench.data.budget import clean_budget
from ntml_bench.defenses.base import CLEAN_BUDGET, Defense, DefenseContext
from ntml_bench.engine import Engine
from ntml_bench.evaluation import TriggeredTest, accuracy, cross_test, evaluate, right, triggered_test
from ntml_bench.exhibits.gallery import gallery
from ntml_bench.exhibits.model import exhibit
from ntml_bench.models import Classifier
from ntml_bench.retuning import retuning_split
from ntml_bench.seeding import derive
from ntml_bench.store import Artifact, Store
from ntml_bench.training import cross_entropy_of, fit
from ntml_bench.tuning import affordable, fall, parted, strongest

Metrics = dict[str, float | None]


class Purified(NamedTuple):
    """The model behind a defense, the record of how it was made, and its key."""

    model: Classifier
    record: dict[str, Any]
    key: str


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
        self._kept: dict[str, tuple[Any, Curve]] = {}

    def victim(self) -> Victim:
        """The backdoored model of the cell's attack."""
        if self._victim is None:
            self._victim = self.victims.of_attack()
        return self._victim

    def release(self) -> None:
        """Let go of what is held in memory; it is made again, or read, when it is asked for."""
        self._victim = None
        self._triggered = None
        self._kept.clear()

    def clean_model(self) -> Classifier:
        """A model of the same recipe and initialisation, trained on the clean training set."""
        return self.victims.clean().model

    def purified(self) -> Purified:
        """The model behind the defense, as it loads from the store."""
        tuning = self.settings.tuning
        if self.settings.defense.config.name == "none":
            return self._unchanged()
        if tuning is None:
            return self._made(self.settings.defense, self.keys.purified)
        return self._chosen(tuning)

    def _unchanged(self) -> Purified:
        return Purified(self.victim().model, {"seconds": 0.0, "history": [], "stages": {}}, self.keys.victim)

    def _made(self, defense: Defense, key: str, strength: str = "") -> Purified:
        artifact = self.store.get_or_make("purified", key, lambda: self._purify(defense, strength))
        return Purified(self.victims.model_from(artifact.tensors), artifact.record, key)

    def _chosen(self, tuning: Tuning) -> Purified:
        """The strongest candidate that the price affords, else the victim; all are in its record, with what they do.

        The choice reads the fall in accuracy on the validation part of the clean budget, and nothing else.
        """
        before = self._validated(self.keys.victim, lambda: self.victim().model)
        candidates: list[dict[str, Any]] = []
        for value, defense, key in zip(tuning.strength.values, tuning.candidates, self.keys.candidates, strict=True):
            strength = f" ({tuning.strength.setting}={value})"
            made = self._made(defense, key, strength)
            answers = self._validated(key, lambda made=made: made.model)
            lost, error = fall(before, answers)
            measured = self.evaluation(f"{defense.config.name}{strength}", key, lambda made=made: made.model)
            candidates.append(
                {
                    "value": value,
                    "accuracy": 100 * float(answers.double().mean()),
                    "fall": lost,
                    "standard_error": error,
                    "affordable": affordable(lost, error, tuning.price),
                    "after": measured["metrics"],
                    "seconds": made.record["seconds"],
                }
            )
        index = strongest([(found["fall"], found["standard_error"]) for found in candidates], tuning.price)
        chosen = self._unchanged()
        if index is not None:
            chosen = self._made(tuning.candidates[index], self.keys.candidates[index])
        choice = {
            "setting": tuning.strength.setting,
            "price": tuning.price,
            "validation_images": len(before),
            "accuracy_before": 100 * float(before.double().mean()),
            "chosen": None if index is None else tuning.strength.values[index],
            "candidates": candidates,
        }
        seconds = sum(found["seconds"] for found in candidates)
        return chosen._replace(record={**chosen.record, "seconds": seconds, "tuning": choice})

    def _validated(self, key: str, model: Callable[[], Classifier]) -> Tensor:
        """Which of the validation images a model (`key`: its key) classifies right, bool [N]."""

        def make() -> Artifact:
            validation = self.data.train[self._budget_parts(self.victim())[1].to(self.engine.device)]
            return Artifact({"images": len(validation)}, {"right": right(self.engine, model(), validation)})

        return self.store.get_or_make("evaluation", self.keys.validated(key), make).tensors["right"]

    def evaluation(self, what: str, model_key: str, model: Callable[[], Classifier]) -> dict[str, Any]:
        """ACC, ASR, RA of a model under the attack's trigger (`metrics`) and what it took (`seconds`)."""

        def make() -> Artifact:
            self.say(f"evaluating {what}")
            start = time.perf_counter()
            metrics = self._measure(model())
            return Artifact({"metrics": metrics, "seconds": time.perf_counter() - start}, {})

        return self.store.get_or_make("evaluation", self.keys.evaluation(model_key), make).record

    def retuned(self, what: str, model_key: str, model: Callable[[], Classifier]) -> dict[str, Any]:
        """The same of the model once it was re-tuned on a few poisons; the re-tuned model itself is not kept."""
        config = self.settings.retuning
        assert config is not None

        def make() -> Artifact:
            start = time.perf_counter()
            tuned = deepcopy(model())

            def log(values: dict[str, float]) -> None:
                self.say(f"re-tuning {what}: epoch {values['epoch']:.0f}/{config.recipe.epochs}")

            fit(
                self.engine,
                retuning_split(config, self.data.train, self.victim().poisoning, self.seed),
                config.recipe,
                models=[tuned],
                loss=cross_entropy_of(tuned),
                augmentation=self.settings.dataset.config.augmentation,
                seed=self.seed,
                purpose="retuning",
                log=log,
            )
            return Artifact({"metrics": self._measure(tuned), "seconds": time.perf_counter() - start}, {})

        return self.store.get_or_make("evaluation", self.keys.retuned(model_key), make).record

    def exhibits(self, purified: Purified) -> dict[str, str] | None:
        """The keys of what the cell leaves to look at, made where it is missing; None of a cell without a trigger."""
        if not self.keys.has_trigger:
            return None
        self.store.get_or_make("gallery", self.keys.gallery, lambda: gallery(self.data, self._triggered_test()))
        for key, model in ((self.keys.victim, self.victim().model), (purified.key, purified.model)):

            def look(model: Classifier = model) -> Artifact:
                return exhibit(self.engine, model, self.data.test, self._triggered_test())

            self.store.get_or_make("exhibit", self.keys.exhibit(key), look)
        return self.keys.exhibits(purified.key)

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
        attack, test, classes = self.settings.attack, self.data.test, self.data.num_classes
        there = {name: value.to(self.engine.device) for name, value in state.items()}
        one = attack.target(classes)
        targets = attack.targets(test.labels, classes) if one is None else one
        triggered = triggered_test(test, lambda images: attack.trigger(images, there), targets)
        return replace(triggered, cross=cross_test(test, lambda images, others: attack.cross_trigger(images, others, there)))

    # Defending.

    def _purify(self, defense: Defense, strength: str = "") -> Artifact:
        start = time.perf_counter()
        settings, victim, train = self.settings, self.victim(), self.data.train
        name = f"{defense.config.name}{strength}"
        self.say(f"defending with {name}")
        budget = torch.empty(0, dtype=torch.long)
        if CLEAN_BUDGET in defense.needs:
            budget = self._budget_parts(victim)[0]
        history: Curve = []
        observed: dict[str, Metrics] = {}
        notes: dict[str, Any] = {}
        observing = 0.0

        def log(stage: str, values: dict[str, float]) -> None:
            history.append({"stage": stage, **values})
            self.say(f"defending with {name}: {stage} {values['epoch']:.0f}")

        def once(key: str, make: Callable[[], Any]) -> Any:
            """Its curves, too, belong to each strength."""
            if key not in self._kept:
                begin = len(history)
                made = make()
                self._kept[key] = made, history[begin:]
            else:
                history.extend(self._kept[key][1])
            return self._kept[key][0]

        def observe(stage: str, model: Classifier) -> None:
            nonlocal observing
            begin = time.perf_counter()
            modes = [(module, module.training) for module in model.modules()]
            observed[stage] = self._measure(model)
            for module, training in modes:
                module.training = training
            observing += time.perf_counter() - begin

        def new_model() -> Classifier:
            """With the victim's normalisation: that of one from outside is not the data's."""
            made = self.victims.new_model(derive(self.seed, "defense/new model"))
            made.mean.copy_(victim.model.mean)
            made.std.copy_(victim.model.std)
            return made

        model = defense.purify(
            DefenseContext(
                engine=self.engine,
                # From the store, not the one at hand: the defense may change it.
                model=self.victims.of_attack().model,
                clean_budget=train[budget.to(self.engine.device)],
                poisoned_train=victim.poisoning.apply(train),
                num_classes=self.data.num_classes,
                image_shape=self.data.image_shape,
                seed=self.seed,
                augmentation=settings.dataset.config.augmentation,
                new_model=new_model,
                log=log,
                observe=observe,
                note=notes.__setitem__,
                once=once,
            )
        )
        seconds = time.perf_counter() - start - observing
        record = {"history": history, "stages": observed, "seconds": seconds, "clean_budget_images": len(budget)}
        if notes:
            record["notes"] = notes
        return Artifact(record, {MODEL + name: value for name, value in model.state_dict().items()})

    def _clean_budget(self, victim: Victim) -> Tensor:
        """The indices of the defender's clean images: of those that the attacker did not touch."""
        labels = self.data.train.labels
        untouched = victim.poisoning.untouched(len(labels))
        return clean_budget(labels, untouched, self.settings.general.clean_budget, self.seed)

    def _budget_parts(self, victim: Victim) -> tuple[Tensor, Tensor]:
        """The indices of what a defense purifies with, and of what a choice among its strengths is made on."""
        budget, tuning = self._clean_budget(victim), self.settings.tuning
        if tuning is None:
            return budget, budget[:0]
        return parted(budget, self.data.train.labels, tuning.validation_share, self.seed)
