"""The keys of a cell's artifacts: each a hash of what determines the artifact, and of nothing else."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ntml_bench.app.settings import Settings
from ntml_bench.attacks import Attack
from ntml_bench.defenses import Defense
from ntml_bench.defenses.base import CLEAN_BUDGET
from ntml_bench.engine import NOT_COMPILED, Engine
from ntml_bench.exhibits import EXHIBIT_VERSION
from ntml_bench.models import module_of
from ntml_bench.source import source_mark, source_marks
from ntml_bench.store import key_of, plain

# Counts changes of shared code (data, models, training, evaluation) that change results: part of every key.
ENGINE_VERSION = 1


@dataclass(frozen=True)
class Keys:
    """Of the models: `clean`, the one that floors are measured on, `victim`, `purified`, and `surrogate`, the attacker's own.

    Where the cell has no defense (no attack), `purified` (`victim`) is the key of the model before it. Where the defense is
    tuned, `candidates` are the keys of the models of its strengths, and `purified` stands for the choice among them.
    """

    clean: str
    victim: str
    surrogate: str
    purified: str
    has_trigger: bool
    candidates: tuple[str, ...] = ()
    validation: Mapping[str, Any] = field(default_factory=dict)
    """What the images that a choice is made on are determined by."""
    retuning: Mapping[str, Any] | None = None
    """How purified models are re-tuned; None where they are not."""

    @classmethod
    def of(cls, settings: Settings, engine: Engine, fingerprint: str, patch_size: int | None = None) -> "Keys":
        """`fingerprint`: of the data; `patch_size`: as the classifier has it."""
        general, attack, code = settings.general, settings.attack, code_of(settings)
        # What a model of the recipe is determined by, whoever trains it.
        recipe = {
            "engine": ENGINE_VERSION,
            "data": fingerprint,
            "augmentation": plain(settings.dataset.config.augmentation),
            "model": settings.model.determining(),
            "training": {key: value for key, value in asdict(settings.training).items() if key != "name"},
            "seed": general.seed,
            "bfloat16": engine.half,
            "deterministic": general.deterministic,
        }
        if engine.compilation != NOT_COMPILED:
            # Fused operations round otherwise. Absent where nothing is compiled, so that older artifacts keep their keys.
            recipe["compile"] = engine.compilation
        if "model" in code:
            recipe["model_code"] = code["model"]
        if patch_size is not None:
            # Another net than the one of older artifacts. Absent where it is the same, so that they keep their keys.
            recipe["patch_size"] = patch_size
        clean = key_of({"stage": "victim", "attack": None, **recipe})
        has_trigger = attack.config.name != "none"
        victim = clean
        if has_trigger:
            victim = key_of({"stage": "victim", "attack": plain(attack.determining()), **code["attack"], **recipe})
        surrogate = {"stage": "surrogate", **recipe}
        if attack.adversary is not None:
            surrogate["adversary"] = plain(attack.adversary)
        models = clean, victim, key_of(surrogate)
        tuning, retuning = settings.tuning, settings.retuning and plain(settings.retuning)
        if tuning is None:
            purified = _purified(settings, settings.defense, victim, code["defense"])
            return cls(*models, purified, has_trigger, retuning=retuning)
        validation = {"validation_share": tuning.validation_share, "clean_budget": general.clean_budget}
        candidates = [_purified(settings, defense, victim, {**code["defense"], **validation}) for defense in tuning.candidates]
        chosen = key_of({"stage": "chosen", "engine": ENGINE_VERSION, "candidates": candidates, "price": tuning.price})
        return cls(*models, chosen, has_trigger, tuple(candidates), validation, retuning)

    def evaluation(self, model: str) -> str:
        """Of what a model answers under the attack's trigger; `model`: its key."""
        return key_of({"stage": "evaluation", "engine": ENGINE_VERSION, "model": model, "victim": self.victim})

    def retuned(self, model: str) -> str:
        """Of what a model answers under the trigger once it was re-tuned; `model`: its key."""
        versions = {"stage": "re-tuned", "engine": ENGINE_VERSION}
        return key_of({**versions, "model": model, "victim": self.victim, "retuning": self.retuning})

    def validated(self, model: str) -> str:
        """Of what a model answers on the images that a choice among strengths is made on; `model`: its key."""
        versions = {"stage": "validation", "engine": ENGINE_VERSION}
        return key_of({**versions, "model": model, "victim": self.victim, **self.validation})

    def clean_budget_accuracy(self, clean_budget: float) -> str:
        return key_of(
            {
                "stage": "clean budget accuracy",
                "engine": ENGINE_VERSION,
                "model": self.purified,
                "victim": self.victim,
                "clean_budget": clean_budget,
            }
        )

    @property
    def gallery(self) -> str:
        """Of images under the trigger. Victims with one trigger do not share it: what the trigger is, they alone know."""
        return key_of({"stage": "gallery", "engine": ENGINE_VERSION, "version": EXHIBIT_VERSION, "victim": self.victim})

    def exhibit(self, model: str) -> str:
        """Of what a model makes of some images; `model`: its key."""
        return exhibit_key(model, self.victim)

    def exhibits(self, purified: str) -> dict[str, str] | None:
        """Those that a cell with that purified model leaves to look at; None of a cell without a trigger."""
        if not self.has_trigger:
            return None
        return {"gallery": self.gallery, "before": self.exhibit(self.victim), "after": self.exhibit(purified)}

    def artifacts(self, floor: bool) -> list[str]:
        """The artifacts that the cell may be made from or leaves, so that whoever tidies the store knows what is still needed.

        A surrogate is named for every attack of its recipe; only some of them train one.
        """
        purified = self.candidates or (self.purified,)
        models = {"victim": [self.victim], "purified": [], "surrogate": [self.surrogate]}
        if self.purified != self.victim:
            models["purified"] = list(purified)
        if floor:
            models["victim"].append(self.clean)
        models["evaluation"] = [self.evaluation(key) for key in (*models["victim"], *models["purified"])]
        if self.candidates:
            models["evaluation"] += [self.validated(key) for key in (self.victim, *self.candidates)]
        if self.retuning is not None:
            models["evaluation"] += [self.retuned(key) for key in (*purified, *((self.clean,) if floor else ()))]
            if self.candidates:
                models["evaluation"].append(self.retuned(self.victim))
        names = {f"{name}-{key}" for name, keys in models.items() for key in keys}
        # Which strength is chosen is not known yet, nor whether any is.
        for model in (*purified, self.victim) if self.candidates else purified:
            for what, key in (self.exhibits(model) or {}).items():
                names.add(f"{'gallery' if what == 'gallery' else 'exhibit'}-{key}")
        return sorted(names)


