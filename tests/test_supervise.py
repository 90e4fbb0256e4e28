"""Restarts of a command that dies, and when there are none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from terminals import Terminal

from dlbench import supervise
from dlbench.errors import UserError, exit_status

COUNTING = """
import os, pathlib, sys
starts = pathlib.Path("starts")
number = len(starts.read_text()) if starts.exists() else 0
starts.write_text("x" * (number + 1))
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(supervise, "FIRST_PAUSE", 0.01)
    return tmp_path


def run(body: str, *options: str) -> int:
    return supervise.main([*options, sys.executable, "-c", COUNTING + body])


def starts() -> int:
    return len(Path("starts").read_text())


def test_a_command_that_dies_is_started_again(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("if number < 2: os.kill(os.getpid(), 9)") == 0
    assert starts() == 3
    assert "ended with status 137; again in 0 s (restarts left: 2)" in capfd.readouterr().err


def test_the_restarts_have_a_limit(capfd: pytest.CaptureFixture[str]) -> None:
    assert run("sys.exit(5)", "--max-restarts", "1") == 5
    assert starts() == 2
    assert "ended with status 5; it has been started 2 times" in capfd.readouterr().err


def test_what_only_the_user_can_mend_is_not_tried_again() -> None:
    own = str(Path(__file__).parents[1])
    job = "def job(): raise errors.UserError('no such key')\n"
    body = f"sys.path.insert(0, {own!r})\nfrom dlbench import errors\n{job}"
    assert run(body + "sys.exit(errors.exit_status('test', job))") == 2
    assert starts() == 1


def test_a_signal_is_handed_on_and_ends_it() -> None:
    body = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
pathlib.Path("ready").touch()
time.sleep(60)
"""

    def stop() -> None:
        while not Path("ready").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    assert run(body) == 7
    assert starts() == 1


ENDLESS = """
import pathlib, signal, sys, time
def end(*_):
    pathlib.Path("ended").touch()
    sys.exit(7)
signal.signal(signal.SIGTERM, end)
pathlib.Path("ready").touch()
for _ in range(600):
    time.sleep(0.1)
    if pathlib.Path("enough").exists():
        sys.exit(0)
"""
"""A command that notes that it was told to end."""
SUPERVISE = [sys.executable, "-m", "dlbench.supervise", sys.executable, "-c", ENDLESS]


def started(start: Callable[..., subprocess.Popen[bytes]], words: list[str]) -> Any:
    """A supervisor in a process of its own, whose command runs."""
    own = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = start(words, env=own)
    wait_for("ready")
    return process


def wait_for(name: str) -> None:
    end = time.monotonic() + 30.0
    while not Path(name).exists():
        assert time.monotonic() < end, f"waited for {name} in vain"
        time.sleep(0.02)


def test_a_terminal_that_is_closed_ends_it() -> None:
    with Terminal() as terminal:
        process = started(terminal.start, SUPERVISE)
        terminal.close()
        assert process.wait(30.0) == 7
    assert Path("ended").exists()


def test_under_nohup_it_goes_on() -> None:
    process = started(subprocess.Popen, ["nohup", *SUPERVISE])
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    Path("enough").touch()
    assert process.wait(30.0) == 0
    assert not Path("ended").exists()


def test_a_supervisor_that_is_killed_leaves_nothing_behind() -> None:
    process = started(subprocess.Popen, SUPERVISE)
    process.kill()
    process.wait()
    wait_for("ended")


def test_a_command_that_does_not_exist(capfd: pytest.CaptureFixture[str]) -> None:
    assert supervise.main(["./absent"]) == 2
    assert "cannot start ./absent: No such file or directory" in capfd.readouterr().err
    with pytest.raises(SystemExit):
        supervise.main([])
    assert "give the command that trains" in capfd.readouterr().err


def test_nothing_is_noted_without_a_supervisor(place: Path) -> None:
    def job() -> None:
        raise UserError("no such key")

    assert exit_status("test", job) == 2
    assert not list(place.iterdir())


def test_a_run_that_begins_anew_does_so_once() -> None:
    """`resume=false` sets aside what was there before the job, not what its first start made."""
    own = str(Path(__file__).parents[1])
    body = f"""
sys.path.insert(0, {own!r})
from dlbench.config import Experiment
from dlbench.runs import RunFolder
folder = RunFolder(pathlib.Path("run"))
experiment = Experiment.model_validate({{"resume": False}})
resumed = folder.prepare(experiment)
last = folder.checkpoint("last")
last.parent.mkdir(exist_ok=True)
with last.open("a") as file:
    file.write(f"{{number}} {{resumed}} ")
sys.exit(number % 3 < 2)
"""
    assert run(body) == 0
    assert starts() == 3
    assert Path("run/checkpoints/last.npz").read_text() == "0 False 1 True 2 True "
    assert run(body) == 0
    assert starts() == 6
    assert Path("run/checkpoints/last.npz").read_text() == "3 False 4 True 5 True "
    (aside,) = Path().glob("run.2*")
    assert (aside / "checkpoints/last.npz").read_text() == "0 False 1 True 2 True "
