"""Logs the finished cells and the table of a sweep to W&B.

W&B is imported when the first run is written: `mode: none` works without it, and it costs nothing before. A cell is
logged when it is done, from its record, in some 50 ms (the first takes a second and a half); a marker in `tracked/`
says that it was. What a killed process left unlogged is logged by the next one.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ntml_bench.errors import UserError
from ntml_bench.schema import number, one_of
from ntml_bench.table.delimited import COLUMNS, render_csv
from ntml_bench.table.summary import NONE, Summary
from ntml_bench.tracking.content import log_history, summary_of, table_rows
from ntml_bench.tracking.session import forget_server, installed, open_run, undisturbed

if TYPE_CHECKING:
    from wandb import Run

LONGEST_TAG = 64
"""Characters; W&B refuses longer ones."""
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrackingConfig:
    """Where W&B runs go."""

    name: str
    project: str
    entity: str | None
    mode: str = one_of("offline", "online", "none")
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
        """A tracker of the sweep in `folder`; UserError where W&B is asked for and not installed."""
        if config.mode != "none" and not installed():
            raise UserError(f"tracking={config.name} needs wandb, which is not installed: install it, or use tracking=none")
        self.config = config
        self.folder = folder
        self.sweep = sweep
        self.warn = warn

    def is_logged(self, key: str) -> bool:
        """Whether this sweep has logged that cell, in this process or another."""
        return self._marker(key).is_file()

    def log_cell(self, record: Mapping[str, Any]) -> None:
        """A run of a done cell's record, unless it has one; does nothing in mode none."""
        attack, defense, seed = record["attack"], record["defense"], record["seed"]

        def fill(run: "Run") -> None:
            log_history(run, record["history"])
            run.summary.update(summary_of(record))

        self._log(
            str(record["key"]),
            fill,
            name=f"{attack}/{defense}/seed{seed}",
            job_type="undefended" if defense == NONE else "defense",
            tags=[str(tag)[:LONGEST_TAG] for tag in (record["dataset"], record["model"], attack, defense, f"seed-{seed}")],
            config=dict(record["settings"]),
        )

    def log_table(self, summary: Summary, png_path: Path | None) -> None:
        """A run with the table as `wandb.Table` and its picture, unless the very same table has one."""

        def fill(run: "Run") -> None:
            import wandb

            run.log({"table": wandb.Table(columns=list(COLUMNS), data=table_rows(summary))})
            if png_path is not None and png_path.is_file():
                run.log({"heat_map": wandb.Image(str(png_path))})
            run.summary.update({state: summary.count(state) for state in ("done", "failed", "running", "missing")})

        content = f"table-{_digest(render_csv(summary))}"
        self._log(content, fill, name=f"table/{self.sweep}", job_type="table", tags=[], config={})

    def _log(self, key: str, fill: Callable[["Run"], None], **description: Any) -> None:
        if self.config.mode == "none" or self.is_logged(key):
            return
        description |= {"id": f"{key}-{_digest(self.sweep)[:8]}", "group": self.sweep}
        try:
            mode = self._write_run(fill, description)
        except Exception as error:
            self.warn(f"W&B: {description['name']} was not logged ({_one_line(error)})")
            return
        self._mark(key, mode)

    def _write_run(self, fill: Callable[["Run"], None], description: dict[str, Any]) -> str:
        """One whole run; the mode that it was written in."""
        run, mode = self._open_somewhere(description)
        with undisturbed(offline=mode == "offline"):
            try:
                fill(run)
            except BaseException:
                run.finish(exit_code=1)
                raise
            try:
                run.finish()
            except TimeoutError:
                # The run is on disk, whole; what did not get to the server can be sent later.
                self._give_up_server(f"uploads took more than {self.config.finish_timeout:g} s")
                return "online, not wholly uploaded"
        return mode

    def _open_somewhere(self, description: dict[str, Any]) -> tuple["Run", str]:
        if self.config.mode == "online" and not Tracker.server_given_up:
            with undisturbed(offline=False):
                try:
                    return self._open("online", description), "online"
                except Exception as error:
                    self._give_up_server(_one_line(error))
        with undisturbed(offline=True):
            return self._open("offline", description), "offline"

    def _open(self, mode: str, description: dict[str, Any]) -> "Run":
        config = self.config
        return open_run(
            mode,
            self.folder,
            config.init_timeout,
            config.finish_timeout,
            project=config.project,
            entity=config.entity,
            **description,
        )

    def _give_up_server(self, reason: str) -> None:
        Tracker.server_given_up = True
        self.warn(f"W&B: going on offline ({reason}); to upload later: wandb sync {self.folder / 'wandb'}/*run-*")
        forget_server()

    def _marker(self, key: str) -> Path:
        return self.folder / "tracked" / key

    def _mark(self, key: str, mode: str) -> None:
        marker = self._marker(key)
        try:
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.write_text(mode + "\n")
        except OSError as error:
            self.warn(f"W&B: {key} is logged, but could not be marked as such ({_one_line(error)})")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300].rstrip(".")
