"""Figures of a report: which there are, what they say and show, and that SVG, PNG and PDF are what page and paper need."""

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from figure_reports import done_cell, exhibit, gallery, report_of, report_of_folder
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Annotation
from PIL import Image
from table_records import entry, golden, metrics, record, write_failure, write_sweep

from ntml_bench.figures.canvas import SINGLE, Key, flowed
from ntml_bench.figures.colours import DARK, LIGHT
from ntml_bench.figures.image import DOTS_PER_INCH
from ntml_bench.figures.marks import marks_of
from ntml_bench.figures.style import plain_style
from ntml_bench.figures.text import shortened, width_of
from ntml_bench.records.cells import NO_METRICS, Metrics
from ntml_bench.report.data import Report
from ntml_bench.report.figures import Drawing, drawings
from ntml_bench.report.figures.curves import stages_of
from ntml_bench.report.figures.features import progress
from ntml_bench.report.figures.gallery import difference
from ntml_bench.report.figures.names import Names

NASTY = "a/b\\c <i>\"q\" & 'é' | $x^2$ {c} \x07 \u202e 中 " + "long " * 40
HISTORY = [{"stage": "victim", "epoch": epoch, "loss": 2.0 / epoch} for epoch in range(1, 6)]


def full(tmp_path: Path, seeds: tuple[int, ...] = (0, 1)) -> Report:
    """The hand-checked sweep, looked into, with probabilities, stages and the curves of a defense."""
    cells, records = golden(seeds)
    for done in records:
        for name in ("before", "after", "floor"):
            if done[name] and done[name]["attack_success_rate"] is not None:
                done[name]["true_class_probability"] = done[name]["robust_accuracy"]
        done["history"] = list(HISTORY)
        if done["defense"] == "nt_ml":
            done["history"] += [{"stage": "non-target training", "epoch": 1, "loss": 8.0}, {"stage": "pruning", "epoch": 1}]
            done["history"] += [{"stage": "mutual learning", "epoch": step, "loss": 9.0 / step} for step in range(1, 31)]
            done["stages"] = {"student after NT": metrics(40, 10, 30) | {"true_class_probability": 25.0}}
    return report_of_folder(write_sweep(tmp_path, "full", cells, records))


def named(report: Report, name: str) -> Drawing:
    return next(drawing for drawing in drawings(report) if drawing.name == name)


def drawn(drawing: Drawing) -> Figure:
    with plain_style():
        figure = drawing.draw()
        figure.canvas.draw()
    return figure


def panels(figure: Figure) -> list[Axes]:
    """All but the sheet that they lie on."""
    return figure.axes[1:]


def texts(drawing: Drawing) -> str:
    return " ".join(element.text or "" for element in ElementTree.fromstring(drawing.svg()).iter("text"))


def test_every_attack_and_cell_gets_its_figures(tmp_path: Path) -> None:
    found = list(drawings(full(tmp_path)))
    assert [drawing.name for drawing in found] == [
        *("gallery", "gallery-badnets", "gallery-sig", "plane", "curves-badnets", "curves-sig"),
        *("confidence-badnets", "confidence-sig"),
        *(f"features-{attack}-{defense}" for attack in ("badnets", "sig") for defense in ("none", "ft", "nt_ml")),
    ]
    features = found[-1]
    assert (features.dataset, features.model, features.attack, features.defense) == (
        *("digit_scenes", "resnet_tiny"),
        *("sig", "nt_ml"),
    )
    assert [drawing.attack for drawing in found[:4]] == [None, "badnets", "sig", None]


def test_svgs_stand_in_one_page_in_its_colours(tmp_path: Path) -> None:
    ids: list[str] = []
    for drawing in drawings(full(tmp_path)):
        text = drawing.svg()
        root = ElementTree.fromstring(text)
        assert text.startswith("<svg ")
        assert root.get("role") == "img"
        assert root.get("width") is None
        assert (root.findtext("title"), root.findtext("desc")) == (drawing.title, drawing.alt)
        assert root.get("aria-labelledby") == " ".join(element.get("id", "") for element in root[:2])
        assert not re.search(r"#[0-9a-fA-F]{3,8}\b|rgb\(|https?:|url\(|<script|<style|DejaVu", text)
        assert set(re.findall(r"var\(--([^)]*)\)", text)) <= LIGHT.keys() == DARK.keys()
        # What says nothing is drawn black, in the dark too.
        assert all("fill:var(" in element.get("style", "") for element in root.iter("text"))
        shapes = [element.get("style", "") for element in root.iter("path")]
        assert all("fill:" in style for style in shapes)
        assert len(text) < 60_000
        ids += [element.get("id", "") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids)) > 20


