"""A composed config as typed settings; every mistake that can be seen without data or model is found here."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ntml_bench.app.cluster import ClusterConfig, read_cluster
from ntml_bench.app.fitted import Fitted, fitted_settings
from ntml_bench.attacks import ATTACKS, Attack
from ntml_bench.data import DATASETS, Dataset
from ntml_bench.defenses import DEFENSES, Defense
from ntml_bench.defenses.base import CLEAN_BUDGET
from ntml_bench.engine import COMPILATIONS
from ntml_bench.errors import UserError, nearest, unknown
from ntml_bench.models import ModelConfig, read_model
from ntml_bench.objective import check_objective
from ntml_bench.registry import Registry
from ntml_bench.retuning import RetuningConfig
from ntml_bench.schema import build, number, one_of
from ntml_bench.source import source_mark
from ntml_bench.tracking import TrackingConfig
from ntml_bench.training import TrainingConfig
from ntml_bench.tuning import Strength, read_strength

NO_VARIANT = "none"
GROUPS = ("dataset", "model", "attack", "defense", "training", "tracking", "cluster")


@dataclass(frozen=True, kw_only=True)
class GeneralConfig:
    """The settings outside the groups.

    `presets`: the family that the values come from; a table holds one only. `clean_budget`: share of the training set that the
    defender has clean. `tuning`: whether a defense runs with its values as written (none), or at each of its strengths, of
    which the strongest is taken that costs no more than `price` points of accuracy on a part of the clean budget,
    `validation_share` of it. `robustness`: whether purified models are measured once more after a re-tuning attack, and
    `retuning` how it goes (ntml_bench/retuning.py). `defender_has_training_set`: whether defenses get the poisoned training
    set. `floor`: whether to measure a clean model under the trigger (one more model to train). `workers`: cells at a time
    (null: two on a CPU, one on a GPU, or on each GPU with cluster=local). `deterministic`: the same numbers on every run.
    `compile`: the trainings of victims and surrogates through torch.compile. `sweep`: the name under which cells are collected.
    `objective`: what a search over settings maximises (ntml_bench/objective.py). `imports`: modules that register methods from
    outside.
    """

    presets: str
    seed: int = number(at_least=0)
    clean_budget: float = number(above=0, at_most=1)
    tuning: str = one_of("none", "price")
    price: float | None = number(at_least=0, at_most=100)
    validation_share: float = number(above=0, at_most=0.9)
    robustness: str = one_of("none", "retuning")
    retuning: RetuningConfig
    defender_has_training_set: bool
    floor: bool
    device: str
    workers: int | None = number(at_least=1)
    precision: str = one_of("auto", "float32", "bfloat16")
    compile: str = one_of(*COMPILATIONS)
    deterministic: bool
    sweep: str
    objective: str | None
    outputs: str
    data_dir: str
    imports: list[str]


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The strengths of a defense: one defense for each value, and the points of accuracy that may be paid."""

    strength: Strength
    candidates: tuple[Defense, ...]
    price: float
    validation_share: float


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that one cell is made from.

    `labels`: the names of the chosen options of each group. `fitted`: which settings are not those of the attack's and the
    defense's own option.

    Where there is `tuning`, the defense of the cell is the one of its candidates that is chosen.
    """

    general: GeneralConfig
    dataset: Dataset
    model: ModelConfig
    attack: Attack
    defense: Defense
    training: TrainingConfig
    tracking: TrackingConfig
    cluster: ClusterConfig
    labels: dict[str, str]
    fitted: Fitted
    tuning: Tuning | None = None

    @property
    def retuning(self) -> RetuningConfig | None:
        """How the purified model is re-tuned; None where it is not, or where there is none."""
        asked = self.general.robustness == "retuning"
        whole = self.attack.config.name != "none" and self.defense.config.name != "none"
        return self.general.retuning if asked and whole else None

    @property
    def needs(self) -> tuple[str, ...]:
        """What the defender must have: what the defense needs, and the clean images that a strength is chosen on."""
        needs = self.defense.needs
        return needs if self.tuning is None or CLEAN_BUDGET in needs else (CLEAN_BUDGET, *needs)


def read_settings(config: DictConfig, choices: Mapping[str, Any], folders: Sequence[Path]) -> Settings:
    """Typed settings from a composed config (without Hydra's own node), the options chosen in each group, and the folders in
    which these are.

    Raises UserError.
    """
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        if missing:
            raise UserError(f"missing setting: {', '.join(missing)}")
        values = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"a setting refers to what is not there: {str(error).splitlines()[0]}") from None
    assert isinstance(values, dict)
    general_keys = [entry.name for entry in fields(GeneralConfig)]
    for key in values:
        if key not in general_keys and key not in GROUPS:
            raise unknown("setting", str(key), [*general_keys, *GROUPS])
    for group in GROUPS:
        if not isinstance(values.get(group), dict):
            raise UserError(f"no option chosen for '{group}'; ntml-bench --help lists them")
    general = build(GeneralConfig, {key: values[key] for key in general_keys if key in values}, "")
    import_extensions(general.imports)
    if not general.sweep or Path(general.sweep).name != general.sweep or general.sweep.startswith("."):
        raise UserError(f"sweep is {general.sweep!r}; it names a folder: no slash, not empty, no dot in front")
    labels = {group: str(choices.get(group)) for group in GROUPS}
    model = read_model(values["model"])
    if labels["model"] == "timm":
        labels["model"] = model.name
    variant = choices.get("variant", NO_VARIANT)
    if variant != NO_VARIANT:
        labels["defense"] += f" ({variant})"
    # Before the methods: what they have from it (expressions) would be refused under their names.
    training = build(TrainingConfig, values["training"], "training")
    dataset: Dataset = _method(DATASETS, values["dataset"], "dataset")
    attack: Attack = _method(ATTACKS, values["attack"], "attack")
    strength = _strength(values["defense"])
    defense: Defense = _method(DEFENSES, values["defense"], "defense")
    if general.objective is not None:
        check_objective(general.objective, dataset.config.holdout, attack.config.name, defense.config.name)
    return Settings(
        general=general,
        dataset=dataset,
        model=model,
        attack=attack,
        defense=defense,
        training=training,
        tracking=build(TrackingConfig, values["tracking"], "tracking"),
        cluster=read_cluster(values["cluster"]),
        labels=labels,
        fitted=fitted_settings(config, choices, folders),
        tuning=_tuning(general, values["defense"], strength),
    )


def _strength(values: dict[str, Any]) -> Strength | None:
    """The strength of a defense, taken out of the values of its YAML file; None where there is none. Raises UserError."""
    name = values.get("name")
    own = fields(DEFENSES[name].Config) if isinstance(name, str) else ()
    if "strength" not in values or any(entry.name == "strength" for entry in own):
        return None  # or a setting of a defense from outside, which happens to have that name
    return read_strength(values.pop("strength"))


def _tuning(general: GeneralConfig, values: Mapping[str, Any], strength: Strength | None) -> Tuning | None:
    """The tuning of the defense with these settings; None where it runs as written. Raises UserError."""
    # Made also where nothing is tuned: a strength that does not fit is a mistake in the defense's file.
    try:
        candidates = strength and [_method(DEFENSES, strength.applied(values, value), "defense") for value in strength.values]
    except UserError as error:
        raise UserError(f"{error} (in defense.strength)") from None
    if general.tuning == "none":
        if general.price is not None:
            raise UserError(f"price is {general.price:g}, but tuning is none; tuning=price tunes the defenses at that price")
        return None
    if general.price is None:
        raise UserError("price is null; with tuning=price it is the points of clean accuracy that may be paid: price=2")
    if values["name"] == "none":
        return None
    if strength is None or candidates is None:
        raise UserError(
            f"tuning=price needs the strength of defense {values['name']}: in its YAML file, "
            "strength: {setting: KEY, values: [WEAK, ..., STRONG]}"
        )
    return Tuning(
        strength=strength, candidates=tuple(candidates), price=general.price, validation_share=general.validation_share
    )


def _method(registry: Registry[Any], values: Mapping[str, Any], group: str) -> Any:
    name = values.get("name")
    if not isinstance(name, str):
        raise UserError(f"{group}.name is {name!r}; it names the {group}'s class, one of: {', '.join(registry)}")
    if name not in set(registry):
        raise UserError(
            f"{group}.name is '{name}', of which no class is registered{nearest(name, registry)}; imports=[MODULE] names the "
            f"module that registers one of your own. Registered: {', '.join(registry)}."
        )
    cls = registry[name]
    return cls(build(cls.Config, values, group))


def import_extensions(modules: list[str]) -> None:
    """Import what registers methods from outside the package: entry points `ntml_bench`, then the modules of `imports`.

    Modules are also looked for in the working directory. UserError where one cannot be imported.
    """
    for entry_point in entry_points(group="ntml_bench"):
        entry_point.load()
    if modules and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    for name in modules:
        if not all(part.isidentifier() for part in name.split(".")):
            raise UserError(f"imports names {name!r}; it holds names of modules, as in an import of Python")
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
            raise UserError(
                f"imports names '{name}', but there is no such module in the working directory or the environment"
            ) from None
    # Now: what is edited later is not what runs.
    for module in (*modules, *(registry[name].__module__ for registry in (ATTACKS, DEFENSES, DATASETS) for name in registry)):
        source_mark(module)
