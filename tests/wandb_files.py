"""Reads a `.wandb` file back: a 7-byte header, then LevelDB log blocks of 32 KiB, each record a protobuf `Record`.

W&B 0.31 has no Python reader of its own any more. Block format: 4 bytes checksum, 2 bytes length, 1 byte type
(1 whole, 2 first, 3 middle, 4 last), then the bytes; a block's last 6 bytes or fewer are padding.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK, FILE_HEADER, PART_HEADER = 32768, 7, 7


@dataclass
class LoggedRun:
    """What a run file says."""

    run_id: str = ""
    name: str = ""
    project: str = ""
    group: str = ""
    sweep: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, str] = field(default_factory=dict)
    exit_code: int | None = None


def raw_records(content: bytes) -> Iterator[bytes]:
    position, parts = FILE_HEADER, b""
    while position + PART_HEADER <= len(content):
        left = BLOCK - position % BLOCK
        if left < PART_HEADER:
            position += left
            continue
        length = int.from_bytes(content[position + 4 : position + 6], "little")
        kind = content[position + 6]
        if kind == 0:
            return
        parts += content[position + PART_HEADER : position + PART_HEADER + length]
        position += PART_HEADER + length
        if kind in (1, 4):
            yield parts
            parts = b""


def _set(target: dict[str, Any], items: Any) -> None:
    for item in items:
        target["/".join(item.nested_key) if item.nested_key else item.key] = json.loads(item.value_json)


def read_run(path: Path) -> LoggedRun:
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]

    run = LoggedRun()
    for raw in raw_records(path.read_bytes()):
        record = Record.FromString(raw)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.run_id, run.name, run.project = record.run.run_id, record.run.display_name, record.run.project
            run.sweep = record.run.sweep_id
            run.group, run.job_type, run.tags = record.run.run_group, record.run.job_type, list(record.run.tags)
            _set(run.config, record.run.config.update)
        elif kind == "config":
            _set(run.config, record.config.update)
        elif kind == "summary":
            _set(run.summary, record.summary.update)
        elif kind == "history":
            row: dict[str, Any] = {}
            _set(row, record.history.item)
            run.history.append(row)
        elif kind == "metric":
            run.metrics[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def read_runs(folder: Path, kind: str = "*run-*") -> dict[str, LoggedRun]:
    """The runs of that kind below `folder` by name."""
    runs = [read_run(path) for path in sorted(folder.glob(f"wandb/{kind}/*.wandb"))]
    return {run.name: run for run in runs}
