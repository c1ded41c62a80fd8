"""A page as a tree of elements, from the standard library's parser, to be asked what it says."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise

VOID = ("meta", "img", "input", "br", "wbr", "link", "hr")


@dataclass
class Element:
    """An element with its attributes; its children in order, texts as `str`."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: "list[Element | str]" = field(default_factory=list)

    def __getitem__(self, name: str) -> str:
        return self.attributes[name]

    def get(self, name: str) -> str:
        return self.attributes.get(name, "")

    @property
    def classes(self) -> list[str]:
        return self.get("class").split()

    @property
    def text(self) -> str:
        """Without what lies between the words of the source."""
        return " ".join("".join(self._texts()).split())

    @property
    def raw(self) -> str:
        return "".join(self._texts())

    def _texts(self) -> Iterator[str]:
        for child in self.children:
            if isinstance(child, str):
                yield child
            else:
                yield from child._texts()

    def all(self, tag: str = "", **wanted: str) -> "list[Element]":
        """All elements below of that tag whose attributes have those values (`class_`: one of its classes), in order."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                if (not tag or child.tag == tag) and all(_has(child, name, value) for name, value in wanted.items()):
                    found.append(child)
                found += child.all(tag, **wanted)
        return found

    def one(self, tag: str = "", **wanted: str) -> "Element":
        (found,) = self.all(tag, **wanted)
        return found


def _has(element: Element, name: str, value: str) -> bool:
    return value in element.classes if name == "class_" else element.attributes.get(name) == value


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"<{tag}> has an attribute twice: {names}"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        closed = self.open.pop()
        assert closed.tag == tag, f"</{tag}> where <{closed.tag}> is open"

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(page: str) -> Element:
    """The tree; AssertionError where the tags do not fit."""
    parser = _Parser()
    parser.feed(page)
    parser.close()
    assert len(parser.open) == 1, f"<{parser.open[-1].tag}> is not closed"
    return parser.open[0]


def check_soundness(page: Element) -> None:
    """What holds for every page."""
    elements = page.all()
    ids = [element["id"] for element in elements if "id" in element.attributes]
    assert len(set(ids)) == len(ids)
    for element in elements:
        assert not [name for name in element.attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
            target = element.get(name)
            assert not re.match(r"(?i)\s*(https?:|//|javascript:|file:)", target)
            assert name in ("href",) or not target or target.startswith("data:image/png;base64,")
            if name == "href" and target.startswith("#"):
                assert target[1:] in ids
        assert element.get("popovertarget") in ("", *ids)
        for reference in (*element.get("aria-labelledby").split(), *element.get("aria-describedby").split()):
            assert reference in ids
    for image in page.all("img"):
        assert image.get("alt").strip()
    for drawing in page.all("svg"):
        named = [element.text for element in drawing.all() if element.get("id") in drawing.get("aria-labelledby").split()]
        assert drawing.get("role") == "img"
        assert any(named)
    levels = [int(element.tag[1]) for element in elements if re.fullmatch("h[1-6]", element.tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert [element.tag for element in elements if element.tag in ("link", "iframe", "object", "embed", "base", "form")] in (
        [],
        ["form"],
    )
    (policy,) = [element["content"] for element in page.all("meta") if element.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "script-src 'sha256-" in policy
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert not re.search(r"@import|url\(", page.one("style").raw)
