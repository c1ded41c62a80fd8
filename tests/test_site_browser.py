"""The index of a site in a real browser: it sorts, is read by keyboard and on a phone, in the dark, and loads nothing."""

from typing import TYPE_CHECKING, Any

import pytest
from browser_page import CONTRASTS, CONTROLS, CUT, LEAST_CONTRAST, Witness, browser, check_tab
from kept_tables import kept

from ntml_bench.report.main import main

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["browser"]

NAMES = ("b_of_three_seeds", "a_single", "c_of_other_data")
COLUMNS = 12
SORTED = {
    # column: the tables by it, as the first click has them
    0: ["a_single", "b_of_three_seeds", "c_of_other_data"],
    1: ["c_of_other_data", "a_single", "b_of_three_seeds"],
    3: ["b_of_three_seeds", "a_single", "c_of_other_data"],
    4: ["b_of_three_seeds", "c_of_other_data", "a_single"],
    9: ["b_of_three_seeds", "c_of_other_data", "a_single"],
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    work = tmp_path_factory.mktemp("site")
    reference = work / "reference"
    kept(reference / NAMES[0], work / "first", seeds=(0, 1, 2))
    kept(reference / NAMES[1], work / "second", attacks=("sig", "lc"), extra={"environment": {}})
    kept(reference / NAMES[2], work / "third", seeds=(0, 1), attacks=("sig",), place=("cifar10", "a_net_of_a_long_name" * 3))
    (reference / ("broken" * 20) / "records").mkdir(parents=True)
    assert main(["--site", str(reference), "--to", str(work / "site")]) == 0
    return (work / "site" / "index.html").as_uri()


def tables(page: "Page") -> list[str]:
    return page.locator(".index tbody th a").all_inner_texts()


@pytest.mark.parametrize("width", [390, 1280])
def test_every_column_sorts_by_keyboard(browser: "Browser", address: str, width: int) -> None:
    with Witness(browser, address, width) as page:
        unsorted = tables(page)
        assert page.locator(".index thead .sort").count() == COLUMNS
        for column in range(COLUMNS):
            head = page.locator(".index thead th").nth(column)
            orders = []
            for key in ("Enter", "Space", "Enter"):
                head.locator("button").focus()
                page.keyboard.press(key)
                orders.append((head.get_attribute("aria-sort"), tables(page)))
            directions = [direction for direction, _ in orders]
            assert set(directions[:2]) == {"ascending", "descending"}
            assert directions[2] == "none"
            assert orders[2][1] == unsorted
            if column in SORTED:
                assert orders[0][1] == SORTED[column]
            for _, order in orders:
                assert sorted(order) == sorted(NAMES)


def test_what_is_not_recorded_comes_last_either_way(browser: "Browser", address: str) -> None:
    with Witness(browser, address) as page:
        for _ in range(2):
            page.get_by_role("button", name="date").click()
            assert tables(page)[-1] == "a_single"


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_cut_and_the_page_does_not_scroll_sideways(browser: "Browser", address: str, width: int) -> None:
    with Witness(browser, address, width) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
        assert page.evaluate(CUT) == []
        if width in (320, 390):
            # Nothing of a line has to be searched for aside.
            assert page.evaluate(
                "(({scrollWidth, clientWidth}) => scrollWidth <= clientWidth)(document.querySelector('.scroll'))"
            )


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(browser: "Browser", address: str, scheme: Any, width: int) -> None:
    with Witness(browser, address, width, color_scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        page.get_by_role("button", name="seeds").click()
        found = page.evaluate(CONTRASTS, "body *")
        assert len(found) > 100
        assert not [entry for entry in found if entry[0] < LEAST_CONTRAST]


def test_tab_reaches_every_control_and_shows_where_it_is(browser: "Browser", address: str) -> None:
    with Witness(browser, address) as page:
        controls = dict(page.evaluate(CONTROLS))
        assert len(controls) > COLUMNS + 2 * len(NAMES)
        check_tab(page, controls)


def test_a_line_opens_its_ranking_and_its_report(browser: "Browser", address: str) -> None:
    witness = Witness(browser, address)
    page = witness.page
    page.locator(".index tbody tr", has_text=NAMES[0]).get_by_role("link", name="ranking").click()
    page.locator("details[open]").wait_for()
    assert page.locator("details[open] summary").inner_text().startswith(NAMES[0])
    page.locator(".index").get_by_role("link", name=NAMES[1], exact=True).click()
    assert page.locator("h1").inner_text() == NAMES[1]
    page.get_by_role("link", name="all tables").click()
    assert page.locator("h1").inner_text() == "Kept tables"
    assert not witness.said
    assert all(url.startswith("file:") for url in witness.requested)
    witness.context.close()


def test_a_phone_still_hears_a_table(browser: "Browser", address: str) -> None:
    with Witness(browser, address, 390) as page:
        table = page.locator(".index")
        assert table.get_by_role("columnheader").count() == COLUMNS
        assert table.get_by_role("row").count() == 1 + len(NAMES)
        assert table.get_by_role("rowheader").count() == len(NAMES)
        assert table.get_by_role("cell").count() == (COLUMNS - 1) * len(NAMES)


def test_without_scripts_everything_is_there(browser: "Browser", address: str) -> None:
    with Witness(browser, address, java_script_enabled=False) as page:
        assert sorted(tables(page)) == sorted(NAMES)
        assert page.locator("thead .sort:enabled").count() == 0
        page.locator("summary").first.click()
        assert page.locator("details").first.locator("table").is_visible()
