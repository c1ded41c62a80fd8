"""Weights from a file: safetensors, or a `state_dict` that torch saved. Tensors are read, and nothing in a file is run."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ntml_bench.errors import UserError

SAFETENSORS, TORCH = (".safetensors",), (".pt", ".pth", ".bin", ".tar")
PREFIXES = ("module.", "net.", "model.")
"""What wrappers put before every name; taken off where the net has no such names."""
INSIDE = ("state_dict", "model_state_dict", "model", "net")
"""Under which names a checkpoint holds the weights beside other things."""
COUNTER = "num_batches_tracked"
"""Of a BatchNorm layer; older files lack it, and nothing reads it here."""
SHOWN = 3
"""Names in a message."""


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights when it was named, by `setting`; `digest`: its SHA-256, 64 hex digits."""

    setting: str
    path: Path
    digest: str

    @classmethod
    def of(cls, setting: str, path: str) -> "WeightsFile":
        """Raises UserError where there is no such file, or one of a kind that is not read."""
        place = Path(path).expanduser().absolute()
        if place.suffix not in (*SAFETENSORS, *TORCH):
            allowed = ", ".join((*SAFETENSORS, *TORCH))
            raise UserError(f"{setting} is '{path}'; a file of weights ends in one of: {allowed}")
        return cls(setting, place, file_digest(setting, path))

    @property
    def name(self) -> str:
        """The file's name and the beginning of its hash, for a record: not where it is."""
        return f"{self.path.name} (sha256 {self.digest[:16]})"

    def tensors(self) -> dict[str, Tensor]:
        """The weights by name, on the CPU. Raises UserError for what is no file of weights, or another one than before."""
        return dict(_tensors(self))


def file_digest(setting: str, path: str | Path) -> str:
    """The SHA-256 of a file, read again where it has changed; UserError where it cannot be read."""
    place = Path(path).expanduser().absolute()
    try:
        status = place.stat()
        if not place.is_file():
            raise UserError(f"{setting} is '{path}'; that is no file")
        return _digest(place, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise UserError(f"{setting} is '{path}'; it cannot be read: {(error.strerror or str(error)).lower()}") from None


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=1)
def _tensors(file: WeightsFile) -> Mapping[str, Tensor]:
    try:
        content = file.path.read_bytes()
    except OSError as error:
        raise UserError(f"{file.setting}: {file.path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    if hashlib.sha256(content).hexdigest() != file.digest:
        raise UserError(f"{file.setting}: {file.path} was changed while it was in use; run the same command again")
    found = _of_safetensors(file, content) if file.path.suffix in SAFETENSORS else _of_torch(file, content)
    for name, value in found.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise UserError(f"{file.setting}: {name} in {file.path.name} holds values that are not finite")
    return found


def _of_safetensors(file: WeightsFile, content: bytes) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except SafetensorError as error:
        raise UserError(f"{file.setting}: {file.path.name} is no file of safetensors: {error}") from None


def _of_torch(file: WeightsFile, content: bytes) -> dict[str, Tensor]:
    try:
        found: Any = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or foreign file makes torch stumble over
        raise UserError(
            f"{file.setting}: {file.path.name} holds more than tensors, or is damaged ({type(error).__name__}); it is read "
            "with weights_only=True and nothing else: save model.state_dict(), or the weights as safetensors"
        ) from None
    if not _is_state(found) and isinstance(found, Mapping):
        found = next((found[name] for name in INSIDE if _is_state(found.get(name))), found)
    if not _is_state(found):
        raise UserError(
            f"{file.setting}: {file.path.name} is no state_dict (names of weights to tensors), nor has it one under one of: "
            f"{', '.join(INSIDE)}"
        )
    return {str(name): value for name, value in found.items()}


def _is_state(found: Any) -> bool:
    return isinstance(found, Mapping) and len(found) > 0 and all(isinstance(value, Tensor) for value in found.values())


def load_into(net: nn.Module, file: WeightsFile, what: str) -> None:
    """Put the weights into the net, in place. `what`: the net, in words. UserError with the names of those that do not fit."""
    wrong, fitting = _held_against(net, file.tensors())
    if wrong:
        raise UserError(f"{file.setting}: {file.path.name} does not fit {what}: {'; '.join(wrong)}")
    net.load_state_dict(fitting, strict=False)


def fits(net: nn.Module, file: WeightsFile) -> bool:
    """Whether `load_into` would work."""
    return not _held_against(net, file.tensors())[0]


def start_from(net: nn.Module, file: WeightsFile, name: str) -> None:
    """Put pretrained weights into the net, in place, but for those of the head where that has other classes.

    The head is what the net's `get_classifier` gives. UserError as `load_into`.
    """
    get_classifier = getattr(net, "get_classifier", None)
    head = get_classifier() if callable(get_classifier) else None
    prefix = next((f"{place}." for place, module in net.named_modules() if module is head and place), None)
    weights, own = without_prefixes(net, file.tensors()), net.state_dict()
    of_head = [key for key in own if prefix is not None and key.startswith(prefix)]
    if any(key in weights and weights[key].shape != own[key].shape for key in of_head):
        weights |= {key: own[key] for key in of_head}
    wrong, fitting = _held_against(net, weights)
    if wrong:
        raise UserError(f"{file.setting}: {file.path.name} does not fit model.name={name}: {'; '.join(wrong)}")
    net.load_state_dict(fitting, strict=False)


def without_prefixes(net: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without what wrappers put before all of their names."""
    names, found = set(net.state_dict()), dict(weights)
    while not names & found.keys():
        prefix = next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in found)), None)
        if prefix is None:
            break
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _held_against(net: nn.Module, weights: Mapping[str, Tensor]) -> tuple[list[str], dict[str, Tensor]]:
    """What of the weights does not fit the net, in words, and all of them under the net's names."""
    own, found = net.state_dict(), without_prefixes(net, weights)
    missing = [name for name in own if name not in found and not name.endswith(COUNTER)]
    foreign = [name for name in found if name not in own]
    shapes = [
        f"{name} is {list(found[name].shape)}, the net has {list(value.shape)}"
        for name, value in own.items()
        if name in found and found[name].shape != value.shape
    ]
    lists = (("missing", missing), ("not of this net", foreign), ("of another shape", shapes))
    return [f"{what}: {_some(names)}" for what, names in lists if names], found


def _some(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
