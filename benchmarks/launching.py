"""Processes that a benchmark starts: one job on one rank or, by ``horovodrun``, on several."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dlbench import processes

ROOT = Path(__file__).parents[1]
HOROVODRUN = Path(sys.executable).with_name("horovodrun")
TIMEOUT_S = 300.0
"""A job that has not ended by then hangs, as where a rank waits for one that is gone."""
GRACE = 10.0
"""Seconds that a stopped job has to end by itself: nothing that it could save is of use."""
TOLD = 3000
"""Characters of a failed job's output that are told."""

reported: list[float] = []


def reported_s() -> float:
    """A clock that advances by what launched processes report: pytest-benchmark then shows their
    steps rather than their launches."""
    return math.fsum(reported)


class JobError(RuntimeError):
    """A job failed, or hung and was stopped; the message holds the end of its output."""


@dataclass(frozen=True)
class Spec:
    """What every rank of a job does, see `benchmarks.rank_job`."""

    kind: str
    workload: str
    """The workload's id, by which a planted fault finds it."""
    experiment: dict[str, Any]
    warmup: int
    steps: int


def launch(
    spec: Spec, ranks: int = 1, timeout_s: float = TIMEOUT_S, hosts: str | None = None
) -> dict[str, Any]:
    """Run ``spec`` on so many ranks in processes of their own; what `rank_job.run` returns.

    ``hosts``, such as "a:2,b:2", share the checkout and the folder for temporary files.
    """
    with tempfile.TemporaryDirectory(prefix="dlbench-job-") as folder:
        given, found = Path(folder, "spec.json"), Path(folder, "found.json")
        given.write_text(json.dumps(asdict(spec)))
        run(["-m", "benchmarks.rank_job", str(given), str(found)], ranks, timeout_s, hosts=hosts)
        result: dict[str, Any] = json.loads(found.read_text())
        return result


def run(
    arguments: Sequence[str],
    ranks: int = 1,
    timeout_s: float = TIMEOUT_S,
    folder: Path = ROOT,
    hosts: str | None = None,
) -> str:
    """The output of ``python ARGUMENTS`` in ``folder``; `JobError` if it fails or is still there
    after ``timeout_s``, when all its processes have been ended, as they are told to be where this
    one is killed."""
    command = [sys.executable, *arguments]
    if ranks > 1:
        where = [] if hosts is None else ["-H", first_slots(hosts, ranks)]
        command = [str(HOROVODRUN), "-np", str(ranks), *where, *command]
    # A file: pipes stay open as long as any rank that the launcher left behind.
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=partial(processes.end_with, os.getpid()),
        )
        try:
            status: int | None = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            processes.end(process, GRACE)
        log.seek(0)
        output = log.read()
    what = f"{' '.join(arguments)} on {ranks} rank(s)"
    if status is None:
        raise JobError(
            f"{what} still ran after {timeout_s:g} s and was stopped; its output ends with\n"
            f"{output[-TOLD:]}"
        )
    if status:
        raise JobError(f"{what} ended with status {status}:\n{output[-TOLD:]}")
    return output


def first_slots(hosts: str, ranks: int) -> str:
    """As many slots of ``hosts`` as ranks: of more, horovodrun starts a rank in each."""
    chosen = []
    for host in hosts.split(","):
        name, _, slots = host.partition(":")
        if taken := min(int(slots), ranks):
            chosen.append(f"{name}:{taken}")
            ranks -= taken
    if ranks:
        raise ValueError(f"--hosts={hosts} has {ranks} slots too few")
    return ",".join(chosen)
