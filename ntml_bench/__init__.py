"""ntml-bench: a Hydra-configured reproducibility benchmark of backdoor attacks and defenses.

`__all__` is what notebooks and scripts may rely on (docs/own.md); the rest is the benchmark itself.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ntml_bench.api import load_model, load_poisons, load_records, load_trigger, run_cell, weights_of
    from ntml_bench.attacks.base import Poisoning
    from ntml_bench.errors import UserError
    from ntml_bench.models import Classifier

__version__ = "0.1.0"
__all__ = [
    "Classifier",
    "Poisoning",
    "UserError",
    "load_model",
    "load_poisons",
    "load_records",
    "load_trigger",
    "run_cell",
    "weights_of",
]


def __getattr__(name: str) -> Any:
    # Only where it is asked for: the table and the like do without torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ntml_bench import api

    return getattr(api, name)
