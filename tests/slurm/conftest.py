"""A Slurm for the tests in this folder, started once for all of them; they run in `make test-slurm` only."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from app_runner import workplace
from cluster import Cluster
from machine import why_not

__all__ = ["workplace"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "slurm" not in str(config.getoption("-m")):
        skip = pytest.mark.skip(reason="these start a Slurm: make test-slurm")
        for item in items:
            if item.get_closest_marker("slurm"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    pytest.importorskip("submitit")
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def cluster(started: Cluster, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The running Slurm, with no job in it, for commands of this process too; the working directory is empty."""
    monkeypatch.setenv("SLURM_CONF", str(started.conf))
    started.clear()
    return started
