"""Variables of W&B that ask for other runs than the settings: named, with the setting that does it."""

from pathlib import Path

import pytest
from app_runner import SMALL, bench, workplace
from wandb_place import config

from ntml_bench.errors import UserError
from ntml_bench.tracking.variables import check_variables

__all__ = ["workplace"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("WANDB_MODE", "disabled", "tracking=none"),
        ("WANDB_MODE", "online", "tracking=online"),
        ("WANDB_DISABLED", "true", "tracking=none"),
        ("WANDB_DIR", "/elsewhere", "outputs=FOLDER"),
        ("WANDB_PROJECT", "mine", "tracking.project=mine"),
        ("WANDB_RUN_ID", "abc", "tracking=agent"),
        ("WANDB_SWEEP_ID", "abc", "tracking=agent"),
        ("WANDB_RESUME", "must", "sweep=NAME"),
        ("WANDB_NAME", "mine", "sweep=NAME"),
    ],
)
def test_a_variable_that_no_run_would_follow_is_refused(name: str, value: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        check_variables(config("offline"), tmp_path, {name: value})
    assert str(error.value).startswith(f"{name}={value} is set in the environment, but ")
    assert words in str(error.value)
    check_variables(config("none"), tmp_path, {name: value})
    check_variables(config("offline"), tmp_path, {name: ""})


def test_variables_that_agree_or_that_we_follow_pass(tmp_path: Path) -> None:
    agreed = {"WANDB_MODE": "dryrun", "WANDB_DISABLED": "false", "WANDB_DIR": str(tmp_path), "WANDB_API_KEY": "a", "HOME": "/x"}
    check_variables(config("offline"), tmp_path, agreed)
    check_variables(config("online"), tmp_path, {"WANDB_MODE": "online", "WANDB_BASE_URL": "http://x"})
    of_agent = {"WANDB_SWEEP_ID": "a", "WANDB_RUN_ID": "b", "WANDB_SWEEP_PARAM_PATH": "c", "WANDB_DIR": "/d"}
    check_variables(config("online", agent=True), tmp_path, of_agent)


def test_it_is_said_before_any_training(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    small = [word for word in SMALL if not word.startswith("tracking")]
    for flags in ((), ("-m",)):
        outcome = bench(*flags, *small, "tracking=offline")
        assert outcome.code == 1
        assert "WANDB_MODE=disabled is set in the environment" in outcome.errors
    assert not (workplace / "outputs" / "store").exists()
