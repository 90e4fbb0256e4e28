"""`dlbench.train` with a slow last rank: ``python slowed.py STEP_S READ_S [arguments]``.

Each of its steps takes STEP_S seconds longer, and each sample that it reads READ_S.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from dlbench import callbacks, train
from dlbench.data import pipeline


def main(step_s: float, read_s: float, arguments: list[str]) -> int:
    class Slow(callbacks.StepClock):
        def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            time.sleep(step_s)

    class SlowReader(pipeline._Reader):
        def __call__(self, *what: Any) -> Any:
            time.sleep(read_s)
            return super().__call__(*what)

    if int(os.environ["HOROVOD_RANK"]) == int(os.environ["HOROVOD_SIZE"]) - 1:
        callbacks.StepClock = Slow  # type: ignore[misc]
        pipeline._Reader = SlowReader  # type: ignore[misc]
    return train.main(arguments)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
