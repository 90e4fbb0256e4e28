"""`dlbench.train` with a sudden end: ``python dying.py EPOCH STEP [arguments of dlbench.train]``.

The last rank is killed as by the kernel when memory runs out, after STEP steps of EPOCH (from 1);
with ``DYING_SIGNAL=SIGSTOP`` it is frozen, with ``none`` it does nothing for two minutes while its
threads go on, as one that waits for a disk.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from dlbench import callbacks, train


def main(epoch: int, step: int, arguments: list[str]) -> int:
    class DyingClock(callbacks.StepClock):
        epoch = 0

        def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
            super().on_epoch_begin(epoch, logs)
            self.epoch = epoch + 1

        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            super().on_train_batch_end(batch, logs)
            last = int(os.environ.get("HOROVOD_SIZE", 1)) - 1
            mine = int(os.environ.get("HOROVOD_RANK", 0))
            if mine == last and (self.epoch, batch + 1) == (epoch, step):
                time.sleep(1.0)  # the last epoch's checkpoint is on its way to the disk
                how = os.environ.get("DYING_SIGNAL", "SIGKILL")
                if how == "none":
                    time.sleep(120.0)
                else:
                    os.kill(os.getpid(), signal.Signals[how])

    callbacks.StepClock = DyingClock  # type: ignore[misc]
    return train.main(arguments)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
