"""What was made before a setting stands beside what was made after it, under one name."""

from pathlib import Path
from typing import Any

import pytest
from builders import yaml_values
from table_records import entry, write_sweep

from ntml_bench.attacks import ATTACKS
from ntml_bench.records.earlier import ADDED, completed
from ntml_bench.records.labels import label_cells
from ntml_bench.records.manifest import SweepFolder
from ntml_bench.schema import build


@pytest.mark.parametrize("name", sorted(ADDED))
def test_the_values_of_before_are_those_of_the_file_and_of_no_key(name: str) -> None:
    values = yaml_values("attack", name)
    assert ADDED[name].items() <= values.items()
    attack = ATTACKS[name](build(ATTACKS[name].Config, values, "attack"))
    assert not ADDED[name].keys() & attack.determining().keys()


def test_cells_of_before_and_after_share_their_labels(tmp_path: Path) -> None:
    before = entry("badnets", "ft", 0)
    after = entry("badnets", "ft", 1, settings={"attack": {"pattern": "white"}})
    other = entry("badnets", "ft", 0, settings={"attack": {"pattern": "checker"}})
    entries = SweepFolder.open(write_sweep(tmp_path, "joined", [before, after], [])).entries
    assert {label.attack for label in label_cells(entries)} == {"badnets"}
    assert {label.defense for label in label_cells(entries)} == {"ft"}
    entries = SweepFolder.open(write_sweep(tmp_path, "ablation", [before, after, other], [])).entries
    assert [label.attack for label in label_cells(entries)] == [
        "badnets (pattern=white)",
        "badnets (pattern=white)",
        "badnets (pattern=checker)",
    ]


def test_what_was_said_stays_and_other_attacks_are_left_alone() -> None:
    said, sig = entry("badnets", "ft", settings={"attack": {"pattern": "checker"}}), entry("sig", "ft")
    assert completed(said) is said
    assert completed(sig) is sig
    given = entry("badnets", "ft")
    assert completed(given)["settings"]["attack"] == {**given["settings"]["attack"], "pattern": "white"}
    assert "pattern" not in given["settings"]["attack"]


@pytest.mark.parametrize("settings", [None, {}, {"attack": None}, {"attack": "badnets"}, {"attack": {"name": []}}])
def test_a_manifest_that_says_less_is_read(settings: Any) -> None:
    cell = {**entry("badnets", "ft"), "settings": settings}
    assert completed(cell) is cell
