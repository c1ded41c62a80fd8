"""The state of a training that is under way, so that an interrupted one goes on from its last epoch.

One file, so that it can be replaced in one move and a reader finds the old state or the new one: safetensors with the
record as JSON in the header, and behind it a SHA-256 of that and of the file's own name. Nothing is pickled.
"""

import hashlib
import json
import logging
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ntml_bench.files import StorageError, parse_json, write_file

if TYPE_CHECKING:
    from torch import Tensor

SECONDS_BETWEEN = 30.0
"""A state is written behind an epoch, but not more often than this: a short training writes none."""
_DIGEST = 32
_LOGGER = logging.getLogger(__name__)


class Checkpoint:
    """The latest state of one training, in the file `path`."""

    def __init__(self, path: Path, seconds_between: float | None = None) -> None:
        self.path = path
        self.seconds_between = SECONDS_BETWEEN if seconds_between is None else seconds_between
        self._written = time.monotonic()
        self._warned = False

    @property
    def due(self) -> bool:
        return time.monotonic() - self._written >= self.seconds_between

    def read(self) -> tuple[dict[str, Any], "dict[str, Tensor]"] | None:
        """Record and tensors (on the CPU); None where there are none that are whole: the training then begins anew."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            content = self.path.read_bytes()
            state, digest = content[:-_DIGEST], content[-_DIGEST:]
            if digest != self._digest(state):
                return None
            header = parse_json(state[8 : 8 + int.from_bytes(state[:8], "little")])
            return parse_json(header["__metadata__"]["record"].encode()), load(state)
        except (OSError, KeyError, ValueError, SafetensorError):
            return None

    def write(self, record: dict[str, Any], tensors: "dict[str, Tensor]") -> None:
        """Replace the state. Where that cannot be, the training goes on without, and one line is logged."""
        from safetensors.torch import save

        # Copies, because a net may use one weight in two places, which safetensors refuses.
        on_cpu = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        state = save(on_cpu, metadata={"record": json.dumps(record, allow_nan=False)})
        try:
            write_file(self.path, state + self._digest(state))
        except StorageError as error:
            if not self._warned:
                _LOGGER.warning(f"{error}; the training goes on, but an interruption would cost all of it")
            self._warned = True
        self._written = time.monotonic()

    def remove(self) -> None:
        """The training is over, and what it made is stored."""
        with suppress(OSError):
            for path in (self.path, *self.path.parent.glob(f"{self.path.name}.tmp-*")):
                path.unlink(missing_ok=True)

    def _digest(self, state: bytes) -> bytes:
        # The name holds the key of what is trained: another training's state would fit the same net.
        return hashlib.sha256(self.path.name.encode() + b"\0" + state).digest()
