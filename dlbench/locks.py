"""A file that one process at a time holds."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dlbench.errors import UserError


@contextmanager
def alone(file: Path, refusal: UserError) -> Iterator[None]:
    """Hold ``file``, which is made if it is absent; raise ``refusal`` where another process does.

    The kernel lets go of it when the process ends, however it ends.
    """
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        yield
