"""Imports for a process that works to its end: PyTorch is more than a thousand modules, timm as many again."""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def lasting_imports() -> Iterator[None]:
    """Import PyTorch within it, and what needs PyTorch: a quarter faster than without.

    What modules make stays until the process ends, so a search for garbage among it finds next to nothing, again and again.
    None takes place within, and later ones leave out what was made. Where PyTorch is there already, nothing changes.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        atexit.register(gc.unfreeze)  # the interpreter clears up at its end
        gc.enable()
