"""What clean accuracy buys, of the defenses that were tuned at a price."""

from collections.abc import Iterator, Sequence

from ntml_bench.figures.price import Panel, averaged, figure_of
from ntml_bench.records.curves import Curve, Point, attacked, curves_of
from ntml_bench.records.summary import Summary
from ntml_bench.report.figures.drawing import Drawing
from ntml_bench.report.figures.places import Place


def prices(place: Place) -> Iterator[Drawing]:
    """One figure, a panel an attack; none where no defense was tuned."""
    block = place.block
    summary = Summary("", tuple(entry.cell for entry in place.cells), (block,))
    by_attack = attacked(curves_of(summary, block))
    if by_attack:
        panels = [Panel(attack, tuple(curves)) for attack, curves in by_attack.items()]
        about = averaged(block)
        yield Drawing(
            name=place.new_name("price"),
            kind="price",
            dataset=block.dataset,
            model=block.model,
            title=f"Attack success over clean accuracy lost, each defense at its strengths{place.where}",
            alt=_alt([curve for panel in panels for curve in panel.curves], about),
            draw=lambda: figure_of(panels, about),
        )


def _alt(curves: Sequence[Curve], about: str) -> str:
    def text(point: Point) -> str:
        found = point.attack_success_rate
        return f"{point.lost.mean:.1f} lost" + ("" if found is None else f", ASR {found.mean:.1f}")

    parts = [
        f"{curve.attack}, {curve.defense}: " + "; ".join(f"at {price:g} {text(point)}" for price, point in curve.taken.items())
        for curve in curves
    ]
    return (
        "A curve for each defense from its weakest strength to its strongest, of clean accuracy lost (to the right, in points)"
        f" and attack success (upwards, in percent), {about}. Taken at each price: {'. '.join(parts)}."
    )
