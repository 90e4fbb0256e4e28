"""Elastic jobs on hosts of their own, of which one is out of reach: the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults.conftest import NoteFault
from faults.elastic_job import ElasticJob, numbered_pictures
from faults.test_elastic import SAMPLES, arguments, assert_each_sample_once, meta
from ranks.hosts import Hosts, missing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]
SOON = 60.0
"""Seconds after the job within which nothing of it is left, on a host that was cut off either."""
LOST = "what came after the last checkpoint is made again"


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    numbered_pictures(tmp_path / "street", SAMPLES)
    with Hosts(tmp_path, "abcd") as made:
        yield made


def output_without_rank_0(hosts: Hosts, disturb: Callable[[ElasticJob], object]) -> str:
    """Of a job that ``disturb`` takes rank 0 from, and that goes on to its end."""
    steps = arguments("training.checkpoint_every=2")
    with ElasticJob(hosts.folder, steps, pace_s=0.3, timeout_s=40, apart=hosts) as job:
        job.wait_for_step(1, 2, 3)
        disturb(job)
        assert job.wait() == 0, job.output
        assert not hosts.left(SOON)
        assert_each_sample_once(job)
        assert [change["ranks"] for change in meta(hosts.folder)["changes"]] == [3, 2]
        assert job.output.count("is given up with its host: no word of it") == 1
        assert "Traceback" not in job.output
        return job.output


def test_a_rank_that_is_frozen_on_another_host_than_the_launcher(
    hosts: Hosts, note_fault: NoteFault
) -> None:
    """Rank 0, which holds the run folder: the launcher cannot reach it, the process beside it
    can. Its host is then taken off the list, of which the launcher would tell it."""

    def freeze(job: ElasticJob) -> None:
        frozen = job.host(0)
        job.process(0).suspend()
        job.set_hosts(tuple(name for name in hosts.names[1:] if name != frozen))

    note_fault(
        "elastic, on hosts of their own: rank 0 of 3 is frozen (SIGSTOP)",
        output_without_rank_0(hosts, freeze), "is given up with its host", LOST,
    )  # fmt: skip


def test_a_host_that_is_cut_off(hosts: Hosts, note_fault: NoteFault) -> None:
    note_fault(
        "elastic, on hosts of their own: the host of rank 0 is cut off",
        output_without_rank_0(hosts, lambda job: hosts.cut(job.host(0))),
        "is given up with its host", LOST,
    )  # fmt: skip
