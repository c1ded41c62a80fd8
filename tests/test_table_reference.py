"""Our numbers beside published ones: the data, the matching, the verdicts, the renderings.

After a wanted change of a rendering: NTML_WRITE_GOLDEN=1 pytest tests/test_table_reference.py, then read the difference.
"""

import csv
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import fields, is_dataclass
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from rich.console import Console
from table_records import entry, golden, metrics, record, write_sweep

from ntml_bench.app.settings import GeneralConfig
from ntml_bench.attacks import ATTACKS
from ntml_bench.data import DATASETS
from ntml_bench.defenses import DEFENSES
from ntml_bench.errors import UserError
from ntml_bench.records.cells import read_sweep
from ntml_bench.records.labels import METHOD_GROUPS
from ntml_bench.records.published.comparison import Comparison, Line, compare
from ntml_bench.records.published.reference import FOLDER, Place, read_reference
from ntml_bench.records.summary import summarise
from ntml_bench.table.comparison_files import write_comparison
from ntml_bench.table.comparison_terminal import print_comparison
from ntml_bench.table.main import main
from ntml_bench.training import TrainingConfig

GOLDEN_FOLDER = Path(__file__).parent / "golden"
REFERENCE = read_reference("backdoorbench")
KEY = (*METHOD_GROUPS, "poisoning_rate")
NUMBERS = ("clean_accuracy", "attack_success_rate", "robust_accuracy")


