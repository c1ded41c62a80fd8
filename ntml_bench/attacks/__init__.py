"""The attacks: one file each, registered on import."""

from ntml_bench.attacks.base import ATTACKS, Attack, AttackConfig, AttackContext, Poisoning
from ntml_bench.registry import import_package_modules

import_package_modules(__name__, __path__)

__all__ = ["ATTACKS", "Attack", "AttackConfig", "AttackContext", "Poisoning"]