def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    report = full(tmp_path)
    for first, second in zip(drawings(report), drawings(report), strict=True):
        if first.name in ("gallery", "plane", "curves-badnets", "confidence-sig", "features-sig-ft"):
            assert first.svg() == second.svg()
            paths = first.write(tmp_path / "one", pdf=True)
            assert [path.name for path in paths] == [f"{first.name}.png", f"{first.name}.pdf"]
            assert [path.read_bytes() for path in paths] == [
                path.read_bytes() for path in second.write(tmp_path / "two", pdf=True)
            ]


def test_files_are_as_wide_as_a_column_or_two(tmp_path: Path) -> None:
    for drawing in drawings(full(tmp_path)):
        if drawing.attack in (None, "sig") and drawing.defense in (None, "ft"):
            png, pdf = drawing.write(tmp_path, pdf=True)
            with Image.open(png) as picture:
                assert picture.width in (round(3.35 * DOTS_PER_INCH), 7 * DOTS_PER_INCH)
                assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)
                assert picture.height < 9 * DOTS_PER_INCH
            content = pdf.read_bytes()
            assert b"/CreationDate" not in content
            assert b"/Type3" not in content
            assert b"/FontFile2" in content  # letters as TrueType, in the file


def test_a_reader_s_own_settings_change_nothing(tmp_path: Path) -> None:
    import matplotlib

    drawing = named(full(tmp_path), "plane")
    before = drawing.svg()
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "text.usetex": False, "axes.grid": True}):
        assert drawing.svg() == before


def test_arrows_go_from_the_mean_before_to_the_mean_after(tmp_path: Path) -> None:
    report = full(tmp_path)
    (block,) = report.summary.blocks
    figure = drawn(named(report, "plane"))
    found = [axes for axes in panels(figure) if axes.texts]
    assert len(found) == 2
    for axes, row in zip(found, block.rows, strict=False):
        arrows = [text for text in axes.texts if isinstance(text, Annotation)]
        assert [arrow.xyann for arrow in arrows] == [
            (row.undefended.mean("attack_success_rate"), row.undefended.mean("clean_accuracy"))
        ] * 2
        ends = [(cell.mean("attack_success_rate"), cell.mean("clean_accuracy")) for cell in row.defenses.values()]
        assert [arrow.xy for arrow in arrows] == ends
        if row.attack == "sig":
            assert ends == [(15, 82), (50, 95.5)]
        points = [tuple(np.asarray(line.get_xydata())[0]) for line in axes.lines]
        assert set(ends) < set(points)
        assert (row.floor.mean("attack_success_rate"), row.floor.mean("clean_accuracy")) in points
        assert all(axes.get_ylim()[0] < up < axes.get_ylim()[1] for _, up in points)


def test_the_plane_s_text_gives_the_numbers(tmp_path: Path) -> None:
    alt = named(full(tmp_path), "plane").alt
    assert "badnets: ACC 97.0, ASR 99.0 before; after nt_ml, the best by DER, ACC 95.0, ASR 3.0." in alt
    assert "means over 2 seeds" in alt


def test_no_two_defenses_look_the_same() -> None:
    cells = [done_cell("badnets", f"ft (step={step})") for step in range(30)]
    (block,) = report_of(cells).summary.blocks
    marks = [(mark["color"], mark["marker"]) for mark in marks_of(block.defenses).values()]
    assert len(set(marks)) == len(marks) == 30


def test_curves_are_the_record_s(tmp_path: Path) -> None:
    report = full(tmp_path)
    drawing = named(report, "curves-badnets")
    training, nt_ml = panels(drawn(drawing))
    (line,) = training.lines
    assert list(np.asarray(line.get_ydata())) == [each["loss"] for each in HISTORY]
    assert list(np.asarray(line.get_xdata())) == [1, 2, 3, 4, 5]
    assert training.get_yscale() == "linear"
    nt, _, ml = sorted(nt_ml.lines, key=lambda each: np.asarray(each.get_xdata())[0])
    assert list(np.asarray(nt.get_ydata())) == [8.0]
    assert list(np.asarray(ml.get_xdata())) == list(range(2, 32))  # after the one of the stage before
    assert nt_ml.get_yscale() == "log"
    assert "seed 0" in drawing.alt
    assert "nt_ml (non-target training 8, mutual learning from 9 to 0.3)" in drawing.alt


