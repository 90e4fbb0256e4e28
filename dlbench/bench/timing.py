"""Seconds per step, and since the process began."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Timing:
    """What one launch measured, in seconds."""

    step_s: tuple[float, ...]
    """Every step; none is discarded."""
    wall_s: float
    """Start of the first step to the end of the last: the divisor of a throughput."""


def measure(step: Callable[[], object], rounds: int) -> Timing:
    """Call ``step`` ``rounds`` times and time each; it returns when its work is done.

    The count is fixed, not calibrated, so that all ranks issue the same collectives.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; at least 1 step must be measured")
    spans = []
    for _ in range(rounds):
        begun = time.perf_counter_ns()
        step()
        spans.append((begun, time.perf_counter_ns()))
    return Timing(
        step_s=tuple((end - begun) * 1e-9 for begun, end in spans),
        wall_s=(spans[-1][1] - spans[0][0]) * 1e-9,
    )


def since_process_start() -> float:
    """Seconds since this process began, interpreter and imports included; to 0.01 s on Linux."""
    stat = Path("/proc/self/stat")
    if not stat.exists():
        return time.time() - psutil.Process().create_time()
    # Not create_time there: it adds whole seconds, and wall time can be set.
    ticks = int(stat.read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
