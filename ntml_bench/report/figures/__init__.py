"""The figures of a report: for the page as SVG, for slides and papers as PNG and PDF."""

from collections.abc import Iterator
from dataclasses import replace

from ntml_bench.figures.text import clean
from ntml_bench.report.data import Report
from ntml_bench.report.figures.confidence import confidences
from ntml_bench.report.figures.curves import curves
from ntml_bench.report.figures.drawing import Drawing
from ntml_bench.report.figures.features import features
from ntml_bench.report.figures.gallery import galleries
from ntml_bench.report.figures.names import Names
from ntml_bench.report.figures.places import datasets_of, places_of
from ntml_bench.report.figures.plane import planes
from ntml_bench.report.figures.price import prices
from ntml_bench.report.figures.ranks import rankings

__all__ = ["Drawing", "drawings"]


def drawings(report: Report) -> Iterator[Drawing]:
    """Every figure that the report has the data for; none is drawn before it is asked for its SVG or its files."""
    for drawing in _drawings(report):
        yield replace(drawing, title=clean(drawing.title), alt=clean(drawing.alt))


def _drawings(report: Report) -> Iterator[Drawing]:
    names = Names()
    datasets = datasets_of(report.summary)
    for dataset in datasets:
        yield from galleries(dataset, report.galleries, names, several=len(datasets) > 1)
    for place in places_of(report, names):
        for kind in (prices, planes, rankings, curves, confidences, features):
            yield from kind(place)
