"""Labels: an ablation's cells are told apart, seeds are not, and never do two different cells pass for seeds."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from table_records import entry

from ntml_bench.records.labels import Labels, label_cells


def attacks(cells: list[dict[str, Any]]) -> list[str]:
    return [label.attack for label in label_cells(cells)]


def defenses(cells: list[dict[str, Any]]) -> list[str]:
    return [label.defense for label in label_cells(cells)]


def test_a_plain_grid_keeps_the_names_of_its_options() -> None:
    cells = [entry(attack, defense, seed) for attack in ("badnets", "sig") for defense in ("none", "ft") for seed in (0, 1)]
    labels = label_cells(cells)
    assert labels[0] == Labels("digit_scenes", "resnet_tiny", "badnets", "none")
    assert len(set(labels)) == 4


def test_a_defense_ablation() -> None:
    cells = [entry("badnets", "none")]
    cells += [entry("badnets", "nt_ml", settings={"defense": {"temperature": value}}) for value in (1, 4.0, 8.5)]
    assert defenses(cells) == ["none", "nt_ml (temperature=1)", "nt_ml (temperature=4)", "nt_ml (temperature=8.5)"]


def test_prices_are_columns_and_values_as_written_are_another() -> None:
    tuned = [{"tuning": "price", "price": price, "rate": "tuned"} for price in (1, 2.0)]
    cells = [entry("badnets", "none"), *(entry("badnets", "ft", settings={"defense": values}) for values in tuned)]
    assert defenses(cells) == ["none", "ft (price=1)", "ft (price=2)"]
    written = entry("badnets", "ft", settings={"defense": {"rate": 0.1}})
    assert defenses([cells[1], written]) == ["ft (tuning=price, rate=tuned)", "ft (tuning=none, rate=0.1)"]


def test_precision_is_told_apart_only_where_a_cell_was_made_in_two() -> None:
    def models(*made: tuple[int, str]) -> set[str]:
        cells = [entry("badnets", "ft", seed, settings={"precision": precision}) for seed, precision in made]
        return {label.model for label in label_cells(cells)}

    assert models((0, "bfloat16"), (1, "bfloat16"), (2, "float32")) == {"resnet_tiny"}
    assert models((0, "bfloat16"), (0, "float32"), (1, "float32")) == {
        "resnet_tiny (precision=bfloat16)",
        "resnet_tiny (precision=float32)",
    }


def test_an_attack_ablation_over_two_settings() -> None:
    cells = [
        entry("badnets", "ft", settings={"attack": {"poisoning_rate": rate, "trigger": {"size": size}}})
        for rate in (0.05, 0.1)
        for size in (2, 3)
    ]
    assert attacks(cells)[0] == "badnets (poisoning_rate=0.05, trigger.size=2)"
    assert len(set(attacks(cells))) == 4


def test_one_spelling_of_a_number_is_another_of_the_same() -> None:
    cells = [entry("badnets", "ft", seed, settings={"defense": {"temperature": value}}) for seed, value in enumerate((4, 4.0))]
    assert defenses(cells) == ["ft", "ft"]


def test_a_text_is_not_taken_for_a_number() -> None:
    cells = [entry("badnets", "ft", settings={"defense": {"kind": value}}) for value in (1, "1", "true", True, None, "plain")]
    assert defenses(cells) == [f"ft (kind={text})" for text in ("1", '"1"', '"true"', "true", "null", "plain")]


def test_recipe_dataset_and_model_settings_make_blocks() -> None:
    assert label_cells([entry("sig", "ft", settings={"clean_budget": value}) for value in (0.01, 0.05)])[0] == Labels(
        "digit_scenes", "resnet_tiny (clean_budget=0.01)", "sig", "ft"
    )
    cells = [
        entry("sig", "ft", model="timm", settings={"model": {"name": name}, "training": {"epochs": epochs}})
        for name in ("resnet18", "vgg11")
        for epochs in (10, 20)
    ]
    assert label_cells(cells)[0].model == "timm (name=resnet18, training.epochs=10)"
    cells = [entry("sig", "ft", settings={"dataset": {"train_limit": limit}}) for limit in (None, 1000)]
    assert [label.dataset for label in label_cells(cells)] == [
        "digit_scenes (train_limit=null)",
        "digit_scenes (train_limit=1000)",
    ]


def test_cells_of_two_seeds_with_two_settings_are_not_seeds_of_one() -> None:
    cells = [entry("badnets", "ft", seed, settings={"attack": {"poisoning_rate": (0.05, 0.1)[seed]}}) for seed in (0, 1)]
    assert len(set(label_cells(cells))) == 2


def test_a_setting_that_follows_the_dataset_needs_no_label() -> None:
    cells = [entry("badnets", "ft", dataset=name, settings={"attack": {"size": size}}) for name, size in (("a", 3), ("b", 9))]
    assert attacks(cells) == ["badnets", "badnets"]


def test_a_defense_setting_that_follows_the_attack_keeps_one_column() -> None:
    cells = [entry(name, "ft", settings={"defense": {"rate": rate}}) for name, rate in (("badnets", 0.1), ("sig", 0.2))]
    assert defenses(cells) == ["ft", "ft"]


def test_an_ablation_of_one_row_names_the_column_alike_in_all_rows() -> None:
    cells = [entry("badnets", "ft", settings={"defense": {"temperature": value}}) for value in (1, 2)]
    cells.append(entry("sig", "ft", settings={"defense": {"temperature": 2}}))
    assert defenses(cells) == ["ft (temperature=1)", "ft (temperature=2)", "ft (temperature=2)"]


def test_a_key_that_only_one_cell_has_still_sets_it_apart() -> None:
    cells = [entry("badnets", "ft", 0), entry("badnets", "ft", 1, settings={"defense": {"extra": 1}})]
    assert defenses(cells) == ["ft (variant 1)", "ft (variant 2)"]


GROUPS = st.sampled_from(["dataset", "model", "attack", "defense", "training"])
VALUES = st.one_of(
    st.integers(0, 2), st.booleans(), st.none(), st.sampled_from(["1", "a", "a, x=1", "(", "null"]), st.floats(0, 1)
)
CHANGES = st.dictionaries(GROUPS, st.dictionaries(st.sampled_from(["x", "y"]), VALUES, max_size=2), max_size=2)


@given(
    st.lists(st.tuples(st.sampled_from(["sig", "lc"]), st.sampled_from(["ft", "fp"]), st.integers(0, 1), CHANGES), max_size=6)
)
def test_cells_with_one_label_differ_in_their_seed_only(choices: list[tuple[str, str, int, dict[str, Any]]]) -> None:
    cells = [entry(attack, defense, seed, settings=changes) for attack, defense, seed, changes in choices]
    labels = label_cells(cells)

    def settings(cell: dict[str, Any]) -> str:
        # True and 1 are equal in Python, not in a configuration.
        return json.dumps({**cell["settings"], "seed": None}, sort_keys=True).replace(".0,", ",").replace(".0}", "}")

    for first, one in zip(labels, cells, strict=True):
        for second, other in zip(labels, cells, strict=True):
            if first == second:
                assert settings(one) == settings(other)
