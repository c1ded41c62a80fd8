"""When two cells of a sweep are one cell, made again.

A cell's key says exactly what it was made from; what a table shows are labels and seeds. Where images were corrected in their
folder, or code was changed, the new cell has another key and the same place in the table: it takes the place of the old one,
and is never averaged with it.
"""

from collections.abc import Iterable
from typing import Any

from ntml_bench.records.labels import TUNING, flat_settings
from ntml_bench.records.manifest import NAMES

Entry = dict[str, Any]


def replaced(entries: Iterable[Entry], new: Iterable[Entry]) -> list[Entry]:
    """The entries of a manifest with the new ones; one that is made again stands where it stood, the others come last."""
    known = list(entries)
    for entry in new:
        again = [index for index, old in enumerate(known) if made_again(old, entry)]
        same = [index for index, old in enumerate(known) if old["key"] == entry["key"]]
        if not again and len(same) == 1:
            again = same  # as it was asked for last
        if again:
            known[again[0]] = entry
            known = [old for index, old in enumerate(known) if index not in again[1:]]
        elif not same:
            known.append(entry)
    return known


def made_again(old: Entry, new: Entry) -> bool:
    """Whether nothing that was asked for differs: the same options, settings and seed, on images from the same place.

    What only one of them says is no difference: older records say less.
    """
    if any(old[name] != new[name] for name in (*NAMES, "seed")):
        return False
    places = [(entry.get("data") or {}).get("place") for entry in (old, new)]
    settings = [flat_settings(entry.get("settings") or {}) for entry in (old, new)]
    # A defense that was tuned is another than one with its values as written, and only the first says so.
    alike = settings[0].get(TUNING) == settings[1].get(TUNING)
    return (
        alike
        and (None in places or places[0] == places[1])
        and all(settings[0][key] == settings[1][key] for key in settings[0].keys() & settings[1].keys())
    )
