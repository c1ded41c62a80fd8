"""What ends a process from outside, heard alike."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stopped_by_any_signal() -> Iterator[None]:
    """A `kill` and a closed terminal are like Ctrl-C: KeyboardInterrupt."""
    kept = {number: signal.getsignal(number) for number in STOPPING if signal.getsignal(number) == signal.SIG_DFL}
    for number in kept:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
