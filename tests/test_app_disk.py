"""Cells on a disk that is full, and sweeps whose stored files were damaged: a clear line, the others go on, right numbers."""

import errno
from pathlib import Path

import pytest
from app_runner import SMALL, bench, rows, workplace
from test_files import refuse

__all__ = ["workplace"]

PAIR = ("-m", *SMALL, "attack=badnets", "attack.poisoning_rate=0.05", "defense=none,i_bau", "sweep=pair")


@pytest.mark.slow
def test_a_cell_that_finds_the_disk_full_is_a_clear_line_and_the_others_go_on(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        refuse(patch, errno.ENOSPC, "purified-")
        outcome = bench(*PAIR)
    assert outcome.code == 1
    assert "Traceback" not in outcome.errors
    (line,) = [line for line in outcome.errors.splitlines() if "badnets x i_bau" in line]
    assert "cannot write outputs/store/purified-" in line
    assert line.endswith("no space left on device")
    assert [row["state"] for row in rows("pair")] == ["done", "failed"]
    assert not list((workplace / "outputs" / "store").glob(".*.tmp-*"))
    assert bench(*PAIR).code == 0
    assert [row["state"] for row in rows("pair")] == ["done", "done"]


def test_a_failure_that_cannot_be_written_down_hides_nothing(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ntml_bench.defenses.i_bau import IBAU

    def broken(*_: object) -> None:
        raise RuntimeError("the defense broke")

    monkeypatch.setattr(IBAU, "purify", broken)
    refuse(monkeypatch, errno.ENOSPC, ".failed.json")
    outcome = bench(*PAIR)
    assert outcome.code == 1
    assert "badnets x i_bau, seed 0: RuntimeError: the defense broke" in outcome.errors
    assert [row["state"] for row in rows("pair")] == ["done", "missing"]


def test_a_table_that_cannot_be_written_is_a_clear_line(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, errno.EROFS, "cells.csv")
    outcome = bench("-m", *SMALL, "attack=none", "defense=none", "sweep=bare")
    assert outcome.code == 1
    assert "cannot write outputs/tables/bare/cells.csv: read-only file system" in outcome.errors


@pytest.mark.slow
def test_what_was_damaged_is_made_anew_to_the_same_numbers(workplace: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert bench(*PAIR).code == 0
    before = rows("pair")
    store = workplace / "outputs" / "store"
    damaged = [path for path in store.iterdir() if path.is_dir()]
    assert {path.name.split("-")[0] for path in damaged} == {"cell", "victim", "purified", "evaluation", "gallery", "exhibit"}
    for folder in damaged:
        content = bytearray((folder / "tensors.safetensors").read_bytes())
        content[-1] ^= 1
        (folder / "tensors.safetensors").write_bytes(content)
    again = bench(*PAIR)
    assert again.code == 0, again.errors
    assert rows("pair") == before
    aside = {path.name.split("-")[1] for path in store.glob(".damaged-*")}
    assert aside == {"cell", "victim", "purified", "evaluation", "gallery", "exhibit"}
    assert len([line for line in caplog.messages if "is set aside as" in line]) == len(damaged)
