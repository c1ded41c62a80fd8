"""What a table says of values that are not a method's own is what the files of the data set and the family changed."""

from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import yaml
from builders import CONF
from composed import settings_of
from table_records import entry, write_sweep

from ntml_bench.errors import UserError
from ntml_bench.records.manifest import SweepFolder

ATTACKS, DEFENSES = (sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in ("attack", "defense"))


def fitted(*overrides: str) -> dict[str, dict[str, list[str]]]:
    return settings_of("config", *overrides).fitted


def keys_of(path: Path) -> list[str]:
    def keys(values: dict[str, Any], prefix: str = "") -> list[str]:
        return [
            key
            for name, value in values.items()
            for key in (keys(value, f"{prefix}{name}.") if isinstance(value, dict) else [prefix + name])
        ]

    return keys(yaml.safe_load(path.read_text())) if path.exists() else []


@pytest.mark.parametrize(("folder", "overrides"), [("dataset", "dataset=digit_scenes"), ("presets", "presets=small")])
def test_each_value_of_a_data_set_or_a_family_is_named(folder: str, overrides: str) -> None:
    beginning = overrides.split("=")[1]
    other = [] if folder == "dataset" else ["dataset=cifar10"]
    for attack, defense in zip_longest(ATTACKS, DEFENSES, fillvalue="none"):
        expected = {
            group: {folder: keys}
            for group, name in (("attack", attack), ("defense", defense))
            if (keys := keys_of(CONF / folder / beginning / group / f"{name}.yaml"))
        }
        assert fitted(overrides, *other, f"attack={attack}", f"defense={defense}") == expected


def test_a_method_with_its_own_values_is_not_named() -> None:
    assert fitted("dataset=cifar10", "attack=badnets", "defense=ft") == {}
    assert fitted("dataset=digit_scenes", "attack=none", "defense=none") == {}


def test_what_was_typed_is_nobody_elses_and_the_family_has_the_last_word() -> None:
    assert fitted("attack=badnets", "defense=ft", "attack.trigger_size=5", "defense.recipe.epochs=3") == {
        "defense": {"dataset": ["recipe.batch_size", "recipe.learning_rate"]}
    }
    # Both files say trigger_size 4 of badnets.
    assert fitted("attack=badnets", "defense=none", "presets=small") == {"attack": {"presets": ["trigger_size"]}}


def test_what_a_family_says_of_an_attack_on_one_data_set_is_the_familys() -> None:
    on_all = fitted("attack=narcissus", "defense=none", "presets=cpu", "dataset=cifar10")["attack"]["presets"]
    here = fitted("attack=narcissus", "defense=none", "presets=cpu", "dataset=gtsrb")["attack"]["presets"]
    # The bound is the publication's again.
    assert {"epsilon", "test_amplification"} <= set(on_all)
    assert set(on_all) - set(here) == {"epsilon"}


def test_a_users_own_file_counts_and_what_it_repeats_does_not(tmp_path: Path) -> None:
    path = tmp_path / "dataset" / "cifar10" / "attack" / "badnets.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("trigger_size: 3\nmargin: 2\n")
    searched = f"hydra.searchpath=['file://{tmp_path}']"
    assert fitted(searched, "dataset=cifar10", "attack=badnets", "defense=none") == {"attack": {"dataset": ["margin"]}}


@pytest.mark.parametrize(
    "wrong",
    [{"seed": {}}, {"attack": {"me": []}}, {"attack": {"dataset": "alpha"}}, {"attack": {"dataset": [1]}}, [1], {"attack": 1}],
)
def test_a_manifest_that_says_it_otherwise_is_refused(wrong: Any, tmp_path: Path) -> None:
    cell = entry("badnets", "ft")
    assert SweepFolder.open(write_sweep(tmp_path, "old", [cell], [])).entries
    assert SweepFolder.open(write_sweep(tmp_path, "new", [{**cell, "fitted": {"attack": {"dataset": ["alpha"]}}}], [])).entries
    with pytest.raises(UserError, match="cannot be read as the manifest of a sweep"):
        SweepFolder.open(write_sweep(tmp_path, "wrong", [{**cell, "fitted": wrong}], []))
