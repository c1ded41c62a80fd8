"""The name of an option is what runs: a name beside it is refused, and so is a file that is never read."""

from pathlib import Path

import pytest
from builders import CONF
from hydra import compose, initialize_config_dir

from ntml_bench.app.composition import split_config
from ntml_bench.app.settings import Settings, read_settings
from ntml_bench.errors import UserError

MINE = "target_class: 0\npoisoning_rate: 0.1\ntrigger_size: 2\nmargin: 0\npattern: white\n"


def settings_of(*overrides: str, folder: Path | None = None) -> Settings:
    searched = [] if folder is None else [f"hydra.searchpath=['file://{folder}']"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = compose("config", [*overrides, *searched], return_hydra_config=True)
    return read_settings(*split_config(composed))


def write(folder: Path, name: str, text: str) -> None:
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("overrides", "instead"),
    [
        (["model.name=resnet18"], "model=timm model.name=resnet18"),
        (["model=preact_resnet18", "model.name=resnet_tiny"], "model=timm model.name=resnet_tiny"),
        (["attack.name=blended"], "attack=blended"),
        (["attack.name=none"], "attack=none"),
        (["dataset=digits", "dataset.name=digit_scenes"], "dataset=digit_scenes"),
        (["dataset=cifar10_jpeg", "dataset.name=cifar10"], "dataset=cifar10"),
        (["defense=ft", "defense.name=none"], "defense=none"),
        (["training.name=backdoorbench"], "training=backdoorbench"),
        (["training=one_cycle_24", "training.name=one_cycle"], "training=one_cycle"),
        (["cluster.name=local"], "cluster=local"),
    ],
)
def test_a_name_beside_the_options_own_is_refused(overrides: list[str], instead: str) -> None:
    group, _, name = overrides[-1].partition(".name=")
    with pytest.raises(UserError, match=rf"^{group}\.name is '{name}', but the chosen option {group}=.* instead: {instead}$"):
        settings_of(*overrides)


@pytest.mark.parametrize("name", ["resnet18", "preact_resnet18", "resnet_tiny"])
def test_the_option_that_leaves_the_net_open_is_called_by_the_net(name: str) -> None:
    settings = settings_of("model=timm", f"model.name={name}")
    assert settings.labels["model"] == settings.model.name == name


@pytest.mark.parametrize(
    "text",
    [
        f"name: badnets\n{MINE}",
        "defaults: [badnets, _self_]\ntrigger_size: 2\n",
        "# @package _global_\nattack:\n  name: badnets\n  " + MINE.strip().replace("\n", "\n  ") + "\n",
    ],
)
def test_an_own_option_is_called_by_its_file(text: str, tmp_path: Path) -> None:
    write(tmp_path, "attack/my_badnets", text)
    settings = settings_of("attack=my_badnets", folder=tmp_path)
    assert settings.labels["attack"] == "my_badnets"
    assert (settings.attack.config.name, vars(settings.attack.config)["trigger_size"]) == ("badnets", 2)
    with pytest.raises(UserError, match=r"attack\.name is 'none', but the chosen option attack=my_badnets is 'badnets'"):
        settings_of("attack=my_badnets", "attack.name=none", folder=tmp_path)


def test_values_of_a_data_set_do_not_name_another_method(tmp_path: Path) -> None:
    write(tmp_path, "dataset/digits/attack/badnets", "name: none\n")
    with pytest.raises(UserError, match=r"attack\.name is 'none'"):
        settings_of("dataset=digits", folder=tmp_path)


@pytest.mark.parametrize("name", ["defense/ft", "dataset/digit_scenes/attack/badnets", "training/one_cycle"])
def test_an_own_file_that_would_never_be_read_is_refused(name: str, tmp_path: Path) -> None:
    write(tmp_path, name, (CONF / f"{name}.yaml").read_text())
    settings_of("defense=ft", folder=tmp_path)
    write(tmp_path, name, (CONF / f"{name}.yaml").read_text() + "# another\n")
    group, _, option = name.partition("/")
    choice = f"dataset@attack={option}" if group == "dataset" else name.replace("/", "=")
    with pytest.raises(UserError, match=rf"{name}\.yaml is never read, because {choice} comes with ntml-bench") as refused:
        settings_of("defense=ft", folder=tmp_path)
    # Under the name that it is told to use the file is read.
    other = str(refused.value).rpartition(" ")[2]
    (tmp_path / f"{name}.yaml").rename((tmp_path / name).with_name(f"{other.rpartition('=')[2].rpartition('/')[2]}.yaml"))
    settings_of("defense=ft", other, folder=tmp_path)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("presets/gentle/atack/blended", r"did you mean the folder presets/gentle/attack\?$"),
        ("presets/gentle/datasets/digits", r"did you mean the folder presets/gentle/dataset\?$"),
        ("preset/gentle/attack/blended", r"did you mean the folder presets/gentle/attack\?$"),
        ("datasets/digits/defence/ft", r"did you mean the folder dataset/digits/defense\?$"),
        ("presets/gentel/attack/blended", r"because there is no presets=gentel \(did you mean 'gentle'\?\)"),
        ("dataset/digts/attack/sig", r"because there is no dataset=digts \(did you mean 'digits'\?\)"),
        ("dataset/digits/attack/blendd", r"because there is no attack=blendd \(did you mean 'blended'\?\)"),
        ("dataset/digits/defense/nothing_like_it", r"because there is no defense=nothing_like_it$"),
    ],
)
def test_an_own_file_at_a_place_with_a_typo_is_refused(name: str, why: str, tmp_path: Path) -> None:
    write(tmp_path, "presets/gentle", "# @package _global_\npresets: gentle\n")
    settings_of("presets=gentle", folder=tmp_path)
    write(tmp_path, name, "alpha: 0.1\n")
    with pytest.raises(UserError, match=rf"{name}\.yaml is never read.{{1,2}}{why}"):
        settings_of(folder=tmp_path)


def test_the_users_folder_may_hold_what_is_read_and_anything_else(tmp_path: Path) -> None:
    write(tmp_path, "attack/dot", "defaults: [badnets, _self_]\n")
    write(tmp_path, "dataset/digits/attack/dot", "target_class: 3\n")
    write(tmp_path, "dataset/digits/attack/dot_at_nine", "target_class: 9\n")  # to be chosen by hand
    write(tmp_path, "presets/gentle", "# @package _global_\npresets: gentle\n")
    write(tmp_path, "presets/gentle/dataset/digits", "dataset:\n  train_limit: 100\n")
    write(tmp_path, "presets/gentle/dataset/digits/attack/anything", "target_class: 9\n")  # the family's file may ask for it
    write(tmp_path, "dataset/digits/notes/anything", "a: 1\n")
    write(tmp_path, "data/digits/attack/anything", "a: 1\n")
    (tmp_path / "presets.txt").write_text("a file")
    settings = settings_of("dataset=digits", "presets=gentle", "attack=dot", folder=tmp_path)
    assert (settings.attack.config.target_class, settings.dataset.config.train_limit) == (3, 100)
    by_hand = settings_of("dataset=digits", "attack=dot", "dataset@attack=digits/attack/dot_at_nine", folder=tmp_path)
    assert by_hand.attack.config.target_class == 9


def test_a_folder_that_does_not_exist_is_left_to_hydra(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="is not available"):
        assert settings_of("attack=sig", folder=tmp_path / "nowhere").labels["attack"] == "sig"
