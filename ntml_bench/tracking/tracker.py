"""Logs the finished cells and the table of a sweep to W&B.

W&B is imported when the first run is written: `mode: none` works without it, and it costs nothing before. A cell is
logged when it is done, from its record, in some 50 ms (the first takes a second and a half); a marker in `tracked/`
says that it was, and where to. What a killed process left unlogged is logged by the next one, under the same id.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ntml_bench.errors import UserError
from ntml_bench.locks import held
from ntml_bench.records.rows import columns_of, render_csv
from ntml_bench.records.summary import NONE, Summary
from ntml_bench.schema import number, one_of
from ntml_bench.tracking.content import Content, content_of_cell, content_of_trial, table_rows
from ntml_bench.tracking.copies import copies, keep_one, was_sent
from ntml_bench.tracking.session import IDENTITY, LOCAL, Limits, installed, write_run

LONGEST_TAG = 64
"""Characters; W&B refuses longer ones."""
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrackingConfig:
    """Where W&B runs go."""

    name: str
    project: str | None
    entity: str | None
    mode: str = one_of("offline", "online", "none")
    agent: bool
    """Whether the cell is a trial of a W&B sweep: its run is then the one that `wandb agent` started the process for."""
    init_timeout: float = number(above=0)
    """Seconds to reach the server."""
    finish_timeout: float = number(above=0)
    """Seconds that the end of one run may wait for uploads."""


class Tracker:
    """One sweep's way to W&B.

    Whatever W&B does, no cell is lost to it: its exceptions become one line through `warn`. Without a key or a server
    the mode `online` becomes `offline`, for the rest of the process.
    """

    # Of the class: a process that makes a tracker a cell waits for the server once, and says so once.
    server_given_up: ClassVar[bool] = False

    def __init__(self, config: TrackingConfig, folder: Path, sweep: str, warn: Callable[[str], None] = _LOGGER.warning) -> None:
        """A tracker of the sweep in `folder`.

        UserError where W&B is asked for and not installed, or an agent of it is and there is none.
        """
        if config.mode != "none" and not installed():
            raise UserError(f"tracking={config.name} needs wandb, which is not installed: install it, or use tracking=none")
        if config.agent and (config.mode == "none" or not all(os.environ.get(name) for name in IDENTITY)):
            raise UserError(
                "tracking.agent=true is for the cells that `wandb agent` starts: it sets "
                f"{', '.join(IDENTITY)}, and tracking.mode must be online or offline"
            )
        self.config = config
        self.folder = folder
        self.sweep = sweep
        self.warn = warn
        self._trial: str | None = None

    def is_logged(self, key: str) -> bool:
        """Whether this sweep has logged that cell, in this process or another, as far as it can be now.

        What is on disk only is not logged for a tracker that reaches the server.
        """
        try:
            mode = self._marker(key).read_text().strip()
        except OSError:
            return False
        return mode == "online" or not self._online

    def log_cell(self, record: Mapping[str, Any]) -> None:
        """A run of a done cell's record, unless it has one; does nothing in mode none."""
        attack, defense, seed = record["attack"], record["defense"], record["seed"]
        name = f"{attack}/{defense}/seed{seed}"
        key = str(record["key"])
        description: dict[str, Any] = {
            "job_type": "undefended" if defense == NONE else "defense",
            "tags": [str(tag)[:LONGEST_TAG] for tag in (record["dataset"], record["model"], attack, defense, f"seed-{seed}")],
            "config": dict(record["settings"]),
        }
        if not self.config.agent:
            description |= {"name": name, **self._place(key)}
            self._log(key, description["id"], name, lambda: content_of_cell(record), description)
        elif self._trial in (None, key):
            self._trial = key
            # The agent's variables say the rest: W&B's own id, name, project and sweep.
            run_id = os.environ["WANDB_RUN_ID"]
            self._log(f"agent-{run_id}", run_id, name, lambda: content_of_trial(record), description)
        else:
            self.warn(f"W&B: {name} was not logged: the run of an agent holds one cell")

    def log_table(self, summary: Summary, png_path: Path | None) -> None:
        """A run with the table as `wandb.Table` and its picture, unless the very same table has one; none for an agent."""

        def content() -> Content:
            import wandb

            table = wandb.Table(columns=list(columns_of(summary)), data=table_rows(summary))
            history: list[dict[str, Any]] = [{"table": table}]
            if png_path is not None and png_path.is_file():
                history.append({"heat_map": wandb.Image(str(png_path))})
            return Content(
                summary={state: summary.count(state) for state in ("done", "failed", "running", "missing")}, history=history
            )

        if self.config.agent:
            return
        key, name = f"table-{_digest(render_csv(summary))}", f"table/{self.sweep}"
        description = {"name": name, "job_type": "table", **self._place(key)}
        self._log(key, description["id"], name, content, description)

    @property
    def _online(self) -> bool:
        return self.config.mode == "online" and not Tracker.server_given_up

    def _place(self, key: str) -> dict[str, Any]:
        config = self.config
        run_id = f"{key}-{_digest(self.sweep)[:8]}"
        return {"id": run_id, "group": self.sweep, "project": config.project, "entity": config.entity}

    def _log(self, key: str, run_id: str, name: str, content: Callable[[], Content], description: dict[str, Any]) -> None:
        if self.config.mode == "none" or self.is_logged(key):
            return
        marker = self._marker(key)
        try:
            marker.parent.mkdir(parents=True, exist_ok=True)
            # Two jobs that find one cell done at the same time log it once.
            with held(marker.with_name(f".{key}.lock"), warn=self.warn):
                if self.is_logged(key):
                    return
                mode, written = self._write(run_id, content, description)
                keep_one(self.folder, run_id, written)
                marker.write_text(mode + "\n")
        except Exception as error:
            self.warn(f"W&B: {name} was not logged ({_one_line(error)})")

    def _write(self, run_id: str, content: Callable[[], Content], description: dict[str, Any]) -> tuple[str, Path]:
        """One whole run; the mode that it was written in, and its folder."""
        config = self.config
        limits = Limits(init=config.init_timeout, finish=config.finish_timeout)
        made = content()
        if self._online:
            try:
                # A run that the server has, of a process that was killed before it left its marker, goes on where it was.
                return "online", write_run(
                    "online", self.folder, limits, made, of_agent=config.agent, resume="allow", **description
                )
            except Exception as error:
                self._give_up_server(_one_line(error))
                made = content()  # W&B's media belong to the run that they were first written into
        if any(was_sent(copy) for copy in copies(self.folder, run_id)):
            made = Content(summary=made.summary)  # `wandb sync` would append the history to the one it has sent
        return "offline", write_run("offline", self.folder, LOCAL, made, of_agent=config.agent, **description)

    def _give_up_server(self, reason: str) -> None:
        Tracker.server_given_up = True
        runs = self.folder / "wandb" / "offline-run-*"
        self.warn(f"W&B: going on offline ({reason}); to upload later: wandb sync {runs}, or the same command again")

    def _marker(self, key: str) -> Path:
        return self.folder / "tracked" / key


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300].rstrip(".")
