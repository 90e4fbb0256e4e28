"""Faults put into a launch on purpose, to see whether the report finds and names them.

    DLBENCH_PLANTED="slowdown:train-step/segnet/float32:0.05" pytest benchmarks/ ...

holds one fault, or several parted by commas; WORKLOAD is a workload's id, or a pattern like
``train-step/*``:

slowdown:WORKLOAD:FRACTION         every step takes so much longer
slow-rank:WORKLOAD:RANK:FRACTION   on this rank alone, before the ranks meet
input-stall:WORKLOAD:SECONDS       every sample is read so much later
memory:WORKLOAD:FRACTION           the process holds so much more than its peak

Nothing outside benchmarks/ reads the variable. The launch says in its header and in its summary
what is planted, each rank that is hit has it under ``conditions.planted`` in its record, and the
setup's variables hold it; but the fingerprint leaves it out, so that a planted launch is compared
as the same setup, and what the comparison finds must come from its measurements.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import numpy as np

from dlbench.bench.memory import INTERVAL_S, high_water_mark
from dlbench.data.dataset import DataSet, Sample
from dlbench.errors import UserError

VARIABLE = "DLBENCH_PLANTED"
KINDS = {"slowdown": 3, "slow-rank": 4, "input-stall": 3, "memory": 3}
"""Fields of each kind."""
SPUN_S = 1e-3
"""A sleep ends so late at worst; what is left is spun."""
Result = TypeVar("Result")


class PlantedError(UserError):
    """The variable does not say what to plant."""


@dataclass(frozen=True)
class Fault:
    kind: str
    workload: str
    rank: int | None
    amount: float
    text: str


def faults() -> list[Fault]:
    """Those of the variable; `PlantedError` tells what it should hold."""
    return [_fault(text) for text in os.environ.get(VARIABLE, "").split(",") if text.strip()]


def _fault(text: str) -> Fault:
    fields = text.strip().split(":")
    try:
        if len(fields) != KINDS[fields[0]]:
            raise ValueError
        rank = int(fields[2]) if fields[0] == "slow-rank" else None
        amount = float(fields[-1])
        if not 0.0 < amount < np.inf:
            raise ValueError
    except (KeyError, ValueError):
        raise PlantedError(
            f"{VARIABLE} holds {text!r}; allowed are slowdown:WORKLOAD:FRACTION, "
            "slow-rank:WORKLOAD:RANK:FRACTION, input-stall:WORKLOAD:SECONDS and "
            "memory:WORKLOAD:FRACTION, parted by commas, with numbers above 0"
        ) from None
    return Fault(fields[0], fields[1], rank, amount, text.strip())


def of(workload: str, rank: int = 0, *kinds: str) -> list[Fault]:
    """The faults that hit this rank of ``workload``, of all ``kinds`` by default."""
    return [
        fault
        for fault in faults()
        if fnmatchcase(workload, fault.workload)
        and fault.rank in (None, rank)
        and (not kinds or fault.kind in kinds)
    ]


def step(workload: str, run: Callable[[], Result], rank: int = 0) -> Callable[[], Result]:
    """``run``, made slower where a slowdown is planted; itself where none is."""
    fraction = sum(fault.amount for fault in of(workload, rank, "slowdown", "slow-rank"))
    if not fraction:
        return run
    last_s = 0.0

    def slowed() -> Result:
        nonlocal last_s
        # Before the step, in whose collectives the other ranks then wait; by the time of the last.
        pause(last_s * fraction)
        start = time.perf_counter()
        result = run()
        last_s = time.perf_counter() - start
        return result

    return slowed


def reading(workload: str, dataset: DataSet, rank: int = 0) -> DataSet:
    """``dataset``, whose samples come later where an input stall is planted."""
    delay_s = sum(fault.amount for fault in of(workload, rank, "input-stall"))
    if not delay_s:
        return dataset
    slow, read = copy(dataset), dataset.read

    def late(*arguments: Any, **named: Any) -> Sample:
        time.sleep(delay_s)
        return read(*arguments, **named)

    slow.read = late  # type: ignore[method-assign]
    return slow


def grow(workload: str, rank: int = 0) -> None:
    """Hold so much more memory than this process ever had, where that is planted, until the
    sampler of peak memory has seen it."""
    import psutil

    fraction = sum(fault.amount for fault in of(workload, rank, "memory"))
    if not fraction:
        return
    wanted = high_water_mark() * (1.0 + fraction)
    held = np.ones(max(0, int(wanted) - psutil.Process().memory_info().rss), np.uint8)
    time.sleep(4 * INTERVAL_S)
    del held


def pause(seconds: float) -> None:
    """Return after ``seconds``, exact to microseconds."""
    end = time.perf_counter() + seconds
    time.sleep(max(0.0, seconds - SPUN_S))
    while time.perf_counter() < end:
        pass
