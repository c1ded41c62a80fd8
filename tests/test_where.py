"""`--where`: each value of a cell with the file that it is from; what is shown is what is composed."""

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from app_runner import bench, workplace
from builders import CONF
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from ntml_bench.app.composition import SweepsOnSearchPath
from ntml_bench.app.explain import is_of_wandb
from ntml_bench.app.origins import COMMAND_LINE, Key, Origins, Setting, leaves, origins_of

__all__ = ["workplace"]

PROJECT = CONF.parent
SWEEPS = [path.stem for path in sorted((PROJECT / "sweeps").glob("*.yaml")) if not is_of_wandb(path)]
SEARCHES = [name for name in SWEEPS if "sweeper: optuna" in (PROJECT / "sweeps" / f"{name}.yaml").read_text()]
# GROUP/NAME/OTHER/OPTION.yaml, and presets/FAMILY/dataset/DATASET/attack/ATTACK.yaml.
OF_OTHERS = sorted([*CONF.glob("*/*/*/*.yaml"), *CONF.glob("*/*/*/*/*/*.yaml")])


def choices() -> list[dict[str, str]]:
    """Each option of each group, and whatever an option says of others; what does not contradict is in one choice."""
    options = {path.name: sorted(file.stem for file in path.glob("*.yaml")) for path in CONF.iterdir() if path.is_dir()}
    if find_spec("hydra_plugins.hydra_submitit_launcher") is None:
        options["cluster"].remove("slurm")
    places = [path.relative_to(CONF).with_suffix("").parts for path in OF_OTHERS]
    wanted = [dict(zip(parts[::2], parts[1::2], strict=True)) for parts in places]
    wanted += [{"defense": "nt_ml", "variant": variant} for variant in options.pop("variant")]
    wanted += [{group: name} for group, names in options.items() for name in names]
    found: list[dict[str, str]] = []
    for row in wanted:
        for other in found:
            if all(other.get(group, option) == option for group, option in row.items()):
                other.update(row)
                break
        else:
            found.append(row)
    return found


@pytest.fixture(name="loader")
def loader_of_the_project() -> Iterator[ConfigLoaderImpl]:
    Plugins.instance().register(SweepsOnSearchPath)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        assert isinstance(loader, ConfigLoaderImpl)
        yield loader


@cache
def written_in(source: str) -> dict[Key, Any]:
    return dict(leaves(yaml.safe_load((PROJECT / source).read_text())))


def plain(config: DictConfig) -> dict[Key, Any]:
    """All values but Hydra's own."""
    values: Any = OmegaConf.to_container(config, resolve=False)
    return {key: value for key, value in leaves(values) if key[0] != "hydra"}


def check(origins: Origins) -> None:
    """The values are those of the config, each as the place says that it is said to be from."""
    config = plain(origins.config)
    assert {key: found[-1].value for key, found in origins.values.items() if key[0] != "hydra"} == config
    for key, found in origins.values.items():
        for setting in found:
            if setting.source.startswith(("conf/", "sweeps/")):
                said = written_in(setting.source)
                value = said[key] if key in said else said[key[1:]]
                assert str(value) == str(setting.value), (key, setting)
            else:
                assert key[0] == "hydra" or setting.source == COMMAND_LINE, (key, setting)


def test_what_is_shown_is_what_is_composed(loader: ConfigLoaderImpl) -> None:
    read = set()
    for choice in choices():
        overrides = [f"{group}={option}" for group, option in choice.items()]
        origins = origins_of(loader, "config", overrides, RunMode.RUN)
        check(origins)
        for group, option in choice.items():
            assert origins.choices[group] == Setting(COMMAND_LINE, option)
        read |= {setting.source for found in origins.values.values() for setting in found}
    # A file that only asks for others has no values of its own.
    with_values = [path for path in OF_OTHERS if set(yaml.safe_load(path.read_text())) != {"defaults"}]
    assert [path for path in with_values if f"conf/{path.relative_to(CONF)}" not in read] == []


@pytest.mark.parametrize("name", [name for name in SWEEPS if name not in SEARCHES])
def test_a_sweep_is_shown_as_it_is_composed(name: str, loader: ConfigLoaderImpl) -> None:
    overrides = [
        "hydra.mode=RUN",
        "attack=wanet",
        "defense=nt_ml",
        "seed=7",
        "+defense.extra={a: {}, b: [1]}",
        "~dataset.holdout",
    ]
    origins = origins_of(loader, name, overrides, RunMode.RUN)
    check(origins)
    assert plain(origins.config) == plain(compose(name, overrides))
    assert [setting.value for setting in origins.values["seed",]] == [0, 7]


