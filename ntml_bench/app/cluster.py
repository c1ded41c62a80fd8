"""Where the cells of a sweep run: the settings of the group `cluster`. They change no number and are part of no key."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ntml_bench.errors import unknown
from ntml_bench.schema import build, number


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """`threads`: in threads of one process. `name` is that of the YAML file."""

    name: str


@dataclass(frozen=True, kw_only=True)
class LocalConfig(ClusterConfig):
    """`local`: worker processes on this machine. `retries` of a cell whose worker was killed."""

    retries: int = number(at_least=0)


@dataclass(frozen=True, kw_only=True)
class SlurmConfig(ClusterConfig):
    """`slurm`: a job a cell. What is None is left to the cluster."""

    partition: str | None
    account: str | None
    qos: str | None
    timeout_min: int = number(at_least=1)
    cpus: int | None = number(at_least=1)
    gpus: int | None = number(at_least=0)
    mem_gb: int | None = number(at_least=1)
    array_parallelism: int = number(at_least=1)
    requeues: int = number(at_least=0)
    signal_delay_s: int = number(at_least=1)
    setup: list[str]
    additional_parameters: dict[str, Any]


CLUSTERS: dict[str, type[ClusterConfig]] = {"threads": ClusterConfig, "local": LocalConfig, "slurm": SlurmConfig}


def read_cluster(values: Mapping[str, Any]) -> ClusterConfig:
    """Typed settings of a cluster; UserError for a mistake."""
    name = str(values.get("name"))
    if name not in CLUSTERS:
        raise unknown("cluster", name, CLUSTERS)
    return build(CLUSTERS[name], values, "cluster")
