"""What became of a cell that failed, in one line, and what to do about it."""

import signal

import torch

from ntml_bench.errors import UserError

LOWER = "lower training.batch_size, the defense's batch size or workers, or take dataset.train_limit"


def describe(error: Exception) -> str:
    """One line that says what happened; of a lack of memory, what to lower."""
    if is_out_of_memory(error):
        where = "the GPU's" if isinstance(error, torch.OutOfMemoryError) else "the machine's"
        return f"out of memory, {where}: {LOWER}"
    text = " ".join((str(error).splitlines() or [""])[0].split())
    return text if isinstance(error, UserError | CellLostError) else f"{type(error).__name__}: {text}"


def is_out_of_memory(error: Exception) -> bool:
    # The CPU's allocator raises a plain RuntimeError.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


class CellLostError(RuntimeError):
    """Whoever ran a cell ended before the cell did; the message says it all."""


class WorkerKilledError(CellLostError):
    """A worker process ended before its cell did."""

    def __init__(self, exit_code: int | None, times: int) -> None:
        cause = f"ended with exit code {exit_code}"
        if exit_code is not None and exit_code < 0:
            name = signal.Signals(-exit_code).name
            cause = f"was killed by {name}"
            if name == "SIGKILL":
                cause += f", as the system does where memory runs out ({LOWER})"
        super().__init__(f"its worker process {cause}" + (f", {times} times" if times > 1 else ""))