def published_rows() -> list[dict[str, str]]:
    with (FOLDER / "backdoorbench.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# The data.


def test_the_results_are_percent_and_one_a_place() -> None:
    rows = published_rows()
    assert len(rows) == 5789
    assert f"{len(rows):,} results" in REFERENCE.source
    assert all(0 <= float(row[name]) <= 100 for row in rows for name in NUMBERS)
    assert max(Counter(tuple(row[name] for name in KEY) for row in rows).values()) == 1
    assert sum(len(by_rate) for by_rate in REFERENCE.results.values()) == len(rows)


def test_the_oddities_are_those_that_are_stated() -> None:
    by_key = {tuple(row[name] for name in KEY): [row[name] for name in NUMBERS] for row in published_rows()}
    copies = [key for key, row in by_key.items() if key[0] == "tiny_imagenet" and by_key.get(("gtsrb", *key[1:])) == row]
    assert {(key[1], key[4]) for key in copies} == {("preact_resnet18", "0.05")}
    assert {key[2] for key in copies} == {"badnets", "blended", "ssba", "wanet"}
    assert {key[3] for key in copies} == {"ac", "abl", "dbd"}
    assert len(copies) == 12
    assert "12 results" in REFERENCE.oddities


PUBLISHED_ATTACKS = sorted({row["attack"] for row in published_rows()} & set(ATTACKS))


def test_every_published_cell_of_our_methods_is_found() -> None:
    found = Counter()
    for row in published_rows():
        if row["dataset"] in DATASETS and row["attack"] in ATTACKS and row["defense"] in DEFENSES:
            result, reason = REFERENCE.find(Place(*(row[group] for group in METHOD_GROUPS)), float(row["poisoning_rate"]))
            assert result is not None
            assert reason == ""
            assert [getattr(result, name) for name in NUMBERS] == [float(row[name]) for name in NUMBERS]
            found[tuple(row[name] for name in KEY)] += 1
    assert set(found.values()) == {1}
    # There every attack is published undefended and under every defense.
    here = [key for key in found if key[0] == "cifar10" and key[1] == "preact_resnet18" and key[4] == "0.05"]
    attacks, defenses = {key[2] for key in here}, {key[3] for key in here}
    assert attacks == set(PUBLISHED_ATTACKS)
    assert attacks >= {"badnets", "blended", "sig", "lc", "wanet", "lf", "bpp", "trojannn", "ssba", "input_aware"}
    assert {"none", "ft", "fp", "nad", "anp", "i_bau"} <= defenses
    assert len(here) == len(attacks) * len(defenses)


@pytest.mark.parametrize(
    ("place", "rate", "reason"),
    [
        (("digit_scenes", "preact_resnet18", "badnets", "ft"), 0.1, "no dataset digit_scenes"),
        (("cifar10", "resnet_tiny", "badnets", "ft"), 0.1, "no model resnet_tiny"),
        (("cifar10", "preact_resnet18", "narcissus", "ft"), 0.0005, "no attack narcissus"),
        (("cifar10", "preact_resnet18", "badnets", "nt_ml"), 0.1, "no defense nt_ml"),
        (("gtsrb", "preact_resnet18", "sig", "ft"), 0.05, "no attack sig for gtsrb, preact_resnet18"),
        (("cifar10", "preact_resnet18", "sig", "ft"), 0.1, "rate 0.1 (published: 0.01, 0.05)"),
        (("cifar10", "preact_resnet18", "badnets", "ft"), 0.1 + 1e-6, "rate 0.100001 (published: 0.01, 0.05, 0.1)"),
        (("cifar10", "preact_resnet18", "badnets", "ft"), None, "rate not recorded (published: 0.01, 0.05, 0.1)"),
    ],
)
def test_what_is_not_published_is_said_in_a_few_words(place: tuple[str, ...], rate: float | None, reason: str) -> None:
    assert REFERENCE.find(Place(*place), rate) == (None, reason)


def test_a_rate_is_matched_but_for_rounding() -> None:
    assert REFERENCE.find(Place("cifar10", "preact_resnet18", "badnets", "none"), 0.3 / 3)[0] is not None


def has_setting(schema: Any, path: list[str]) -> bool:
    kinds = get_type_hints(schema)
    if path[0] not in {entry.name for entry in fields(schema)}:
        return False
    return len(path) == 1 or (is_dataclass(kinds[path[0]]) and has_setting(kinds[path[0]], path[1:]))


def test_every_published_setting_is_one_of_ours() -> None:
    """A setting that is renamed here must be renamed there, or all cells would differ."""
    places = [Place("gtsrb", "preact_resnet18", attack, defense) for attack in ATTACKS for defense in DEFENSES]
    for place in places:
        for key in REFERENCE.settings_of(place._asdict()):
            group, _, path = key.partition(".")
            schema: Any = {
                "training": TrainingConfig,
                "attack": ATTACKS[place.attack].Config,
                "defense": DEFENSES[place.defense].Config,
                "dataset": DATASETS["cifar10"].Config,
            }.get(group, GeneralConfig)
            assert group == "data" or has_setting(schema, (path or key).split(".")), key


# The matching and the verdicts.


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as groups of settings."""
    groups: dict[str, Any] = {}
    for key, value in settings.items():
        *path, last = key.split(".")
        inside = groups
        for part in path:
            inside = inside.setdefault(part, {})
        inside[last] = value
    return groups


def published_cell(
    attack: str, defense: str, seed: int = 0, *, dataset: str = "cifar10", changes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A cell of a manifest with the published settings, but for `changes` (dotted keys)."""
    names = {"dataset": dataset, "model": "preact_resnet18", "attack": attack, "defense": defense}
    settings = REFERENCE.settings_of(names) | dict(changes or {})
    settings = {key: value for key, value in settings.items() if not key.startswith("data.")}
    cell = entry(attack, defense, seed, dataset=dataset, model="preact_resnet18", settings=nested(settings))
    return {**cell, "needs": list(DEFENSES[defense].needs)}


def published_record(cell: Mapping[str, Any], *numbers: float, images: int = 50000) -> dict[str, Any]:
    done = record(cell, metrics(*numbers), metrics(91.82, 95.53, 4.27))
    data = {"training_images": images, "test_images": 10000}
    return {**done, "data": data}


def compared(outputs: Path, cells: list[dict[str, Any]], records: list[dict[str, Any]]) -> Comparison:
    return compare(summarise(read_sweep(write_sweep(outputs, "golden", cells, records))), REFERENCE)


def only(outputs: Path, cell: dict[str, Any], done: dict[str, Any]) -> Line:
    (line,) = [line for line in compared(outputs, [cell], [done]).lines if line.defense == cell["defense"]]
    return line


def golden_comparison(outputs: Path) -> Comparison:
    """A cell of every verdict. Published, rate 0.1: none 91.32 / 95.03 / 4.67, ft 89.96 / 1.48 / 89.39."""
    none = [published_cell("badnets", "none", seed) for seed in (0, 1)]
    records = [published_record(none[0], 91.52, 95.03, 4.67), published_record(none[1], 92.12, 96.03, 3.87)]
    ft = [published_cell("badnets", "ft", seed) for seed in (0, 1)]
    records.append(published_record(ft[0], 90.46, 12.5, 80))
    i_bau = published_cell("badnets", "i_bau", changes={"defense.learning_rate": 0.001, "clean_budget": 0.05})
    anp, nt_ml = published_cell("badnets", "anp"), published_cell("badnets", "nt_ml")
    nad = published_cell("badnets", "nad")
    lc = published_cell("lc", "none", changes={"attack.poisoning_rate": 0.05, "attack.epsilon": 16})
    sig = published_cell("sig", "none", changes={"attack.poisoning_rate": 0.1})
    records += [published_record(cell, 90, 1, 89) for cell in (i_bau, anp, nt_ml)]
    records += [published_record(cell, 93, 97, 3) for cell in (lc, sig)]
    jpeg = published_cell(
        "blended",
        "ft",
        dataset="cifar10_jpeg",
        changes={"dataset.name": "image_folder", "training.epochs": 20, "attack.pattern": "noise", "clean_budget": 0.1},
    )
    records.append(published_record(jpeg, 80, 50, 40, images=10000))
    return compared(outputs, [*none, *ft, i_bau, anp, nad, nt_ml, lc, sig, jpeg], records)


def test_verdicts_of_the_hand_made_sweep(tmp_path: Path) -> None:
    lines = {(line.attack, line.defense): line for line in golden_comparison(tmp_path).lines}
    verdicts = {place: (line.verdict, line.reason) for place, line in lines.items()}
    assert verdicts == {
        ("badnets", "none"): ("within tolerance", ""),
        ("badnets", "ft"): ("outside tolerance", "ASR, RA"),
        ("badnets", "i_bau"): ("not comparable", "i_bau"),
        ("badnets", "anp"): ("not comparable", "anp"),
        ("badnets", "nad"): ("not measured", "missing"),
        ("badnets", "nt_ml"): ("no published number", "no defense nt_ml"),
        ("lc", "none"): ("settings differ", "lc"),
        ("sig", "none"): ("no published number", "rate 0.1 (published: 0.01, 0.05)"),
        ("blended", "none"): ("settings differ", "recipe, blended"),
        ("blended", "ft"): ("settings differ", "recipe, blended, ft"),
    }
    none = lines["badnets", "none"]
    assert none.difference("clean_accuracy") == pytest.approx(91.82 - 91.32)
    assert none.difference("attack_success_rate") == pytest.approx(95.53 - 95.03)
    assert lines["badnets", "nad"].difference("clean_accuracy") is None
    assert [difference.text for difference in lines["lc", "none"].differences] == ["epsilon 16 (published 8)"]
    texts = {difference.text for difference in lines["blended", "ft"].differences}
    assert texts == {
        "lossy JPEG copies of the images (published: the original images)",
        "epochs 20 (published 100)",
        "training_images 10000 (published 50000)",
        "pattern noise (published a cartoon)",
        "clean_budget 0.1 (published 0.05)",
    }


@pytest.mark.parametrize(
    ("numbers", "verdict"),
    [
        ((89.96 + 1.5, 1.48 + 7, 89.39 - 7), "within tolerance"),
        ((89.96 + 1.51, 1.48, 89.39), "outside tolerance"),
        ((89.96, 1.48 + 7.01, 89.39), "outside tolerance"),
        ((89.96, 1.48, 89.39 - 7.01), "outside tolerance"),
    ],
)
def test_the_tolerance_is_met_at_its_border(tmp_path: Path, numbers: tuple[float, ...], verdict: str) -> None:
    cell = published_cell("badnets", "ft")
    assert only(tmp_path, cell, published_record(cell, *numbers)).verdict == verdict


def test_a_setting_that_was_not_recorded_differs(tmp_path: Path) -> None:
    cell = published_cell("badnets", "ft")
    del cell["settings"]["training"]["momentum"]
    texts = [difference.text for difference in only(tmp_path, cell, record(cell, metrics(90, 1, 89))).differences]
    assert texts == [
        "momentum not recorded (published 0.9)",
        "training_images not recorded (published 50000)",
        "test_images not recorded (published 10000)",
    ]


def test_a_spelling_is_no_difference(tmp_path: Path) -> None:
    cell = published_cell("badnets", "ft", changes={"training.epochs": 100.0, "training.weight_decay": 5e-4})
    assert only(tmp_path, cell, published_record(cell, 90, 1, 89)).differences == ()


def test_a_defended_cell_alone_shows_its_undefended_model(tmp_path: Path) -> None:
    cell = published_cell("badnets", "ft", changes={"defense.recipe.learning_rate": 0.001, "clean_budget": 0.2})
    none, ft = compared(tmp_path, [cell], [published_record(cell, 89, 2, 88)]).lines
    assert (none.defense, none.verdict, none.differences) == ("none", "within tolerance", ())
    assert ft.verdict == "settings differ"


COMPARABLE_ATTACKS = [name for name in PUBLISHED_ATTACKS if not REFERENCE.option("attack", name).not_comparable]
OF_OTHERS = sorted(set(DEFENSES) - {"nt_ml"})


@pytest.mark.parametrize(
    ("attack", "defense"),
    [*product(COMPARABLE_ATTACKS, ["ft"]), *product(["badnets", "wanet"], sorted({*OF_OTHERS} - {"ft"}))],
)
def test_the_published_settings_are_reachable(tmp_path: Path, attack: str, defense: str) -> None:
    cell = published_cell(attack, defense, changes={"attack.poisoning_rate": 0.05})
    line = only(tmp_path, cell, published_record(cell, 90, 50, 40))
    assert line.differences == ()
    assert (line.verdict == "not comparable") == (defense in ("fp", "anp", "i_bau", "clp", "bnp"))


def test_an_ablation_is_matched_by_its_settings(tmp_path: Path) -> None:
    cells = [published_cell("badnets", "none", changes={"attack.poisoning_rate": rate}) for rate in (0.05, 0.1, 0.2)]
    lines = compared(tmp_path, cells, [published_record(cell, 91, 95, 5) for cell in cells]).lines
    assert [line.published and line.published.clean_accuracy for line in lines] == [92.64, 91.32, None]
    assert lines[0].attack == "badnets (poisoning_rate=0.05)"


def test_the_numbers_of_another_net_stand_beside_ours_without_a_verdict(tmp_path: Path) -> None:
    cells = [published_cell("badnets", "ft"), {**published_cell("badnets", "ft", seed=1), "model": "resnet_tiny"}]
    cells[1]["settings"]["model"] = {"name": "resnet_tiny"}
    folder = write_sweep(tmp_path, "nets", cells, [published_record(cell, 89.96, 1.48, 89.39) for cell in cells])
    summary = summarise(read_sweep(folder))

    def verdicts(reference: str) -> dict[str, list[tuple[str, str]]]:
        blocks = compare(summary, read_reference(reference)).blocks
        return {block.block.model: [(line.verdict, line.reason) for line in block.lines] for block in blocks}

    same = [("within tolerance", ""), ("within tolerance", "")]
    assert verdicts("backdoorbench") == {
        "preact_resnet18": same,
        "resnet_tiny": [("no published number", "no model resnet_tiny")] * 2,
    }
    assert verdicts("backdoorbench:preact_resnet18") == {
        "preact_resnet18": same,
        "resnet_tiny": [("settings differ", "recipe")] * 2,
    }
    of_another = compare(summary, read_reference("backdoorbench:vgg19_bn"))
    assert {text for block in of_another.blocks for text in block.differences["recipe"]} == {
        "model preact_resnet18 (published vgg19_bn)",
        "model resnet_tiny (published vgg19_bn)",
    }
    for line in of_another.lines:
        assert line.published == REFERENCE.find(Place("cifar10", "vgg19_bn", "badnets", line.names["defense"]), 0.1)[0]


# The renderings and the command.


def printed(comparison: Comparison, *, width: int = 80, terminal: bool = False) -> str:
    file = StringIO()
    print_comparison(comparison, Console(file=file, width=width, force_terminal=terminal, color_system=None))
    return file.getvalue()


@pytest.mark.parametrize("name", ["reference.md", "reference.csv", "reference.txt"])
def test_renderings_are_the_checked_ones(tmp_path: Path, name: str) -> None:
    comparison = golden_comparison(tmp_path)
    write_comparison(comparison, tmp_path)
    (tmp_path / "reference.txt").write_text(printed(comparison))
    found = (tmp_path / name).read_text()
    if os.environ.get("NTML_WRITE_GOLDEN"):
        (GOLDEN_FOLDER / name).write_text(found)
    assert found == (GOLDEN_FOLDER / name).read_text()


def test_a_line_fits_a_log_file(tmp_path: Path) -> None:
    cell = published_cell(
        "blended", "ft", changes={"training.epochs": 20, "attack.alpha": 0.1, "defense.recipe.learning_rate": 0.001}
    )
    text = printed(compared(tmp_path, [cell], [published_record(cell, 80.0, 5.0, 12.0)]))
    assert max(map(len, text.splitlines())) <= 120
    assert "80.0/92.8 (-12.8)  5.0/96.1 (-91.1)  12.0/3.6 (+8.4)  settings differ  recipe, blended, ft" in text


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_cuts_nothing_off(tmp_path: Path, width: int) -> None:
    text = printed(golden_comparison(tmp_path), width=width, terminal=True)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "…" not in text
    assert text.count("(-46.1)") == 1


def test_an_old_log_file_gets_plain_letters(tmp_path: Path) -> None:
    class Ascii(StringIO):
        encoding = "ascii"

    file = Ascii()
    print_comparison(golden_comparison(tmp_path), Console(file=file, width=120))
    file.getvalue().encode("ascii")


def test_the_command_writes_and_prints_the_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden_comparison(tmp_path)
    assert main(["golden", "--outputs", str(tmp_path), "--reference", "backdoorbench"]) == 0
    out = capsys.readouterr().out
    assert "Beside the BackdoorBench leaderboard: 8 of 10 cells have a published number (within tolerance: 1" in out
    target = tmp_path / "tables" / "golden"
    assert str(target / "reference.md") in out.replace("\n", "")
    assert (target / "reference.md").read_text() == (GOLDEN_FOLDER / "reference.md").read_text()
    assert main(["golden", "--outputs", str(tmp_path), "--reference", "backdoorbench", "--format", "csv"]) == 0
    assert [Path(line).name for line in capsys.readouterr().out.split()] == ["cells.csv", "reference.md", "reference.csv"]


def test_a_reader_that_closes_the_pipe_finds_every_file_written(tmp_path: Path) -> None:
    golden_comparison(tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed, redirect_stdout(closed), pytest.raises(SystemExit):  # rich's answer to a closed pipe
        main(["golden", "--outputs", str(tmp_path), "--reference", "backdoorbench"])
    assert {"table.md", "reference.md", "reference.csv"} <= {path.name for path in (tmp_path / "tables" / "golden").iterdir()}


def test_a_sweep_without_a_published_number_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(tmp_path, "golden", *golden())
    assert main(["golden", "--outputs", str(tmp_path), "--reference", "backdoorbench"]) == 0
    out = capsys.readouterr().out
    assert "None of the 9 cells has a published number." in out
    assert "no published number: no dataset digit_scenes (9 cells)" in out
    text = (tmp_path / "tables" / "golden" / "reference.md").read_text()
    assert "None of the 9 cells has a published number." in text
    assert text.count("| no published number | no dataset digit\\_scenes |") == 9


def test_the_command_names_the_nearest_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sweep(tmp_path, "golden", *golden())
    assert main(["golden", "--outputs", str(tmp_path), "--reference", "backdorbench"]) == 2
    assert "unknown reference 'backdorbench'. Did you mean 'backdoorbench'?" in capsys.readouterr().err
    assert not (tmp_path / "tables").exists()
    with pytest.raises(UserError, match="Available: backdoorbench"):
        read_reference("")
    unknown = r"unknown model of the reference backdoorbench 'preact_resnet'\. Did you mean 'preact_resnet18'\?"
    with pytest.raises(UserError, match=unknown):
        read_reference("backdoorbench:preact_resnet")
    with pytest.raises(UserError, match="Available: convnext_tiny, preact_resnet18, vgg19_bn, vit_base_patch16"):
        read_reference("backdoorbench:")
