"""Which rank the others wait for, and what it spends its time on."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from dlbench.report.records import Rank

CLEARLY = 1.1
"""A straggler is busy this many times as long as the median of the other ranks."""


@dataclass(frozen=True)
class Straggler:
    """One rank, busy ``factor`` times as long as the median of the others."""

    rank: int
    host: str
    factor: float
    cause: str
    """``input``: it waits for its batches; ``samples``: it has more of them; else ``compute``."""

    def __str__(self) -> str:
        return (
            f"rank {self.rank} on {self.host}: {self.factor:.2f} x the others' time, {self.cause}"
        )


def find(ranks: Sequence[Rank]) -> Straggler | None:
    """The straggler among the ranks of one launch; None if there is none, or none can be known.

    All ranks of a synchronous job have the same wall time. What tells them apart is how much of it
    they do not spend waiting for the others: computing, and waiting for their own input.
    """
    busy = [r.wall_s - r.comm_wait_s for r in ranks if r.comm_wait_s is not None]
    if len(ranks) < 2 or len(busy) < len(ranks):
        return None
    slowest = max(range(len(ranks)), key=busy.__getitem__)
    others = [rank for rank in ranks if rank is not ranks[slowest]]
    usual = statistics.median(busy[:slowest] + busy[slowest + 1 :])
    if usual <= 0 or busy[slowest] < CLEARLY * usual:
        return None
    found = ranks[slowest]
    excess = busy[slowest] - usual
    waits = [rank.input_wait_s for rank in others if rank.input_wait_s is not None]
    cause = "compute"
    if waits and (found.input_wait_s or 0.0) - statistics.median(waits) > excess / 2:
        cause = "input"
    # Who has half of its excess from having more to do is not slow.
    if found.samples > (1 + excess / usual / 2) * statistics.median(r.samples for r in others):
        cause = "samples"
    return Straggler(found.rank, found.host, busy[slowest] / usual, cause)
