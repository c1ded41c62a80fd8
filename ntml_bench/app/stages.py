"""The stages of a cell: train, purify, evaluate. Each is stored under the key of what determines it, and made once.

data -> backdoored model (one for all defenses) -> purified model -> evaluation
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ntml_bench.app.settings import Settings
from ntml_bench.attacks import ATTACKS, Attack
from ntml_bench.attacks.base import AttackContext, Poisoning
from ntml_bench.checkpoint import Checkpoint
from ntml_bench.data import ImageData, Split
from ntml_bench.data.budget import clean_budget
from ntml_bench.defenses.base import CLEAN_BUDGET, DefenseContext
from ntml_bench.engine import NOT_COMPILED, Engine
from ntml_bench.evaluation import TriggeredTest, accuracy, evaluate, triggered_test
from ntml_bench.models import Classifier, make_classifier
from ntml_bench.seeding import derive
from ntml_bench.store import Artifact, Store, key_of, plain
from ntml_bench.training import Recipe, cross_entropy_of, fit

# Counts changes of shared code (data, models, training, evaluation) that change results: part of every key.
ENGINE_VERSION = 1

Metrics = dict[str, float | None]
Curve = list[dict[str, Any]]


@dataclass(frozen=True)
class Victim:
    """A trained victim as the store holds it: the model, what the attack left, and the record of its training."""

    key: str
    model: Classifier
    poisoning: Poisoning
    record: dict[str, Any]


class InEngine(nn.Module):
    """A model that computes in the engine's way wherever it is called from: an attack knows nothing of engines."""

    def __init__(self, engine: Engine, model: nn.Module) -> None:
        super().__init__()
        self.engine = engine
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        with self.engine.autocast():
            return self.model(images.contiguous(memory_format=torch.channels_last)).float()


