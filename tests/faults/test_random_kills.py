"""Ranks killed at random, in every phase of a job, under `dlbench.supervise`: each job ends with
the weights of one that was never disturbed, and leaves no process and no half-written file."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from faults.disturbed import ROOT, assert_equal, command, environment, run

LONGEST_LIFE = 10.0
"""Seconds: the start of a rank takes about half of it, a whole run of so few steps the rest."""
KILLS_OF_A_JOB = 5
"""The supervisor waits twice as long before each further start of one job, up to a minute."""
AT_MOST = 300.0
"""Seconds from the last kill to the end of the job."""


def ranks_in(folder: Path) -> list[psutil.Process]:
    """The processes that train in ``folder``; their launchers and observers are others."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if process.cwd() == str(folder) and words[1:2] == [str(ROOT / "tests/ranks/paused.py")]:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize(
    ("ranks", "kills"),
    [
        (1, 3),
        pytest.param(1, 150, marks=pytest.mark.soak),
        pytest.param(2, 50, marks=pytest.mark.soak),
    ],
)
def test_jobs_whose_ranks_are_killed_end_as_if_they_were_not(
    street: Path, ranks: int, kills: int
) -> None:
    folder = street.parent
    status, output = run(folder, command("whole", ranks))
    assert status == 0, output
    generator, killed, jobs = random.Random(ranks), 0, 0
    while killed < kills:
        jobs += 1
        name = f"killed-{jobs}"
        log = folder / f"{name}.txt"
        supervised = [sys.executable, "-m", "dlbench.supervise", "--max-restarts", str(kills)]
        words = [*supervised, *command(name, ranks, "training.checkpoint_every=2")]
        with log.open("w") as file:
            job = subprocess.Popen(
                words, cwd=folder, env=environment(), stdout=file, stderr=subprocess.STDOUT
            )
        try:
            enough = min(kills, killed + KILLS_OF_A_JOB)
            while killed < enough and job.poll() is None:
                time.sleep(generator.uniform(0.0, LONGEST_LIFE))
                if present := ranks_in(folder):
                    generator.choice(present).kill()
                    killed += 1
            assert job.wait(AT_MOST) == 0, log.read_text()[-3000:]
        finally:
            job.kill()
            for process in ranks_in(folder):
                process.kill()
        assert "Traceback" not in "".join(
            line for line in log.read_text().splitlines(True) if line.startswith("[")
        )
        assert_equal(folder, name)
        assert not list((folder / "runs" / name).rglob(".*")), "a file that is half written"
        assert not ranks_in(folder)
        shutil.rmtree(folder / "runs" / name)
        print(f"{killed} kills in {jobs} jobs", flush=True)
