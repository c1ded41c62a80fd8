"""ntml-store list and prune: whose what is, and that nothing is removed that somebody needs."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from store_outputs import artifacts_of, cells_of, key, make, tree, write_outputs
from table_records import write, write_failure

from ntml_bench.errors import UserError
from ntml_bench.housekeeping.amounts import bytes_below, parse_age, parse_size, size_text
from ntml_bench.housekeeping.main import main
from ntml_bench.store import Store

DAY = 86400


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return write_outputs(tmp_path / "outputs")


def listed(outputs: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["list", "--json", "--outputs", str(outputs), *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def prune(outputs: Path, *arguments: str) -> int:
    return main(["prune", "--outputs", str(outputs), "--yes", *arguments])


def names(outputs: Path) -> set[str]:
    """The artifacts in the store."""
    return {path.name for path in (outputs / "store").iterdir() if path.is_dir() and not path.name.startswith(".")}


def of_sweep(sweep: str) -> set[str]:
    """What the store has of a sweep."""
    cells = cells_of(sweep)
    wanted = {name for cell in cells for name in (*cell["artifacts"], f"cell-{cell['key']}")}
    return {name for name in wanted if not name.startswith("surrogate")}


def test_the_two_sweeps_share_what_this_file_says(outputs: Path) -> None:
    assert names(outputs) == of_sweep("one") | of_sweep("two")
    cell = cells_of("one")[0]["key"]
    assert of_sweep("one") & of_sweep("two") == {*artifacts_of("badnets", "none"), f"cell-{cell}"} - {
        f"surrogate-{key('surrogate')}"
    }


def test_every_byte_of_the_store_is_somebodys(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(Store(outputs / "store"), f"victim-{key('nobody')}")
    found = listed(outputs, capsys)
    one, two = found["sweeps"]
    assert [(sweep["name"], sweep["cells"], sweep["done"]) for sweep in (one, two)] == [("one", 2, 2), ("two", 2, 2)]
    assert one["only"]["count"] == two["only"]["count"] == 3
    assert one["shared"] == two["shared"]
    assert one["shared"]["count"] == 3
    assert found["of no sweep"]["count"] == 1
    parts = (one["only"], two["only"], one["shared"], found["of no sweep"])
    assert found["store"]["bytes"] == sum(part["bytes"] for part in parts)
    on_disk = sum(bytes_below(outputs / "store" / name) for name in names(outputs))
    assert found["store"]["bytes"] == on_disk
    assert found["damaged"] == []


def test_what_is_damaged_or_left_over_is_listed(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = outputs / "store"
    victim = store / f"victim-{key('badnets')}"
    (store / f".{victim.name}.tmp-0123").mkdir()
    (store / f".{victim.name}.tmp-0123" / "tensors.safetensors").write_bytes(b"12345")
    (store / f".{victim.name}.checkpoint").write_bytes(b"123")
    (store / f".surrogate-{key('surrogate')}.checkpoint").write_bytes(b"1234")
    (store / "notes.txt").write_text("mine")
    (outputs / "sweeps" / "one" / "wandb").mkdir()
    (outputs / "sweeps" / "one" / "wandb" / "run").write_bytes(b"12")
    (outputs / "tables").mkdir()
    (outputs / "tables" / "x").write_bytes(b"1")
    content = bytearray((victim / "tensors.safetensors").read_bytes())
    content[-1] ^= 1
    (victim / "tensors.safetensors").write_bytes(content)
    found = listed(outputs, capsys)
    assert found["damaged"] == [], "the tensors were not read"
    left = found["left-overs"]
    assert left["temporary"] == {"count": 1, "bytes": 5}
    assert left["states of finished trainings"] == {"count": 1, "bytes": 3}
    assert found["interrupted trainings"] == {"count": 1, "bytes": 4}
    assert left["not ours"] == ["notes.txt"]
    assert left["lock files"] == len(names(outputs))
    assert found["sweeps"][0]["tracking_bytes"] == 2
    assert found["elsewhere"] == {"data cache": 0, "downloads": 0, "tables": 1}
    (entry,) = listed(outputs, capsys, "--verify")["damaged"]
    assert (entry["artifact"], entry["why"]) == (victim.name, "tensors.safetensors is not what its checksum says")
    (victim / "record.json").write_text("{}")
    (entry,) = listed(outputs, capsys)["damaged"]
    assert entry["artifact"] == victim.name


def test_the_list_for_people_has_the_same_sizes(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(outputs, capsys)
    assert main(["list", "--outputs", str(outputs)]) == 0
    text = capsys.readouterr().out
    (line,) = [line for line in text.splitlines() if line.startswith("one ")]
    only, shared = found["sweeps"][0]["only"]["bytes"], found["sweeps"][0]["shared"]["bytes"]
    shown = [part.strip() for part in line.split("  ") if part.strip()]
    assert shown == ["one", "2 of 2", "6", size_text(only), size_text(shared), "0 B"]
    assert f"9, {size_text(found['store']['bytes'])}" in text


def test_a_pruned_sweep_takes_only_its_own_along(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_failure(outputs, cells_of("one")[1], "RuntimeError: once")
    (outputs / "tables" / "one").mkdir(parents=True)
    before = tree(outputs)
    size = sum(bytes_below(outputs / "store" / name) for name in of_sweep("one") - of_sweep("two"))
    assert prune(outputs, "--sweep", "one") == 0
    assert names(outputs) == of_sweep("two")
    after = tree(outputs)
    gone = {name.split("/")[1] for name in before.keys() - after.keys()}
    assert gone == {*(of_sweep("one") - of_sweep("two")), f"cell-{cells_of('one')[1]['key']}.failed.json", "one"}
    assert after.items() <= before.items(), "what is left is as it was"
    assert (outputs / "tables" / "one").is_dir()
    out = capsys.readouterr().out
    assert size > 2000
    assert f"victim-{key('badnets')}" not in out
    assert "Removed" in out


def test_nothing_is_removed_without_a_yes(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(outputs)
    for arguments in (["--sweep", "one", "--dry-run"], ["--sweep", "one", "--dry-run", "--yes"]):
        assert main(["prune", "--outputs", str(outputs), *arguments]) == 0
        out = capsys.readouterr().out
        assert f"purified-{key('badnets', 'ft')}  " in out
        assert "4 entries, " in out
        assert "to be removed" in out
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert main(["prune", "--outputs", str(outputs), "--sweep", "one"]) == 2
    assert "--yes" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer in ("", "n", "no", "yeah"):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert main(["prune", "--outputs", str(outputs), "--sweep", "one"]) == 0
    assert tree(outputs) == before
    monkeypatch.setattr("builtins.input", lambda _: "y")
    assert main(["prune", "--outputs", str(outputs), "--sweep", "one"]) == 0
    assert names(outputs) == of_sweep("two")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "none is given"),
        (["--sweep", "onne"], "unknown sweep 'onne'. Did you mean 'one'?"),
        (["--older-than", "soon"], "'soon' is not an age"),
        (["--unused", "--outputs", "nowhere"], "nowhere is not a folder"),
    ],
)
def test_a_mistake_is_named(outputs: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert prune(outputs, *arguments) == 2
    assert message in capsys.readouterr().err


def test_unused_is_what_no_sweep_names_and_what_kills_left(outputs: Path) -> None:
    store = outputs / "store"
    victim, nobody = f"victim-{key('badnets')}", f"victim-{key('nobody')}"
    make(Store(store), nobody)
    (store / f".{victim}.tmp-0123").mkdir()
    (store / f".removed-{victim}-0123").mkdir()
    (store / f".{victim}.checkpoint").write_bytes(b"stale")
    (store / f".{nobody}.checkpoint").write_bytes(b"of nobody")
    (store / f".surrogate-{key('surrogate')}.checkpoint").write_bytes(b"to go on from")
    (store / f"cell-{key('gone')}.failed.json").write_text("{}")
    (store / "notes.txt").write_text("mine")
    (outputs / ".staging-0123").mkdir()
    assert prune(outputs, "--unused") == 0
    assert names(outputs) == of_sweep("one") | of_sweep("two")
    hidden = {path.name for path in store.iterdir() if path.name.startswith(".") and not path.name.endswith(".lock")}
    assert hidden == {f".surrogate-{key('surrogate')}.checkpoint"}
    assert (store / "notes.txt").exists()
    assert not (store / f"cell-{key('gone')}.failed.json").exists()
    assert not list(outputs.glob(".staging-*"))


def test_damaged_is_what_was_set_aside_and_what_every_file_is_read_for(outputs: Path) -> None:
    store = outputs / "store"
    victim = store / f"victim-{key('badnets')}"
    content = bytearray((victim / "tensors.safetensors").read_bytes())
    content[-1] ^= 1
    (victim / "tensors.safetensors").write_bytes(content)
    (store / f".damaged-{victim.name}-0123").mkdir()
    assert prune(outputs, "--damaged") == 0
    assert names(outputs) == (of_sweep("one") | of_sweep("two")) - {victim.name}
    assert not list(store.glob(".damaged-*"))


def aged(path: Path, days: float) -> None:
    then = time.time() - days * DAY
    for entry in (path, *path.rglob("*")):
        os.utime(entry, (then, then))


def test_old_is_what_nothing_was_written_of_for_so_long(outputs: Path) -> None:
    make(Store(outputs / "store"), f"victim-{key('old')}")
    make(Store(outputs / "store"), f"victim-{key('new')}")
    aged(outputs / "store" / f"victim-{key('old')}", 40)
    assert prune(outputs, "--unused", "--older-than", "30d") == 0
    assert names(outputs) == of_sweep("one") | of_sweep("two") | {f"victim-{key('new')}"}
    # A sweep is as old as the newest of its folder and its cells.
    aged(outputs / "sweeps" / "one", 40)
    assert prune(outputs, "--older-than", "30d") == 0
    assert prune(outputs, "--sweep", "one", "--older-than", "30d") == 0
    assert (outputs / "sweeps" / "one").exists()
    for name in of_sweep("one"):
        aged(outputs / "store" / name, 40)
    assert prune(outputs, "--older-than", "30d") == 0
    assert not (outputs / "sweeps" / "one").exists()
    assert names(outputs) == of_sweep("two") | {f"victim-{key('new')}"}


def test_what_is_being_worked_on_stays(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(outputs / "store")
    make(store, f"victim-{key('nobody')}")
    with store.lock("victim", key("nobody")), store.lock("purified", key("badnets", "ft")):
        assert prune(outputs, "--sweep", "one", "--unused") == 0
    assert names(outputs) == of_sweep("one") | of_sweep("two") | {f"victim-{key('nobody')}"}
    out = capsys.readouterr().out
    assert "the sweep 'one' is running" in out
    assert f"victim-{key('nobody')} is being worked on" in out


def test_what_begins_while_the_question_stands_is_seen(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(outputs / "store")
    held = store.lock("purified", key("badnets", "ft"))

    def answer(_: str) -> str:
        # A third sweep now wants the cell of `ft`, and a process is at work on its model.
        write(outputs / "sweeps" / "three" / "manifest.json", {"sweep": "three", "cells": cells_of("one")[1:]})
        held.__enter__()
        return "y"

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", answer)
    assert main(["prune", "--outputs", str(outputs), "--sweep", "one"]) == 0
    held.__exit__(None, None, None)
    assert of_sweep("one") <= names(outputs)


def test_a_lock_that_is_taken_in_the_last_moment_is_respected(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    purified = ("purified", key("badnets", "ft"))
    monkeypatch.setattr(Store, "locked", lambda *_: False)
    with Store(outputs / "store").lock(*purified):
        assert prune(outputs, "--sweep", "one") == 0
    assert names(outputs) == of_sweep("two") | {"-".join(purified)}


@pytest.mark.parametrize("content", ["{", '{"sweep": "two", "store": "../../store", "cells": [{}]}', None])
def test_where_a_need_is_not_known_nothing_is_removed(
    outputs: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = outputs / "sweeps" / "two" / "manifest.json"
    if content is None:
        manifest = json.loads(path.read_text())
        del manifest["cells"][0]["artifacts"]
        content = json.dumps(manifest)
    path.write_text(content)
    before = tree(outputs)
    for arguments in (["--sweep", "one"], ["--unused"]):
        assert prune(outputs, *arguments) == 2
        assert "what the sweep 'two' uses is not known" in capsys.readouterr().err
    assert tree(outputs) == before


def test_a_link_is_removed_and_not_what_it_points_to(outputs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("mine")
    (outputs / "store" / f"victim-{key('link')}").symlink_to(elsewhere)
    assert prune(outputs, "--unused") == 0
    assert not (outputs / "store" / f"victim-{key('link')}").is_symlink()
    assert (elsewhere / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_949, "99.9 kB"), (99_950, "100 kB"), (999_499, "999 kB"),
     (999_500, "1.0 MB"), (45_600_000, "45.6 MB"), (3 * 10**15, "3000 TB")],
)  # fmt: skip
def test_sizes_are_readable(size: int, text: str) -> None:
    assert size_text(size) == text


def test_sizes_and_ages_are_read() -> None:
    assert [parse_size(text) for text in ("0B", "1kB", "1.5 MB", "10GiB", "2tb")] == [0, 1000, 1500000, 10 * 2**30, 2 * 10**12]
    assert [parse_age(text) for text in ("12h", "30d", "1.5w")] == [12 * 3600, 30 * DAY, 10.5 * DAY]
    for parse, wrong in ((parse_size, ("10", "GB", "-1GB", "1XB", "")), (parse_age, ("30", "d", "-1d", "1m", ""))):
        for text in wrong:
            with pytest.raises(UserError, match="write it like"):
                parse(text)
