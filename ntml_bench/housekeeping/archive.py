"""The format of an exported sweep: a gzipped tar of plain files, the first of which declares all others.

`archive.json` holds the format's version and name, size and SHA-256 of every other member; the members follow in the order of
their names. Whoever reads knows from it what comes, and how much, before the rest is unpacked: what is not declared, is
of another kind than a plain file, of another size or content, ends the reading. Paths are those of a short list of
patterns, so that none leads elsewhere, whatever a file system makes of case, links or special names.
"""

import gzip
import io
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, cast

from ntml_bench.errors import UserError
from ntml_bench.files import parse_json, storage, temporary_path
from ntml_bench.integrity import CHECKSUMS, Mark
from ntml_bench.records.manifest import ARTIFACT, MANIFEST, RECORDS
from ntml_bench.store import RECORD, TENSORS
from ntml_bench.table.render import files_of

INDEX = "archive.json"
FORMAT, VERSION = "ntml-bench sweep", 1
FOLDER = "sweep"
"""Of the manifest and the records, in the archive."""
STORE = "store"
LARGEST_INDEX = 16 * 2**20
CHUNK = 2**20
FORMATS = ("csv", "md")
"""Of the tables that go along."""
TABLES = tuple(files_of(FORMATS))
PATHS = re.compile(
    rf"{FOLDER}/(?:{'|'.join(map(re.escape, (MANIFEST, CHECKSUMS, *TABLES)))}|{RECORDS}/[0-9a-f]{{16}}\.json)"
    rf"|{STORE}/{ARTIFACT.pattern}/(?:{re.escape(RECORD)}|{re.escape(TENSORS)}|{re.escape(CHECKSUMS)})"
)


class ArchiveError(UserError):
    """An archive is damaged, or is none of ours."""


@dataclass(frozen=True)
class Index:
    """What an archive declares; `digest` stands for all of its content."""

    sweep: str
    marks: Mapping[str, Mark]
    digest: str

    @property
    def size(self) -> int:
        return sum(mark.size for mark in self.marks.values())

    @property
    def artifacts(self) -> list[str]:
        return sorted({name.split("/")[1] for name in self.marks if name.startswith(f"{STORE}/")})


def write_archive(path: Path, sweep: str, members: Mapping[str, tuple[Mark, Callable[[], bytes]]]) -> None:
    """Write what each member's function gives; the same content makes the same bytes. Raises UserError, and leaves nothing."""
    files = {name: mark.plain() for name, (mark, _) in members.items()}
    index = {"format": FORMAT, "version": VERSION, "sweep": sweep, "files": files}
    temporary = temporary_path(path)
    try:
        with storage("write", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Weights hardly become smaller, records do at any level.
            with (
                temporary.open("wb") as file,
                gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as stream,
                tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar,
            ):
                _add(tar, INDEX, (json.dumps(index, indent=1, sort_keys=True) + "\n").encode())
                for name, (mark, read) in sorted(members.items()):
                    content = read()
                    if Mark.of(content) != mark:
                        raise UserError(f"{name} was changed while it was exported")
                    _add(tar, name, content)
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # of nobody, from 1970, readable
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


class Archive:
    """An archive that is read once, from its beginning to its end."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path = path
        self._stream = stream

    @classmethod
    def opened(cls, path: Path, file: BinaryIO) -> "Archive":
        return cls(path, cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb")))

    def index(self) -> Index:
        """What the archive declares, to be asked for first. Raises ArchiveError."""
        content = b"".join(self._member(INDEX, None))
        try:
            value = parse_json(content)
            if value["format"] != FORMAT:
                raise ValueError("it is of another format")
            if value["version"] != VERSION:
                raise ArchiveError(
                    f"{self.path} is of version {value['version']!r:.20}; this ntml-store reads version {VERSION}"
                )
            marks = {name: Mark.parsed(mark) for name, mark in value["files"].items()}
            strange = [name for name in marks if not PATHS.fullmatch(name)]
            if strange:
                raise ValueError(f"it declares {strange[0]!r:.80}")
            if not isinstance(value["sweep"], str):
                raise ValueError("its sweep has no name")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._refused(f"{INDEX}: {type(error).__name__}: {error}") from None
        return Index(value["sweep"], marks, sha256(content).hexdigest())

    def unpack(self, index: Index, target: Path) -> None:
        """Write the members below `target`, and read to the very end. Raises ArchiveError, and StorageError."""
        for name, mark in sorted(index.marks.items()):
            path = target / name
            digest = sha256()
            with storage("write", path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as file:
                    for chunk in self._member(name, mark.size):
                        digest.update(chunk)
                        file.write(chunk)
            if digest.hexdigest() != mark.sha256:
                raise self._refused(f"{name} is not what its checksum says")
        # Two empty blocks, and more up to a whole record; also what gzip says of the whole stands behind them.
        if any(self._read(2 * tarfile.BLOCKSIZE)):
            raise self._refused("it holds more than it declares")
        rest = self._read_up_to(tarfile.RECORDSIZE)
        if any(rest) or len(rest) == tarfile.RECORDSIZE:
            raise self._refused("it holds more than it declares")

    def _member(self, name: str, size: int | None) -> Iterator[bytes]:
        """The content of the next member in chunks, which must be the one of that name (and size)."""
        header = self._read(tarfile.BLOCKSIZE)
        try:
            member = tarfile.TarInfo.frombuf(header, "ascii", "strict")
        except (tarfile.HeaderError, ValueError) as error:
            raise self._refused(f"where {name} should be: {error}") from None
        if member.name != name or member.type != tarfile.REGTYPE:
            kind = "the file" if member.type == tarfile.REGTYPE else f"an entry of type {member.type!r},"
            raise self._refused(f"where the file {name} should be, there is {kind} {member.name!r:.80}")
        if (size is None and not 0 <= member.size <= LARGEST_INDEX) or (size is not None and member.size != size):
            raise self._refused(f"{name} has {member.size} bytes")
        left = member.size
        while left:
            chunk = self._read(min(left, CHUNK))
            left -= len(chunk)
            yield chunk
        if any(self._read(-member.size % tarfile.BLOCKSIZE)):
            raise self._refused(f"there is something behind {name}")

    def _read(self, size: int) -> bytes:
        content = self._read_up_to(size)
        if len(content) < size:
            raise self._refused("it ends early")
        return content

    def _read_up_to(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise self._refused(str(error)) from None
        except OSError as error:
            raise ArchiveError(f"cannot read {self.path}: {error.strerror or error}") from None

    def _refused(self, why: str) -> ArchiveError:
        return ArchiveError(f"{self.path} is damaged, or not an archive of ntml-store ({why}); nothing was imported")
