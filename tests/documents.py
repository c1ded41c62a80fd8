"""The pages for readers: their code, their commands, their links and what a link may lead to."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]

SHELL = ("sh", "bash", "shell", "console")
FILE = re.compile(r"# ([\w./-]+\.(?:py|ya?ml))\n")
"""The first line of a block that is a file: its name."""
COMMENT = re.compile(r"""((?:[^'"#]|\S\#|'[^']*'|"[^"]*")*?)(?:(?:^|\s+)\#\s*(.*))?""", re.VERBOSE)
HTML_LINK = re.compile(r"""<(?:a|img)\b[^>]*?\b(href|src)=["']([^"']+)["']""")
HTML_ANCHOR = re.compile(r"""<\w+\b[^>]*?\b(?:id|name)=["']([^"']+)["']""")
OPERATORS = ("&&", "||", ";")


@dataclass(frozen=True)
class Block:
    """Code between fences, its language (empty: none), and the line of its first line in the page, from 1 on."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Command:
    """A command of a page: its words as a shell splits them, and the comment behind it."""

    page: "Page"
    line: int
    words: tuple[str, ...]
    remark: str

    @property
    def name(self) -> str:
        return f"{self.page.path.name}:{self.line}"


@dataclass(frozen=True)
class Page:
    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tokens(self) -> list[Token]:
        return MarkdownIt("commonmark").enable("table").parse(self.text)

    @property
    def blocks(self) -> list[Block]:
        return [
            Block(token.info.strip(), token.content, token.map[0] + 2)
            for token in self.tokens
            if token.type == "fence" and token.map is not None
        ]

    @property
    def files(self) -> dict[str, str]:
        """The blocks that are files, by name: a comment in their first line names it."""
        found = [(FILE.match(block.text), block.text) for block in self.blocks if block.language not in SHELL]
        return {name[1]: text for name, text in found if name}

    @property
    def commands(self) -> list[Command]:
        return [command for block in self.blocks if block.language in SHELL for command in self._commands(block)]

    def _commands(self, block: Block) -> Iterator[Command]:
        lines = enumerate(block.text.splitlines(), block.line)
        for number, line in lines:
            while line.endswith("\\"):
                line = line[:-1] + next(lines)[1]
            parted = COMMENT.fullmatch(line)
            assert parted is not None, f"{self.path.name}:{number} cannot be read: {line}"
            for words in parts_of(parted[1]):
                yield Command(self, number, words, parted[2] or "")

    @property
    def links(self) -> list[str]:
        """Where links and images lead."""
        found = []
        for token in self._inline():
            found += [str(token.attrs[key]) for key in ("href", "src") if token.type != "text" and key in token.attrs]
            if token.type in ("html_inline", "html_block"):
                found += [place for _, place in HTML_LINK.findall(token.content)]
        return found

    @cached_property
    def anchors(self) -> set[str]:
        """What a `#fragment` may name: headings, as GitHub names them, and ids in HTML."""
        found: set[str] = set()
        for heading, content in zip(self.tokens, self.tokens[1:], strict=False):
            if heading.type == "heading_open":
                words = "".join(token.content for token in content.children or [] if token.type in ("text", "code_inline"))
                found.add(anchor(words, found))
        return found | {name for token in self._inline() for name in HTML_ANCHOR.findall(token.content)}

    def _inline(self) -> Iterator[Token]:
        for token in self.tokens:
            yield from token.children or [] if token.type == "inline" else [token]


def parts_of(line: str) -> list[tuple[str, ...]]:
    """The commands of a line: what stands between `&&`, `||` and `;`; words as a shell splits them."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.commenters = ""
    lexer.wordchars += "{}$,:=+@%[]!^#"  # all but what ends a word
    parts: list[list[str]] = [[]]
    for word in lexer:
        if word in OPERATORS:
            parts.append([])
        else:
            parts[-1].append(word)
    return [tuple(words) for words in parts if words]


def anchor(heading: str, taken: set[str]) -> str:
    """GitHub's name for a heading: lower case, without punctuation, hyphens for spaces, numbered where it is taken."""
    plain = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
    name, number = plain, 0
    while name in taken:
        number += 1
        name = f"{plain}-{number}"
    return name


def file_of_the_pages(name: str) -> str:
    """The file of that name that some page shows."""
    (text,) = {page.files[name] for page in map(Page, PAGES) if name in page.files}
    return text
