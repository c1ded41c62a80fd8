"""The results as lines of text, from what the JSON file holds."""

from collections.abc import Iterator, Mapping
from typing import Any


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """What to print; `result` as written to the file, either part may be None."""
    environment = result["environment"]
    yield (
        f"{result['device']} ({environment['processor']}), {environment['threads']} threads, "
        f"torch {environment['packages']['torch']}, revision {environment['git_revision'] or 'unknown'}"
    )
    precision = "bfloat16" if environment["half_precision"] else "float32"
    yield f"precision=auto is {precision} here ({environment['precision_by']})"
    if result["throughput"] is not None:
        yield from _throughput(result["throughput"])
    if result["overhead"] is not None:
        yield from _overhead(result["overhead"])


def _throughput(found: Mapping[str, Any]) -> Iterator[str]:
    ceiling = found["ceiling"]
    yield ""
    yield (
        f"Product of {ceiling['matrix_size']} x {ceiling['matrix_size']} matrices, the ceiling: "
        + (f"bfloat16 {_giga(half)}, " if (half := ceiling["bfloat16_flop_per_second"]) else "")
        + f"float32 {_giga(ceiling['float32_flop_per_second'])} GFLOP/s"
    )
    yield ""
    yield f"{'images/s':26}{'project':>20}{'reference':>20}   ratio (lowest to highest)   share of ceiling"
    for name, model in found["models"].items():
        for what in ("training", "other_training", "inference", "other_inference"):
            row = model[what]
            if row is None:
                continue
            yield (
                f"{name + ' ' + what.removeprefix('other_'):26}"
                + "".join(f"{_rate(row[side]):>20}" for side in ("project", "reference"))
                + f"   {_ratio(row['ratio']):28}"
                + " / ".join(f"{100 * row[side]['share_of_ceiling']:.0f} %" for side in ("project", "reference"))
            )
    yield ""
    for name, model in found["models"].items():
        yield (
            f"{name}: {model['parameters']:,} parameters, {model['training_flop_per_image'] / 1e6:,.0f} MFLOP "
            f"a training image; batches of {model['training']['batch_size']} in training, "
            f"{model['inference']['batch_size']} in inference; "
            f"loader processes of the reference: {model['loader_workers']['chosen']}"
        )
        if model["large_batch"] is not None:
            large = model["large_batch"]
            yield (
                f"{name}: training with batches of {large['batch_size']}: "
                f"{large['images_per_second']['median']:,.0f} images/s, {100 * large['share_of_ceiling']:.0f} % of the ceiling"
            )
        if model["cells_at_a_time"] is not None:
            cells = model["cells_at_a_time"]
            reference = model["training"]["reference"]["images_per_second"]["median"]
            yield (
                f"{name}: {cells['cells']} cells at a time, threads each: {cells['threads_each']}: "
                f"{cells['together']['median']:,.0f} images/s together; "
                f"one with {cells['threads_alone']}: {cells['alone']['median']:,.0f}; ratio {_ratio(cells['ratio'])}; "
                f"together {cells['together']['median'] / reference:.2f} times the reference"
            )


def _overhead(found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield f"Sweeps of small cells, one at a time: start-up {found['start_up_seconds']['lowest']:.1f} s; besides it"
    for what, title in (("empty_store", "from an empty store"), ("stored", "with everything stored")):
        part = found[what]
        sweep = part["sweep"]
        yield (
            f"  {sweep['cells']} cells {title}: {sweep['wall']:.1f} s in all, {sweep['worked']:.1f} s of work, "
            f"{part['seconds_a_cell']:.2f} s a cell neither start-up nor work"
        )
    for what in ("attacks", "defenses"):
        growth = found[what]
        walls = ", ".join(f"{sweep['wall']:.1f}" for sweep in growth["sweeps"])
        yield (
            f"  {', '.join(map(str, growth['counts']))} {what}: {walls} s; one more costs {growth['wall_of_one_more']:.2f} s, "
            f"of which {growth['overhead_of_one_more']:.2f} s are not work"
        )


def _giga(flop_per_second: float) -> str:
    return f"{flop_per_second / 1e9:,.0f}"


def _rate(side: Mapping[str, Any]) -> str:
    return f"{side['images_per_second']['median']:,.0f} ({side['precision']})"


def _ratio(spread: Mapping[str, Any]) -> str:
    return f"{spread['median']:.2f} ({spread['lowest']:.2f} to {spread['highest']:.2f})"
