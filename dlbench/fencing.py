"""A process beside each rank of an elastic job, which ends it when the others went on without it.

The launcher gives up a rank that is frozen or stuck, and kills it where it runs on the launcher's
host; elsewhere it can only close the ssh connection. Left alone, the rank would keep its GPU's
memory and the lock of the run folder, and where that has none write an old checkpoint over a new
one when it is let go on.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

from dlbench import rendezvous
from dlbench.errors import UserError

PERIOD_S = 5.0
MISSES = 3
"""How many times in a row, a period apart, the rank's note has to be gone."""

_beside: subprocess.Popen[bytes] | None = None


def fence(note: str, content: bytes, period_s: float = PERIOD_S) -> None:
    """Have this process killed when ``note`` on the launcher's server is no longer ``content``,
    until it ends, another program takes its place, or `lift`."""
    global _beside
    # The pipe to it closes then, which ends it too. In a session of its own: what stops the rank's
    # group is not to stop it.
    _beside = subprocess.Popen(
        [sys.executable, "-m", "dlbench.fencing", str(os.getpid()), note, content, str(period_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def lift() -> None:
    """End that process: this one is about to ask for another rank."""
    if _beside is not None:
        _beside.kill()
        _beside.wait()


def main(pid: str, note: str, content: str, period_s: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a rank that was told to end may still freeze
    misses = 0
    while not select.select([sys.stdin], [], [], float(period_s))[0]:
        try:
            is_there = rendezvous.noted(note) == content.encode()
        except UserError:  # a launcher that is gone or out of reach has not gone on
            continue
        misses = 0 if is_there else misses + 1
        if misses == MISSES and os.getppid() == int(pid):
            os.kill(int(pid), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
