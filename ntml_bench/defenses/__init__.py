"""The defenses: one file each, registered on import."""

from ntml_bench.defenses.base import DEFENSES, Defense, DefenseConfig, DefenseContext
from ntml_bench.registry import import_package_modules

import_package_modules(__name__, __path__)

__all__ = ["DEFENSES", "Defense", "DefenseConfig", "DefenseContext"]
