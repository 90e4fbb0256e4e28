"""`dlbench.train` whose last rank gets no more memory: ``python limited.py HOW [arguments]``.

After its first step it may take `ROOM` beyond what it has. HOW is ``refused``, by a limit on
its addresses, so that an allocation fails, or a group of processes (cgroup, version 1) with a limit
on pages, so that the kernel kills it once they are used.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Any

import psutil

from dlbench import callbacks, train

ROOM = 32 << 20
"""Bytes: less than one of the job's activations takes, more than its data do."""


def main(how: str, arguments: list[str]) -> int:
    class Limited(callbacks.StepClock):
        is_limited = False

        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            super().on_train_batch_end(batch, logs)
            if self.is_limited:
                return
            self.is_limited = True
            if how == "refused":
                limit = psutil.Process().memory_info().vms + ROOM
                resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            else:
                (Path(how) / "cgroup.procs").write_text(str(os.getpid()))

    if int(os.environ["HOROVOD_RANK"]) == int(os.environ["HOROVOD_SIZE"]) - 1:
        callbacks.StepClock = Limited  # type: ignore[misc]
    return train.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
