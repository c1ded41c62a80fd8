"""A mistake in the settings of the cluster ends at once with one clear message, and no job is submitted."""

from pathlib import Path

import pytest
import torch
from app_runner import SMALL, bench
from cluster import Cluster

pytestmark = pytest.mark.slurm

MISTAKES = {
    "cluster.timeout_min=0": "cluster.timeout_min is 0; allowed: at least 1",
    "cluster.timeout_min=soon": "cluster.timeout_min",
    "cluster.partition=nosuch": "Slurm refused the jobs: invalid partition specified: nosuch",
    "+cluster.additional_parameters.nosuch=1": "Slurm refused the jobs: unrecognized option '--nosuch=1'",
    "cluster.timeout_mins=1": "Did you mean 'cluster.timeout_min'",
}


def refused(*settings: str) -> str:
    outcome = bench("-m", *SMALL, "attack=badnets", "defense=none", "sweep=wrong", "cluster=slurm", *settings)
    assert outcome.code == 1
    assert "Traceback" not in outcome.errors
    assert len(outcome.errors.splitlines()) <= 3
    assert not list(Path().glob("outputs/store/*"))
    return outcome.errors


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake: str, cluster: Cluster) -> None:
    following = cluster.next_job()
    assert MISTAKES[mistake] in refused(mistake)
    assert cluster.next_job() == following


def test_a_machine_without_slurm_is_named(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(workplace))
    assert "not on the PATH: sbatch" in refused()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU, and can answer for those of the jobs")
def test_the_precision_of_gpus_elsewhere_must_be_named(cluster: Cluster) -> None:
    following = cluster.next_job()
    assert "name precision=bfloat16" in refused("cluster.gpus=1")
    assert cluster.next_job() == following
