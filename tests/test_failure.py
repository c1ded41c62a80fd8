"""What a failed cell says of itself."""

import pytest
import torch

from ntml_bench.app.failure import WorkerKilledError, describe, is_out_of_memory
from ntml_bench.errors import UserError


def test_a_user_error_speaks_for_itself() -> None:
    assert describe(UserError("use less\nor more")) == "use less"
    assert describe(ValueError("of that kind\nat length")) == "ValueError: of that kind"
    assert describe(ValueError()) == "ValueError: "


@pytest.mark.parametrize(
    ("error", "whose"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "the GPU's"),
        (MemoryError(), "the machine's"),
    ],
)
def test_a_lack_of_memory_says_what_to_lower(error: Exception, whose: str) -> None:
    line = describe(error)
    assert line.startswith(f"out of memory, {whose}: lower training.batch_size")
    assert "workers" in line


def test_the_memory_of_the_machine_really_ends() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_a_killed_worker_names_the_signal() -> None:
    assert "was killed by SIGKILL, as the system does where memory runs out" in str(WorkerKilledError(-9, 1))
    assert str(WorkerKilledError(-15, 3)) == "its worker process was killed by SIGTERM, 3 times"
    assert describe(WorkerKilledError(1, 1)) == "its worker process ended with exit code 1"
