"""The page in a real browser: it works from disk, by keyboard, on a phone, in the dark, without scripts, and loads nothing."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from browser_page import COLOURS, CONTRASTS, CONTROLS, CUT, LEAST_CONTRAST, Witness, browser, check_tab
from report_pages import gallery, report_of, sketches, table_sweep

from ntml_bench.records.summary import METRICS
from ntml_bench.records.view import SHORT
from ntml_bench.report.data import Report
from ntml_bench.report.page import render_gallery, render_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["browser"]

ATTACKS, DEFENSES = ("badnets", "sig", "lc"), ("none", "ft", "fp", "nt_ml")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = table_sweep(
        tmp_path_factory.mktemp("sweep"),
        (0, 1),
        attacks=ATTACKS,
        defenses=DEFENSES,
        unfinished={("lc", "fp", 0): "E: x", ("lc", "fp", 1): None},
    )
    shown = [gallery(attack, seed=seed) for seed, attack in enumerate(ATTACKS)]
    return report_of(folder, galleries=shown, command="ntml-bench -cn digits_table " + "dataset.root=" + "folder/" * 30)


@pytest.fixture(scope="module")
def address(report: Report, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_report(report, sketches(report)), encoding="utf-8")
    return path.as_uri()


def shown_numbers(page: "Page") -> dict[str, list[str]]:
    """The numbers that can be seen, by row, in the order of the table."""
    rows = page.evaluate(
        """() => [...document.querySelectorAll(".heat > tbody > tr, .heat > tfoot > tr")].map((row) => {
          const numbers = [...row.querySelectorAll("data, .state")].filter((one) => one.checkVisibility());
          return [row.cells[0].innerText, numbers.map((one) => one.innerText)];
        })"""
    )
    return dict(rows)


def expected_numbers(report: Report, metric: str) -> dict[str, list[str]]:
    (block,) = report.summary.blocks
    assert block.average is not None
    return {
        row.attack: [
            (entry.state if row is not block.average else "\N{EN DASH}")
            if not entry.done
            else "\N{EN DASH}"
            if value is None
            else f"{value:.1f}"
            for entry in (row.floor, row.undefended, *row.defenses.values())
            for value in [entry.mean(metric)]
        ]
        for row in (*block.rows, block.average)
    }


def without_marks(numbers: dict[str, list[str]]) -> dict[str, list[str]]:
    return {row: [text.rstrip("↓") for text in texts] for row, texts in numbers.items()}


def open_details(page: "Page") -> Any:
    return page.locator(".tip:popover-open")


def test_everything_can_be_used_without_a_word_from_network_or_console(browser: "Browser", address: str) -> None:
    with Witness(browser, address) as page:
        for metric in METRICS:
            page.locator(f"#metric-{SHORT[metric].lower()}").check()
        for head in page.locator("thead .sort").all():
            head.click()
        for place in page.locator(".place").all():
            place.click()
        page.keyboard.press("Escape")
        for summary in page.locator("summary").all():
            summary.click()
        page.locator("#dark").click()
        for select in page.locator("select").all():
            select.select_option(index=1)
        for link in page.locator("nav a").all():
            link.click()


def test_a_gallery_alone_opens_as_quietly(browser: "Browser", tmp_path: Path) -> None:
    path = tmp_path / "gallery.html"
    path.write_text(render_gallery(gallery()), encoding="utf-8")
    for width in (360, 1280):
        with Witness(browser, path.as_uri(), width) as page:
            page.locator("#dark").click()
            assert page.evaluate(CUT) == []
            assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth === 32)")


def test_the_policy_stops_what_would_be_smuggled_in(browser: "Browser", address: str) -> None:
    witness = Witness(browser, address)
    page = witness.page
    failures = {}
    page.on("requestfailed", lambda request: failures.update({request.url: request.failure}))
    page.evaluate("""() => {
      window.stopped = [];
      document.addEventListener("securitypolicyviolation", (event) => stopped.push(event.effectiveDirective));
      document.body.insertAdjacentHTML("beforeend", "<img src=data:, onerror='window.ran = 1'><img src='http://127.0.0.1:9/a.png'>");
      document.body.append(Object.assign(document.createElement("script"), {textContent: "window.ran = 1"}));
    }""")
    page.wait_for_function("stopped.length >= 3")
    assert page.evaluate("window.ran") is None
    assert failures == {"http://127.0.0.1:9/a.png": "csp"}
    witness.context.close()


def test_the_metrics_switch(browser: "Browser", address: str, report: Report) -> None:
    with Witness(browser, address) as page:
        assert without_marks(shown_numbers(page)) == expected_numbers(report, "attack_success_rate")
        for metric in METRICS:
            page.get_by_label(SHORT[metric], exact=True).check()
            assert without_marks(shown_numbers(page)) == expected_numbers(report, metric)
            assert page.locator(".about.of:visible strong").inner_text() == SHORT[metric]


@pytest.mark.parametrize("metric", ["attack_success_rate", "clean_accuracy"])
def test_every_column_sorts(browser: "Browser", address: str, report: Report, metric: str) -> None:
    expected = expected_numbers(report, metric)
    average = expected.pop("average")
    with Witness(browser, address) as page:
        page.locator(f"#metric-{SHORT[metric].lower()}").check()
        for column in range(len(average)):
            head = page.locator("thead th").nth(column + 1)
            known = [row for row in ATTACKS if expected[row][column][0].isdigit()]
            unknown = [row for row in ATTACKS if row not in known]
            descending = sorted(known, key=lambda row: -float(expected[row][column]))
            for order, direction in ((descending, "descending"), (descending[::-1], "ascending"), (ATTACKS, "none")):
                head.locator("button").click()
                assert head.get_attribute("aria-sort") == direction
                shown = [*order, *unknown] if direction != "none" else [*order]
                assert list(shown_numbers(page)) == [*shown, "average"]
                assert without_marks(shown_numbers(page)) == expected | {"average": average}
                assert page.locator("th:not([aria-sort=none])[aria-sort]").count() == (direction != "none")


def test_rows_follow_the_metric_and_sort_by_name(browser: "Browser", address: str, report: Report) -> None:
    with Witness(browser, address) as page:
        page.locator("thead .sort").nth(3).click()
        for metric in METRICS[:3]:
            page.locator(f"#metric-{SHORT[metric].lower()}").check()
            numbers = {row: float(texts[2]) for row, texts in expected_numbers(report, metric).items() if row != "average"}
            assert list(shown_numbers(page)) == [*sorted(numbers, key=lambda row: -numbers[row]), "average"]
        page.locator("thead .sort").nth(0).click()
        assert list(shown_numbers(page)) == [*sorted(ATTACKS), "average"]


@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_nothing_is_cut_and_the_page_does_not_scroll_sideways(browser: "Browser", address: str, width: int) -> None:
    with Witness(browser, address, width) as page:
        for details in page.locator("details").all()[:3]:
            details.locator("summary").click()
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
        assert page.evaluate(CUT) == []


def test_the_names_of_the_rows_stay_while_the_table_scrolls(browser: "Browser", address: str) -> None:
    with Witness(browser, address, 360) as page:
        box = page.locator(".scroll:has(.heat)")
        assert box.evaluate("box => box.scrollWidth > box.clientWidth")
        before = page.locator(".heat tbody th").first.bounding_box()
        box.evaluate("box => box.scrollLeft = 10000")
        after = page.locator(".heat tbody th").first.bounding_box()
        assert before is not None
        assert after is not None
        assert abs(before["x"] - after["x"]) <= 4
        last = page.locator(".heat > tbody > tr").first.locator(".place").last.bounding_box()
        assert last is not None
        assert last["x"] + last["width"] <= 360


def test_tab_reaches_every_control_and_shows_where_it_is(browser: "Browser", address: str) -> None:
    with Witness(browser, address) as page:
        controls = dict(page.evaluate(CONTROLS))
        assert len(controls) > len(ATTACKS) * len(DEFENSES)
        check_tab(page, controls)


def test_keys_operate_every_kind_of_control(browser: "Browser", address: str) -> None:
    with Witness(browser, address) as page:
        page.locator("#metric-asr").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("#metric-ra").is_checked()
        for key in ("Enter", "Space"):
            page.locator("thead .sort").nth(0).focus()
            page.keyboard.press(key)
        assert page.locator("thead th").nth(0).get_attribute("aria-sort") == "descending"
        page.locator("#dark").focus()
        page.keyboard.press("Space")
        assert page.locator("#dark").get_attribute("aria-pressed") == "true"
        page.locator("summary").first.focus()
        page.keyboard.press("Enter")
        assert page.locator("details").first.evaluate("one => one.open")
        page.locator(".place").nth(2).focus()
        page.keyboard.press("Enter")
        assert open_details(page).count() == 1
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.closest('.tip') !== null")
        page.keyboard.press("Escape")
        assert open_details(page).count() == 0
        assert page.evaluate("document.activeElement.id") == page.locator(".place").nth(2).get_attribute("id")
        page.keyboard.press("Space")
        page.keyboard.press("Tab")
        target = page.evaluate("document.activeElement.hash")
        page.keyboard.press("Enter")
        assert target.startswith("#record-")
        page.locator(f"{target}[open]").wait_for()
        assert page.locator(target).evaluate("one => one.getBoundingClientRect().top < innerHeight")


def test_the_colours_switch_and_follow_the_reader(browser: "Browser", address: str) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    with Witness(browser, address, color_scheme="dark") as page:
        dark = page.evaluate(background)
        assert page.locator("#dark").get_attribute("aria-pressed") == "true"
        page.locator("#dark").click()
        light = page.evaluate(background)
        assert page.locator("#dark").get_attribute("aria-pressed") == "false"
        page.locator("#dark").click()
        assert page.evaluate(background) == dark
    with Witness(browser, address, color_scheme="light") as page:
        assert page.evaluate(background) == light
        page.locator("#dark").click()
        assert page.evaluate(background) == dark
        page.emulate_media(media="print")
        assert page.evaluate(background) == light
        assert not page.locator("#dark").is_visible()
        assert not page.locator(".metrics").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(browser: "Browser", address: str, scheme: Any) -> None:
    with Witness(browser, address, color_scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
        for metric in METRICS:
            page.locator(f"#metric-{SHORT[metric].lower()}").check()
            found = page.evaluate(CONTRASTS, ".heat td *")
            assert len(found) >= len(ATTACKS) * len(DEFENSES)
            assert not [entry for entry in found if entry[0] < LEAST_CONTRAST]
        found = page.evaluate(CONTRASTS, "body *")
        assert len(found) > 100
        assert not [entry for entry in found if entry[0] < LEAST_CONTRAST]
        # The darkest cell is told from the palest one without a hue.
        ramp = page.evaluate(
            f"() => {{ {COLOURS} return [...document.querySelectorAll('.asr.heated')].map((one) => "
            "[Number(getComputedStyle(one).getPropertyValue('--h')), luminance(getComputedStyle(one).backgroundColor)]); }"
        )
        page.locator("#metric-asr").check()
        order = [lightness for _, lightness in sorted(ramp, key=lambda pair: pair[0])]
        assert order == sorted(order, reverse=scheme == "light")
        assert len(set(order)) > 5


@pytest.mark.parametrize("width", [360, 1280])
def test_details_appear_at_focus_and_stay_within_the_window(
    browser: "Browser", address: str, report: Report, width: int
) -> None:
    with Witness(browser, address, width) as page:
        page.keyboard.press("Tab")
        places = page.locator(".place").all()
        for place in places:
            place.focus()
            assert open_details(page).count() == 1
            assert open_details(page).get_attribute("id") == place.get_attribute("aria-describedby")
            box = open_details(page).bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["y"] >= 0
            assert box["x"] + box["width"] <= width
            assert box["y"] + box["height"] <= 800
        page.keyboard.press("Escape")
        assert open_details(page).count() == 0


def test_details_appear_under_the_pointer_and_at_a_tap(browser: "Browser", address: str) -> None:
    with Witness(browser, address) as page:
        page.locator(".place").nth(3).hover()
        page.wait_for_selector(".tip:popover-open")
        open_details(page).locator("a").first.hover()
        page.wait_for_timeout(400)
        assert open_details(page).count() == 1
        page.locator("h2").first.hover()
        page.wait_for_selector(".tip:popover-open", state="detached")
    with Witness(browser, address, 360, has_touch=True) as page:
        page.locator(".place").nth(1).tap()
        assert open_details(page).count() == 1
        page.locator("h2").first.tap()
        assert open_details(page).count() == 0


def test_figures_are_chosen_by_attack_and_defense(browser: "Browser", address: str) -> None:
    with Witness(browser, address) as page:
        attack, defense = page.locator("select[name=attack]"), page.locator("select[name=defense]")
        attack.select_option(label="sig")
        defense.select_option(label="ft")
        visible = page.locator("#seen .drawing:visible figcaption").all_inner_texts()
        assert visible == ["plane: None, None", "features: sig, ft", "curves: sig, None"]
        assert not page.locator(".nothing-seen").is_visible()
        attack.select_option(label="lc")
        defense.select_option(label="fp")
        assert page.locator(".nothing-seen").is_visible()
        place = page.locator("tr:has-text('badnets') .place").nth(4)
        place.click()
        open_details(page).get_by_text("What it did").click()
        # The browser tells of a new address a moment later.
        page.get_by_text("features: badnets, nt_ml").wait_for()
        assert page.locator("#seen .drawing:visible figcaption").nth(1).inner_text() == "features: badnets, nt_ml"
        assert defense.evaluate("one => one.selectedOptions[0].label") == "nt_ml"


def test_figures_stand_apart(browser: "Browser", report: Report, tmp_path: Path) -> None:
    drawn = [drawing for drawing in sketches(report) if drawing.kind == "plane"]
    several = [replace(drawing, name=f"{drawing.name}-{number}") for drawing in drawn for number in range(3)]
    path = tmp_path / "report.html"
    path.write_text(render_report(report, several), encoding="utf-8")
    for width in (390, 1280):
        with Witness(browser, path.as_uri(), width) as page:
            boxes = page.evaluate(
                "[...document.querySelectorAll('#seen .drawing')].map((one) => one.getBoundingClientRect().toJSON())"
            )
            assert len(boxes) == 3
            for one, other in pairwise(boxes):
                assert other["top"] - one["bottom"] >= 16 or other["left"] - one["right"] >= 16


def test_without_scripts_everything_is_there(browser: "Browser", address: str, report: Report) -> None:
    with Witness(browser, address, java_script_enabled=False) as page:
        for metric in METRICS:
            page.get_by_label(SHORT[metric], exact=True).check()
            seen = page.locator(f".heat .of.{SHORT[metric].lower()}:visible data").all_inner_texts()
            hidden = page.locator(f".heat .of:not(.{SHORT[metric].lower()}):visible").count()
            expected = [text for texts in expected_numbers(report, metric).values() for text in texts]
            assert [text.rstrip("↓") for text in seen] == [text for text in expected if text != "failed"]
            assert hidden == 0
        assert page.locator("#seen .drawing:visible").count() == len(sketches(report))
        assert not page.locator("#dark").is_visible()
        assert not page.locator(".chooser").is_visible()
        assert page.locator("thead .sort:enabled").count() == 0
        page.locator(".place").nth(2).click()
        assert open_details(page).locator("tbody tr").count() == len(METRICS)
        page.keyboard.press("Escape")
        page.locator("summary").first.click()
        assert page.locator("details").first.locator("pre").is_visible()
