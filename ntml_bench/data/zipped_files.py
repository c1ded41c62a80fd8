"""Files in a zip archive, read where they lie: nothing is extracted, only names that are asked for are looked at."""

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import BinaryIO, Literal

from ntml_bench.errors import UserError

# Whatever zipfile raises on an archive that is cut off, damaged, encrypted or compressed in a way that it does not know.
UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class ZippedFile:
    """A file or folder of an open archive, for the little that is needed of a Path; its text is ARCHIVE/NAME."""

    archive: zipfile.ZipFile
    lock: Lock
    name: str

    def __truediv__(self, name: str) -> "ZippedFile":
        return replace(self, name=f"{self.name}/{name}")

    def __str__(self) -> str:
        return f"{self.archive.filename}/{self.name}"

    def is_file(self) -> bool:
        try:
            self.archive.getinfo(self.name)
        except KeyError:
            return False
        return True

    def open(self, mode: Literal["rb"]) -> BinaryIO:
        """The whole content in memory; any number of threads may ask. Raises UserError where it cannot be read."""
        try:
            # One at a time: zipfile mixes up its positions when threads read one archive (CPython issue 86535).
            with self.lock:
                return BytesIO(self.archive.read(self.name))
        except KeyError:
            raise UserError(f"there is no {self}") from None
        except UNREADABLE as error:
            # An EOFError says nothing.
            raise UserError(f"cannot read {self}: {str(error) or 'it is cut off'}") from None


@contextmanager
def opened(archive: Path, folder: str) -> Iterator[ZippedFile]:
    """A folder of the archive, readable until the end of the block. Raises UserError where it is not a zip archive."""
    try:
        file = zipfile.ZipFile(archive)
    except UNREADABLE as error:
        raise UserError(f"cannot read the archive {archive}: {error}") from None
    with file:
        yield ZippedFile(file, Lock(), folder)
