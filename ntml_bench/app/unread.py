"""Files of the user's that no command would read: what a data set or a family says of a method, at a place that has a typo.

Hydra takes such files where they are and says nothing where they are not, so values that someone wrote would silently not be
those that run.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ntml_bench.errors import UserError, nearest


def check_unread(theirs: Sequence[Path], folders: Sequence[Path], choices: Mapping[str, Any]) -> None:
    """Raise UserError for such a file below `theirs`, of all the `folders` of options; `choices`: Hydra's, of any config."""
    places = _places(choices)
    kinds = {kind for kind, _ in places}
    for folder in theirs:
        for path in (path for kind in _like(folder, kinds) for path in sorted(kind.glob("*/*/*.yaml"))):
            kind, chosen, group, _ = path.relative_to(folder).parts
            if (kind, group) not in places:
                near = get_close_matches(f"{kind}/{group}", [f"{kind}/{group}" for kind, group in places], n=1, cutoff=0.8)
                if near:
                    read = near[0].replace("/", f"/{chosen}/")
                    raise UserError(f"{path} is never read: did you mean the folder {read}?")
                continue
            for word, name in ((kind, chosen), (group, path.stem)):
                options = _options(folders, word)
                # One that has the name of an option in its own may be there to be chosen by hand.
                if name not in options and not (word == group and any(option in name for option in options)):
                    raise UserError(f"{path} is never read, because there is no {word}={name}{nearest(name, options)}")


def _places(choices: Mapping[str, Any]) -> set[tuple[str, str]]:
    """The pairs of a kind and a group of which its options may say something: of `dataset@attack=digits/attack/sig` the two."""
    named = [(key.partition("@")[0], f"{option}".split("/")) for key, option in choices.items() if "@" in key]
    return {(kind, parts[-2]) for kind, parts in named if len(parts) > 2}


def _like(folder: Path, kinds: set[str]) -> list[Path]:
    """The folders that have such a name or nearly: a user's folder may hold anything else."""
    # Not iterdir: of a folder that does not exist Hydra warns, and goes on without it.
    inside = sorted(path for path in folder.glob("*") if path.is_dir())
    return [path for path in inside if get_close_matches(path.name, kinds, n=1, cutoff=0.8)]


def _options(folders: Sequence[Path], group: str) -> set[str]:
    return {path.stem for folder in folders for path in folder.glob(f"{group}/*.yaml")}
