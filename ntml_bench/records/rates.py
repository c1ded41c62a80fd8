"""What a row says of an attack that poisons far more of the images, or far fewer, than its publication.

How much is published is planned with the cell; older manifests do not say it, and of them nothing is said.
"""

from collections.abc import Iterable

from ntml_bench.records.cells import Cell
from ntml_bench.records.labels import option_of

FAR = 10.0
"""As a factor: a rate beyond it is another attack than the published one, which a reader must see at once."""
RATE = "poisoning_rate"


def rate_remark(cells: Iterable[Cell]) -> str:
    """`8 %`: the share of the training images that the attack of a row poisons, where it is far from the publication's.

    Nothing else ("") and nothing where the label names the rate already, as that of an ablation does.
    """
    for cell in cells:
        rate = _far_rate(cell)
        if rate is not None and f"{RATE}=" not in cell.attack:
            return _percent(rate)
    return ""


def rate_lines(cells: Iterable[Cell]) -> list[str]:
    """A sentence on the rates behind the attacks' names; none where there are none."""
    far = dict.fromkeys(
        f"{option_of(cell.attack)} {_percent(rate)} (published {_percent(cell.published_rate)})"
        for cell in cells
        if cell.published_rate is not None and (rate := _far_rate(cell)) is not None
    )
    if not far:
        return []
    return [f"Poisons, as a share of the training images, more than {FAR:g} times off the publication's: {', '.join(far)}."]


def _far_rate(cell: Cell) -> float | None:
    rate, published = (cell.settings.get("attack") or {}).get(RATE), cell.published_rate
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not rate or not published:
        return None
    return float(rate) if max(rate / published, published / rate) > FAR else None


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
