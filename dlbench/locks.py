"""A file that one process at a time holds."""

from __future__ import annotations

import errno
import fcntl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dlbench.errors import LASTING, UserError

WITHOUT_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""What file systems say that have none, as Lustre and NFS where they are mounted so."""

_POLL_S = 0.2


@contextmanager
def alone(file: Path, refusal: UserError, patience_s: float = 0.0) -> Iterator[None]:
    """Hold ``file``, which is made with its folder if it is absent; raise ``refusal`` where another
    process does, and still does after ``patience_s``, and `UserError` where it cannot be made. A
    file system without locks is told.

    The kernel lets go of it when the process ends, however it ends.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = file.open("w")
    except OSError as error:
        if error.errno not in LASTING:
            raise
        in_the_way = error.errno in (errno.EEXIST, errno.ENOTDIR)
        reason = "a file or a broken link is in the way" if in_the_way else error.strerror
        raise UserError(
            f"cannot use {error.filename}: {reason}; mend that, or choose another folder"
        ) from error
    with lock:
        end = time.monotonic() + patience_s
        is_told = False
        try:
            while not _is_taken(lock):
                if time.monotonic() >= end:
                    raise refusal
                if not is_told:
                    told = f"another process holds {file}: waiting up to {patience_s:.0f} s"
                    print(told, flush=True)
                    is_told = True
                time.sleep(_POLL_S)
        except OSError as error:
            if error.errno not in WITHOUT_LOCKS:
                raise
            print(
                f"warning: the file system of {file} has no locks ({error.strerror}): nothing "
                f"keeps another process out of {file.parent}; see to it that there is none",
                file=sys.stderr,
                flush=True,
            )
        yield


def _is_taken(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
