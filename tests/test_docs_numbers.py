"""The measured tables of README and docs are those of the kept records: whoever changes one must change the other."""

from pathlib import Path

import pytest

from ntml_bench.attacks import ATTACKS
from ntml_bench.defenses import DEFENSES
from ntml_bench.records.cells import Sweep, read_sweep
from ntml_bench.records.curves import unpriced
from ntml_bench.records.published.reference import Place, read_reference
from ntml_bench.records.statistic import Statistic
from ntml_bench.records.summary import RETUNED, Block, Entry, Row, summarise
from ntml_bench.table.stages import average_rows, stage_rows

ROOT = Path(__file__).resolve().parents[1]
README, RESULTS = ((ROOT / name).read_text() for name in ("README.md", "docs/results.md"))


STAGES = {
    "before the defense": "teacher: after standard training",
    "student after NT": "student: after NT",
    "teacher after ML": "teacher: after ML",
    "after the defense": "student: after ML, returned",
}


PUBLISHED_RATE = {"blended": 0.1, "wanet": 0.1, "sig": 0.05, "lc": 0.05}
"""Of the poisons in the leaderboard's rows that ours are held against."""


def kept(sweep: str) -> Sweep:
    return read_sweep(ROOT / "outputs" / "reference" / sweep)


def block_of(sweep: str) -> Block:
    (block,) = summarise(kept(sweep)).blocks
    return block


def measured(entry: Entry, metric: str) -> Statistic:
    found = entry.values[metric]
    assert found
    return found


def pair(entry: Entry, *, deviation: bool = True) -> str:
    """`ACC / ASR±deviation`, as the pages write it."""
    accuracy, success = (measured(entry, metric) for metric in ("clean_accuracy", "attack_success_rate"))
    spread = f"±{success.deviation:.1f}" if deviation and success.deviation is not None else ""
    return f"{accuracy.mean:.1f} / {success.mean:.1f}{spread}"


def head_of(names: list[str]) -> list[str]:
    """The first two lines of a table."""
    return [f"| {' | '.join(names)} |", f"| --- |{' :---: |' * (len(names) - 1)}"]


def line_of(row: Row, *, name: str | None = None) -> str:
    cells = [name or row.heading, pair(row.floor, deviation=False), pair(row.undefended), *map(pair, row.defenses.values())]
    return f"| {' | '.join(cells)} |"


def table_of(sweep: str) -> list[str]:
    """The lines of a sweep's table: ACC / ASR of each attack and defense, and their averages."""
    block = block_of(sweep)
    lines = [*head_of(["attack", "floor", "none", *block.defenses]), *map(line_of, block.rows)]
    return [*lines, line_of(block.average, name="*average*")] if block.average else lines


def test_the_table_of_the_front_page_is_that_of_the_kept_records() -> None:
    assert "\n".join(table_of("digits_table")) in README


@pytest.mark.parametrize("sweep", ["gtsrb_cpu_table", "cifar10_cpu_table"])
def test_the_table_of_real_data_is_that_of_the_kept_records(sweep: str) -> None:
    assert "\n".join(table_of(sweep)) in RESULTS


READINGS = pytest.mark.parametrize("sweep", ["gtsrb_cpu_readings", "cifar10_cpu_readings"])


@READINGS
def test_the_two_readings_are_those_of_the_kept_records(sweep: str) -> None:
    def text(entry: Entry) -> str:
        return f"{pair(entry)} ({measured(entry, 'robust_accuracy').mean:.1f})"

    rows = block_of(sweep).rows
    assert rows
    for row in rows:
        assert f"| {row.heading} | {' | '.join(map(text, (row.undefended, *row.defenses.values())))} |" in RESULTS


@READINGS
def test_the_stages_of_the_readings_are_those_of_the_kept_records(sweep: str) -> None:
    cells = kept(sweep).cells
    stages = list(stage_rows(cells))
    attacks = {cell.attack for cell in cells}
    rows = list(average_rows(stages, attacks)) if len(attacks) > 1 else stages

    def text(defense: str, stage: str) -> str:
        found = [row.values for row in rows if (row.defense, row.stage) == (defense, stage)]
        means = [values[metric] for values in found for metric in ("clean_accuracy", "attack_success_rate")]
        return " / ".join(f"{mean.mean:.1f}" for mean in means if mean)

    defenses = dict.fromkeys(row.defense for row in rows)
    for stage, name in (
        ("student after NT", "student after NT"),
        ("teacher after ML", "teacher after ML"),
        ("after the defense", "student after ML, returned"),
    ):
        assert f"| {name} | {' | '.join(text(defense, stage) for defense in defenses)} |" in RESULTS


@pytest.mark.parametrize("dataset", ["gtsrb", "cifar10"])
def test_the_smaller_budget_is_that_of_the_kept_records(dataset: str) -> None:
    blocks = summarise(kept(f"{dataset}_nt_ml_budget")).blocks
    assert len(blocks) == 2  # 5 % of the images clean, and 1 %
    lines: list[str] = []
    for whole, small in zip(*(block.rows for block in blocks), strict=True):
        entries = (whole.undefended, *whole.defenses.values(), *small.defenses.values())
        lines.append(f"| {whole.heading} | {' | '.join(map(pair, entries))} |")
    assert "\n".join(lines) in RESULTS


