"""A figure as an inline SVG: small, readable aloud, in the colours and the font of the page that it stands in.

matplotlib writes a document with fixed colours, ids that repeat from figure to figure, and a mark as a reference a point.
Here colours become names, ids go, the marks of a series become one path, and numbers lose the decimals that nobody sees.
"""

import re
from collections.abc import Iterator
from io import BytesIO
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from ntml_bench.figures.colours import NAMES

SCALE = 1.9
"""Pixels a point at most: the 7 pt of a paper as the 13 px of a page."""
FONT = "system-ui, sans-serif"
HEX = re.compile(r"#[0-9a-fA-F]{6}\b")
NUMBER = re.compile(r"-?\d+\.?\d*(?:e-?\d+)?")
COMMAND = re.compile(r"([MLQCz])([^MLQCz]*)")
GEOMETRY = ("d", "x", "y", "width", "height", "transform", "points")
DROPPED = ("metadata", "defs")


def inline_svg(figure: Figure, name: str, title: str, description: str) -> str:
    """The `<svg>` element; `name` is what its ids begin with."""
    figure.patch.set_visible(False)
    for image in figure.findobj(AxesImage):
        # Its own pixels, not those of this figure's 72 dots an inch.
        image.set_interpolation("none")  # pyright: ignore[reportAttributeAccessIssue]
    file = BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    source = ElementTree.fromstring(file.getvalue())
    shapes = {f"#{path.get('id')}": path.get("d", "") for path in source.iter() if _tag(path) == "path" and path.get("id")}

    box = source.attrib["viewBox"]
    width = float(box.split()[2])
    labelled = f"{name}-title {name}-desc"
    root = Element("svg", {"viewBox": box, "role": "img", "aria-labelledby": labelled, "font-family": FONT})
    # What matplotlib asks of every element by a style sheet, which in a page would ask it of the page.
    root.set("style", f"max-width:{width * SCALE:.0f}px;stroke-linejoin:round;stroke-linecap:butt")
    SubElement(root, "title", {"id": f"{name}-title"}).text = title
    SubElement(root, "desc", {"id": f"{name}-desc"}).text = description
    root.extend([_copied(child, shapes) for element in source for child in _lifted(element)])
    return ElementTree.tostring(root, encoding="unicode")


def _tag(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _lifted(element: Element) -> Iterator[Element]:
    """The elements that are seen, out of the groups that matplotlib puts everything into."""
    tag = _tag(element)
    if tag == "g" and not _is_run(element):
        for child in element:
            yield from _lifted(child)
    elif tag not in DROPPED:
        yield element


def _is_run(element: Element) -> bool:
    """Whether a group is nothing but one mark, at one or more places."""
    kinds = {(_tag(child), _reference(child), child.get("style")) for child in element}
    return len(kinds) == 1 and next(iter(kinds))[0] == "use"


def _reference(element: Element) -> str | None:
    return next((value for key, value in element.attrib.items() if key.endswith("href")), None)


def _copied(element: Element, shapes: dict[str, str]) -> Element:
    tag = _tag(element)
    if tag in ("g", "use"):
        return _marks(list(element) if tag == "g" else [element], shapes)
    copy = Element(tag)
    for key, value in element.attrib.items():
        key = key.rpartition("}")[2]
        if key == "style":
            value = _style(value)
        elif key in GEOMETRY:
            value = _compact(value)
        # Nothing reaches beyond its panel, so that nothing need be clipped.
        if key in ("id", "clip-path") or (key == "transform" and value.startswith("rotate(0 ")):
            continue
        copy.set(key, value.replace("\n", "") if key == "href" else value)
    copy.text = element.text if tag == "text" else None
    return copy


def _marks(uses: list[Element], shapes: dict[str, str]) -> Element:
    """One path of all those marks."""
    shape = shapes[_reference(uses[0]) or ""]
    style = _style(uses[0].get("style", ""))
    places = [(float(use.get("x", 0)), float(use.get("y", 0))) for use in uses]
    if "C" in shape and len(places) > 1 and "stroke:none" in style:
        # Discs: the round ends of lines that have no length are a tenth of the characters.
        numbers = [float(number) for number in NUMBER.findall(shape)]
        style = style.replace("stroke:none;", "").replace("stroke:none", "").replace("fill", "stroke")
        style = f"fill:none;{style};stroke-width:{_short(max(numbers) - min(numbers))};stroke-linecap:round"
        return Element("path", {"d": "".join(f"M{_short(x, 1)} {_short(y, 1)}h0" for x, y in places), "style": style})
    return Element("path", {"d": "".join(_placed(shape, x, y) for x, y in places), "style": style})


def _placed(shape: str, x: float, y: float) -> str:
    """The shape around that place: a start, and from there on what is the same for every place."""
    parts = []
    at = (0.0, 0.0)
    for command, rest in COMMAND.findall(shape):
        numbers = [round(float(number), 2) for number in NUMBER.findall(rest)]
        points = list(zip(numbers[::2], numbers[1::2], strict=True))
        if not parts:
            parts.append(f"M{_short(x + points[0][0], 1)} {_short(y + points[0][1], 1)}")
        else:
            moves = [part for point in points for part in (point[0] - at[0], point[1] - at[1])]
            parts.append(_moved(command, [_short(part) for part in moves]))
        at = points[-1] if points else at
    return "".join(parts).replace(" -", "-")


def _moved(command: str, moves: list[str]) -> str:
    if command == "L" and "0" in moves:
        return f"h{moves[0]}" if moves[1] == "0" else f"v{moves[1]}"
    return command.lower() + " ".join(moves)


def _style(text: str) -> str:
    """The style with names for colours and without the font, which is the page's; what cannot be seen is `none`."""
    found = dict(part.strip().split(": ", 1) for part in text.split(";") if ": " in part)
    found.pop("font-family", None)
    if "font" in found:  # matplotlib before 3.11
        found["font"] = re.sub(r"'.*", FONT, found["font"])
    for what in ("fill", "stroke"):
        if found.get(f"{what}-opacity") == "0":
            found[what] = "none"
            del found[f"{what}-opacity"]
    if found.get("stroke") == "none":
        found.pop("stroke-width", None)
    return ";".join(f"{key}:{HEX.sub(_named, value)}" for key, value in found.items())


def _named(colour: re.Match[str]) -> str:
    return f"var(--{NAMES[colour[0].lower()]})"


def _compact(text: str) -> str:
    return " ".join(NUMBER.sub(lambda found: _short(float(found[0])), text).split())


def _short(number: float, digits: int = 2) -> str:
    text = f"{number:.{digits}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text
