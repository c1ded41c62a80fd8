"""Docstrings and values in GitHub-flavoured Markdown."""

import re
from collections.abc import Iterable, Sequence

from ntml_bench.catalogue.docstrings import is_item
from ntml_bench.table.markdown import table_line

SPAN = re.compile(r"(`[^`]*`)")
LABEL = re.compile(r"(?:Deviations?|Reported|Published setting):")
ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")


def prose(text: str) -> str:
    """Plain text that reads the same when it is rendered; code in backticks stays, numbers of arXiv become links."""
    parts = SPAN.split(text)
    parts[::2] = map(_plain, parts[::2])
    return "".join(parts)


def _plain(text: str) -> str:
    text = re.sub(r"[*\\]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text).replace("<", "&lt;")
    return ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def paragraphs(blocks: Sequence[str]) -> str:
    """Blocks as paragraphs, those of a list as a list."""
    text = ""
    for number, block in enumerate(blocks):
        listed = is_item(block) and number > 0 and is_item(blocks[number - 1])
        label = LABEL.match(block)
        shown = f"**{label[0]}**{prose(block[label.end() :])}" if label else prose(block)
        text += ("\n" if listed else "\n\n") + shown
    return text.strip()


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts that are Markdown already."""
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(table_line(list(line)) for line in lines)


def linked(text: str, place: str) -> str:
    return f"[{text}]({place})"


def code(text: str) -> str:
    return f"`{text}`" if text else ""