def exhibit_key(model: str, victim: str) -> str:
    """Of what a model makes of some images under the trigger of a victim; both are keys."""
    versions = {"engine": ENGINE_VERSION, "version": EXHIBIT_VERSION}
    return key_of({"stage": "exhibit", **versions, "model": model, "victim": victim})


def code_of(settings: Settings) -> dict[str, Any]:
    """The versions of the code that a cell's numbers depend on; of code from outside the package its source."""
    code: dict[str, Any] = {
        "engine": ENGINE_VERSION,
        "attack": _code_of_method(settings.attack),
        "defense": _code_of_method(settings.defense),
    }
    mark = source_mark(module_of(settings.model))
    return code if mark is None else {**code, "model": mark}


def _code_of_method(method: Attack | Defense) -> dict[str, Any]:
    marks = source_marks(type(method))
    return {"version": method.version, "source": marks} if marks else {"version": method.version}


def _purified(settings: Settings, defense: Defense, victim: str, code: Mapping[str, Any]) -> str:
    general = settings.general
    if defense.config.name == "none":
        return victim
    return key_of(
        {
            "stage": "purified",
            "victim": victim,
            "defense": plain(defense.config),
            **code,
            "clean_budget": general.clean_budget if CLEAN_BUDGET in defense.needs else None,
        }
    )
