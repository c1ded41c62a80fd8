"""Families of values (`presets`) are never mixed in a table."""

from collections.abc import Iterable, Mapping
from typing import Any

from ntml_bench.errors import UserError


def family_of(entries: Iterable[Mapping[str, Any]], sweep: str) -> str | None:
    """The one family of a manifest's cells; None where they name none (records from before there were families).

    Raises UserError where cells of two families stand in one sweep.
    """
    settings = [entry.get("settings") or {} for entry in entries]
    families = sorted({str(values["presets"]) for values in settings if "presets" in values})
    if len(families) > 1:
        raise UserError(
            f"presets: the sweep '{sweep}' has cells of {' and '.join(families)}; a table holds one family of values: "
            "give each a name of its own (sweep=NAME)"
        )
    return families[0] if families else None
