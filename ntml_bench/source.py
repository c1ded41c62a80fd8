"""What code from outside the package says: its own methods are versioned by hand, a user's are known by their source.

Writing a method is editing it. The hash of a method's module, and of what that imports from beside it, goes into the keys of
what the method makes, so that an edited method is run again. Files that the code reads at run time are not seen.
"""

import ast
import hashlib
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

PACKAGE = __name__.partition(".")[0]
OWN = (PACKAGE, "timm", "torch", "torchvision", *sys.stdlib_module_names)
"""Versioned by hand or by their release."""
INSTALLED = ("site-packages", "dist-packages")
"""In such a folder neighbours have nothing to do with each other."""


def source_mark(module: str) -> str | None:
    """16 hex digits of the source of a module and of the modules that it imports from beside it, and they in turn.

    None for a module of this package, of timm or torch, and for one that has no file. Each is read once in a process: called
    right behind the import it is of the code that runs, whatever is edited later.
    """
    if module.partition(".")[0] in OWN:
        return None
    return _mark(module)


def source_marks(cls: type) -> list[str]:
    """The marks of a class and of the classes that it is derived from; none where all are of this package."""
    marks = (source_mark(base.__module__) for base in cls.__mro__ if base.__module__ != "builtins")
    return sorted({mark for mark in marks if mark is not None})


@cache
def _mark(module: str) -> str | None:
    name = getattr(sys.modules.get(module), "__file__", None)
    start = Path(name).resolve() if name else None
    if start is None or not start.is_file():
        return None
    parts = module.split(".")
    root = start.parents[len(parts) - (start.stem != "__init__")]
    files: dict[str, Path] = {}
    waiting = [(module, start)]
    while waiting:
        name, path = waiting.pop()
        if name in files:
            continue
        files[name] = path
        for found in _imported(name, path):
            beside = found.partition(".")[0]
            if beside != PACKAGE and (beside == parts[0] or root.name not in INSTALLED):
                waiting += [(found, file) for file in _places(root, found) if file.is_file()]
    digest = hashlib.sha256()
    for name in sorted(files):
        content = files[name].read_bytes()
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def _places(root: Path, module: str) -> tuple[Path, Path]:
    """Where the code of a module is, below the folder that imports begin in: a file, or a package."""
    place = root.joinpath(*module.split("."))
    return place.with_name(f"{place.name}.py"), place / "__init__.py"


def _imported(module: str, path: Path) -> Iterator[str]:
    """The names of the modules that a module's code imports, anywhere in it; a name from a package may be a module or not."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return  # compiled code
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            try:
                origin = resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:
                continue
            yield from _with_parents(origin)
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _with_parents(module: str) -> Iterator[str]:
    """A module and the packages around it, whose code runs with its import."""
    parts = module.split(".")
    yield from (".".join(parts[: end + 1]) for end in range(len(parts)))
