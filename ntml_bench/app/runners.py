"""Who runs the cells of a sweep: threads of this process, or worker processes; how many, and what each has of the machine."""

import os
from collections.abc import Callable
from typing import Protocol

import torch

from ntml_bench.app.cluster import LocalConfig
from ntml_bench.app.schedule import Task
from ntml_bench.app.settings import Settings
from ntml_bench.app.workers import WorkerProcess
from ntml_bench.engine import device_of


class Runner(Protocol):
    """Runs one task after the other, in a thread of its own."""

    def begin(self) -> None: ...

    def run(self, task: Task, say: Callable[[str], None]) -> None:
        """Raises what the task raises."""
        ...

    def close(self) -> None: ...


class ThisProcess:
    """Runs tasks where it is, each with `threads` threads of torch."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def begin(self) -> None:
        torch.set_num_threads(self.threads)

    def run(self, task: Task, say: Callable[[str], None]) -> None:
        task.run(say)

    def close(self) -> None:
        pass


def runners_of(settings: Settings, single: bool) -> list[Runner]:
    """As many as cells run at a time; `single`: the one for a cell that runs alone.

    On a GPU one, and a worker process a GPU. On a CPU two cells at a time, each with half of the cores, do more than one
    after the other with all of them: the kernels are small. `workers` says otherwise. The number of threads decides the last
    bits of a sum, so a deterministic cell computes with one on a CPU, wherever it runs and however many run beside it.
    """
    general, cluster = settings.general, settings.cluster
    on_cpu = device_of(general.device).type == "cpu"
    gpus = [] if on_cpu or general.device.startswith("cuda:") else visible_gpus()
    cores = usable_cores()
    processes = isinstance(cluster, LocalConfig) and not single
    count = general.workers or (min(2, cores) if on_cpu else max(1, len(gpus)) if processes else 1)
    if single:
        count = 1
    threads = torch.get_num_threads()
    if on_cpu:
        threads = 1 if general.deterministic else max(1, cores // count)
    if single:
        return [ThisProcess(threads)]
    if isinstance(cluster, LocalConfig):
        return [WorkerProcess(cluster.retries, threads, gpus[number % len(gpus)] if gpus else None) for number in range(count)]
    return [ThisProcess(threads) for _ in range(count)]


def usable_cores() -> int:
    """The cores that this process may use; in a Slurm job those of the job, to which not every cluster binds its processes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    granted = os.environ.get("SLURM_CPUS_ON_NODE", "")
    return min(cores, int(granted)) if granted.isdecimal() and int(granted) else cores


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return [str(index) for index in range(torch.cuda.device_count())]
