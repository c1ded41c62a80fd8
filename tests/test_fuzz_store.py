"""Whatever happens to what is stored, a reader gets what was written, or makes it anew, or a clear error; no other value."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest
import torch
from damage import Damage, damages
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from table_records import golden, write_kept, write_sweep

from ntml_bench.checkpoint import Checkpoint
from ntml_bench.errors import UserError
from ntml_bench.integrity import CHECKSUMS
from ntml_bench.records.cells import Cell, read_sweep
from ntml_bench.records.rows import render_csv
from ntml_bench.records.summary import summarise
from ntml_bench.records.view import DEFAULT_SECTIONS
from ntml_bench.store import RECORD, TENSORS, Artifact, Store
from ntml_bench.table.latex import render_latex
from ntml_bench.table.markdown import render_markdown
from ntml_bench.table.stages import render_stages
from ntml_bench.table.terminal import print_table
from ntml_bench.table.web import render_html

FILES = (CHECKSUMS, RECORD, TENSORS)
quick = settings(deadline=None, max_examples=60)


@contextmanager
def copy_of(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as place:
        yield Path(shutil.copytree(folder, Path(place) / "copy"))


@contextmanager
def undone(files: list[Path]) -> Iterator[None]:
    """Afterwards the files hold again what they hold now."""
    contents = {path: path.read_bytes() for path in files}
    try:
        yield
    finally:
        for path, content in contents.items():
            path.write_bytes(content)


def artifact(shift: float = 0.0) -> Artifact:
    tensors = {"weights": torch.arange(6.0).view(2, 3) + shift, "flags": torch.tensor([True, False]), "count": torch.tensor(7)}
    return Artifact({"accuracy": 91.25 + shift, "history": [{"epoch": 1, "loss": 0.5}], "name": "é"}, tensors)


def same(one: Artifact, other: Artifact) -> bool:
    return (
        one.record == other.record
        and one.tensors.keys() == other.tensors.keys()
        and all(
            torch.equal(one.tensors[name], value) and one.tensors[name].dtype == value.dtype
            for name, value in other.tensors.items()
        )
    )


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two artifacts and the states of two trainings."""
    root = tmp_path_factory.mktemp("store")
    store = Store(root)
    for key, shift in (("a", 0.0), ("b", 1.0)):
        made = store.get_or_make("thing", key, lambda shift=shift: artifact(shift))
        store.checkpoint("training", key).write(made.record, made.tensors)
    return root


@given(st.lists(st.tuples(st.sampled_from(FILES), damages()), min_size=1, max_size=3))
@quick
def test_an_artifact_is_what_was_written_or_made_anew(original: Path, happened: list[tuple[str, Damage]]) -> None:
    with copy_of(original) as root:
        said: list[str] = []
        made: list[int] = []
        store = Store(root, said.append)
        for file, damage in happened:
            damage(store.path("thing", "a") / file, store.path("thing", "b") / file)
        assert store.record("thing", "a") in (None, artifact().record)
        before = store.load("thing", "a")
        assert before is None or same(before, artifact())

        def make() -> Artifact:
            made.append(1)
            return artifact()

        assert same(store.get_or_make("thing", "a", make), artifact())
        # Made if and only if it could not be used, and said so if and only if it was made.
        assert len(made) == len(said) == (before is None)
        after = store.load("thing", "a")
        assert after is not None
        assert same(after, artifact())


@given(st.lists(damages(), min_size=1, max_size=2))
@quick
def test_a_state_of_training_is_what_was_written_or_none(original: Path, happened: list[Damage]) -> None:
    with copy_of(original) as root:
        one, other = (Store(root).checkpoint("training", key) for key in ("a", "b"))
        for damage in happened:
            damage(one.path, other.path)
        found = Checkpoint(one.path).read()
        assert found is None or same(Artifact(*found), artifact())


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep with its store, and the same as it is kept."""
    outputs = tmp_path_factory.mktemp("outputs")
    write_sweep(outputs, "golden", *golden())
    write_kept(outputs / "reference" / "golden", "golden", *golden())
    return outputs


def numbers(cell: Cell) -> tuple[object, ...]:
    return (cell.before, cell.after, cell.floor, cell.defense_effectiveness_rating, cell.seconds)


CELLS, RECORDS = golden()
# `records[1]` and another attack's: what they are swapped for differs in seed, or in all.
DAMAGED = ["sweeps/golden/manifest.json"] + [f"store/cell-{RECORDS[0]['key']}/{file}" for file in FILES]
KEPT = [f"reference/golden/{name}" for name in ("manifest.json", CHECKSUMS, f"records/{RECORDS[0]['key']}.json")]
OTHERS = {name: name.replace(RECORDS[0]["key"], RECORDS[1]["key"]) for name in (*DAMAGED, *KEPT)}


@pytest.mark.parametrize(("home", "files"), [("sweeps", DAMAGED), ("reference", KEPT)])
@given(data=st.data())
@settings(deadline=None, max_examples=100)
def test_a_table_has_right_cells_or_there_is_none(outputs: Path, home: str, files: list[str], data: st.DataObject) -> None:
    happened = data.draw(st.lists(st.tuples(st.sampled_from(files), damages()), min_size=1, max_size=2))
    right = {cell.key: cell for cell in read_sweep(outputs / "sweeps" / "golden").cells}
    with undone([outputs / file for file in files]):
        for file, damage in happened:
            damage(outputs / file, outputs / OTHERS[file])
        try:
            sweep = read_sweep(outputs / home / "golden")
        except UserError:
            return
        for cell in sweep.cells:
            if cell.state == "done":
                assert numbers(cell) == numbers(right[cell.key])
                assert cell.seed == right[cell.key].seed
                assert cell.attack.startswith(right[cell.key].attack)
                assert cell.defense.startswith(right[cell.key].defense)
            else:
                assert len(cell.error.splitlines()) <= 1
        if home == "reference":
            assert [cell.attack for cell in sweep.cells] == [cell.attack for cell in right.values()]
        # What can be read can be shown.
        summary = summarise(sweep)
        for render in (render_markdown, render_latex, render_html):
            render(summary, DEFAULT_SECTIONS).encode()
        render_csv(summary).encode()
        render_stages(summary)
        print_table(summary, Console(file=StringIO()), DEFAULT_SECTIONS)
