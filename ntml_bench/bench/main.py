"""The command of `make bench`: measures, prints, writes a JSON file.

The file: `version` of these names, `device`, `cores`, `environment` (packages, processor, threads, revision, date),
`settings` of the run, `throughput` (results.Throughput) and `overhead` (overhead.SweepOverhead), null where not measured.
"""

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ntml_bench.errors import UserError

VERSION = 2
"""Of the JSON file's names."""
FOLDER = Path("outputs/bench")
MODELS = "resnet_tiny,airbench_small,preact_resnet18"
PROGRAM = "python -m ntml_bench.bench"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 when measured, 2 for a user's mistake, 130 for an interrupt."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{PROGRAM}: interrupted", file=sys.stderr)
        return 130
    return 0


def _run(options: argparse.Namespace) -> None:
    """Measure what was asked for; the file is there, without the second part, as soon as the first is measured."""
    # Here, because they import torch, which `--help` does without.
    from ntml_bench.app.environment import environment
    from ntml_bench.bench.overhead import check_installed, measure_overhead
    from ntml_bench.bench.report import lines
    from ntml_bench.bench.throughput import Plan, cores, measure_throughput
    from ntml_bench.engine import COMPILATIONS, Engine
    from ntml_bench.store import plain, write_json

    if options.to is not None and options.to.is_dir():
        raise UserError(f"--to names the folder {options.to}; it is the file to write")
    if options.only != "throughput":
        check_installed()
    if options.compile not in COMPILATIONS:
        raise UserError(f"--compile is '{options.compile}'; allowed: {', '.join(COMPILATIONS)}")
    engine = Engine.create(options.device, "auto", deterministic=False, compilation=options.compile)
    device = environment(engine)["device"]
    target = options.to or FOLDER / f"{re.sub('[^a-z0-9]+', '-', device.lower()).strip('-')}.json"
    result: dict[str, Any] = {
        "version": VERSION,
        "device": device,
        "cores": cores(),
        "settings": {name: getattr(options, name) for name in ("models", "seconds", "rounds", "compile", "only")},
        "throughput": None,
        "overhead": None,
    }

    def write() -> None:
        result["environment"] = environment(engine)
        write_json(target, result)

    if options.only != "overhead":
        plan = Plan(engine, options.seconds, options.rounds, _say)
        result["throughput"] = plain(measure_throughput(plan, options.models))
        write()
    if options.only != "throughput":
        result["overhead"] = plain(measure_overhead(_say))
        write()
    for line in lines(result):
        print(line)
    print(f"Written to {target}")


def _say(text: str) -> None:
    print(f"measuring {text} ...", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="How fast this machine is: throughput, and what a sweep costs.")
    parser.add_argument("--models", type=_names, default=_names(MODELS), help=f"names with commas between (default: {MODELS})")
    parser.add_argument(
        "--seconds",
        type=_positive,
        default=2.0,
        help="of one measurement, about (default: %(default)g); a few batches at least",
    )
    parser.add_argument(
        "--rounds",
        type=_count,
        default=5,
        help="measurements of each of two that are compared, in turns (default: %(default)d)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N (default: auto)")
    parser.add_argument(
        "--compile",
        default="none",
        metavar="MODE",
        help="of the project's training: none, default or reduce-overhead, as the setting of that name (default: %(default)s)",
    )
    parser.add_argument("--only", choices=("throughput", "overhead"), help="this part alone")
    parser.add_argument("--to", type=Path, metavar="FILE", help=f"JSON file to write (default: {FOLDER}/DEVICE.json)")
    return parser


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("no model is named")
    return list(dict.fromkeys(names))


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not allowed; a number above 0 is")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not allowed; a whole number of at least 1 is")
    return int(text)
