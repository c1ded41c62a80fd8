"""Strategies for what can happen to stored files: cut, changed, emptied, lost, swapped, replaced by garbage."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        [
            "",
            "none",
            "???",
            "${seed}",
            "${nothing}",
            "${attack}",
            "${oc.env:NOTHING}",
            "../..",
            "0" * 16,
            "\ud800",
            10**400,
            -1,
            1e308,
        ]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
SHARE = st.floats(0, 1, exclude_max=True)
GARBAGE = st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode())
Damage = Callable[[Path, Path], None]
"""What happens to a file, given also another's file of the same name."""


@st.composite
def damages(draw: st.DrawFn) -> Damage:
    kind = draw(st.sampled_from(["cut", "flip", "garbage", "empty", "remove", "swap", "insert", "leaf"]))
    share, garbage, leaf, bit = draw(SHARE), draw(GARBAGE), draw(JSON), draw(st.integers(0, 7))

    def damage(path: Path, other: Path) -> None:
        if not path.is_file():
            return
        content = path.read_bytes()
        place = int(share * len(content))
        match kind:
            case "cut":
                path.write_bytes(content[:place])
            case "flip" if content:
                path.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            case "insert":
                path.write_bytes(content[:place] + garbage + content[place:])
            case "garbage":
                path.write_bytes(garbage)
            case "empty":
                path.write_bytes(b"")
            case "remove":
                path.unlink()
            case "swap" if other != path:
                shutil.copyfile(other, path)
            case "leaf" if path.suffix == ".json":
                try:
                    value = json.loads(content)
                except (ValueError, RecursionError):
                    return
                path.write_text(json.dumps(with_leaf(value, share, leaf)))

    return damage


def with_leaf(value: Any, share: float, leaf: Any) -> Any:
    """A copy in which one leaf is another value: the one at this share of the way through all of them."""
    changed = copy.deepcopy(value)
    places = list(_places(changed))
    if not places:
        return leaf
    container, key = places[int(share * len(places))]
    container[key] = leaf
    return changed


def _places(value: Any) -> "list[tuple[Any, Any]]":
    if not isinstance(value, dict | list):
        return []
    found = []
    for key, item in list(value.items() if isinstance(value, dict) else enumerate(value)):
        found += _places(item) or [(value, key)]
    return found
