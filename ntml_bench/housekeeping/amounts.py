"""Sizes and ages, as people write and read them."""

import re
from pathlib import Path

from ntml_bench.errors import UserError

UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
SECONDS = {"h": 3600, "d": 86400, "w": 7 * 86400}


def size_text(size: int) -> str:
    """12 B, 3.4 MB, 120 GB."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" or value >= 99.95 else f"{value:.1f} {units[0]}"


def parse_size(text: str) -> int:
    """Bytes from 500MB, 10 GiB or 1.5TB. Raises UserError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", text.strip())
    units = {unit.lower(): factor for unit, factor in UNITS.items()}
    if not found or found[2].lower() not in units:
        raise UserError(f"'{text}' is not a size; write it like 500MB or 10GiB")
    return int(float(found[1]) * units[found[2].lower()])


def parse_age(text: str) -> float:
    """Seconds from 12h, 30d or 8w. Raises UserError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text.strip())
    if not found:
        raise UserError(f"'{text}' is not an age; write it like 12h, 30d or 8w")
    return float(found[1]) * SECONDS[found[2]]


def bytes_below(path: Path) -> int:
    """The sizes of all files in a folder, or of a file; 0 where there is nothing. Links are not followed."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size if path.is_symlink() or path.exists() else 0
    total = 0
    for entry in path.iterdir():
        # What is removed by somebody else in the meantime has no size.
        try:
            total += bytes_below(entry)
        except FileNotFoundError:
            continue
    return total
