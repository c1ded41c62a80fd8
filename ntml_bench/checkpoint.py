"""The state of a training that is under way, so that an interrupted one goes on from its last epoch.

One safetensors file, its record as JSON in the header: a file can be replaced in one move, so a reader finds the old
state or the new one. Nothing is pickled.
"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from torch import Tensor

SECONDS_BETWEEN = 30.0
"""A state is written behind an epoch, but not more often than this: a short training writes none."""


class Checkpoint:
    """The latest state of one training, in the file `path`."""

    def __init__(self, path: Path, seconds_between: float | None = None) -> None:
        self.path = path
        self.seconds_between = SECONDS_BETWEEN if seconds_between is None else seconds_between
        self._written = time.monotonic()

    @property
    def due(self) -> bool:
        return time.monotonic() - self._written >= self.seconds_between

    def read(self) -> tuple[dict[str, Any], "dict[str, Tensor]"] | None:
        """Record and tensors (on the CPU); None where there are none that can be read: the training then begins anew."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                return json.loads((file.metadata() or {})["record"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, KeyError, ValueError, SafetensorError):
            return None

    def write(self, record: dict[str, Any], tensors: "dict[str, Tensor]") -> None:
        """Replace the state."""
        from safetensors.torch import save_file

        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f"{self.path.name}.tmp-{uuid4().hex}")
        on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(on_cpu, temporary, metadata={"record": json.dumps(record, allow_nan=False)})
        temporary.replace(self.path)
        self._written = time.monotonic()

    def remove(self) -> None:
        """The training is over, and what it made is stored."""
        for path in (self.path, *self.path.parent.glob(f"{self.path.name}.tmp-*")):
            path.unlink(missing_ok=True)
