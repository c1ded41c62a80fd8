"""Victims as the store holds them: loaded, or poisoned and trained, with what an attack has of its own (a surrogate)."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ntml_bench.app.keys import Keys
from ntml_bench.app.settings import Settings
from ntml_bench.attacks import ATTACKS, Attack
from ntml_bench.attacks.base import AttackContext, Poisoning
from ntml_bench.checkpoint import Checkpoint
from ntml_bench.data import ImageData, Split
from ntml_bench.engine import Engine
from ntml_bench.models import Classifier, load_weights, make_classifier
from ntml_bench.models.weights import load_into
from ntml_bench.seeding import derive
from ntml_bench.store import Artifact, Store
from ntml_bench.training import Recipe, cross_entropy_of, fit

Curve = list[dict[str, Any]]
MODEL, TRIGGER, POISON = "model/", "trigger/", "poison/"
"""How the names of a victim's tensors begin."""


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


class Victims:
    """The models of a cell that are trained, not purified; `say` is told what is going on."""

    def __init__(
        self, settings: Settings, store: Store, engine: Engine, data: ImageData, keys: Keys, say: Callable[[str], None]
    ) -> None:
        self.settings = settings
        self.store = store
        self.engine = engine
        self.data = data
        self.keys = keys
        self.say = say
        self.seed = settings.general.seed

    def new_model(self, seed: int) -> Classifier:
        """The cell's net with fresh weights, on the device."""
        data = self.data
        model = make_classifier(self.settings.model, data.num_classes, data.image_shape, data.channel_statistics, seed)
        return self.engine.model(model)

    def model_from(self, tensors: dict[str, Tensor]) -> Classifier:
        """A stored model, in eval mode."""
        model = self.new_model(self.seed)
        load_weights(model, tensors_named(MODEL, tensors))
        return model.eval()

    def of_attack(self) -> Victim:
        """The backdoored model of the cell's attack; each call has a model of its own."""
        return self._load(self.settings.attack, self.keys.victim)

    def clean(self) -> Victim:
        """A model of the same recipe and initialisation, trained on the clean training set."""
        return self._load(ATTACKS["none"](_no_attack()), self.keys.clean)

    def stored_state(self) -> dict[str, Tensor] | None:
        """The tensors of the trigger (on the CPU) that the stored victim was made with; None where it is not stored."""
        artifact = self.store.load("victim", self.keys.victim)
        return None if artifact is None else tensors_named(TRIGGER, artifact.tensors)

    def stored_surrogate(self) -> nn.Module | None:
        """The attacker's surrogate, where it is trained already."""
        artifact = self.store.load("surrogate", self.keys.surrogate)
        return None if artifact is None else InEngine(self.engine, self.model_from(artifact.tensors))

    def attack_context(self, surrogate: Callable[[], nn.Module] | None = None) -> AttackContext:
        """What the cell's attacker has; `surrogate` in place of one that is trained where it is not stored."""

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

        return AttackContext(
            self.data.train,
            self.data.num_classes,
            self.seed,
            surrogate or self._surrogate,
            fine_tune,
            self.settings.dataset.config.augmentation,
        )

    def _load(self, attack: Attack, key: str) -> Victim:
        artifact = self.store.get_or_make("victim", key, lambda: self._train(attack, key))
        tensors = artifact.tensors
        poisoning = Poisoning(
            **{name: tensors[POISON + name] for name in ("indices", "images", "labels", "is_poison")},
            state=tensors_named(TRIGGER, tensors),
            notes=artifact.record["notes"],
        )
        return Victim(key, self.model_from(tensors), poisoning, artifact.record)

    def _train(self, attack: Attack, key: str) -> Artifact:
        start = time.perf_counter()
        train, device = self.data.train, self.engine.device
        self.say(f"preparing the attack {attack.config.name}")
        poisoning = attack.poison(self.attack_context())
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
        history: Curve = []
        if attack.weights is None:
            history = self._fit(model, seen, self.settings.training, self.seed, "victim", what, before, checkpoint)
        else:
            self.say(f"reading {attack.weights.path.name}")
            load_given(model, attack, f"model.name={self.settings.model.name}")
        tensors = {MODEL + name: value for name, value in model.state_dict().items()}
        tensors |= {TRIGGER + name: value for name, value in poisoning.state.items()}
        tensors |= {POISON + name: getattr(poisoning, name) for name in ("indices", "images", "labels", "is_poison")}
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

    def _surrogate(self) -> nn.Module:
        artifact = self.store.get_or_make("surrogate", self.keys.surrogate, self._train_surrogate)
        return InEngine(self.engine, self.model_from(artifact.tensors))

    def _train_surrogate(self) -> Artifact:
        seed, what = derive(self.seed, "surrogate"), "training the attacker's surrogate"
        model = self.new_model(seed)
        checkpoint = self.store.checkpoint("surrogate", self.keys.surrogate)
        adversary, judge = self.settings.attack.adversary, InEngine(self.engine, model)

        def push_off(images: Tensor, labels: Tensor, rng: torch.Generator) -> Tensor:
            return images if adversary is None else adversary.push_off(judge, images, labels, rng)

        history = self._fit(model, self.data.train, self.settings.training, seed, "surrogate", what, None, checkpoint, push_off)
        return Artifact({"history": history}, {MODEL + name: value for name, value in model.state_dict().items()})

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
        after_augmentation: Callable[[Tensor, Tensor, torch.Generator], Tensor] | None = None,
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
            after_augmentation=after_augmentation,
            checkpoint=checkpoint,
        )
        return history


def load_given(model: Classifier, attack: Attack, what: str) -> None:
    """Make a model the victim that is given with an attack, in place. UserError where the weights are not those of `what`."""
    assert attack.weights is not None
    load_into(model.net, attack.weights, what)
    mean, std = attack.normalisation or (torch.zeros(model.mean.numel()), torch.ones(model.std.numel()))
    model.mean.copy_(mean.view(model.mean.shape))
    model.std.copy_(std.view(model.std.shape))


def tensors_named(beginning: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of a victim's tensors whose names begin so, without that beginning."""
    return {name.removeprefix(beginning): value for name, value in tensors.items() if name.startswith(beginning)}


def _no_attack() -> Any:
    return ATTACKS["none"].Config(name="none", target_class=0, poisoning_rate=0.0)
