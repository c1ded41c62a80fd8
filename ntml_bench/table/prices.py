"""`price.png`, `price.csv`, `price.md`: what tuned defenses do at each of their strengths, and which of them are taken."""

from collections.abc import Iterable, Iterator, Sequence

from ntml_bench.records.curves import Curve, Point, attacked, curves_of
from ntml_bench.records.labels import value_text
from ntml_bench.records.numbers import Metrics
from ntml_bench.records.rows import csv_text
from ntml_bench.records.statistic import Statistic, statistic
from ntml_bench.records.summary import NONE, Block, Summary
from ntml_bench.records.tuned import Value
from ntml_bench.records.tuned_view import READING, tuning_lines
from ntml_bench.records.view import NO_NUMBER, heading_of, reconstructions
from ntml_bench.table.markdown import escaped, table_line

FILES = {"csv": "price.csv", "md": "price.md", "png": "price.png"}
"""By the format of the table that they go with."""
COLUMNS = ("dataset", "model", "attack", "defense", "seed", "setting", "value")
ON_VALIDATION = ("validation_images", "validation_accuracy", "fall", "standard_error", "taken_at_prices")
ON_TEST = ("clean_accuracy", "attack_success_rate", "robust_accuracy")
HEADS = ("taken by", "validation: accuracy", "fall", "its error", "test: ACC lost", "ASR", "RA")
Found = list[tuple[Block, list[Curve]]]


def render_prices(summary: Summary, formats: Iterable[str]) -> dict[str, bytes | None]:
    """The files of these formats; None for those of a sweep in which nothing was tuned, or nothing can be drawn."""
    wanted = {name: FILES[name] for name in formats if name in FILES}
    found = [(block, curves) for block in summary.blocks if (curves := curves_of(summary, block))]
    return {file: _rendered(name, summary, found) if found else None for name, file in wanted.items()}


def _rendered(name: str, summary: Summary, found: Found) -> bytes | None:
    if name == "png":
        return _image(summary, found)
    render = {"csv": _csv, "md": _markdown}[name]
    return render(summary, found).encode()


def _image(summary: Summary, found: Found) -> bytes | None:
    # Imported here: matplotlib takes a third of a second.
    from ntml_bench.figures.image import image_of
    from ntml_bench.figures.price import Panel, averaged, figure_of
    from ntml_bench.figures.style import plain_style

    several = len(found) > 1
    panels = [
        Panel(f"{attack} ({block.dataset}, {block.model})" if several else attack, tuple(curves))
        for block, of_block in found
        for attack, curves in attacked(of_block).items()
    ]
    if not panels:
        return None
    block = found[0][0]
    about = summary.sweep if several else f"{summary.sweep}: {block.dataset}, {block.model}, {averaged(block)}"
    with plain_style():
        return image_of(figure_of(panels, about), "png")


def _csv(summary: Summary, found: Found) -> str:
    """A line a candidate and seed; one without a value is the undefended model."""
    return csv_text((*COLUMNS, *ON_VALIDATION, *ON_TEST), (line for _, curves in found for line in _csv_lines(curves)))


def _csv_lines(curves: Sequence[Curve]) -> Iterator[list[str]]:
    for curve in curves:
        for run in curve.runs:
            choice = run.choice
            place = [curve.dataset, curve.model, curve.attack, curve.defense, str(run.seed), choice.setting]

            def at(value: Value | None, run=run) -> str:
                return " ".join(f"{price:g}" for price, taken in sorted(run.taken.items()) if taken == value)

            images = str(choice.validation_images)
            validated = [images, f"{choice.accuracy_before:.2f}", "", "", at(None)]
            yield [*place, "", *validated, *_numbers(run.before)]
            for each in choice.candidates:
                on_validation = [f"{number:.2f}" for number in (each.accuracy, each.fall, each.standard_error)]
                yield [*place, value_text(each.value), images, *on_validation, at(each.value), *_numbers(each.after)]


def _numbers(metrics: Metrics) -> list[str]:
    values = (getattr(metrics, name) for name in ON_TEST)
    return ["" if value is None else f"{value:.2f}" for value in values]


def _markdown(summary: Summary, found: Found) -> str:
    lines = [f"# {escaped(summary.sweep)}: at the same price", ""]
    for block, curves in found:
        lines += [f"## {escaped(heading_of(block))}", ""]
        for attack in dict.fromkeys(curve.attack for curve in curves):
            lines += [f"**{escaped(attack)}**", "", table_line(["defense", "strength", *HEADS])]
            lines.append(table_line(["---", "---", "---", *["---:"] * (len(HEADS) - 1)]))
            for curve in curves:
                if curve.attack == attack:
                    lines += [table_line(list(map(escaped, line))) for line in _lines(curve)]
            lines.append("")
    lines += [f"- {escaped(text)}" for text in (READING, ABOUT, *tuning_lines(summary.cells), *reconstructions(summary))]
    return "\n".join(lines) + "\n"


ABOUT = (
    "Means over seeds, ± sample standard deviations. Taken by: how many seeds take that strength at each price. Fall: points of"
    " accuracy lost on the validation images, with the mean of its standard errors. ACC lost, ASR, RA: on the test set."
)


def _lines(curve: Curve) -> Iterator[list[str]]:
    before = [run.choice.accuracy_before for run in curve.runs]
    yield [curve.defense, NONE, _taken(curve, None), _text(statistic(before)), "", "", *_tested(curve.start)]
    for value, point in curve.points.items():
        found = [each for run in curve.runs for each in run.choice.candidates if each.value == value]
        accuracy, fall = (statistic([getattr(each, name) for each in found]) for name in ("accuracy", "fall"))
        error = statistic([each.standard_error for each in found])
        names = [curve.defense, f"{curve.setting}={value_text(value)}", _taken(curve, value)]
        yield [*names, _text(accuracy), _text(fall), f"{error.mean:.1f}" if error else "", *_tested(point)]


def _taken(curve: Curve, value: Value | None) -> str:
    """`price 1: 2 of 3`, for each price at which a seed takes it."""
    parts = []
    for price in curve.prices:
        taken = [run.taken[price] for run in curve.runs if price in run.taken]
        if value in taken:
            parts.append(f"price {price:g}: {taken.count(value)} of {len(taken)}")
    return ", ".join(parts)


def _tested(point: Point) -> list[str]:
    return [_text(found) for found in (point.lost, point.attack_success_rate, point.robust_accuracy)]


def _text(found: Statistic | None) -> str:
    if found is None:
        return NO_NUMBER
    return f"{found.mean:.1f}" if found.deviation is None else f"{found.mean:.1f} ± {found.deviation:.1f}"
