"""What the tests of tracking share: a place without anybody's account, cells, trackers."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from table_records import entry, metrics, record
from wandb_files import LoggedRun, read_runs
from wandb_server import WandbServer, serving

from ntml_bench.tracking import Tracker, TrackingConfig

CLOSED = "http://127.0.0.1:9"
"""Nobody listens there."""


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No account, no key, no settings of whoever runs the tests; nothing left behind in the process."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", CLOSED)
    monkeypatch.setattr(Tracker, "server_given_up", False)
    yield
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A local server that answers, and a key for it."""
    with serving() as local:
        monkeypatch.setenv("WANDB_BASE_URL", local.url)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        yield local


def config(mode: str, *, agent: bool = False, init_timeout: float = 2.0, finish_timeout: float = 5.0) -> TrackingConfig:
    return TrackingConfig(
        name=mode,
        project="test-project",
        entity=None,
        mode=mode,
        agent=agent,
        init_timeout=init_timeout,
        finish_timeout=finish_timeout,
    )


def tracker(mode: str, folder: Path, warn: Callable[[str], None], **settings: Any) -> Tracker:
    return Tracker(config(mode, **settings), folder, "tiny", warn)


def done(defense: str = "nt_ml", seed: int = 0, **settings: Any) -> dict[str, Any]:
    """The record of a cell, with a history of three epochs."""
    before, after = metrics(96.5, 99.25, 0.5), metrics(94.75, 3.125, 90)
    cell = entry("badnets", defense, seed, settings=settings)
    return record(cell, before if defense == "none" else after, before, metrics(97, 1.5, 95))


def logged(folder: Path) -> dict[str, LoggedRun]:
    """The runs on disk, by name. W&B's service writes the end of a file about a millisecond after a run is finished."""
    sys.modules["wandb"].teardown()
    return read_runs(folder)
