"""Images that lie in a folder for each class, ROOT/PART/CLASS/IMAGE: which files count, are skipped, or are refused."""

import stat
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ntml_bench.data.image_files import digest, entries, file_state, shown, status_of
from ntml_bench.errors import UserError

LITTER = ("thumbs.db", "ehthumbs.db", "desktop.ini")
"""What systems leave in folders beside hidden files."""


@dataclass(frozen=True)
class ClassFolders:
    """What lies below ROOT, found without opening a file.

    `class_names`: sorted as text, as torchvision sorts them ("10" comes before "2"). `files`: of each part, for each class,
    sorted. `skipped`: hidden files and folders, what systems leave, and files outside of the folders of the classes.
    `state`: 16 hex digits that change with the path, size or time of change of any image, and with the paths that are skipped.
    """

    class_names: tuple[str, ...]
    files: dict[str, list[list[Path]]]
    skipped: tuple[str, ...]
    state: str

    @classmethod
    def read(cls, root: Path, parts: Sequence[str]) -> "ClassFolders":
        """Two `parts` with the same classes. Raises UserError with the name of what is in the way."""
        skipped: list[str] = []
        folders = {part: _folders(root / part, skipped) for part in parts}
        class_names = _class_names(root, folders)
        lines: list[str] = []
        files = {
            part: [_images(root / part / name, f"{part}/{name}", lines, skipped) for name in class_names] for part in parts
        }
        return cls(class_names, files, tuple(skipped), digest([*lines, *(f"skipped {path}" for path in skipped)]))

    @property
    def remark(self) -> str | None:
        """What a user should know of the files that are skipped."""
        if not self.skipped:
            return None
        names = sorted({shown(Path(path).name) for path in self.skipped})
        which = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        return (
            f"{len(self.skipped)} files or folders are skipped (the first is {shown(self.skipped[0])}): hidden ones, what "
            f"systems leave, and files in no class's folder ({which})"
        )


def _folders(folder: Path, skipped: list[str]) -> set[str]:
    names = set()
    for entry in entries(folder):
        if not _is_litter(entry.name) and stat.S_ISDIR(status_of(entry).st_mode):
            names.add(entry.name)
        else:
            skipped.append(entry.path)
    return names


def _class_names(root: Path, folders: dict[str, set[str]]) -> tuple[str, ...]:
    (one, names), (other, other_names) = folders.items()
    if not names | other_names:
        raise UserError(f"dataset.root: {shown(root / one)} holds no folder; it needs one for each class")
    if names != other_names:
        only = "; ".join(
            f"only in {part}: {', '.join(map(shown, sorted(found)))}"
            for part, found in ((one, names - other_names), (other, other_names - names))
            if found
        )
        raise UserError(f"dataset.root: the classes of {one} and {other} in {shown(root)} differ ({only})")
    for name in sorted(names):
        # It is printed, and written into records and tables.
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
            raise UserError(
                f"dataset.root: the name of the class folder {shown(root / one / name)} is no text in UTF-8, or has control "
                f"characters; rename it, in {one} and in {other}"
            )
    return tuple(sorted(names))


def _images(folder: Path, relative: str, lines: list[str], skipped: list[str]) -> list[Path]:
    """The images of a class; `lines` gets what they are and when they changed."""
    names = []
    for entry in entries(folder):
        if _is_litter(entry.name):
            skipped.append(entry.path)
            continue
        status = status_of(entry)
        if stat.S_ISDIR(status.st_mode):
            raise UserError(
                f"dataset.root: {shown(entry.path)} is a folder; the folder of a class holds images only: move its images up, "
                "or the folder out"
            )
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"dataset.root: {shown(entry.path)} is no file that holds an image; move it out")
        if status.st_size == 0:
            raise UserError(f"dataset.root: {shown(entry.path)} is empty (0 bytes); replace it or move it out")
        names.append(entry.name)
        lines.append(file_state(f"{relative}/{entry.name}", status))
    if not names:
        raise UserError(f"dataset.root: the class folder {shown(folder)} is empty")
    return [folder / name for name in names]


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in LITTER
