"""Three hosts with links of their own, by plain ``horovodrun -H``: one job, a cut, a slow link."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from faults.conftest import NoteFault
from faults.rank_jobs import EPOCHS, SOON, arguments, epochs, from_ranks
from ranks.hosts import ROOT, Hosts, missing
from street_scenes import draw_street

from dlbench import checkpoint

pytestmark = [
    pytest.mark.slow,  # three TensorFlows start on as few cores as there are
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]
PROGRAM = str(ROOT / "tests/ranks/paused.py")
HOROVODRUN = [str(Path(sys.executable).with_name("horovodrun")), "-np", "3", "-H"]
LONGEST = 400.0
"""Seconds that a job of three ranks may take where nothing is wrong."""
OWN = [
    "training.threads=1",
    # What batch-norm takes out again, such as a bias before it, has a gradient of rounding alone,
    # which Adam would blow up to whole steps.
    "optimizer.name=sgd",
]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    place = tmp_path_factory.mktemp("hosts")
    draw_street(place / "street")
    with Hosts(place) as made:
        yield made


@pytest.fixture(scope="module")
def wanted(hosts: Hosts, launch: Callable[..., Any]) -> dict[str, np.ndarray]:
    """What three ranks of one host end with."""
    command = ["-m", "dlbench.train", *arguments("here"), *OWN]
    here = launch(command, hosts.folder, ranks=3, timeout=LONGEST)
    assert here.status == 0, here.output
    return weights(hosts.folder, "here")


@pytest.fixture(autouse=True)
def ended(hosts: Hosts) -> Iterator[None]:
    """What a failed test leaves on the hosts is not there in the next one."""
    yield
    left = [process for host in hosts.names for process in hosts.running(host)]
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=10)


class Job:
    """A job on the three hosts, with what it has printed."""

    def __init__(
        self, hosts: Hosts, program: list[str], places: str = "a:1,b:1,c:1", **variables: str
    ) -> None:
        own = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "PATH": "/usr/bin:/bin"}
        self._hosts, self._log = hosts, hosts.folder / "output.txt"
        with self._log.open("w") as file:
            self.process = hosts.start(
                "a",
                [*HOROVODRUN, places, sys.executable, *program],
                env=own | variables,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_for(self, text: str, count: int) -> None:
        end = time.monotonic() + LONGEST
        while self.output.count(text) < count:
            assert self.process.poll() is None, self.output[-3000:]
            assert time.monotonic() < end, self.output[-3000:]
            time.sleep(0.05)

    def end(self, timeout_s: float = LONGEST) -> int:
        try:
            return self._hosts.wait(self.process, timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still there after {timeout_s} s:\n{self.output[-3000:]}")


def weights(folder: Path, name: str) -> dict[str, np.ndarray]:
    return checkpoint.load(folder / "runs" / name / "checkpoints" / "last.npz")[0]


def assert_close(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """To rounding: of three ranks Horovod adds up in an order that changes."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_three_hosts_end_like_three_ranks_of_one(
    hosts: Hosts, wanted: dict[str, np.ndarray]
) -> None:
    job = Job(hosts, ["-m", "dlbench.train", *arguments("apart"), *OWN])
    assert job.end() == 0, job.output
    assert not hosts.left()
    record = json.loads((hosts.folder / "runs/apart/record.json").read_text())
    assert [rank["host"] for rank in record["ranks"]] == ["a", "b", "c"]
    assert_close(weights(hosts.folder, "apart"), wanted)


