"""Records of other people: one in another shape than is shown makes a failed cell, never a traceback or a page less."""

from pathlib import Path
from typing import Any

import pytest
from report_pages import table_sweep

from ntml_bench.records.cells import read_sweep
from ntml_bench.report.main import main


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"environment": ["cpu"]}, "environment is ['cpu']"),
        ({"environment": {"packages": ["torch"]}}, "packages is ['torch']"),
        ({"code": 5}, "code is 5"),
        ({"seconds": {"total": 1.0, "attack": "long"}}, "'long' is not a number"),
        ({"history": 5}, "history is 5"),
        ({"history": [5]}, "history is [5]"),
    ],
)
def test_what_a_record_tells_in_another_shape_is_not_read(tmp_path: Path, told: dict[str, Any], said: str) -> None:
    folder = table_sweep(tmp_path, attacks=("sig",), defenses=("none", "ft"), extra=told)
    for cell in read_sweep(folder).cells:
        assert cell.state == "failed"
        assert cell.error.startswith("its record cannot be read")
        assert said in cell.error
    assert main(["table", "--outputs", str(tmp_path)]) == 0


def test_what_is_not_told_is_no_mistake(tmp_path: Path) -> None:
    told = {"environment": None, "history": None, "seconds": {"total": 1.0, "attack": None}}
    folder = table_sweep(tmp_path, attacks=("sig",), defenses=("none", "ft"), extra=told)
    assert [cell.state for cell in read_sweep(folder).cells] == ["done", "done"]


@pytest.mark.parametrize("moment", [5, "yesterday", "0001-01-01T00:00:00+14:00"])
def test_a_moment_that_is_none_is_shown_as_it_stands(tmp_path: Path, moment: Any) -> None:
    table_sweep(tmp_path, attacks=("sig",), defenses=("none", "ft"), extra={"environment": {"finished": moment}})
    assert main(["table", "--outputs", str(tmp_path)]) == 0
    assert f"<dd>{moment}</dd>" in (tmp_path / "tables" / "table" / "report.html").read_text()
