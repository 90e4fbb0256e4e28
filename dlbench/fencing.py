"""A process beside a rank, which ends it when the launcher has ended or, in an elastic job, when
the others went on without it.

The launcher kills ranks on its own host. Elsewhere it can only close the ssh connection, of which
they hear nothing, and one that is killed does not even that. Left alone, a rank would train on or
stay frozen, and keep its GPU's memory and the lock of the run folder; where that has none, it would
write an old checkpoint over a new one.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import time

from dlbench import processes, rendezvous, stopping
from dlbench.errors import UserError

PERIOD_S = 5.0
MISSES = 3
"""How many times in a row, a period apart, the rank's note has to be gone."""
SILENCES = {
    errno.ECONNREFUSED: 2,
    errno.EHOSTUNREACH: 24,
    errno.ENETUNREACH: 24,
    errno.ETIMEDOUT: 120,
}
"""For how many periods a launcher has to be out of reach until it has ended: its host says so, or
is gone itself, as a pod is, or cut off. One that is stopped can be reached, for a while; its ranks
are told to save after ten minutes."""

_beside: subprocess.Popen[bytes] | None = None


def fence(note: str, content: bytes, period_s: float = PERIOD_S) -> None:
    """Have this process killed when ``note`` on the launcher's server is no longer ``content``
    (empty: whatever it is), and told to end, then killed, when the launcher has ended.

    Until it ends, another program takes its place, or `lift`.
    """
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


def fence_from_afar() -> None:
    """`fence` without a note, where the launcher is on another host; what this process prints when
    nobody reads it any more is no error then, before it has saved."""
    if not rendezvous.is_here():
        stopping.tolerate_lost_outputs()
        fence("final", b"")


def handover_s() -> float:
    """How long a rank holds the run folder at most when its launcher has ended, with its host."""
    noticed_s = SILENCES[errno.EHOSTUNREACH] * PERIOD_S + rendezvous.CONNECT_S
    return noticed_s + processes.grace_s()


def lift() -> None:
    """End that process: this one is about to ask for another rank."""
    if _beside is not None:
        _beside.kill()
        _beside.wait()


def main(pid: str, note: str, content: str, period_s: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a rank that was told to end may still freeze
    rank, misses, last_heard = int(pid), 0, time.monotonic()
    while misses < MISSES:
        if _is_over(rank, float(period_s)):
            return
        try:
            found = rendezvous.noted(note)
        except UserError as error:
            periods = SILENCES.get(getattr(error.__cause__, "errno", 0))
            if periods is None:
                last_heard = time.monotonic()
            elif time.monotonic() - last_heard > periods * float(period_s):
                os.kill(rank, signal.SIGTERM)
                if _is_over(rank, processes.grace_s()):
                    return
                break
            continue
        last_heard = time.monotonic()
        misses = 0 if not content or found == content.encode() else misses + 1
    os.kill(rank, signal.SIGKILL)


def _is_over(rank: int, within_s: float) -> bool:
    return bool(select.select([sys.stdin], [], [], within_s)[0]) or os.getppid() != rank


if __name__ == "__main__":
    main(*sys.argv[1:])
