"""How each command of a page is tried: a rule for each program, and the marks of commands that cannot run everywhere.

A mark is a comment behind the command: `# needs a GPU`, `# needs Slurm and a network: ...`. A marked command is only composed.
"""

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from documents import REPOSITORY, Command, parts_of
from own_files import lay_out, small_cell
from report_pages import table_sweep
from small_commands import Bench, planned, run_small
from store_outputs import write_outputs

from ntml_bench.app.settings import Settings
from ntml_bench.housekeeping import main as store
from ntml_bench.records.manifest import MANIFEST
from ntml_bench.report import main as report
from ntml_bench.status import main as status
from ntml_bench.table import main as table

MARKS = ("GPU", "Slurm", "network", "Optuna")
NEEDS = re.compile(r"\bneeds ([^:;.,()]*)")
ASSIGNMENT = re.compile(r"[A-Z_]+=.*")
OUTPUTS = Path("outputs")
DOWNLOADED = ("cifar10", "cifar100", "gtsrb", "tiny_imagenet")

Rule = Callable[[Command, list[str], pytest.MonkeyPatch], None]


class UncoveredError(AssertionError):
    """A command that no rule covers, or that lacks a mark."""


def try_command(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Try a command in the working directory, which is empty but for the files of its page. Raises AssertionError."""
    words = list(command.words)
    while ASSIGNMENT.fullmatch(words[0]):
        words.pop(0)
    program = words[0].removeprefix(".venv/bin/")
    if program not in RULES:
        raise UncoveredError(f"no rule of tests/document_commands.py covers: {' '.join(command.words)}")
    RULES[program](command, words[1:], monkeypatch)


def marks_of(remark: str) -> set[str]:
    """What the comment behind a command says that it needs."""
    found = NEEDS.search(remark)
    return {mark for mark in MARKS if found and re.search(rf"\b{mark}\b", found[1])}


def require(command: Command, mark: str, why: str) -> None:
    """Any mark will do: a marked command is not run."""
    if not marks_of(command.remark):
        raise UncoveredError(f"{' '.join(command.words)} {why}; the comment behind it says so: # needs {mark}")


def _bench(command: Command, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = Bench.of(words)
    lay_out(words, folders=not marks_of(command.remark))
    if not parsed.shows:
        for cell in planned(parsed):
            _require_of(command, cell)
    if not marks_of(command.remark):
        run_small(parsed, words, monkeypatch)


def _require_of(command: Command, cell: Settings) -> None:
    if cell.cluster.name == "slurm":
        require(command, "Slurm", "runs on a cluster")
    if cell.general.objective is not None:
        require(command, "Optuna", "searches")
    config = cell.dataset.config
    if config.name in DOWNLOADED and getattr(config, "root", None) is None:
        require(command, "a network", "downloads images")


def _table(command: Command, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    options = table._parser().parse_args(words)
    _finish(options.sweep, options.against)
    assert table.main(words) == 0


def _report(command: Command, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    options = report._parser().parse_intermixed_args(words)
    if not options.attack:
        _finish(options.what[0], options.against)
    lay_out(words, folders=False)
    limits = ["dataset.train_limit=300", "dataset.test_limit=100"] if options.attack else []
    assert report.main([*words, *limits]) == 0


def _status(command: Command, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    _finish(next(word for word in words if not word.startswith("-")))
    assert status.main(words) == 0


def _store(command: Command, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    options = store._parser().parse_args(words)
    if words[0] == "images":
        small_cell(options.sweep, options.attack or "badnets", options.seed or 0)
        assert store.main(words) == 0
        return
    write_outputs(OUTPUTS)
    if hasattr(options, "sweep") and options.sweep:
        for name in [options.sweep] if isinstance(options.sweep, str) else options.sweep:
            _rename(OUTPUTS / "sweeps" / "one", name)
    if hasattr(options, "file"):
        _rename(OUTPUTS / "sweeps" / "one", options.file.name.partition(".")[0])
        assert store.main(["export", options.file.name.partition(".")[0], "--models", "--to", str(options.file)]) == 0
        shutil.rmtree(OUTPUTS)
    asks = hasattr(options, "yes") and not options.dry_run and not options.yes
    assert store.main([*words, *(["--yes"] if asks else [])]) == 0


def _finish(name: str, against: str | None = None) -> None:
    """Leave a finished sweep of that name; where it is held against another, a copy of that one."""
    if against is None:
        _rename(table_sweep(OUTPUTS, attacks=("badnets", "sig"), defenses=("none", "ft")), Path(name).name)
        return
    kept = OUTPUTS / "reference" / Path(against).name
    if (REPOSITORY / kept).is_dir():
        shutil.copytree(REPOSITORY / kept, kept)
    else:
        _rename(table_sweep(OUTPUTS, seeds=(0, 1, 2)), kept.name)
        assert table.main([kept.name, "--keep"]) == 0
    if Path(name).name != kept.name:
        shutil.copytree(kept, OUTPUTS / "reference" / Path(name).name)


def _rename(folder: Path, name: str) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    target = folder.rename(folder.parent / name)
    (target / MANIFEST).write_text(json.dumps({**manifest, "sweep": name}))


def _make(command: Command, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The targets exist; what `ntml-bench` they would run is composed."""
    tried = subprocess.run(["make", "-n", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stderr
    for line in tried.stdout.splitlines():
        if line.startswith(".venv/bin/ntml-bench "):
            ((_, *settings), *_) = parts_of(line)
            # Behind -cd are sweeps that the application finds by itself, from any folder.
            planned(replace(Bench.of(settings), config_dir=None))


def _pip(command: Command, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    require(command, "a network", "installs")
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for named in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        assert set(named.split(",")) <= set(extras), f"no such extra: {named}"
    for option, value in pairwise(words):
        assert option not in ("-c", "-r") or (REPOSITORY / value).is_file(), f"no such file: {value}"


def _python(command: Command, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if words[:2] == ["-m", "pip"]:
        _pip(command, words[2:], monkeypatch)
    elif words[:1] == ["-m"]:
        assert find_spec(words[1]) is not None, f"no such module: {words[1]}"
    else:
        assert (REPOSITORY / words[0]).is_file() or Path(words[0]).is_file(), f"no such file: {words[0]}"


def _git(command: Command, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if words[0] in ("clone", "pull", "fetch", "push"):
        require(command, "a network", "talks to a server")


def _wandb(command: Command, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    require(command, "a network", "talks to a server")
    for word in words:
        if word.endswith(".yaml"):
            assert yaml.safe_load((REPOSITORY / word).read_text()), word


def _nothing(command: Command, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the shell: nothing that could be out of date."""


def _activate(command: Command, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert words == [".venv/bin/activate"]


RULES: dict[str, Rule] = {
    "ntml-bench": _bench,
    "ntml-table": _table,
    "ntml-report": _report,
    "ntml-status": _status,
    "ntml-store": _store,
    "make": _make,
    "pip": _pip,
    "python": _python,
    "python3": _python,
    "git": _git,
    "wandb": _wandb,
    "cd": _nothing,
    "mkdir": _nothing,
    ".": _activate,
    "source": _activate,
}