def test_stages_are_what_has_a_loss() -> None:
    history = [{"stage": "masks", "epoch": 100, "loss": 2.0}, {"stage": "pruning", "epoch": 1, "pruned_channels": 3}]
    history += [{"stage": "masks", "epoch": 200, "loss": 1.0}, {"stage": "masks", "epoch": 300, "loss": float("nan")}]
    (masks,) = stages_of({"history": history})
    assert (masks.name, masks.epochs, masks.losses) == ("masks", (100.0, 200.0), (2.0, 1.0))


def test_confidence_shows_quantiles_and_the_stages_means(tmp_path: Path) -> None:
    report = full(tmp_path)
    drawing = named(report, "confidence-badnets")
    (axes,) = panels(drawn(drawing))
    cell = next(each for each in report.cells if (each.cell.attack, each.cell.defense) == ("badnets", "nt_ml"))
    assert cell.after is not None
    low, lower, median, upper, high = np.percentile(cell.after.true_class_probability, (5, 25, 50, 75, 95))
    spans = [tuple(np.asarray(line.get_xdata(), dtype=float)) for line in axes.lines]
    assert (low, high) in spans
    assert (median, median) in spans
    boxes = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in axes.patches]  # pyright: ignore[reportAttributeAccessIssue]
    assert boxes[-1] == pytest.approx((lower, upper))
    assert {(25.0,), (0.0,), (45.0,), (90.0,)} <= set(spans)  # the stage, before, ft, nt_ml: means of seed 0
    assert (95.0, 95.0) in spans  # the clean model
    assert f"before any defense 0.0 (median {np.median(_before(report)):.1f}); after ft 45.0" in drawing.alt
    assert "after nt_ml 90.0" in drawing.alt
    assert drawing.alt.endswith("student after NT 25.0. A clean model has 95.0.")


def _before(report: Report) -> np.ndarray:
    first = next(each.before for each in report.cells if each.cell.attack == "badnets" and each.before)
    return first.true_class_probability


def test_without_exhibits_there_are_the_means(tmp_path: Path) -> None:
    report = full(tmp_path)
    bare = replace(report, galleries=(), cells=tuple(replace(each, before=None, after=None) for each in report.cells))
    names = [drawing.name for drawing in drawings(bare)]
    assert names == ["plane", "curves-badnets", "curves-sig", "confidence-badnets", "confidence-sig"]
    drawing = named(bare, "confidence-badnets")
    (axes,) = panels(drawn(drawing))
    assert not axes.patches
    assert "median" not in drawing.alt + texts(drawing)
    assert "after nt_ml 90.0;" in drawing.alt


def test_the_map_has_every_point_once_and_both_axes_in_one_unit(tmp_path: Path) -> None:
    report = full(tmp_path)
    drawing = named(report, "features-sig-ft")
    left, right = panels(drawn(drawing))
    cell = next(each for each in report.cells if (each.cell.attack, each.cell.defense) == ("sig", "ft"))
    for axes, shown in ((left, cell.before), (right, cell.after)):
        assert shown is not None
        others, target, triggered = (np.asarray(line.get_xydata()) for line in axes.lines)
        clean = shown.clean_map
        assert np.array_equal(others, clean[shown.clean_labels != 0])
        assert np.array_equal(target, clean[shown.clean_labels == 0])
        assert np.array_equal(triggered, shown.triggered_map)
        assert np.ptp(axes.get_xlim()) == pytest.approx(np.ptp(axes.get_ylim()))
        assert len({str(line.get_marker()) for line in axes.lines}) == 3
    assert "Attack success: 90.0 % before any defense, 10.0 % after ft." in drawing.alt


def test_many_points_stay_a_small_file() -> None:
    cell = done_cell("badnets", "ft")
    report = report_of([cell])
    many = exhibit(0.5, clean=5000, triggered=5000)
    drawing = named(replace(report, cells=(replace(report.cells[0], before=many, after=many),)), "features-badnets-ft")
    assert len(drawing.svg()) < 25_000


