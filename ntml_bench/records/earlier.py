"""Settings that older manifests do not name, since there was no choice of them when they were written."""

from collections.abc import Mapping
from typing import Any

SQUARE = {"pattern": "white"}
ADDED: dict[str, dict[str, Any]] = {"badnets": SQUARE, "badnets_all_to_all": SQUARE, "lc": {"norm": "linf"}}
"""By the attack's name: settings that came later, with the value that what was made before them has."""


def completed(entry: dict[str, Any]) -> dict[str, Any]:
    """A cell of a manifest with all settings of its attack, so that one made before a setting stands beside one made after."""
    settings = entry.get("settings") or {}
    attack = settings.get("attack")
    name = attack.get("name") if isinstance(attack, Mapping) else None
    missing = ADDED.get(name, {}) if isinstance(name, str) else {}
    if not isinstance(attack, Mapping) or missing.keys() <= attack.keys():
        return entry
    return {**entry, "settings": {**settings, "attack": {**missing, **attack}}}
