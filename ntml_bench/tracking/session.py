"""One W&B run from its opening to its end: quiet, asking nothing, collecting nothing of the machine, within a time.

W&B works through a service, a process of its own. What waits for it raises when it is gone, so killing it bounds every
wait, W&B's own at the end of the interpreter included.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from subprocess import Popen
from threading import Event, Timer
from typing import TYPE_CHECKING, Any

from ntml_bench.tracking.content import Content, fill

if TYPE_CHECKING:
    from wandb import Settings

# By these an agent of a W&B sweep tells its run who it is.
IDENTITY = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")
# Each of these would make our run another one (resumed, part of a W&B sweep, switched off) behind the user's back.
DISTURBING = (
    "WANDB_MODE",
    "WANDB_DISABLED",
    "WANDB_RESUME",
    "WANDB_RESUME_FROM",
    "WANDB_FORK_FROM",
    "WANDB_LAUNCH",
    "WANDB_DIR",
    # Another process's service; and so ours is not that of the processes that we start.
    "WANDB_SERVICE",
)
REPORTING = "WANDB_ERROR_REPORTING"
GRACE = 5.0
"""Seconds beyond a time-out that W&B has to say so itself, before its service is killed."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds to reach the server, and for the end of a run."""

    init: float
    finish: float


LOCAL = Limits(init=60.0, finish=60.0)
"""Of runs that stay on disk: a busy machine's time, no server's."""


def installed() -> bool:
    """Whether wandb can be found; it is not imported for that."""
    try:
        return find_spec("wandb") is not None
    except (ImportError, ValueError):
        return False


@contextmanager
def undisturbed(*, of_agent: bool) -> Iterator[None]:
    """Without the variables that change what a run is, and without a terminal on which W&B could ask for a key."""
    changed = (*DISTURBING, REPORTING) if of_agent else (*DISTURBING, *IDENTITY, REPORTING)
    kept = {name: os.environ.pop(name) for name in changed if name in os.environ}
    # Else crash reports go to the server, from offline runs too, and the end of the process waits for a server that hangs.
    os.environ[REPORTING] = "false"
    stdin, sys.stdin = sys.stdin, StringIO()
    try:
        yield
    finally:
        sys.stdin = stdin
        for name in changed:
            os.environ.pop(name, None)
        os.environ.update(kept)


def write_run(mode: str, folder: Path, limits: Limits, content: Content, *, of_agent: bool, **description: Any) -> Path:
    """A whole run below `folder / "wandb"`; its own folder there.

    Raises what W&B raises, at the latest `GRACE` seconds behind the limits. W&B then starts afresh with the next run.
    """
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    with undisturbed(of_agent=of_agent):
        try:
            settings = _settings(mode, limits)
            # Setting up first makes the log-in silent as well.
            wandb.setup(settings)
            with _service_ends_after(limits.init + GRACE):
                run = wandb.init(dir=folder, reinit="finish_previous", settings=settings, **description)
            if run.disabled:
                raise RuntimeError("W&B is switched off")
            written = Path(run.sync_dir)
            with _service_ends_after(limits.finish + GRACE):
                fill(run, content)
                run.finish()
        except BaseException:
            _end_service()
            raise
    return written


def _settings(mode: str, limits: Limits) -> "Settings":
    import wandb

    wanted = {
        "mode": mode,
        "silent": True,
        "console": "off",
        "init_timeout": limits.init,
        "login_timeout": limits.init,
        "finish_timeout": limits.finish,
        "finish_timeout_raises": True,
        "disable_git": True,
        "save_code": False,
        "x_disable_machine_info": True,
        "x_disable_meta": True,
        "x_disable_stats": True,
        "x_save_requirements": False,
    }
    # Older versions refuse settings that they do not know.
    return wandb.Settings(**{name: value for name, value in wanted.items() if name in wandb.Settings.model_fields})


@contextmanager
def _service_ends_after(seconds: float) -> Iterator[None]:
    ended = Event()

    def end() -> None:
        ended.set()
        _kill_service()

    timer = Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if ended.is_set():
            raise TimeoutError(f"no answer of W&B's service within {seconds:g} s") from error
        raise
    finally:
        timer.cancel()


def _service() -> Popen[bytes] | None:
    """The service of this process, if it has one. W&B itself can only ask it to end, and wait."""
    from wandb.sdk import wandb_setup

    connection = getattr(wandb_setup._singleton, "_connection", None)
    return getattr(getattr(connection, "_proc", None), "_process", None)


def _kill_service() -> None:
    service = _service()
    if service is not None:
        service.kill()
        service.wait()


def _end_service() -> None:
    import wandb

    _kill_service()
    # W&B fails where its service is gone, and ends the caller, too, where it ended with a code.
    with suppress(Exception, SystemExit):
        wandb.teardown()
