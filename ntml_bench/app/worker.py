"""What a worker process does. It imports little by itself: the process begins here."""

import multiprocessing
import os
import signal
import threading
from multiprocessing.connection import Connection

from ntml_bench.app.imports import lasting_imports


def serve(connection: Connection, threads: int) -> None:
    """Task after task until the parent closes the pipe, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with lasting_imports():
        import torch

        from ntml_bench.app.cell import Cell
        from ntml_bench.app.failure import describe
        from ntml_bench.app.loading import LoadedData
        from ntml_bench.app.schedule import Task
        from ntml_bench.app.settings import import_extensions

    torch.set_num_threads(threads)
    data = LoadedData()
    while True:
        try:
            settings, clean = connection.recv()
        except EOFError:
            return
        try:
            import_extensions(settings.general.imports)
            Task(Cell(settings, data.of(settings)), clean).run(lambda text: connection.send(("say", text)))
        except Exception as error:
            connection.send(("failed", describe(error)))
        else:
            connection.send(("done", ""))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
