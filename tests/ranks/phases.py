"""`dlbench.train` one rank of which is killed in a phase: ``python phases.py PHASE [arguments]``.

`PHASES` has the places, each met once and always the same; the time of the file NAME.killed,
after the run, tells when. In "launcher" the rank kills its launcher instead.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import psutil

from dlbench import checkpoint, distributed, fencing, train

OTHER_S = 1.0
"""What the other rank has to come to where it waits for this one."""


def run_name() -> str:
    return next(a.removeprefix("name=") for a in sys.argv if a.startswith("name="))


def wait_for_checkpoint() -> None:
    """Until that of the first epoch is there."""
    while not Path("runs", run_name(), "checkpoints", "last.npz").exists():
        time.sleep(0.05)


def kill(process: int) -> None:
    Path(f"{run_name()}.killed").touch()
    os.kill(process, signal.SIGKILL)


def die() -> None:
    kill(os.getpid())


def at_start() -> None:
    def start(*_: Any) -> Any:
        time.sleep(OTHER_S)
        die()

    distributed.start = start  # type: ignore[assignment]


def in_init() -> None:
    """Once Gloo listens for the other rank, which waits for the address."""

    def watch() -> None:
        while not any(c.status == psutil.CONN_LISTEN for c in psutil.Process().net_connections()):
            pass
        die()

    def prepared() -> None:
        time.sleep(OTHER_S)
        threading.Thread(target=watch, daemon=True).start()

    fencing.fence_from_afar = prepared


def in_first_step() -> None:
    """While it is traced."""
    import tensorflow as tf

    from dlbench.training import Trainer

    @tf.autograph.experimental.do_not_convert  # which would warn of this file
    def step(*_: Any) -> Any:
        die()

    Trainer.train_step = step  # type: ignore[method-assign]


def in_mid_step() -> None:
    """In the second epoch's second step, between the backward pass and the sum of a gradient."""
    import tensorflow as tf

    passes, sum_gradients = count(1), distributed.Horovod.sum_gradients

    def passed(gradient: Any) -> Any:
        if next(passes) == 4:
            wait_for_checkpoint()
            die()
        return gradient

    def sum_all(self: Any, gradients: list[Any], names: list[str], scaled: bool = False) -> Any:
        (place,) = (i for i, name in enumerate(names) if name.endswith("classifier/kernel"))
        one = gradients[place]
        late = tf.ensure_shape(tf.numpy_function(passed, [one], one.dtype), one.shape)
        return sum_gradients(
            self, [*gradients[:place], late, *gradients[place + 1 :]], names, scaled
        )

    distributed.Horovod.sum_gradients = sum_all  # type: ignore


def within_file(module: ModuleType, name: str, time_of_it: int) -> None:
    """When half of a file that ``module`` writes is on the disk."""
    written, write_atomically = count(1), checkpoint.write_atomically

    def write_half(path: Path, write: Callable[[IO[bytes]], Any], *more: Any, **named: Any) -> None:
        def half(file: IO[bytes]) -> None:
            content = io.BytesIO()
            write(content)
            file.write(content.getvalue()[: content.tell() // 2])
            file.flush()
            die()

        is_it = path.name == name and next(written) == time_of_it
        write_atomically(path, half if is_it else write, *more, **named)

    module.write_atomically = write_half  # type: ignore[attr-defined]


def in_checkpoint() -> None:
    within_file(checkpoint, "last.npz", 2)


def in_report() -> None:
    from dlbench import results

    within_file(results, "model.keras", 1)


def in_evaluation() -> None:
    """In the first of them, of its first batch."""
    from dlbench.prediction import Predictor

    def predict(*_: Any, **__: Any) -> Any:
        wait_for_checkpoint()
        die()

    Predictor.__call__ = predict  # type: ignore[method-assign]


def without_launcher() -> None:
    """From the second epoch's first step on."""
    from dlbench import callbacks

    steps = count(1)

    class Clock(callbacks.StepClock):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            super().on_train_batch_end(batch, logs)
            if next(steps) == 3:
                words = ((one, one.cmdline()) for one in psutil.Process().parents())
                (launcher,) = (one for one, w in words if w[1:] and w[1].endswith("/horovodrun"))
                kill(launcher.pid)
                time.sleep(3 * OTHER_S)  # until this rank is told to end, and both in this epoch

    callbacks.StepClock = Clock  # type: ignore[misc]


PHASES: dict[str, tuple[int, Callable[[], None]]] = {
    "start": (1, at_start),
    "init": (1, in_init),
    "first step": (1, in_first_step),
    "mid-step": (1, in_mid_step),
    "checkpoint": (0, in_checkpoint),
    "evaluation": (1, in_evaluation),
    "report": (0, in_report),
    "exit": (1, lambda: None),
    "launcher": (0, without_launcher),
}
"""Which rank is killed, and what has it come to that."""


def main(phase: str, arguments: list[str]) -> int:
    rank, prepare = PHASES[phase]
    is_it = int(os.environ["HOROVOD_RANK"]) == rank
    if is_it:
        prepare()
    status = train.main(arguments)
    if is_it and phase == "exit":
        die()
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
