"""A page in a real browser, and what is asked of every page there."""

import shutil
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LEAST_CONTRAST = 4.5
# A canvas makes any colour that CSS can say into the numbers of the screen.
COLOURS = """
const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
const context = canvas.getContext("2d", {willReadFrequently: true});
const channels = (colour) => {
  context.clearRect(0, 0, 1, 1);
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  return [...context.getImageData(0, 0, 1, 1).data];
};
const luminance = (colour) => {
  const linear = (share) => (share <= .04045 ? share / 12.92 : ((share + .055) / 1.055) ** 2.4);
  const [r, g, b] = channels(colour).map((value) => linear(value / 255));
  return .2126 * r + .7152 * g + .0722 * b;
};
const paper = (element) => {
  for (let one = element; one; one = one.parentElement) {
    const colour = getComputedStyle(one).backgroundColor;
    if (channels(colour)[3] === 255) return colour;
  }
  return "white";
};
const contrast = (element) => {
  const [one, other] = [luminance(getComputedStyle(element).color), luminance(paper(element))].sort((a, b) => b - a);
  return (one + .05) / (other + .05);
};
const seen = (element) => element.checkVisibility({visibilityProperty: true}) && !element.closest("svg, .sr, .skip");
"""
CONTRASTS = f"""(selector) => {{ {COLOURS}
  return [...document.querySelectorAll(selector)]
    .filter((element) => seen(element) && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .map((element) => [contrast(element), element.className + " " + element.textContent.trim().slice(0, 40)]);
}}"""
CUT = """() => {
  const scrolls = (element) => element.closest(".scroll, pre");
  const shown = [...document.querySelectorAll("body *")].filter(
    (element) => element.checkVisibility() && !element.closest("svg *, .sr, .skip") && element.getBoundingClientRect().width);
  const beyond = shown.filter((element) => {
    const box = element.getBoundingClientRect();
    return (box.left < -0.5 || box.right > innerWidth + 0.5) && !(scrolls(element) && scrolls(element) !== element);
  });
  const clipped = shown.filter((element) => {
    const style = getComputedStyle(element);
    return ["hidden", "clip"].includes(style.overflowX) && element.scrollWidth > element.clientWidth + 1;
  });
  return [...beyond, ...clipped].map((element) => element.outerHTML.slice(0, 120));
}"""
FOCUSED = """() => {
  const element = document.activeElement;
  const drawn = element.matches("input[type=radio]") ? element.nextElementSibling : element;
  const style = getComputedStyle(drawn);
  const box = drawn.getBoundingClientRect();
  return {
    index: [...document.querySelectorAll("*")].indexOf(element),
    outline: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1,
    inside: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
    body: element === document.body,
    name: element.outerHTML.slice(0, 100),
  };
}"""
CONTROLS = """() => [...document.querySelectorAll(
    "a[href], button, select, input:checked, summary, [tabindex='0']")]
  .filter((element) => element.checkVisibility() && !element.disabled && element.tabIndex >= 0)
  .map((element) => [[...document.querySelectorAll("*")].indexOf(element), element.outerHTML.slice(0, 100)])"""


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"there is no browser ({', '.join(BROWSERS)})")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Witness:
    """A page, and what was asked of the network and said on the console while it was open."""

    def __init__(self, browser: "Browser", address: str, width: int = 1280, **options: Any) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 800}, reduced_motion="reduce", **options)
        self.page: Page = self.context.new_page()
        self.said: list[str] = []
        self.requested: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.context.on("request", lambda request: self.requested.append(request.url))
        self.page.goto(address)

    def __enter__(self) -> "Page":
        return self.page

    def __exit__(self, kind: object, *_: object) -> None:
        self.context.close()
        if kind is None:
            assert not self.said
            assert [url[:40] for url in self.requested if not url.startswith(("data:", "file:"))] == []
            assert len({url for url in self.requested if url.startswith("file:")}) == 1


def check_tab(page: "Page", controls: Mapping[int, str]) -> None:
    """The tabulator reaches each of the controls (name by index), and shows where it is."""
    reached = set()
    for _ in range(2 * len(controls)):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if focused["body"]:
            break
        assert focused["outline"], focused["name"]
        assert focused["inside"], focused["name"]
        reached.add(focused["index"])
    assert not [name for index, name in controls.items() if index not in reached]
