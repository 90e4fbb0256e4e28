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
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from dlbench.errors import CUT_OFF, JOB, UserError, exit_status

if TYPE_CHECKING:
    from dlbench.distributed import SingleProcess

AGAIN = "DLBENCH_AGAIN"
"""A variable: how many times in a row this process has started again without meeting the others."""
MOST_AGAIN = 5
PATIENCE_S = 1800.0
"""How long a rank waits for all others to be ready or lost, and for enough hosts; longer than the
launcher's own wait for them (``--elastic-timeout``, 600 s)."""
ASSIGNED = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE")
"""What the launcher answers, in order; -1 where this process has no rank any more."""
NOTE = "dlbench/final"
"""Where the ranks of one meeting leave word, on the launcher's server, that it was the last."""

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


def met(ranks: SingleProcess) -> None:
    """To be called when the ranks have found each other: they agree on a name for the job, by which
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
    return exit_status(program, lambda: _take_part(program, job), on_final=_note_final)


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
        if cut_off is None or failures > MOST_AGAIN or _is_final():
            raise
        rank = os.environ["HOROVOD_RANK"]
        print(
            f"{program} (rank {rank}): another rank is lost ({cut_off[0]}); those that are left go "
            "on from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
    os.environ[AGAIN] = str(failures)
    _start_again()


def _has_taken_rank() -> bool:
    """Ask the launcher, which answers when all ranks have asked or are lost."""
    host, slot = os.environ["HOROVOD_HOSTNAME"], os.environ["HOROVOD_LOCAL_RANK"]
    try:
        answer = _launcher(f"rank_and_size/{host}:{slot}", PATIENCE_S)
    except OSError as error:
        raise UserError(
            f"the launcher gives no new rank ({error}): it has ended the job, for want of hosts "
            "or ranks, or cannot be reached; the same command goes on from the last checkpoint"
        ) from error
    values = answer.decode().split(",")
    if values[0] == "-1":
        return False
    os.environ.update({f"HOROVOD_{n}": v for n, v in zip(ASSIGNED, values, strict=True)})
    return True


def _note_final() -> None:
    with suppress(OSError):
        _launcher(NOTE, 10.0, b"1")


def _is_final() -> bool:
    try:
        return _launcher(NOTE, 10.0) == b"1"
    except OSError:
        return False


def _launcher(path: str, timeout: float, content: bytes | None = None) -> bytes:
    """GET, or PUT the ``content``, on the launcher's HTTP server; `OSError` where that fails."""
    address = os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"]
    port = os.environ["HOROVOD_GLOO_RENDEZVOUS_PORT"]
    request = urllib.request.Request(
        f"http://{address}:{port}/{path}", content, method="GET" if content is None else "PUT"
    )
    # No proxy: the address is of the ranks' own network.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=timeout) as answer:
        return answer.read()


def _start_again() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    # Sockets and devices that libraries hold open end with the old program.
    for descriptor in os.listdir("/proc/self/fd"):
        if int(descriptor) > 2:
            with suppress(OSError):
                os.set_inheritable(int(descriptor), False)
    os.execv(sys.executable, sys.orig_argv)
