"""`dlbench.train` that notes what its ranks train on: ``NOTED=FOLDER python noted.py ...``.

Each process writes a file of JSON lines: where it takes the training up, and of each step that it
has made the signature of each image that counted. With ``NOTED_PACE=S`` a step takes S seconds
more, so that there is time to change hosts; on the host ``NOTED_BROKEN`` a process dies at once,
and the others wait for it no longer than a minute.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from dlbench import callbacks, elastic, train, training

SEEN: list[list[int]] = []


def signature(image: np.ndarray) -> list[int]:
    """What tells an image (height, width, bands) of bytes from others, and stays as it is when it
    is flipped: each band's sum, and that of the squares."""
    wide = image.astype(np.int64)
    return [*wide.sum(axis=(0, 1)).tolist(), int((wide**2).sum())]


class NotedTrainer(training.Trainer):
    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, Any]:
        def note(image: np.ndarray, target: np.ndarray) -> np.float32:
            counts = (target != 255).any(axis=(1, 2))
            SEEN.extend(signature(one) for one in image[counts])
            return np.float32(0)

        noted = tf.numpy_function(note, data, tf.float32)
        with tf.control_dependencies([noted]):
            return super().train_step(data)


class NotedPosition(callbacks.Position):
    epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self.epoch = epoch
        if self._state.first or not getattr(self, "begun", False):
            write({"takes_up": [epoch, self._state.first]})
        self.begun = True

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        rate = float(self.model.optimizer.learning_rate)
        step = [self.epoch, self._state.first + batch]
        write(
            {
                "step": step,
                "rank": self._ranks.rank,
                "ranks": self._ranks.size,
                "seen": SEEN,
                "rate": rate,
            }
        )
        SEEN.clear()
        time.sleep(float(os.environ.get("NOTED_PACE", "0")))
        super().on_train_batch_end(batch, logs)


def write(content: dict[str, Any]) -> None:
    name = f"{os.environ['HOROVOD_HOSTNAME']}-{os.getpid()}.jsonl"
    with (Path(os.environ["NOTED"]) / name).open("a") as file:
        file.write(json.dumps({"time": time.time(), **content}) + "\n")


if __name__ == "__main__":
    if broken := os.environ.get("NOTED_BROKEN"):
        elastic.MEETING_S = 60.0
        if os.environ["HOROVOD_HOSTNAME"] == broken:
            os.kill(os.getpid(), signal.SIGKILL)
    callbacks.Position = NotedPosition  # type: ignore[misc]
    training.Trainer = NotedTrainer  # type: ignore[misc]
    sys.exit(train.main(sys.argv[1:]))
