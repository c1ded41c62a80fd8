"""The command line: what cannot be read or would do nothing is named, with what to type instead; no traceback."""

import os
import shlex
from pathlib import Path

import pytest
from app_runner import SMALL, bench, workplace
from hydra.core.override_parser.overrides_parser import OverridesParser

from ntml_bench.app.arguments import checked, quoted
from ntml_bench.errors import UserError
from ntml_bench.report.main import main as report

__all__ = ["workplace"]

REFUSED = {
    "--resolve": ["--cfg job --resolve"],
    "-m --cfg job": ["--multirun and --cfg exclude each other", "leave -m away"],
    "--run --multirun": ["--run and --multirun exclude each other"],
    "--info attack=sig": ["--info", "'defaults-tree'"],
    "--cfg": ["--cfg", "expected one argument"],
    "--sweep": ["unknown flag --sweep", "--hydra-help"],
    "--shell-completion": ["install=SHELL", "bash, fish, zsh"],
    "-sc install=tcsh": ["bash, fish, zsh"],
    "-sc query=bash": ["install=bash"],
    "--experimental-rerun x.pickle": ["pickle"],
    "outputs=/tmp/é(1)": ["""'outputs="/tmp/é(1)"'"""],
    "dataset.root=/tmp/a[1]": ["""'dataset.root="/tmp/a[1]"'"""],
    "outputs=/tmp/a=b": ["""'outputs="/tmp/a=b"'"""],
    "outputs=/tmp/a,b": ["-m", """'outputs="/tmp/a,b"'"""],
    "-m outputs=日本": ["""'outputs="日本"'"""],
    "outputs=~/x": ["outputs=$HOME/x"],
    "outputs=": ["outputs= has no value"],
    "attack=": ["attack= has no value"],
    "attack=null": ["attack takes the name of one option"],
    "attack=[badnets,sig]": ["-m attack=NAME,NAME"],
    "attack=${seed}": ["attack takes the name of one option"],
    "-m attack=badnets,": ["'attack=badnets,' cannot be read"],
    "hydra/launcher=null": ["takes the name of one option"],
    "~attack": ["attack=NAME chooses another"],
    "+attack=sig": ["attack=sig"],
    "++attack=sig": ["attack=sig"],
    "=3": ["names no setting"],
    "badnets": ["did you mean attack=badnets?"],
    "-m seed=range(0)": ["no value to sweep over"],
    "-m seed=interval(0,1)": ["hydra/sweeper=optuna"],
    "-cp nowhere": ["--config-dir adds one"],
    "--config-dir nowhere": ["nowhere' not found"],
    "-cd . -cn broken": ["no YAML", "broken.yaml"],
    "hydra.mode=many": ["RUN, MULTIRUN"],
    "outputs=file": ["cannot use file/sweeps/single: not a directory", "outputs=FOLDER"],
    "-m outputs=file/deeper": ["cannot use file/deeper/sweeps/single: not a directory"],
    "outputs=/proc/nothing": ["cannot use /proc/nothing"],
    f"sweep={'a' * 300}": ["file name too long"],
    "hydra.job.chdir=true": ["hydra.job.chdir", "outputs=FOLDER"],
    "-m hydra.job.chdir=true": ["hydra.job.chdir", "outputs=FOLDER"],
    "hydra.run.dir=elsewhere": ["hydra.run.dir", "outputs=FOLDER"],
    "-m hydra.sweep.dir=elsewhere": ["hydra.sweep.dir", "outputs=FOLDER"],
    "-m hydra.sweep.subdir=a": ["hydra.sweep.subdir", "outputs=FOLDER"],
    "hydra.output_subdir=.hydra": ["hydra.output_subdir", "record"],
    "hydra.job.name=mine": ["hydra.job.name", "sweep=NAME"],
    "-m hydra.job.num=3": ["hydra.job.num", "sweeper, launcher"],
    "+hydra.job.env_set.X=1": ["hydra.job.env_set", "before the command"],
    "hydra/job_logging=default": ["hydra/job_logging", "progress is printed"],
    "-m hydra.verbose=true": ["hydra.verbose"],
    "-m workers=1,2": ["workers is one for a whole sweep"],
    "-m outputs=a,b": ["outputs is one for a whole sweep"],
    "-m tracking=none,offline": ["tracking is one for a whole sweep"],
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_cannot_be_done_is_said_with_what_to_do(line: str, workplace: Path) -> None:
    (workplace / "file").write_text("")
    (workplace / "broken.yaml").write_text("a: [\n")
    words = line.split()
    small = [] if "dataset" in line or "-cn" in words or words[0].startswith("--") or words[0] == "-sc" else SMALL
    taken = {word.partition("=")[0] for word in words}
    outcome = bench(*words, *(word for word in small if word.partition("=")[0] not in taken))
    assert outcome.code == 1, outcome.output
    for text in REFUSED[line]:
        assert text in outcome.errors
    assert len(outcome.errors.splitlines()) <= 3
    assert not list(workplace.glob("**/store"))


def test_what_a_message_says_to_type_is_read_as_it_was_meant(workplace: Path) -> None:
    for value in ("/tmp/é(1)", "a=b", "it's", 'a "b"', "a;b&c", "a\\b(1)"):
        typed = quoted(f"outputs={value}")
        assert typed is not None, value
        (word,) = shlex.split(typed)
        assert OverridesParser.create().parse_override(word).value() == value


def test_a_folder_with_an_accent_and_brackets_holds_a_sweep(workplace: Path) -> None:
    outcome = bench("-m", *SMALL, 'outputs="é (1)[2]"', "attack=badnets", "defense=none", "sweep=named")
    assert outcome.code == 0, outcome.errors
    assert (workplace / "é (1)[2]" / "tables" / "named" / "cells.csv").exists()


def test_settings_stand_on_both_sides_of_a_flag() -> None:
    assert checked(["attack=badnets", "-m", "defense=none"]) == ["-m", "attack=badnets", "defense=none"]
    assert checked(["a.b=1", "-cn", "x", "c=2"]) == ["-cn", "x", "a.b=1", "c=2"]
    assert checked(["-m", "attack=badnets", "seed=1"]) == ["-m", "attack=badnets", "seed=1"]


def test_what_hydra_does_as_it_says_stays() -> None:
    for line in (
        "--help",
        "--cfg job --resolve",
        "-m hydra.sweeper.max_batch_size=2",
        "+hydra.x=1",
        "-m seed=0,1 attack=choice(sig)",
    ):
        assert checked(line.split())
    with pytest.raises(UserError, match="--config-name"):
        checked(["--config-name"])


def test_the_shell_asks_for_completions(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench("-sc", "install=bash").code == 0
    monkeypatch.setitem(os.environ, "COMP_LINE", "ntml-bench attack=bad")
    monkeypatch.setitem(os.environ, "COMP_POINT", "21")
    assert "attack=badnets" in bench("-sc", "query=bash").output


@pytest.mark.parametrize("word", ["attack=null", "seed", "data_dir=/tmp/é(1)", "~attack", "+attack=sig"])
def test_a_gallery_names_mistakes_alike(word: str, workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(["--attack", "badnets", "--dataset", "digits", word]) == 2
    errors = capsys.readouterr().err
    assert word.partition("=")[0] in errors
    assert len(errors.splitlines()) == 1