@pytest.mark.parametrize("sweep", ["gtsrb_cpu_table", "cifar10_cpu_table"])
def test_the_stages_of_nt_ml_are_those_of_the_kept_records(sweep: str) -> None:
    cells = kept(sweep).cells
    rows = average_rows(list(stage_rows(cells)), {cell.attack for cell in cells})
    metrics = ("clean_accuracy", "attack_success_rate", "robust_accuracy", "true_class_probability")
    lines = ["| model | ACC | ASR | RA | true-class probability |", "| --- | :---: | :---: | :---: | :---: |"]
    for row in rows:
        if row.defense == "nt_ml":
            found = [row.values[metric] for metric in metrics]
            lines.append(f"| {STAGES[row.stage]} | {' | '.join(f'{value.mean:.1f}' for value in found if value)} |")
    assert len(lines) > 2
    assert "\n".join(lines) in RESULTS


@pytest.mark.parametrize(
    ("dataset", "sweeps"),
    [
        ("gtsrb", ["gtsrb_leaderboard_values"]),
        ("cifar10", [f"cifar10_{name}leaderboard_values" for name in ("", "lc_", "wanet_")]),
    ],
)
def test_the_cells_with_the_leaderboards_values_are_those_of_the_kept_records(dataset: str, sweeps: list[str]) -> None:
    reference = read_reference("backdoorbench:preact_resnet18")
    own = {row.heading: row.defenses for row in block_of(f"{dataset}_cpu_table").rows}
    lines = ["| attack | defense | in the table above | with the leaderboard's values | published |"]
    lines.append("| --- | --- | :---: | :---: | :---: |")
    for row in (row for sweep in sweeps for row in block_of(sweep).rows):
        for defense, entry in row.defenses.items():
            published, _ = reference.find(Place(dataset, "preact_resnet18", row.heading, defense), PUBLISHED_RATE[row.heading])
            assert published
            rates = [measured(cell, "attack_success_rate").mean for cell in (own[row.heading][defense], entry)]
            texts = [f"{rate:.1f}" for rate in (*rates, published.attack_success_rate)]
            lines.append(f"| {row.heading} | {defense} | {' | '.join(texts)} |")
    assert "\n".join(lines) in RESULTS


def field_table() -> list[str]:
    """The lines of the wider field's table, a line a defense: means over the attacks, then ASR under each."""
    block = block_of("field_table")
    average = block.average
    assert average

    def line(name: str, mean: Entry, entries: list[Entry]) -> str:
        rates = " | ".join(f"{measured(entry, 'attack_success_rate').mean:.1f}" for entry in entries)
        return f"| {name} | {pair(mean)} | {rates} |"

    return [
        *head_of(["", "mean ACC / ASR", *(row.heading for row in block.rows)]),
        line("floor", average.floor, [row.floor for row in block.rows]),
        line("none", average.undefended, [row.undefended for row in block.rows]),
        *(line(name, average.defenses[name], [row.defenses[name] for row in block.rows]) for name in block.defenses),
    ]


def test_the_wider_field_is_that_of_the_kept_records() -> None:
    assert "\n".join(field_table()) in RESULTS


def test_the_front_page_counts_the_methods() -> None:
    own = {"none", "given", "patch_image"}  # no attack, a victim and a trigger of the user's
    attacks, defenses = (
        {name for name in registry if registry[name].__module__.startswith("ntml_bench.")} - own
        for registry in (ATTACKS, DEFENSES)
    )
    assert f"| attacks / defenses | {len(attacks)} / {len(defenses)} (" in README


def price_table() -> list[str]:
    """The lines of the averages at each price."""
    average = block_of("price_table").average
    assert average
    entries = average.defenses
    rows = [
        [name, *(pair(entries[f"{name} (price={price})"]) for price in ("1", "2", "5"))]
        for name in dict.fromkeys(map(unpriced, entries))
    ]
    head = ["| | at a price of 1 | 2 | 5 |", "| --- | :---: | :---: | :---: |"]
    return [*head, f"| undefended | {pair(average.undefended)} | | |", *(f"| {' | '.join(row)} |" for row in rows)]


def test_the_averages_at_each_price_are_those_of_the_kept_records() -> None:
    assert "\n".join(price_table()) in RESULTS


def retuned_table() -> list[str]:
    """The lines of the table of what comes back: ASR and RASR."""
    block = block_of("retuned_table")
    names = ("attack_success_rate", RETUNED)

    def text(entry: Entry, *, deviation: bool = True) -> str:
        found = [one for name in names if (one := entry.values[name]) is not None]
        spread = [f"±{one.deviation:.1f}" if deviation and one.deviation is not None else "" for one in found]
        return " / ".join(f"{one.mean:.1f}{after}" for one, after in zip(found, spread, strict=True))

    rows = [*block.rows, *([block.average] if block.average else [])]
    lines = head_of(["attack", "floor", *block.defenses])
    for row in rows:
        name = "*average*" if row is block.average else row.heading
        lines.append(f"| {name} | {text(row.floor, deviation=False)} | {' | '.join(map(text, row.defenses.values()))} |")
    return lines


def test_what_comes_back_is_that_of_the_kept_records() -> None:
    assert "\n".join(retuned_table()) in RESULTS