def test_a_composition_that_went_another_way_is_no_answer(loader: ConfigLoaderImpl, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = ConfigLoaderImpl._apply_overrides_to_config

    def only_many(overrides: list[Override], config: DictConfig) -> None:
        apply(overrides if len(overrides) > 1 else [], config)

    monkeypatch.setattr(ConfigLoaderImpl, "_apply_overrides_to_config", staticmethod(only_many))
    with pytest.raises(AssertionError, match=r"another config.*'seed'"):
        origins_of(loader, "config", ["seed=1", "price=2"], RunMode.RUN)


def shown(*words: str) -> dict[str, str]:
    """What stands behind each key and choice."""
    outcome = bench(*words)
    assert outcome.code == 0, outcome.errors
    return {line.split()[0]: " ".join(line.split()[1:]) for line in outcome.output.splitlines() if line}


def test_each_value_has_its_file_and_what_it_overrides(workplace: Path) -> None:
    found = shown("attack=sig", "defense=ft", "--where", "clean_budget=0.1", "defense.recipe.momentum=0.5")
    data_set = "conf/dataset/digit_scenes"
    assert found["attack=sig"] == "chosen by command line"
    assert found["dataset=digit_scenes"] == "chosen by conf/config.yaml"
    assert found["attack.target_class"] == f"3 {data_set}/attack/sig.yaml, over 0 in conf/attack/sig.yaml"
    assert found["clean_budget"] == "0.1 command line, over 0.05 in conf/config.yaml"
    assert found["defense.recipe.momentum"] == "0.5 command line, over 0.9 in conf/defense/ft.yaml"
    ft = f"{data_set}/defense/ft.yaml"
    assert found["defense.recipe.epochs"] == f"15 {ft}: ${{training.epochs}}, over 100 in conf/defense/ft.yaml"
    assert found["data_dir"] == "outputs/data conf/config.yaml: ${outputs}/data"
    assert not [key for key in found if key.startswith("hydra")]
    assert not list(workplace.iterdir()), "nothing is run"


def test_the_family_wins_over_the_data_set_and_a_variant_over_both(workplace: Path) -> None:
    words = ("presets=small", "dataset=digit_scenes", "defense=nt_ml", "variant=budget_1_percent")
    assert shown("--where", "defense.ml", *words)["defense.ml.batch_size"] == (
        "40 conf/presets/small/defense/nt_ml.yaml, over 16 in conf/dataset/digit_scenes/defense/nt_ml.yaml, "
        "over 64 in conf/defense/nt_ml.yaml"
    )
    assert shown("--where", "defense.ml.epochs", *words)["defense.ml.epochs"].startswith(
        "150 conf/variant/budget_1_percent.yaml"
    )
    assert shown("--where=training", *words)["training=one_cycle_24"] == "chosen by conf/presets/small.yaml"


def test_one_setting_or_one_group_is_asked_for(workplace: Path) -> None:
    assert shown("--where", "seed") == {"seed": "0 conf/config.yaml"}
    assert shown("--where=seed", "--cfg", "job") == shown("--where", "seed")
    assert list(shown("--where", "model", "attack=sig")) == ["model=resnet_tiny", "model.name"]
    assert list(shown("--where", "defense.recipe.epochs", "defense=ft")) == ["defense.recipe.epochs"]


def test_of_a_sweep_the_first_cell_that_has_the_setting_is_shown(workplace: Path) -> None:
    head = "One of 42 cells: attack=badnets defense={} seed=0 (KEY=VALUE shows another)"
    assert bench("-cn", "digits_table", "--where", "defense.recipe").output.startswith(head.format("ft"))
    assert shown("-cn", "digits_table", "--where", "seed")["seed"] == "0 sweeps/digits_table.yaml, over 0 in conf/config.yaml"
    found = shown("-cn", "ablation_nt_ml", "--where", "variant")
    assert found["variant=none"] == "chosen by sweeps/ablation_nt_ml.yaml"
    found = shown("-cn", "digits_table", "attack=sig", "defense=ft", "--where", "attack")
    assert "One" not in found, "one cell is no sweep"
    assert found["attack=sig"] == "chosen by command line"
    outcome = bench("-m", "attack=lc,sig", "defense=none,ft", "defense.recipe.epochs=1", "--where", "defense.recipe.epochs")
    said, first, _, value = outcome.output.splitlines()
    assert said.startswith("defense.recipe.epochs holds for ft; not for none")
    assert first.startswith("One of 4 cells: attack=lc defense=ft defense.recipe.epochs=1")
    assert "1" in value.split()
    assert "command line" in value


def test_options_of_the_users_own_are_named_by_their_path(workplace: Path) -> None:
    own = workplace / "mine"
    (own / "dataset" / "scenes" / "attack").mkdir(parents=True)
    (own / "dataset" / "scenes.yaml").write_text("defaults: [digit_scenes, _self_]\nholdout: 0.2\n")
    (own / "dataset" / "scenes" / "attack" / "badnets.yaml").write_text("margin: 2\n")
    (own / "table.yaml").write_text("defaults: [config, override dataset: scenes, _self_]\nsweep: table\n")
    found = shown("--config-dir", "mine", "-cn", "table", "--where")
    assert found["dataset=scenes"] == "chosen by ./mine/table.yaml"
    assert found["dataset.holdout"] == "0.2 ./mine/dataset/scenes.yaml, over 0.0 in conf/dataset/digit_scenes.yaml"
    assert found["attack.margin"] == "2 ./mine/dataset/scenes/attack/badnets.yaml, over 0 in conf/attack/badnets.yaml"
    elsewhere = str(workplace / "mine" / "dataset")
    (own / "dataset" / "attack").mkdir()
    (own / "dataset" / "attack" / "stripe.yaml").write_text("name: badnets\n")
    (workplace / "here").mkdir()
    with pytest.MonkeyPatch.context() as context:
        context.chdir(workplace / "here")
        found = shown("--where", "attack", "attack=stripe", f"hydra.searchpath=['file://{elsewhere}']")
    assert found["attack.name"] == f"badnets {elsewhere}/attack/stripe.yaml"


def test_what_nothing_would_read_is_no_answer(workplace: Path) -> None:
    misplaced = workplace / "mine" / "dataset" / "digits" / "atack" / "sig.yaml"
    misplaced.parent.mkdir(parents=True)
    misplaced.write_text("target_class: 2\n")
    outcome = bench("--config-dir", "mine", "dataset=digits", "attack=sig", "--where", "attack")
    assert (outcome.code, outcome.output) == (1, "")
    assert "atack/sig.yaml is never read: did you mean the folder dataset/digits/attack?" in outcome.errors


REFUSED = {
    "--where defense.rounsd": ["unknown setting 'defense.rounsd'. Did you mean 'defense.rounds'?"],
    "--where defense.recipe defense=none": ["'defense.recipe' is not one of the chosen defense's"],
    "--where hydra.mode": ["hydra.mode is a setting of Hydra's own", "--cfg hydra"],
    "--where attack=badnet": ["unknown attack 'badnet'. Did you mean 'badnets'?"],
    "--where attack=lc,sig": ["-m makes a sweep of them"],
    "-m --where defense.temperature=interval(1,8)": ["a search chooses defense.temperature", "defense.temperature=VALUE"],
    "--where attack.target_class=${nothing}": ["attack.target_class refers to what is not there", "(command line: ${nothing})"],
    "-cn wandb_ablation --where": ["'wandb_ablation' is a sweep of W&B, not of Hydra"],
    "-cn digit_table --where": ["Did you mean 'digits_table'?"],
    "-cd nowhere --where": ["--config-dir nowhere is not a folder"],
    "--where --where": ["--where stands once"],
    "--where --help": ["--help and --where exclude each other"],
    "--where --cfg hydra": ["--cfg and --where exclude each other", "beside --cfg job"],
    "--where --info": ["--info and --where exclude each other"],
    "--where -p attack": ["--where attack shows that part"],
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_shown_is_refused(line: str, workplace: Path) -> None:
    outcome = bench(*line.split())
    assert outcome.code == 1, outcome.output
    for text in REFUSED[line]:
        assert text in outcome.errors
    assert len(outcome.errors.splitlines()) == 1
    assert not list(workplace.iterdir())