def test_progress_is_the_way_from_the_others_to_the_target() -> None:
    shown = exhibit(0.25, clean=4000, triggered=4000)
    assert progress(shown) == pytest.approx(25, abs=1)
    assert progress(replace(shown, triggered_map=shown.triggered_map[:0])) is None
    assert progress(replace(shown, clean_map=np.zeros_like(shown.clean_map))) is None


def test_differences_are_amplified_until_they_fill_the_range() -> None:
    for shift, factor in ((0, 32), (3, 32), (12, 8), (40, 2), (100, 1), (255, 1)):
        shown = gallery("sig", shift=0)
        triggered = np.clip(np.full_like(shown.clean, 0) + shift, 0, 255).astype(np.uint8)
        found, change = difference(replace(shown, clean=np.zeros_like(shown.clean), triggered=triggered))
        assert found == factor
        assert np.unique(change).tolist() == [min(128 + factor * shift, 255)]


@pytest.mark.parametrize(("channels", "side"), [(1, 12), (3, 32), (3, 500)])
def test_pictures_are_the_images_on_whole_dots(channels: int, side: int) -> None:
    report = replace(report_of([done_cell("sig", "ft")]), galleries=(gallery("sig", channels=channels, side=side),))
    drawing = named(report, "gallery-sig")
    figure = drawn(drawing)
    pictures = [image for image in figure.findobj(AxesImage) if isinstance(image, AxesImage)]
    assert len(pictures) == 12
    for image in pictures:
        left, right, bottom, top = (edge * DOTS_PER_INCH for edge in image.get_extent())
        assert left == pytest.approx(round(left), abs=1e-6)
        assert top == pytest.approx(round(top), abs=1e-6)
        if side <= 32:
            assert (right - left) / side == pytest.approx(round((right - left) / side))
            assert image.get_interpolation() == "nearest"
        assert right - left == pytest.approx(bottom - top)
    first = np.asarray(pictures[0].get_array())
    assert np.array_equal(first[..., :channels], report.galleries[0].clean[0])
    assert "PSNR 26.5 dB, SSIM 0.876, L∞ 12 of 255" in drawing.alt
    assert "airplane" in drawing.alt
    if side <= 32:
        assert len(drawing.svg()) < 20_000


def test_an_unchanged_image_has_an_infinite_psnr() -> None:
    report = replace(report_of([done_cell("sig", "ft")]), galleries=(gallery("sig", shift=0),))
    assert "PSNR ∞ dB" in named(report, "gallery-sig").alt


def test_unfinished_and_clean_cells_are_left_out(tmp_path: Path) -> None:
    cells, records = golden()
    folder = write_sweep(tmp_path, "part", cells, records[7:])
    write_failure(tmp_path, cells[0], "RuntimeError: no")
    report = report_of_folder(folder)
    names = [drawing.name for drawing in drawings(report)]
    assert not any("badnets" in name for name in names if not name.startswith("gallery"))
    assert "plane" in names
    for drawing in drawings(report):
        drawing.svg()
    assert list(drawings(report_of_folder(write_sweep(tmp_path / "other", "empty", cells, []), looked_into=False))) == []


def test_a_sweep_of_clean_models_has_no_figures() -> None:
    clean = Metrics(97, None, None)
    report = report_of([replace(done_cell("none", "none"), before=clean, after=clean)], HISTORY, False)
    assert list(drawings(report)) == []


def test_a_cell_without_a_defense_is_one_panel(tmp_path: Path) -> None:
    drawing = named(report_of([done_cell("sig", "none")], HISTORY), "features-sig-none")
    assert len(panels(drawn(drawing))) == 1
    assert drawing.title == "Features under sig, undefended"


def test_several_data_sets_and_models_are_told_apart() -> None:
    cells = [done_cell("sig", "ft", dataset=name, model=model) for name in ("digits", "gtsrb") for model in ("a", "b")]
    found = list(drawings(report_of(cells, HISTORY)))
    assert len({drawing.name for drawing in found}) == len(found) == 2 + 4 * 4
    plane = next(drawing for drawing in found if drawing.name == "plane-gtsrb-b")
    assert plane.title.endswith("(gtsrb, b)")
    assert next(drawing for drawing in found if drawing.name == "gallery-digits-sig").dataset == "digits"


