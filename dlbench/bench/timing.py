"""Seconds per step, with forced completion and a stated warm-up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil

Result = TypeVar("Result")


@dataclass(frozen=True)
class Timing:
    """What one launch measured, in seconds."""

    warmup_s: tuple[float, ...]
    """The steps left out of every figure; the first holds tracing and compilation."""
    step_s: tuple[float, ...]
    """Every measured step; none is discarded."""
    wall_s: float
    """Start of the first measured step to the end of the last: the divisor of a throughput."""

    @property
    def time_to_first_step(self) -> float:
        return (self.warmup_s or self.step_s)[0]

    @property
    def median(self) -> float:
        return float(np.median(self.step_s))

    @property
    def iqr(self) -> float:
        """Interquartile range."""
        low, high = np.percentile(self.step_s, (25, 75))
        return float(high - low)

    def __str__(self) -> str:
        return (
            f"median {self.median * 1e3:.3f} ms, IQR {self.iqr * 1e3:.3f} ms, "
            f"n {len(self.step_s)} after {len(self.warmup_s)} warm-up steps"
        )


class StepTimer:
    """Time steps that somebody else runs (a training loop): `start` before each, `stop` after.

    The caller completes the step before `stop`: TensorFlow returns from a GPU step before it ends.
    """

    def __init__(self, warmup: int) -> None:
        if warmup < 0:
            raise ValueError(f"warmup is {warmup}; allowed are 0 steps or more")
        self._warmup = warmup
        self._started: int | None = None
        self._spans: list[tuple[int, int]] = []

    def start(self) -> None:
        assert self._started is None, "start() twice without stop()"
        self._started = time.perf_counter_ns()

    def stop(self) -> None:
        now = time.perf_counter_ns()
        assert self._started is not None, "stop() without start()"
        self._spans.append((self._started, now))
        self._started = None

    def timing(self) -> Timing:
        """The steps so far; `ValueError` when all of them were warm-up."""
        measured = self._spans[self._warmup :]
        if not measured:
            raise ValueError(
                f"{len(self._spans)} steps ran, all within the warm-up of {self._warmup}; "
                "run more steps or warm up for fewer"
            )
        seconds = [(end - start) * 1e-9 for start, end in self._spans]
        return Timing(
            warmup_s=tuple(seconds[: self._warmup]),
            step_s=tuple(seconds[self._warmup :]),
            wall_s=(measured[-1][1] - measured[0][0]) * 1e-9,
        )


def measure(
    step: Callable[[], Result],
    *,
    warmup: int,
    rounds: int,
    synchronise: Callable[[Result], object] | None,
) -> Timing:
    """Run ``step`` ``warmup + rounds`` times and time each, waiting until its work is done.

    ``synchronise`` gets the step's result and returns once it exists (reading a value off the
    device does); None states that the step itself returns no earlier. The counts are fixed, not
    calibrated, so that all ranks issue the same collectives.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; at least 1 step must be measured")
    timer = StepTimer(warmup)
    for _ in range(warmup + rounds):
        timer.start()
        result = step()
        if synchronise is not None:
            synchronise(result)
        timer.stop()
    return timer.timing()


def since_process_start() -> float:
    """Seconds since this process began, interpreter and imports included; to 0.01 s on Linux."""
    stat = Path("/proc/self/stat")
    if not stat.exists():
        return time.time() - psutil.Process().create_time()
    # Not create_time there: it adds whole seconds, and wall time can be set.
    ticks = int(stat.read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
