"""Processes that a command starts, and their end."""

from __future__ import annotations

import ctypes
import math
import os
import signal
import subprocess
from contextlib import suppress

import psutil

from dlbench.errors import UserError

GRACE = "DLBENCH_GRACE_S"
"""A variable, which Horovod's launcher reads too: seconds that a rank has to save when it is told
to end."""
_PR_SET_PDEATHSIG = 1
"""As linux/prctl.h has it."""
_prctl = getattr(ctypes.CDLL(None), "prctl", None)  # found here: a new process is to do little


def grace_s() -> float:
    """`GRACE`, 30 by default; `UserError` where it is no number of seconds."""
    text = os.environ.get(GRACE, "30")
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0.0 <= found < math.inf:
        raise UserError(f"{GRACE}={text} is no number of seconds; give one, such as 120")
    return found


def end_with(parent: int) -> None:
    """For `subprocess`'s ``preexec_fn``: have this process, and what it becomes, get a SIGTERM when
    ``parent``, which starts it, ends, be it by SIGKILL. On Linux alone."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it has ended meanwhile
            os.kill(os.getpid(), signal.SIGTERM)


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