@pytest.mark.parametrize("host", ["c", "a"])
def test_a_cut_link_ends_the_job_and_the_next_start_resumes(
    hosts: Hosts, wanted: dict[str, np.ndarray], note_fault: NoteFault, host: str
) -> None:
    """That of a host with a rank, or of the launcher's, where rank 0 is."""
    command = [PROGRAM, *arguments(f"cut-{host}"), *OWN]
    job = Job(hosts, command, PAUSE_EPOCH="3", PAUSE_STEP="1")
    job.wait_for("paused", count=3)
    hosts.cut(host)
    begun = time.monotonic()
    try:
        status = job.end(2 * SOON)
        took = time.monotonic() - begun
        left = hosts.left(SOON)
    finally:
        hosts.join(host)
    print(f"the launcher ended {took:.0f} s after the cut")
    assert status != 0
    assert not left
    assert took < SOON
    told = "stopped: another rank has ended or is silent"
    for rank in {"c": (0, 1), "a": (0,)}[host]:  # nothing comes over a link that is cut
        assert len(from_ranks(job.output, f"(rank {rank}): {told}")) == 1, job.output
    assert not from_ranks(job.output, "Traceback")
    note_fault(
        f"the link of {'a host' if host == 'c' else 'the first host'} is cut", job.output,
        f"(rank 0): {told}", "the time since the last checkpoint",
    )  # fmt: skip

    again = Job(hosts, command)
    assert again.end() == 0, again.output
    assert f"resuming after epoch 2 of {EPOCHS}" in again.output
    assert epochs(hosts.folder / f"runs/cut-{host}") == ["1", "2", "3", "4"]
    assert_close(weights(hosts.folder, f"cut-{host}"), wanted)


@pytest.mark.parametrize("is_frozen", [False, True])
def test_a_launcher_that_dies_leaves_no_rank_on_other_hosts(
    hosts: Hosts, wanted: dict[str, np.ndarray], note_fault: NoteFault, is_frozen: bool
) -> None:
    """With all that runs on its host, as a pod; the next one is started at once. A rank that is
    frozen keeps the others from saving."""
    places, name = "b:1,c:2", f"left-{is_frozen}"
    command = [PROGRAM, *arguments(name), *OWN]
    more = {"PAUSE_EPOCH": "3", "PAUSE_STEP": "1", "PAUSE_S": "25", "DLBENCH_GRACE_S": "20"}
    job = Job(hosts, command, places, **more)
    job.wait_for("paused", count=3)
    ranks = {one.pid for host in "bc" for one in hosts.running(host) if PROGRAM in one.cmdline()}
    if is_frozen:
        psutil.Process(max(ranks)).suspend()
    for process in hosts.running("a"):
        process.kill()
    job.process.wait(SOON)
    again = Job(hosts, command, places)
    psutil.wait_procs([psutil.Process(pid) for pid in ranks if psutil.pid_exists(pid)], SOON)
    assert not [pid for pid in ranks if psutil.pid_exists(pid)]
    assert again.end() == 0, again.output
    assert not hosts.left()
    # Two steps are an epoch here.
    resuming = f"resuming after epoch {2 if is_frozen else 3} of {EPOCHS}\n"
    assert resuming in again.output
    assert_close(weights(hosts.folder, name), wanted)
    note_fault(
        f"the launcher's host dies{', and a rank is frozen' if is_frozen else ''}", again.output,
        resuming.strip(),
        "the time since the last checkpoint" if is_frozen else "nothing",
    )  # fmt: skip


def test_a_slow_link_costs_time_alone(hosts: Hosts, note_fault: NoteFault) -> None:
    """At 10 Mbit/s 1.4 MB of gradients take seconds a step."""
    for host in hosts.names:
        hosts.shape(host, "10mbit")
    wide = ["model.options.width=0.5", "training.epochs=1"]
    job = Job(hosts, ["-m", "dlbench.train", *arguments("slow"), *OWN, *wide])
    try:
        assert job.end() == 0, job.output
    finally:
        for host in hosts.names:
            hosts.shape(host, hosts.rate)
    assert not hosts.left()
    record = json.loads((hosts.folder / "runs/slow/record.json").read_text())
    parameters = re.search(r"\(([\d,]+) parameters\)", job.output)
    assert parameters is not None
    # A ring of three sends 4/3 of the bytes; some of the parameters have no gradient.
    least_s = 4 / 3 * 4 * int(parameters[1].replace(",", "")) / (10e6 / 8)
    steps_s = record["ranks"][0]["step_s"]
    assert min(steps_s) > 0.9 * least_s
    assert all(rank["comm_wait_s"] > 0.5 * rank["wall_s"] for rank in record["ranks"])
    note_fault(
        "the links of all hosts are slow (10 Mbit/s)", job.output, "samples/s on 3 rank(s)",
        "time",
    )  # fmt: skip
