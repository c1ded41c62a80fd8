"""A cell is what it was made from: corrected images, edited code and other folders never pass for the same run."""

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from app_runner import SMALL, bench, rows, workplace
from PIL import Image
from table_records import entry

import ntml_bench.source
from ntml_bench.records.identity import made_again, replaced
from ntml_bench.records.labels import label_cells
from ntml_bench.source import source_mark
from ntml_bench.table.main import main as table

__all__ = ["workplace"]

FOLDER = (*(setting for setting in SMALL if "dataset" not in setting), "dataset=image_folder", "training.batch_size=20")


def pictures(folder: Path, colours: dict[str, int], seed: int = 0) -> Path:
    """Classes of one grey each, and noise: 20 training and 10 test images of 32x32 a class."""
    rng = np.random.default_rng(seed)
    for part, count in (("train", 20), ("test", 10)):
        for name, grey in colours.items():
            place = folder / part / name
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                noise = rng.integers(-20, 20, (32, 32, 3))
                Image.fromarray((grey + noise).clip(0, 255).astype(np.uint8)).save(place / f"{number}.png")
    return folder


def single() -> list[dict[str, str]]:
    """The rows of the table of all cells that were run alone."""
    assert table(["single", "--format", "csv"]) == 0
    return rows("single")


def exchange_tests(folder: Path, one: str, other: str) -> None:
    """Correct a mix-up: what lay in one class's test folder belongs to the other."""
    test = folder / "test"
    (test / one).rename(test / "away")
    (test / other).rename(test / one)
    (test / "away").rename(test / other)


def made_of(cell: dict[str, Any], whole: str = "a" * 16, folder: str = "F", **code: Any) -> dict[str, Any]:
    """A cell of a manifest with what it was made from."""
    versions = {"engine": 1, "attack": {"version": 1}, "defense": {"version": 1}} | code
    key = f"{hash((cell['key'], whole, folder, repr(versions))) % 16**16:016x}"
    return {**cell, "key": key, "data": {"whole": whole, "folder": folder, "place": f"place of {folder}"}, "code": versions}


def test_a_tuned_defense_never_takes_the_place_of_one_as_written() -> None:
    written = made_of(entry("badnets", "ft", settings={"defense": {"steps": 5}}))
    tuned = made_of(entry("badnets", "ft", settings={"defense": {"steps": 5, "tuning": "price", "price": 1.0}}))
    assert not made_again(written, tuned)
    assert made_again(tuned, tuned)


def test_corrected_images_take_the_place_of_the_old_run(workplace: Path) -> None:
    root = pictures(workplace / "F", {"cat": 60, "dog": 190})
    arguments = (*FOLDER, f"dataset.root={root}", "defense=ft", "defense.recipe.epochs=1", "attack.target_class=0")
    assert bench(*arguments).code == 0
    before = single()
    exchange_tests(root, "cat", "dog")
    assert bench(*arguments).code == 0
    after = single()
    assert len(before) == len(after) == 1
    assert before[0]["key"] != after[0]["key"]
    assert float(after[0]["clean_accuracy"]) == 100 - float(before[0]["clean_accuracy"])


def test_two_folders_are_two_data_sets(workplace: Path) -> None:
    roots = [pictures(workplace / name, {"cat": 60, "dog": 190}, seed) for seed, name in enumerate(("A", "B"))]
    exchange_tests(roots[1], "cat", "dog")
    grid = ("-m", *FOLDER, f"dataset.root={roots[0]},{roots[1]}", "attack=none", "defense=none", "sweep=two")
    assert bench(*grid).code == 0
    assert [row["dataset"] for row in rows("two")] == ["image_folder (folder=A)", "image_folder (folder=B)"]
    accuracies = [float(row["clean_accuracy"]) for row in rows("two")]
    assert accuracies[0] == 100 - accuracies[1]


def test_a_floor_asked_for_later_is_no_second_run(workplace: Path) -> None:
    cell = (*SMALL, "attack=badnets", "defense=none")
    assert bench(*cell).code == 0
    assert bench(*cell, "floor=true").code == 0
    (row,) = single()
    assert bench(*cell, "seed=1").code == 0
    assert [found["seed"] for found in single()] == ["0", "1"]
    assert row == single()[0]


STRIPE = """
    from dataclasses import dataclass

    from beside import LEVEL
    from ntml_bench.attacks import ATTACKS, Attack, AttackConfig
    from ntml_bench.attacks.base import to_float


    @ATTACKS.register("lined")
    class Lined(Attack[AttackConfig]):
        Config = AttackConfig

        def poison(self, context):
            indices = self.choose(context)
            return self.all_poisons(indices, self.trigger(to_float(context.train.images[indices]), {}), {}, {})

        def trigger(self, images, state):
            images = images.clone()
            images[:, :, 3] = LEVEL
            return images
"""


@pytest.fixture
def restart() -> Any:
    """Calls as of a new process: modules of users are imported anew, and their source is read anew."""
    before = set(sys.modules)

    def new_process() -> None:
        for name in set(sys.modules) - before:
            if name in ("lined", "beside"):
                del sys.modules[name]
        ntml_bench.source._mark.cache_clear()

    yield new_process
    new_process()


