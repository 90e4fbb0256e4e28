"""`dlbench.train` that waits for a signal: ``PAUSE_EPOCH=E PAUSE_STEP=S python paused.py ...``.

After step S of epoch E (from 1; both 0 for a place before the first) rank 0 prints "paused", and
every rank sleeps until its signal, or for as long as the others may need to get theirs. Without the
variables it is `dlbench.train`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from dlbench import callbacks, train

LONGEST = 3.0
"""Seconds, if ``PAUSE_S`` does not tell."""


class PausedClock(callbacks.StepClock):
    epoch = 0

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.pause(0)

    def pause(self, step: int) -> None:
        place = os.environ.get("PAUSE_EPOCH"), os.environ.get("PAUSE_STEP")
        if (str(self.epoch), str(step)) == place:
            print("paused", flush=True)
            time.sleep(float(os.environ.get("PAUSE_S", LONGEST)))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(batch, logs)
        self.pause(batch + 1)


if __name__ == "__main__":
    # What a shell has started in the background ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    callbacks.StepClock = PausedClock  # type: ignore[misc]
    sys.exit(train.main(sys.argv[1:]))
