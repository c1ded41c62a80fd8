"""Runs `ntml-bench` in this process, as its console script would."""

import csv
import io
import logging
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from ntml_bench.app.main import main

# The smallest cells that still do everything: plain digits, one short training.
SMALL = (
    "dataset=digits",
    "dataset.image_size=16",
    "dataset.train_limit=300",
    "dataset.test_limit=100",
    "training.epochs=1",
    "clean_budget=0.2",
    "tracking=none",
    "deterministic=true",
)


@dataclass(frozen=True)
class Outcome:
    code: int
    output: str
    errors: str


def bench(*arguments: str) -> Outcome:
    """Exit code, standard output and standard error of `ntml-bench` with these arguments, in the working directory."""
    output, errors = io.StringIO(), io.StringIO()
    before, level, handlers = sys.argv, logging.root.level, list(logging.root.handlers)
    sys.argv = ["ntml-bench", *arguments]
    try:
        with redirect_stdout(output), redirect_stderr(errors):
            main()
        code: object = 0
    except SystemExit as end:
        code = end.code
        if isinstance(code, str):
            errors.write(code)
            code = 1
    finally:
        sys.argv = before
        # A log that Hydra opened, and that it tells everything behind `--info`, end with a process.
        logging.root.setLevel(level)
        for handler in logging.root.handlers[:]:
            if handler not in handlers:
                logging.root.removeHandler(handler)
                handler.close()
    return Outcome(int(str(code or 0)), output.getvalue(), errors.getvalue())


def rows(sweep: str, folder: Path = Path()) -> list[dict[str, str]]:
    """The rows of a sweep's cells.csv without their times."""
    with (folder / "outputs" / "tables" / sweep / "cells.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(folder: Path) -> dict[str, bytes]:
    """The tensors of every model that the store holds, by its name."""
    return {path.parent.name: path.read_bytes() for path in (folder / "outputs" / "store").glob("*/tensors.safetensors")}
