"""Processes that a command starts, and their end."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress

import psutil


def end(process: subprocess.Popen[bytes], grace: float) -> None:
    """Stop what is left of a ``process`` that leads a session, and of all that it started: by
    SIGTERM, and after ``grace`` seconds by force."""
    started: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        leader = psutil.Process(process.pid)
        # Horovod's ranks are in groups of their own.
        started = [leader, *leader.children(recursive=True)]
    try:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        psutil.wait_procs(started, timeout=grace)
    finally:
        for one in started:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
