"""Jobs of benchmarks that fail or hang end with a message, and leave nothing behind."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks import launching

HANGS = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
print("one rank waits", flush=True)
time.sleep(600)
"""


def test_a_job_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    script, note = tmp_path / "hangs.py", tmp_path / "child"
    script.write_text(HANGS)
    with pytest.raises(launching.JobError, match=r"still ran after 5 s and was stopped.*\n.*waits"):
        launching.run([str(script), str(note)], timeout_s=5.0)
    assert ended(int(note.read_text()))


def test_a_job_ends_with_a_benchmark_that_is_killed(tmp_path: Path) -> None:
    note, job = tmp_path / "job", "import os, sys, time; open(sys.argv[1], 'w').write("
    job += "str(os.getpid())); time.sleep(600)"
    launch = f"from benchmarks import launching; launching.run(['-c', {job!r}, {str(note)!r}])"
    benchmark = subprocess.Popen([sys.executable, "-c", launch], cwd=launching.ROOT)
    while not note.exists() or not note.read_text():
        assert benchmark.poll() is None, "the job did not start"
        time.sleep(0.1)
    benchmark.kill()
    benchmark.wait()
    assert ended(int(note.read_text()))


def ended(pid: int) -> bool:
    """Whether a process is gone within seconds, or waits to be reaped."""
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


def test_a_job_that_fails_tells_its_last_words() -> None:
    with pytest.raises(launching.JobError, match="status 3:\nno such thing"):
        launching.run(["-c", "import sys; print('no such thing'); sys.exit(3)"])


def test_the_clock_advances_by_what_is_reported() -> None:
    before = launching.reported_s()
    launching.reported.append(0.25)
    assert launching.reported_s() - before == pytest.approx(0.25)


def test_no_more_slots_than_ranks() -> None:
    """horovodrun would start a rank in each."""
    assert launching.first_slots("a:2,b:2,c:1", 1) == "a:1"
    assert launching.first_slots("a:2,b:2,c:1", 3) == "a:2,b:1"
    assert launching.first_slots("a:2,b:2,c:1", 5) == "a:2,b:2,c:1"
    with pytest.raises(ValueError, match="--hosts=a:2 has 1 slots too few"):
        launching.first_slots("a:2", 3)
