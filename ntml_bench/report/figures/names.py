"""Names of figures: safe on any file system, and never two the same, whatever the labels hold."""

import hashlib
import re
import unicodedata

LONGEST = 100
"""Characters; a file system takes 255 bytes, and a folder and an ending come on top."""


class Names:
    """Gives each figure a name of small letters, digits, dots, hyphens and underscores."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def new(self, *parts: str) -> str:
        """A name made of those parts; with a checksum of them where it would not be theirs alone."""
        name = "-".join(filter(None, map(_plain, parts)))
        if len(name) > LONGEST or name in self._given:
            checksum = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:8]
            name = f"{name[:LONGEST]}-{checksum}"
        self._given.add(name)
        return name


def _plain(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9_.]+", "-", letters).strip("-.")
