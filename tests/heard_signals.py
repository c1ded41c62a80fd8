"""Processes that hear signals, whoever runs the tests: in the background of a script SIGINT is ignored, by children too."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def heard_signals() -> Iterator[None]:
    """What is started inside ends by the signals that end a process; this one goes on ignoring what it ignored."""
    ignored = [number for number in STOPPING if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
