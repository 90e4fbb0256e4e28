"""Sums of 256 MB, in one of which the last rank is killed: ``python large_sums.py``."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from dlbench import distributed
from dlbench.config import Distributed
from dlbench.errors import exit_status

FLOATS = 64_000_000
SUMS = 50


def job() -> None:
    import tensorflow as tf

    distributed.configure_devices(1)
    ranks = distributed.start(Distributed())
    values = tf.ones([FLOATS])
    summed = tf.function(lambda: ranks.sum(values, "gradient/x"))
    begun = time.monotonic()
    summed()
    seconds = time.monotonic() - begun
    ranks.barrier()

    def die() -> None:
        time.sleep(2.5 * seconds)  # within a later one, wherever that is
        os.kill(os.getpid(), signal.SIGKILL)

    if ranks.rank == ranks.size - 1:
        threading.Thread(target=die, daemon=True).start()
    for _ in range(SUMS):
        summed()
    raise AssertionError("the last rank still lives")


if __name__ == "__main__":
    sys.exit(exit_status("sums", job))
