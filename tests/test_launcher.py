"""How the installed Horovod's launcher ends a rank: it lets it save, whatever shell started it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

RANK = """
import signal, subprocess, sys, time
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
programs = [sys.executable, "-c", deaf], ["sleep", "60"]
helpers = [subprocess.Popen(program, **quiet) for program in programs]
def save(*_):
    time.sleep(float(sys.argv[1]))
    print("saved", flush=True)
    for helper in helpers:
        helper.kill()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
print("up", flush=True)
time.sleep(60)
"""
LAUNCHER = """
import sys, threading
from horovod.runner.common.util import safe_shell_exec
if __name__ == "__main__":
    class Told(threading.Event):
        def write(self, text):
            sys.stdout.write(text)
            if "up" in text:
                self.set()
        def flush(self):
            sys.stdout.flush()
    told = Told()
    sys.exit(safe_shell_exec.execute(sys.argv[1], stdout=told, events=[told]))
"""


def ended(folder: Path, shell: str, saving_s: float, **variables: str) -> tuple[int, bool, float]:
    """The status that the launcher learns of a rank that is told to end, whether it has saved, and
    the seconds of it all."""
    (folder / "rank.py").write_text(RANK)
    (folder / "launcher.py").write_text(LAUNCHER)
    rank = f"{shlex.quote(sys.executable)} {folder}/rank.py {saving_s}"
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, folder / "launcher.py", f"exec {shell} -c {shlex.quote(rank)}"],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    return done.returncode, "saved" in done.stdout, time.monotonic() - begun


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_a_rank_is_told_and_has_time_to_save(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell.split()[0]) is None:
        pytest.skip(f"there is no {shell}")
    assert ended(tmp_path, shell, 5.5)[:2] == (143, True), "5 s are too few"


def test_one_that_takes_longer_is_killed(tmp_path: Path) -> None:
    status, has_saved, took_s = ended(tmp_path, "sh", 50.0, DLBENCH_GRACE_S="0.5")
    assert status != 0
    assert not has_saved
    assert took_s < 20


def test_what_is_no_number_of_seconds_is_refused() -> None:
    command = [str(Path(sys.executable).with_name("horovodrun")), "-np", "1", "true"]
    done = subprocess.run(
        command, env=os.environ | {"DLBENCH_GRACE_S": "long"}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == (
        "horovodrun: DLBENCH_GRACE_S=long is no number of seconds; give one, such as 120\n"
    )