@pytest.mark.parametrize("edited", ["lined.py", "beside.py"])
def test_an_edited_method_is_run_again(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, restart: Callable[[], None], edited: str
) -> None:
    monkeypatch.syspath_prepend(str(workplace))
    files = {"lined.py": dedent(STRIPE), "beside.py": "LEVEL = 1.0\n"}
    files["conf/attack/lined.yaml"] = "name: lined\ntarget_class: 0\npoisoning_rate: 0.1\n"
    for name, text in files.items():
        (workplace / name).parent.mkdir(parents=True, exist_ok=True)
        (workplace / name).write_text(text)
    arguments = ("--config-dir", "conf", *SMALL, "imports=[lined]", "attack=lined", "defense=none", "training.epochs=8")
    assert bench(*arguments).code == 0
    (first,) = single()
    restart()
    again = bench(*arguments)
    assert "(stored)" in again.output
    changed = {"lined.py": ("= LEVEL", "= images[:, :, 3]"), "beside.py": ("1.0", "0.5")}[edited]
    (workplace / edited).write_text(files[edited].replace(*changed))
    restart()
    outcome = bench(*arguments)
    assert outcome.code == 0
    assert "(stored)" not in outcome.output
    (second,) = single()
    assert first["key"] != second["key"]
    assert first["attack_success_rate"] != second["attack_success_rate"]


def test_the_mark_is_of_a_module_and_of_what_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restart: Callable[[], None]
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "plugin_of_a_user"
    texts = {
        package / "__init__.py": "",
        package / "attack.py": "from . import parts\nimport numpy, neighbour_of_a_user, ntml_bench.errors\n",
        package / "parts.py": "def late():\n    from plugin_of_a_user.deep.last import X\n",
        package / "deep" / "__init__.py": "",
        package / "deep" / "last.py": "X = 1\n",
        package / "other.py": "Y = 1\n",
        tmp_path / "neighbour_of_a_user.py": "Z = 1\n",
        tmp_path / "ntml_bench.py": "",
    }
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    __import__("plugin_of_a_user.attack")

    def mark() -> str | None:
        ntml_bench.source._mark.cache_clear()
        return source_mark("plugin_of_a_user.attack")

    seen = [mark()]
    for path in texts:
        path.write_text(path.read_text() + "# edited\n")
        seen.append(mark())
    changed = [one != other for one, other in pairwise(seen)]
    expected = [path.name not in ("other.py", "ntml_bench.py") for path in texts]
    assert changed == expected
    assert source_mark("ntml_bench.attacks.badnets") is None
    assert source_mark("timm.models.resnet") is None


def test_the_newer_of_two_runs_of_one_cell_counts() -> None:
    old, other = made_of(entry("badnets", "ft")), made_of(entry("badnets", "nad"))
    for new in (
        made_of(entry("badnets", "ft"), whole="b" * 16),
        made_of(entry("badnets", "ft"), engine=2),
        made_of(entry("badnets", "ft"), defense={"version": 2}),
        made_of(entry("badnets", "ft"), attack={"version": 1, "source": ["c" * 16]}),
    ):
        assert made_again(old, new)
        assert replaced([old, other], [new]) == [new, other]
    for new in (
        made_of(entry("badnets", "ft", seed=1)),
        made_of(entry("badnets", "ft"), folder="elsewhere"),
        made_of(entry("badnets", "ft", settings={"defense": {"temperature": 2}})),
    ):
        assert not made_again(old, new)
        assert replaced([old, other], [new]) == [old, other, new]


def test_an_entry_of_before_is_replaced_by_that_of_its_key() -> None:
    old = entry("badnets", "ft")
    new = made_of(old) | {"key": old["key"]}
    assert replaced([old], [new]) == [new]
    # One run under two settings that do not matter to it (defense=none, two clean budgets) stays under both.
    both = [entry("badnets", "none", settings={"clean_budget": share}) | {"key": "0" * 16} for share in (0.01, 0.05)]
    assert replaced(both, [both[1]]) == both


def test_cells_of_other_code_or_images_are_told_apart() -> None:
    def labels(*cells: dict[str, Any]) -> list[tuple[str, ...]]:
        return [tuple(label) for label in label_cells(cells)]

    ft, nad = made_of(entry("badnets", "ft")), entry("badnets", "nad")
    plain = ("digit_scenes", "resnet_tiny", "badnets", "ft")
    assert labels(ft, made_of(nad))[0] == plain
    assert labels(ft, made_of(nad, whole="b" * 16))[0][0] == "digit_scenes (images=aaaaaaaa)"
    assert labels(ft, made_of(nad, whole="b" * 16, folder="G"))[0][0] == "digit_scenes (folder=F)"
    assert labels(ft, made_of(nad, folder="G"))[0] == plain, "a folder that moved holds the same images"
    assert labels(ft, made_of(nad, engine=2))[0][1] == "resnet_tiny (engine=1)"
    edited = made_of(nad, attack={"version": 1, "source": ["c" * 16]})
    assert [label[2] for label in labels(ft, edited)] == ["badnets (code=v1)", "badnets (code=v1 cccccccc)"]
    assert labels(ft, nad)[0] == plain, "manifests of before do not say what their cells were made from"
