"""Worker processes: a killed one takes no other cell with it, and its own begins again in a new one.

Parent and worker talk through a pipe: settings go there, lines of progress and the outcome come back. What a worker made is in
the store, where the parent reads it.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable
from itertools import count
from multiprocessing.connection import Connection
from typing import Any

from ntml_bench.app.failure import WorkerKilledError
from ntml_bench.app.schedule import Task
from ntml_bench.app.worker import serve
from ntml_bench.errors import UserError

_ENVIRONMENT = threading.Lock()
"""Held while a worker is started: it inherits the environment, which names its GPU."""
SECONDS_TO_END = 10


class WorkerProcess:
    """Runs tasks in a process of its own, which is started with the first one and again whenever it was killed.

    `gpu`: what CUDA_VISIBLE_DEVICES says in it; None leaves that as it is.
    """

    def __init__(self, retries: int, threads: int, gpu: str | None) -> None:
        self.retries = retries
        self.threads = threads
        self.gpu = gpu
        self._process: Any = None
        self._connection: Connection | None = None

    def begin(self) -> None:
        pass

    def run(self, task: Task, say: Callable[[str], None]) -> None:
        """Raises UserError with the line of a failed cell, WorkerKilledError where its worker was killed too often."""
        for attempt in count(1):
            try:
                self._run_once(task, say)
                return
            except (EOFError, ConnectionError):
                self._process.join()
                error = WorkerKilledError(self._process.exitcode, attempt)
                self.close()
            if attempt > self.retries:
                task.cell.write_failure(error)
                raise error
            say(f"{error}; again")

    def close(self) -> None:
        """End the process, which is idle or dead."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.join(SECONDS_TO_END)
            self._process.kill()
            self._process.join()
        self._process = self._connection = None

    def _run_once(self, task: Task, say: Callable[[str], None]) -> None:
        if self._connection is None:
            self._start()
        assert self._connection is not None
        self._connection.send((task.cell.settings, task.clean))
        while True:
            kind, text = self._connection.recv()
            if kind == "say":
                say(text)
            elif kind == "failed":
                raise UserError(text)
            else:
                return

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a forked process could use no GPU, and would hold foreign locks
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self.threads), daemon=True)
        with _ENVIRONMENT:
            before = os.environ.get("CUDA_VISIBLE_DEVICES")
            if self.gpu is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = self.gpu
            try:
                self._process.start()
            finally:
                if before is not None:
                    os.environ["CUDA_VISIBLE_DEVICES"] = before
                elif self.gpu is not None:
                    del os.environ["CUDA_VISIBLE_DEVICES"]
        theirs.close()  # the worker has the only other end now: its death ends the pipe
