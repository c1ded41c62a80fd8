"""Docstrings as text for a page: a module's as paragraphs and lists, a schema's as the meaning of each of its settings.

A method's module begins with one line of what it does. A schema explains its settings as `setting`: meaning, each up to the
next one or the end of the paragraph; what is written otherwise is shown as it is.
"""

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass

ITEM = re.compile(r"(?:-|\d+\.) ")
SETTINGS = re.compile(r"(`\w+`(?:, `\w+`)*): ")


@dataclass(frozen=True)
class Text:
    """A docstring: its first line, and the blocks behind it, each a paragraph or an item of a list on one line."""

    title: str
    blocks: tuple[str, ...]


def text_of(docstring: str | None) -> Text:
    """The docstring with its line breaks undone; empty where there is none."""
    blocks: list[str] = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(docstring or "")):
        lines = paragraph.splitlines()
        for number, line in enumerate(lines):
            if number == 0 or ITEM.match(line):
                blocks.append(line.strip())
            else:
                blocks[-1] += f" {line.strip()}"
    return Text(blocks[0], tuple(blocks[1:])) if blocks else Text("", ())


def is_item(block: str) -> bool:
    """Whether a block is an item of a list."""
    return ITEM.match(block) is not None


def meanings(docstrings: Sequence[str | None]) -> dict[str, str]:
    """What schemas say of their settings; where two name one setting the first counts."""
    found: dict[str, str] = {}
    for docstring in docstrings:
        text = text_of(docstring)
        for block in (text.title, *text.blocks):
            # Before the first setting, then by turns names and their meaning.
            _, *parts = SETTINGS.split(block)
            for names, meaning in zip(parts[::2], parts[1::2], strict=True):
                for name in re.findall(r"\w+", names):
                    found.setdefault(name, meaning.strip(" .,;"))
    return found
