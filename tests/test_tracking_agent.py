"""A W&B sweep drives the application: the cell's run is its agent's, and its measures say on which images they were taken."""

import os
import subprocess
import sys
from multiprocessing import Queue
from pathlib import Path
from typing import Any

import pytest
import yaml
from app_runner import SMALL
from wandb_place import alone, config, done, logged, server, tracker
from wandb_server import WandbServer

from ntml_bench.errors import UserError
from ntml_bench.tracking import Tracker
from ntml_bench.tracking.session import IDENTITY

__all__ = ["alone", "server"]
pytestmark = [
    pytest.mark.usefixtures("alone"),
    # W&B does not close the agent's file of parameters.
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]
REPOSITORY = Path(__file__).parents[1]
FILE = REPOSITORY / "sweeps" / "wandb_ablation.yaml"
SWEEP: dict[str, Any] = yaml.safe_load(FILE.read_text())
TRIAL = {"defense.temperature": 2.5, "defense.nt.learning_rate": 1e-05, "defense.freeze_teacher": True}
# Behind the agent's own arguments, so that the trial is small.
TINY = (*(value for value in SMALL if "tracking" not in value), "defense.nt.epochs=1", "defense.ml.epochs=1")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that the sweep names is on the path, works in a folder of its own and makes little of each cell."""
    script = tmp_path / "bin" / SWEEP["program"]
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m ntml_bench.app.main "$@" {" ".join(TINY)} $MORE\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.chdir(tmp_path)


def be_agent(monkeypatch: pytest.MonkeyPatch, folder: Path, run_id: str = "trial1") -> None:
    """The variables that an agent sets."""
    parameters = folder / "parameters.yaml"
    parameters.write_text(yaml.safe_dump({"wandb_version": 1, **{name: {"value": value} for name, value in TRIAL.items()}}))
    for name, value in zip(IDENTITY, ("sweep1", run_id, str(parameters)), strict=True):
        monkeypatch.setenv(name, value)


def test_an_agent_starts_a_cell_whose_run_is_its_own(tmp_path: Path, program: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.wandb_agent import Agent

    for name in (*IDENTITY, "WANDB_DIR"):
        monkeypatch.setenv(name, "")  # what the agent sets in this process ends with the test
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("MORE", "tracking.mode=offline")
    agent = Agent(None, Queue(), sweep_id="sweep1")
    agent._sweep_command = list(SWEEP["command"])
    arguments = {name: {"value": value} for name, value in TRIAL.items()}
    agent._command_run({"run_id": "trial1", "program": SWEEP["program"], "args": arguments})
    assert agent._run_processes["trial1"].wait(timeout=200) == 0

    (run,) = logged(tmp_path / "outputs" / "sweeps" / "wandb_ablation").values()
    assert (run.run_id, run.sweep) == ("trial1", "sweep1")
    assert run.config["defense"]["temperature"] == 2.5
    assert run.config["defense"]["nt"]["learning_rate"] == 1e-05
    assert run.config["defense"]["freeze_teacher"] is True
    assert {name: run.config[name] for name in TRIAL} == TRIAL
    assert 0 <= run.summary[SWEEP["metric"]["name"]] <= 100


@pytest.mark.slow
def test_a_real_sweep_ends_with_its_metric_on_the_server(
    program: None, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wandb(*arguments: str) -> str:
        command = [sys.executable, "-m", "wandb", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=400).stderr

    assert "Creating sweep with ID: sweep1" in wandb("sweep", str(FILE))
    assert yaml.safe_load(server.sweep_config) == SWEEP
    monkeypatch.setenv("MORE", "tracking.init_timeout=60 tracking.finish_timeout=60")
    server.add_trial("trial1", TRIAL)
    server.add_trial("trial2", TRIAL)
    wandb("agent", "someone/ntml-bench/sweep1")
    assert set(server.runs) == {"trial1", "trial2"}
    for run in server.runs.values():
        assert (run["sweep"], run["project"], run["complete"]) == ("sweep1", "ntml-bench", 1)
    # The second is the same cell: it is not run again, but its run has its numbers, too.
    first, second = (run["summary"][SWEEP["metric"]["name"]] for run in server.runs.values())
    assert first == second


@pytest.mark.parametrize(("holdout", "images"), [(0.2, "holdout_"), (0.0, "oracle_")])
def test_measures_that_choose_settings_say_where_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holdout: float, images: str
) -> None:
    be_agent(monkeypatch, tmp_path)
    cell = done(dataset={"holdout": holdout})
    tracker("offline", tmp_path, pytest.fail, agent=True).log_cell(cell)
    (run,) = logged(tmp_path).values()
    measures = {name for name in run.summary if not name.startswith(("seconds/", "_", "backdoor/"))}
    assert len(measures) == 10
    assert all(name.rpartition("/")[2].startswith(images) for name in measures)
    assert run.summary[f"{images}defense_effectiveness_rating"] == cell["defense_effectiveness_rating"]
    assert run.summary[f"before/{images}attack_success_rate"] == 99.25


def test_each_trial_is_logged_once_and_the_same_cell_for_each_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    for run_id in ("trial1", "trial1", "trial2"):
        be_agent(monkeypatch, tmp_path, run_id)
        tracked = tracker("offline", tmp_path, warnings.append, agent=True)
        tracked.log_cell(done())
        sys.modules["wandb"].teardown()  # each trial is a process of its own
    assert warnings == []
    assert sorted(path.name[-6:] for path in tmp_path.glob("wandb/offline-run-*")) == ["trial1", "trial2"]
    tracked.log_cell(done(seed=1))
    assert warnings == ["W&B: badnets/nt_ml/seed1 was not logged: the run of an agent holds one cell"]


def test_no_agent_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in IDENTITY:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="WANDB_SWEEP_ID, WANDB_RUN_ID, WANDB_SWEEP_PARAM_PATH"):
        Tracker(config("online", agent=True), tmp_path, "tiny")
    be_agent(monkeypatch, tmp_path)
    with pytest.raises(UserError, match="must be online or offline"):
        Tracker(config("none", agent=True), tmp_path, "tiny")