class Stages:
    """The stages of one cell, made on demand; `say` is told what is going on."""

    def __init__(self, settings: Settings, store: Store, engine: Engine, data: ImageData, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.store = store
        self.engine = engine
        self.data = data
        self.say = say
        self.seed = settings.general.seed
        self._victim: Victim | None = None
        self._triggered: TriggeredTest | None = None
        # What a model of the recipe is determined by, whoever trains it.
        self._recipe = {
            "engine": ENGINE_VERSION,
            "data": data.fingerprint,
            "augmentation": plain(settings.dataset.config.augmentation),
            "model": plain(settings.model),
            "training": {key: value for key, value in asdict(settings.training).items() if key != "name"},
            "seed": self.seed,
            "bfloat16": engine.half,
            "deterministic": settings.general.deterministic,
        }
        if engine.compilation != NOT_COMPILED:
            # Fused operations round otherwise. Absent where nothing is compiled, so that older artifacts keep their keys.
            self._recipe["compile"] = engine.compilation
        self.clean_key = key_of({"stage": "victim", "attack": None, **self._recipe})
        self.victim_key = self._victim_key(settings.attack)
        self.purified_key = self._purified_key()

    def _victim_key(self, attack: Attack) -> str:
        if attack.config.name == "none":
            return self.clean_key
        return key_of({"stage": "victim", "attack": plain(attack.config), "version": attack.version, **self._recipe})

    def _purified_key(self) -> str:
        defense, general = self.settings.defense, self.settings.general
        if defense.config.name == "none":
            return self.victim_key
        return key_of(
            {
                "stage": "purified",
                "victim": self.victim_key,
                "defense": plain(defense.config),
                "version": defense.version,
                "clean_budget": general.clean_budget if CLEAN_BUDGET in defense.needs else None,
            }
        )

    def victim(self) -> Victim:
        """The backdoored model of the cell's attack."""
        if self._victim is None:
            self._victim = self._load_victim(self.settings.attack, self.victim_key)
        return self._victim

    def release(self) -> None:
        """Let go of what is held in memory; it is made again, or read, when it is asked for."""
        self._victim = None
        self._triggered = None

    def clean_model(self) -> Classifier:
        """A model of the same recipe and initialisation, trained on the clean training set."""
        return self._load_victim(ATTACKS["none"](self._no_attack()), self.clean_key).model

    def purified(self) -> tuple[Classifier, dict[str, Any]]:
        """The model behind the defense, as it loads from the store, and the record of the defense."""
        if self.settings.defense.config.name == "none":
            return self.victim().model, {"seconds": 0.0, "history": [], "stages": {}}
        artifact = self.store.get_or_make("purified", self.purified_key, self._purify)
        return self._model_from(artifact.tensors), artifact.record

    def evaluation(self, what: str, model_key: str, model: Callable[[], Classifier]) -> dict[str, Any]:
        """ACC, ASR, RA of a model under the attack's trigger (`metrics`) and what it took (`seconds`)."""

        def make() -> Artifact:
            self.say(f"evaluating {what}")
            start = time.perf_counter()
            metrics = self._measure(model())
            return Artifact({"metrics": metrics, "seconds": time.perf_counter() - start}, {})

        key = key_of({"stage": "evaluation", "engine": ENGINE_VERSION, "model": model_key, "victim": self.victim_key})
        return self.store.get_or_make("evaluation", key, make).record

    def clean_budget_accuracy(self) -> float:
        """Percent of the defender's clean images that the purified model classifies right; a defense has trained on them."""

        def make() -> Artifact:
            budget = self._clean_budget(self.victim()).to(self.engine.device)
            return Artifact({"accuracy": 100 * accuracy(self.engine, self.purified()[0], self.data.train[budget])}, {})

        key = key_of(
            {
                "stage": "clean budget accuracy",
                "engine": ENGINE_VERSION,
                "model": self.purified_key,
                "victim": self.victim_key,
                "clean_budget": self.settings.general.clean_budget,
            }
        )
        try:
            return self.store.get_or_make("evaluation", key, make).record["accuracy"]
        finally:
            self.release()

    def _measure(self, model: nn.Module) -> Metrics:
        attack = self.settings.attack
        if attack.config.name != "none" and self._triggered is None:
            state = {name: value.to(self.engine.device) for name, value in self.victim().poisoning.state.items()}
            self._triggered = triggered_test(
                self.data.test, lambda images: attack.trigger(images, state), attack.config.target_class
            )
        return evaluate(self.engine, model, self.data.test, self._triggered)

    # Models.

    def new_model(self, seed: int) -> Classifier:
        """The cell's net with fresh weights, on the device."""
        data = self.data
        model = make_classifier(self.settings.model, data.num_classes, data.image_shape, data.channel_statistics, seed)
        return self.engine.model(model)

    def _model_from(self, tensors: dict[str, Tensor]) -> Classifier:
        model = self.new_model(self.seed)
        model.load_state_dict(
            {name.removeprefix("model/"): value for name, value in tensors.items() if name.startswith("model/")}
        )
        return model.eval()

    # Training.

    def _load_victim(self, attack: Attack, key: str) -> Victim:
        artifact = self.store.get_or_make("victim", key, lambda: self._train_victim(attack, key))
        tensors = artifact.tensors
        state = {name.removeprefix("trigger/"): value for name, value in tensors.items() if name.startswith("trigger/")}
        parts = {name: tensors[f"poison/{name}"] for name in ("indices", "images", "labels", "is_poison")}
        return Victim(
            key, self._model_from(tensors), Poisoning(**parts, state=state, notes=artifact.record["notes"]), artifact.record
        )

    def _train_victim(self, attack: Attack, key: str) -> Artifact:
        start = time.perf_counter()
        train, device = self.data.train, self.engine.device
        self.say(f"preparing the attack {attack.config.name}")
        poisoning = attack.poison(self._attack_context())
        prepared = time.perf_counter()
        state = {name: value.to(device) for name, value in poisoning.state.items()}
        model = self.new_model(self.seed)

        def poison_batch(images: Tensor, labels: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
            return attack.during_training(images, labels, state, rng)

        # Where the attacker poisons each batch of the clean set, `poisoning` is the set that the defender finds.
        before = poison_batch if attack.controls_training else None
        what = "training the clean model" if attack.config.name == "none" else f"training with {attack.config.name}"
        seen = train if attack.controls_training else poisoning.apply(train)
        checkpoint = self.store.checkpoint("victim", key)
        history = self._fit(model, seen, self.settings.training, self.seed, "victim", what, before, checkpoint)
        tensors = {f"model/{name}": value for name, value in model.state_dict().items()}
        tensors |= {f"trigger/{name}": value for name, value in poisoning.state.items()}
        tensors |= {f"poison/{name}": getattr(poisoning, name) for name in ("indices", "images", "labels", "is_poison")}
        return Artifact(
            {
                "history": history,
                "notes": {
                    "poisons": int(poisoning.is_poison.sum()),
                    "covers": int((~poisoning.is_poison).sum()),
                    **poisoning.notes,
                },
                "seconds": {"poisoning": prepared - start, "training": time.perf_counter() - prepared},
            },
            tensors,
        )

    def _attack_context(self) -> AttackContext:
        def surrogate() -> nn.Module:
            key = key_of({"stage": "surrogate", **self._recipe})
            artifact = self.store.get_or_make("surrogate", key, lambda: self._train_surrogate(key))
            return InEngine(self.engine, self._model_from(artifact.tensors))

        def fine_tune(model: nn.Module, split: Split, epochs: int, learning_rate: float, purpose: str) -> None:
            recipe = Recipe(
                epochs=epochs,
                batch_size=self.settings.training.batch_size,
                learning_rate=learning_rate,
                momentum=0.9,
                nesterov=False,
                weight_decay=self.settings.training.weight_decay,
                schedule="constant",
                warmup=0.0,
            )
            self._fit(model, split, recipe, self.seed, f"attack/{purpose}", f"attack: {purpose}")

        return AttackContext(self.data.train, self.data.num_classes, self.seed, surrogate, fine_tune)

    def _train_surrogate(self, key: str) -> Artifact:
        seed, what = derive(self.seed, "surrogate"), "training the attacker's surrogate"
        model = self.new_model(seed)
        checkpoint = self.store.checkpoint("surrogate", key)
        history = self._fit(model, self.data.train, self.settings.training, seed, "surrogate", what, None, checkpoint)
        return Artifact({"history": history}, {f"model/{name}": value for name, value in model.state_dict().items()})

    def _fit(
        self,
        model: nn.Module,
        split: Split,
        recipe: Recipe,
        seed: int,
        purpose: str,
        what: str,
        before_augmentation: Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Curve:
        history: Curve = []

        def log(values: dict[str, float]) -> None:
            history.append({"stage": purpose, **values})
            self.say(f"{what}: epoch {values['epoch']}/{recipe.epochs}, loss {values['loss']:.3f}")

        self.say(what)
        fit(
            self.engine,
            split,
            recipe,
            models=[model],
            loss=self.engine.compiled(cross_entropy_of(model)),
            augmentation=self.settings.dataset.config.augmentation,
            seed=seed,
            purpose=purpose,
            log=log,
            before_augmentation=before_augmentation,
            checkpoint=checkpoint,
        )
        return history

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
                model=self._load_victim(settings.attack, self.victim_key).model,
                clean_budget=train[budget.to(self.engine.device)],
                poisoned_train=victim.poisoning.apply(train),
                num_classes=self.data.num_classes,
                seed=self.seed,
                augmentation=settings.dataset.config.augmentation,
                new_model=lambda: self.new_model(derive(self.seed, "defense/new model")),
                log=log,
                observe=observe,
            )
        )
        seconds = time.perf_counter() - start - observing
        record = {"history": history, "stages": observed, "seconds": seconds, "clean_budget_images": len(budget)}
        return Artifact(record, {f"model/{name}": value for name, value in model.state_dict().items()})

    def _clean_budget(self, victim: Victim) -> Tensor:
        """The indices of the defender's clean images: of those that the attacker did not touch."""
        labels = self.data.train.labels
        untouched = torch.ones(len(labels), dtype=torch.bool)
        untouched[victim.poisoning.indices] = False
        return clean_budget(labels, untouched, self.settings.general.clean_budget, self.seed)

    @staticmethod
    def _no_attack() -> Any:
        return ATTACKS["none"].Config(name="none", target_class=0, poisoning_rate=0.0)