def test_seeds_that_are_not_done_leave_the_first_that_is(tmp_path: Path) -> None:
    missing = replace(done_cell("sig", "ft"), state="missing", before=NO_METRICS, after=NO_METRICS, floor=NO_METRICS)
    cells = [missing, done_cell("sig", "ft", seed=1), done_cell("sig", "ft", seed=2)]
    report = report_of(cells, HISTORY)
    assert "seed 1" in named(report, "curves-sig").alt
    assert "seed 1" in named(report, "features-sig-ft").alt
    assert "seed 1" in named(report, "confidence-sig").alt


label = st.text(min_size=1, max_size=40) | st.sampled_from([NASTY, "nt_ml (temperature=4)", "con", "..", "\ud800", "ﬁ\uffff"])


@settings(deadline=None, max_examples=5, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(label, min_size=1, max_size=2, unique=True), label)
@example([NASTY, NASTY + "!"], NASTY)
def test_labels_may_hold_anything(attacks: list[str], defense: str) -> None:
    cells = [done_cell(attack, defense) for attack in attacks]
    names = []
    for drawing in drawings(report_of(cells, HISTORY)):
        names.append(drawing.name)
        assert re.fullmatch(r"[a-z0-9_.-]{1,120}", drawing.name)
        root = ElementTree.fromstring(drawing.svg())
        assert root.findtext("desc") == drawing.alt
        (drawing.title + drawing.alt).encode()
    assert len({name.lower() for name in names}) == len(names) > 0


@given(st.lists(st.lists(label, min_size=1, max_size=3), unique_by=tuple))
def test_no_name_is_given_twice(parts: list[list[str]]) -> None:
    names = Names()
    assert len({names.new("plane", *each) for each in parts}) == len(parts)


def test_long_labels_stay_on_the_page(tmp_path: Path) -> None:
    cells = [
        done_cell("narcissus (poisoning_rate=0.05, steps=1000)", f"nt_ml (temperature={step}, alpha=2)") for step in (1, 2)
    ]
    for drawing in drawings(report_of(cells, HISTORY)):
        figure = drawn(drawing)
        width, height = figure.get_size_inches() * figure.dpi
        words = [text for text in figure.axes[0].texts if text.get_text()]
        assert len(words) > 3
        with plain_style():
            for text in words:
                box = text.get_window_extent()
                assert -1 <= box.x0 <= box.x1 <= width + 1, (drawing.name, text)
                assert -1 <= box.y0 <= box.y1 <= height + 1, (drawing.name, text)


@given(st.lists(st.text("abc ", min_size=1, max_size=90), min_size=1, max_size=12))
@settings(deadline=None)
def test_a_legend_s_lines_are_no_wider_than_the_sheet(meanings: list[str]) -> None:
    lines = flowed([Key({}, meaning) for meaning in meanings], SINGLE)
    assert sum(map(len, lines)) == len(meanings)
    for line in lines:
        assert line
        assert sum(0.22 + width_of(key.meaning, 6.0) + 0.16 for key in line) - 0.16 <= SINGLE + 1e-6


def test_a_kept_sweep_of_one_cell(tmp_path: Path) -> None:
    cell = entry("badnets", "ft")
    report = report_of_folder(write_sweep(tmp_path, "one", [cell], [record(cell, metrics(95, 5, 90), metrics(96, 99, 1))]))
    assert [drawing.name for drawing in drawings(report)] == [
        *("gallery-badnets", "plane", "curves-badnets", "features-badnets-ft"),
    ]
    for drawing in drawings(report):
        assert len(drawing.write(tmp_path, pdf=True)) == 2


def test_labels_that_differ_at_their_end_still_differ_when_shortened() -> None:
    labels = [f"nt_ml (temperature=4, student_start=backdoored, alpha={value})" for value in range(10)]
    assert len({shortened(label, 7, 1.0) for label in labels}) == 10
    assert all(width_of(shortened(label, 7, width), 7) <= width for label in labels for width in (0.2, 1, 2))


def test_panels_of_variants_say_which(tmp_path: Path) -> None:
    cells = [done_cell("sig", f"nt_ml (temperature={step}, student_start=backdoored)") for step in (1, 2, 4)]
    history = [*HISTORY, {"stage": "mutual learning", "epoch": 1, "loss": 1.0}]
    report = report_of(cells, history)
    for name in ("curves-sig", "confidence-sig"):
        assert {"temperature=1,", "temperature=2,", "temperature=4,"} <= set(texts(named(report, name)).split())
