"""What stands in `conf` and `sweeps`: every file is used, and every sweep composes and names its family."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml
from app_runner import bench, workplace
from builders import CONF, attacks_of_ours, option_names
from composed import composed, settings_of, sweeps_are_found
from omegaconf import OmegaConf

from ntml_bench.app.composition import split_config
from ntml_bench.app.explain import is_of_wandb
from ntml_bench.app.settings import Settings, read_settings
from ntml_bench.defenses.base import feature_maps
from ntml_bench.errors import UserError
from ntml_bench.models import ModelConfig, make_classifier
from ntml_bench.records.family import family_of
from ntml_bench.records.published.reference import read_reference

__all__ = ["workplace"]

FILES = sorted((CONF.parent / "sweeps").glob("*.yaml"))
SWEEPS = [path.stem for path in FILES if not is_of_wandb(path)]
# What a data set or a family says of an option of another group: GROUP/NAME/OTHER/OPTION.yaml.
OF_OTHERS = sorted(CONF.glob("*/*/*/*.yaml"))
PLACES = {("dataset", "attack"), ("dataset", "defense"), ("presets", "attack"), ("presets", "defense"), ("presets", "dataset")}
# What a family says of an attack on one data set: presets/FAMILY/dataset/DATASET/attack/ATTACK.yaml.
OF_PAIRS = sorted(CONF.glob("presets/*/dataset/*/*/*.yaml"))
SPECIALISED = [path for path in [*OF_OTHERS, *OF_PAIRS] if path.parent.name in ("attack", "defense")]


@pytest.fixture(autouse=True, scope="module")
def _sweeps_are_found() -> Iterator[None]:
    with sweeps_are_found():
        yield


def values_of(space: str) -> list[str]:
    """The values of an axis of a grid; the ends of an interval that is searched."""
    interval = re.search(r"interval\(([^)]*)\)", space)
    return [value.strip() for value in (interval[1] if interval else space).split(",")]


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    return {
        key: value for name, item in values.items() for key, value in flat(item, f"{prefix}.{name}" if prefix else name).items()
    }


@pytest.mark.parametrize("path", SPECIALISED, ids=lambda path: path.stem)
def test_values_for_a_data_set_or_a_family_reach_the_method(path: Path) -> None:
    *places, group, _ = path.relative_to(CONF).parts
    method = path.stem
    pairs = list(zip(places[::2], places[1::2], strict=True))
    config = OmegaConf.to_container(composed("config", [*(f"{kind}={name}" for kind, name in pairs), f"{group}={method}"]))
    assert isinstance(config, dict)
    written = flat(OmegaConf.to_container(OmegaConf.load(path)))
    found = flat(config[group])
    assert written
    assert {key: found[key] for key in written} == written
    # None of them is what the method has anyway.
    weaker = [CONF / group / path.name, *(CONF / kind / name / group / path.name for kind, name in reversed(pairs))]
    files = [OmegaConf.load(place) for place in weaker if place.exists() and place != path]
    plain = flat(OmegaConf.to_container(OmegaConf.merge(*files)))
    assert [key for key, value in written.items() if plain[key] == value] == []


def test_no_file_says_something_of_what_there_is_not() -> None:
    for path in OF_OTHERS:
        kind, chosen, group = path.relative_to(CONF).parts[:3]
        assert (kind, group) in PLACES, f"{path} is never read"
        assert (CONF / kind / f"{chosen}.yaml").exists(), f"{path} is never read"
        assert (CONF / group / path.name).exists(), f"{path} is never read"
    for path in OF_PAIRS:
        _, family, _, chosen, group, _ = path.relative_to(CONF).parts
        asks = CONF / "presets" / family / "dataset" / f"{chosen}.yaml"
        line = f"optional /{path.parent.relative_to(CONF)}@{group}: ${{{group}}}"
        assert line in asks.read_text(), f"{path} is never read"
        assert (CONF / group / path.name).exists(), f"{path} is never read"
    assert OF_OTHERS
    assert OF_PAIRS
    assert sorted(CONF.rglob("*.yaml")) == sorted([CONF / "config.yaml", *CONF.glob("*/*.yaml"), *OF_OTHERS, *OF_PAIRS])


def test_the_page_on_configuration_names_each_folder_and_no_other() -> None:
    page = (CONF.parent / "docs" / "configuration.md").read_text()
    rows = re.findall(r"^\| `(conf/\S+)` \|", page, re.MULTILINE)
    assert sorted(row for row in rows if not row.endswith(".yaml")) == sorted(
        f"conf/{path.name}" for path in CONF.iterdir() if path.is_dir()
    )
    assert {(row.split("/")[1], row.split("/")[3]) for row in rows if row.endswith(".yaml")} == PLACES
    named = re.findall(r"(?<![\w./])(?:conf|sweeps)/[a-z0-9_/]+\.yaml", page)
    assert [name for name in named if not (CONF.parent / name).is_file()] == []


@pytest.fixture(scope="module")
def usual() -> Settings:
    return settings_of("config", "defense=nt_ml")


VARIANTS = sorted(path for path in (CONF / "variant").glob("*.yaml") if path.stem != "none")


@pytest.mark.parametrize("path", VARIANTS, ids=lambda path: path.stem)
def test_a_variant_changes_the_defense_and_stands_behind_its_name(path: Path, usual: Settings) -> None:
    whole = composed("config", ["defense=nt_ml", f"variant={path.stem}", "hydra.mode=RUN"])
    settings = read_settings(*split_config(whole))
    assert settings.labels["defense"] == f"nt_ml ({path.stem})"
    assert settings.defense.config != usual.defense.config
    assert usual.labels["defense"] == "nt_ml"
    config = OmegaConf.to_container(whole)
    assert isinstance(config, dict)
    found = flat(config)
    # What it says arrives: nothing that is composed later takes it back.
    package = "defense." if "@package defense" in path.read_text() else ""
    written = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(written, dict)
    written.pop("defaults", None)
    for key, value in flat(written).items():
        assert found[package + key] == value


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_composes_and_names_its_family(name: str) -> None:
    text = (CONF.parent / "sweeps" / f"{name}.yaml").read_text()
    assert f"ntml-bench -cn {name}" in text, "it says how it is run"
    config = composed(name, [])
    grid = {str(key): values_of(str(value)) for key, value in config.hydra.sweeper.params.items()}
    families = set()
    # Every value of every axis, beside the first of the others.
    for choice in zip_longest(*grid.values()):
        values = {key: grid[key][0] if value is None else value for key, value in zip(grid, choice, strict=True)}
        settings = settings_of(name, *(f"{key}={value}" for key, value in values.items()))
        families.add(settings.general.presets)
        assert settings.general.sweep == name
    assert len(families) == 1
    extended = any(f"\n  - {other}\n" in text for other in SWEEPS)
    assert extended or "override presets:" in text, "it names its family, or that of the sweep that it extends does"


def test_the_table_of_the_field_holds_every_method() -> None:
    grid = composed("field_table", []).hydra.sweeper.params
    assert sorted(values_of(grid.attack)) == attacks_of_ours()
    assert sorted(values_of(grid.defense)) == option_names("defense")


@pytest.mark.parametrize("path", [path for path in FILES if is_of_wandb(path)], ids=lambda path: path.stem)
def test_a_sweep_of_wandb_starts_cells_with_a_held_out_set(path: Path) -> None:
    sweep = yaml.safe_load(path.read_text())
    assert f"wandb sweep sweeps/{path.name}" in path.read_text(), "it says how it is run"
    assert sweep["program"] == "ntml-bench"
    fixed = [argument for argument in sweep["command"] if not argument.startswith("${")]
    # Both ends of every range, beside the first of the others.
    ends = {name: values.get("values") or [values["min"], values["max"]] for name, values in sweep["parameters"].items()}
    for choice in zip_longest(*ends.values()):
        chosen = {name: ends[name][0] if value is None else value for name, value in zip(ends, choice, strict=True)}
        settings = settings_of("config", *fixed, *(f"{name}={value}" for name, value in chosen.items()))
        assert settings.tracking.agent
        assert settings.general.sweep == path.stem
        assert settings.dataset.config.holdout > 0
    assert sweep["metric"]["name"].startswith("holdout_")


@pytest.mark.parametrize("arguments", [(), ("attack=sig",), ("-m", "seed=0,1")])
def test_a_sweep_of_wandb_is_none_of_hydra(workplace: Path, arguments: tuple[str, ...]) -> None:
    outcome = bench("-cn", "wandb_ablation", *arguments)
    assert outcome.code == 1
    assert "'wandb_ablation' is a sweep of W&B, not of Hydra: wandb sweep " in outcome.errors
    assert "Traceback" not in outcome.errors
    assert "wandb_ablation" not in bench("-cn", "ablation").errors


def test_the_recipe_of_a_family_comes_with_it_and_can_be_changed() -> None:
    assert settings_of("config", "presets=backdoorbench").training.name == "backdoorbench"
    assert settings_of("config", "presets=backdoorbench", "training=one_cycle").training.name == "one_cycle"
    gtsrb = settings_of("config", "presets=backdoorbench", "dataset=gtsrb").training
    assert (gtsrb.epochs, gtsrb.schedule) == (50, "half_cosine")


def test_two_families_in_one_table_are_refused() -> None:
    entries = [{"settings": {"presets": name}} for name in ("paper", "backdoorbench", "paper")]
    with pytest.raises(UserError, match="'mine' has cells of backdoorbench and paper; a table holds one family"):
        family_of(entries, "mine")
    assert family_of(entries[::2], "mine") == "paper"
    assert family_of([{"settings": {}}, {}], "older") is None


def test_the_leaderboards_distillation_is_that_of_its_code() -> None:
    published = read_reference("backdoorbench").option("defense", "nad").settings
    found = settings_of("config", "presets=backdoorbench", "dataset=cifar10", "defense=nad").defense.config
    assert {key: flat(asdict(found))[key.removeprefix("defense.")] for key in published} == dict(published)


@pytest.mark.parametrize(
    ("overrides", "batch", "peak", "passes"),
    [
        # The leaderboard: passes of ft, its batch and rate, beside the training's.
        (["presets=backdoorbench", "dataset=cifar10"], 128, 0.01, 100),
        (["dataset=digit_scenes"], 128, 0.1, 15),
        (["dataset=digit_scenes", "training.epochs=12"], 128, 0.1, 12),
        (["presets=small", "dataset=cifar10"], 128, 0.1, 24),
        (["presets=small", "dataset=gtsrb", "training.epochs=7"], 128, 0.1, 7),
        (["presets=cpu", "dataset=cifar10", "training.batch_size=256", "training.learning_rate=0.4"], 256, 0.4, 15),
    ],
)
def test_fine_tuning_passes_as_often_as_the_training_at_half_of_its_rate_an_image(
    overrides: list[str], batch: int, peak: float, passes: int
) -> None:
    # The family cpu says nothing of ft_sam.
    for defense in ("ft", "fp") if "presets=cpu" in overrides else ("ft", "fp", "ft_sam"):
        settings = settings_of("config", *overrides, f"defense={defense}")
        training, recipe = settings.training, cast(Any, settings.defense.config).recipe
        assert (training.batch_size, training.learning_rate, training.epochs) == (batch, peak, passes)
        assert recipe.epochs == passes
        assert recipe.learning_rate / recipe.batch_size == pytest.approx(peak / batch / 2)


@pytest.mark.parametrize("defense", ["ft_init", "fe_tuning", "fst"])
@pytest.mark.parametrize("overrides", [["dataset=digit_scenes", "training.epochs=7"], ["presets=small", "dataset=cifar10"]])
def test_feature_shift_passes_as_often_as_the_training_at_its_rate_an_image(overrides: list[str], defense: str) -> None:
    settings = settings_of("config", *overrides, f"defense={defense}")
    training, recipe = settings.training, cast(Any, settings.defense.config).recipe
    assert recipe.epochs == training.epochs
    assert recipe.learning_rate / recipe.batch_size == pytest.approx(training.learning_rate / training.batch_size)
    # As published beside the leaderboard's training.
    published = cast(Any, settings_of("config", "presets=backdoorbench", "dataset=cifar10", f"defense={defense}"))
    plain, trained = published.defense.config.recipe, published.training
    assert plain.learning_rate / plain.batch_size == trained.learning_rate / trained.batch_size


@pytest.mark.parametrize("sweep", ["digits_table", "cifar10_small_table", "cifar10_cpu_table"])
def test_distillation_keeps_its_published_proportions(sweep: str) -> None:
    settings = settings_of(sweep, "defense=nad")
    published = settings_of("config", "dataset=cifar10", "defense=nad").defense.config
    config, training = cast(Any, settings.defense.config), settings.training
    assert config.student.epochs == training.epochs
    for stage, plain in ((config.teacher, cast(Any, published).teacher), (config.student, cast(Any, published).student)):
        assert stage.epochs / config.student.epochs == plain.epochs / cast(Any, published).student.epochs
        assert (stage.schedule, stage.full_rate) == (plain.schedule, plain.full_rate)
        # The public code trains its backdoored models, too, at 0.1 in batches of 64.
        assert stage.learning_rate / stage.batch_size == pytest.approx(training.learning_rate / training.batch_size)


def test_the_distillation_of_the_family_cpu_weighs_a_map_by_its_pixels() -> None:
    def weights(*overrides: str) -> list[float]:
        return cast(Any, settings_of("config", *overrides, "defense=nad").defense.config).attention_weights

    mean, deviation = torch.zeros(3), torch.ones(3)
    model = make_classifier(ModelConfig("resnet_tiny"), 10, (3, 32, 32), (mean, deviation), seed=0).eval()
    _, maps = feature_maps(model, model.stages(3), torch.zeros(1, 3, 32, 32))
    sides = (32, 16, 8)  # of the public code's net, for which the weights are
    shares = [found.shape[2] * found.shape[3] / side**2 for found, side in zip(maps, sides, strict=True)]
    published = weights("dataset=cifar10")
    assert weights("presets=cpu", "dataset=gtsrb") == [weight * share for weight, share in zip(published, shares, strict=True)]
