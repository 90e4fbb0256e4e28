"""Hosts that come and go: what a process of an elastic job does when the number of ranks changes.

    horovodrun --min-np 2 --max-np 8 --host-discovery-script ./hosts.sh python -m dlbench.train

All ranks end after the same step and save, or have lost one that died. Then each process starts its
own command again, in its place, so that nothing of the old number of ranks is left in it; it asks
the launcher for its new rank and goes on from the newest checkpoint. A host that has gone is told
that it has none.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from dlbench import fencing, rendezvous
from dlbench.errors import CUT_OFF, JOB, UserError, exit_status

if TYPE_CHECKING:
    from dlbench.distributed import SingleProcess

AGAIN = "DLBENCH_AGAIN"
"""A variable: how many times in a row this process has started again without meeting the others."""
MOST_AGAIN = 5
PATIENCE_S = 7200.0
"""How long a rank waits for its new number. The launcher has its ``--elastic-timeout`` (600 s) for
the other ranks, and again for hosts."""
ASSIGNED = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE")
"""What the launcher answers, in order; -1 where this process has no rank any more."""
MEETING_S = 180.0
"""How long ranks that start wait for one that does not come: as long as one may take to start."""
_POLL_S = 0.1

_hosts_have_changed = threading.Event()


class RanksChangedError(Exception):
    """The ranks have saved where they are and are to start again."""


def is_elastic() -> bool:
    """Whether the launcher lets hosts come and go."""
    return os.environ.get("HOROVOD_ELASTIC") == "1"


def have_hosts_changed() -> bool:
    """Whether the launcher has told this process so, which it tells rank 0 alone."""
    return _hosts_have_changed.is_set()


def is_again() -> bool:
    """Whether this process was a rank of the job before."""
    return AGAIN in os.environ


class RankAbsentError(UserError):
    """A rank has not come to where all are to meet."""


def meet() -> None:
    """Return when all ranks of an elastic job have come here. `RankAbsentError`, on all of them,
    where one does not: Horovod itself would wait half a minute, and then abort the process."""
    end = time.monotonic() + MEETING_S
    rank, host = os.environ["HOROVOD_RANK"], os.environ["HOROVOD_HOSTNAME"]
    here, process = f"here-{rank}", f"{host}:{os.getpid()}".encode()
    if rendezvous.noted(here) not in (None, process):
        raise RankAbsentError(f"another process has come as rank {rank}, so this one was given up")
    rendezvous.note(here, process)
    missing = list(range(int(os.environ["HOROVOD_SIZE"])))
    while missing and not rendezvous.noted("lost") and time.monotonic() < end:
        if rendezvous.noted(f"here-{missing[0]}"):
            missing.pop(0)
        else:
            time.sleep(_POLL_S)
    if missing or rendezvous.noted("lost"):
        rendezvous.note("lost")
        who = f"rank {missing[0]} has not come" if missing else "a rank has left"
        raise RankAbsentError(f"{who}; see what is told of the others and of their hosts")
    fencing.fence(here, process)


def met(ranks: SingleProcess) -> None:
    """To be called when the ranks have met: they agree on a name for the job, by which
    ``resume=false`` counts for its first start alone."""
    if not is_elastic():
        return
    os.environ[JOB] = ranks.gather(os.environ.get(JOB) or secrets.token_hex(8))[0]
    if is_again():
        os.environ[AGAIN] = "0"


def run(program: str, job: Callable[[], object]) -> int:
    """`exit_status` of ``job``; in an elastic job, over as many numbers of ranks as it takes."""
    if not is_elastic():
        return exit_status(program, job)
    return exit_status(
        program, lambda: _take_part(program, job), on_final=lambda: rendezvous.note("final")
    )


def _take_part(program: str, job: Callable[[], object]) -> None:
    from dlbench import distributed

    # Before it asks for a rank: of hosts that come after that it is told.
    distributed.listen_for_hosts(_hosts_have_changed.set)
    if is_again() and not _has_taken_rank():
        print(f"{program}: {os.environ['HOROVOD_HOSTNAME']} has left the job", flush=True)
        return
    try:
        job()
        return
    except RanksChangedError:
        failures = 0
    except Exception as error:
        failures = int(os.environ.get(AGAIN, 0)) + 1
        cut_off = CUT_OFF.search(str(error))
        is_loss = cut_off is not None or isinstance(error, RankAbsentError)
        if not is_loss or failures > MOST_AGAIN or rendezvous.noted("final"):
            rendezvous.note("lost")
            raise
        rank, reason = os.environ["HOROVOD_RANK"], cut_off[0] if cut_off else error
        print(
            f"{program} (rank {rank}): another rank is lost ({reason}); those that are left go on "
            "from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
    os.environ[AGAIN] = str(failures)
    _start_again()


def _has_taken_rank() -> bool:
    """Ask the launcher, which answers when all ranks have asked or are lost."""
    host, slot = os.environ["HOROVOD_HOSTNAME"], os.environ["HOROVOD_LOCAL_RANK"]
    answer = rendezvous.ask(f"rank_and_size/{host}:{slot}", PATIENCE_S)
    values = (answer or b"-1").decode().split(",")
    if values[0] == "-1":
        return False
    os.environ.update({f"HOROVOD_{n}": v for n, v in zip(ASSIGNED, values, strict=True)})
    return True


def _start_again() -> None:
    fencing.lift()
    sys.stdout.flush()
    sys.stderr.flush()
    # Sockets and devices that libraries hold open end with the old program.
    for descriptor in os.listdir("/proc/self/fd"):
        if int(descriptor) > 2:
            with suppress(OSError):
                os.set_inheritable(int(descriptor), False)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
