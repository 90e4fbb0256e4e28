"""Errors that the user can mend, and how a command tells them."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dlbench.stopping import StoppedError

LAUNCHER_REACTS = 10.0
"""Seconds: Horovod's launcher names the first rank to end, so one that is cut off waits."""
FINAL = "DLBENCH_FINAL"
"""A variable: the file that tells `dlbench.supervise` that another start would end alike."""
JOB = "DLBENCH_JOB"
"""A variable: what all starts of one `dlbench.supervise` have in common, and no others."""
CUT_OFF = re.compile(
    "Horovod has been shut down|Horovod initialization failed"
    # Gloo's own, of a sum that was in flight: the tensor's error, not Horovod's.
    r"|gloo/transport/.*|Application timeout caused pair closure"
    # NCCL's likewise, from its documentation and Horovod's source: not tried.
    r"|NCCL async error: .*|nccl\w+ failed: (?:unhandled system error|remote process exited).*"
)
"""What a rank is told that has lost another."""
UNMET = re.compile("OOM when .*?(?= on /job)|Unable to allocate .*")
"""What TensorFlow and NumPy say of memory that they did not get."""
LESS_MEMORY = (
    "take a smaller training.batch (training.accumulate_steps keeps steps as large), "
    "training.recompute=true or data.cache=false, which each rank fills for itself; for a map, "
    "a smaller tile= or batch="
)
UNWRITABLE = (errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNUSABLE = (*UNWRITABLE, errno.EACCES)
LASTING = (*UNUSABLE, errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
"""Of a file: another start would meet it again. What a disk does on a network may pass."""


class UserError(ValueError):
    """Something the user can mend; the message says what arrived, what is allowed, what to do."""


def exit_status(
    program: str, job: Callable[[], object], on_final: Callable[[], object] = lambda: None
) -> int:
    """Run ``job`` and return its status, an int that it returns or 0; a `UserError`, and room,
    access or memory that is refused, become one line on stderr and status 2, a Ctrl-C one and 130,
    others stay as they are.

    An error on one rank ends the job: Horovod's launcher stops the other ranks. ``on_final`` is
    called where another start would end alike.
    """
    try:
        status = job()
    except StoppedError as ended:
        _note_final()
        return ended.status
    except KeyboardInterrupt:
        _tell(program, "interrupted")
        _note_final()
        return 128 + signal.SIGINT
    except UserError as error:
        _tell(program, str(error))
        if not isinstance(error, OSError) or error.errno in LASTING:
            _note_final(on_final)
        return 2
    except Exception as error:
        if told := _refused(error):
            _tell(program, told)
            _note_final(on_final)
            return 2
        if cut_off := CUT_OFF.search(str(error)):
            _tell(
                program,
                f"stopped: another rank has ended or is silent ({cut_off[0]}); see what is told of "
                "it",
            )
            time.sleep(LAUNCHER_REACTS)
            return 1
        raise
    return status if isinstance(status, int) else 0


def _refused(error: Exception) -> str | None:
    """What to tell of room, access or memory that the system refuses."""
    if isinstance(error, OSError) and error.errno in UNUSABLE:
        full = error.errno in UNWRITABLE
        what = f"cannot {'write' if full else 'use'} {error.filename or 'the output'}"
        mended = "make room, or make it writable" if full else "change its permissions"
        return f"{what}: {error.strerror}; {mended}"
    # TensorFlow's own by its name: most commands run without TensorFlow.
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        unmet = UNMET.search(str(error))
        return f"out of memory{f' ({unmet[0]})' if unmet else ''}; {LESS_MEMORY}"
    return None


def _note_final(tell: Callable[[], object] = lambda: None) -> None:
    tell()
    if path := os.environ.get(FINAL):
        with suppress(OSError):  # on another host than the supervisor's
            Path(path).touch()


def _tell(program: str, message: str) -> None:
    rank = os.environ.get("HOROVOD_RANK", "0")
    print(f"{program} (rank {rank}): {message}", file=sys.stderr, flush=True)
