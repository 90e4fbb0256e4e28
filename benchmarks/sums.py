"""How long sums over ranks take by their size, with nothing else to do.

What `dlbench.report.cost_model` is fitted to, so every job on several ranks that trains measures
it: the link is then that of the same launch.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from dlbench.distributed import SingleProcess

SIZES = (4, *(2**power for power in (16, 18, 20, 22, 24, 26)))
"""Bytes; one tensor each."""
WARMUP, ROUNDS = 1, 5
LONGEST_S = 0.5
"""No larger tensor is tried after one that takes so long: links differ by orders of magnitude."""


def measure(ranks: SingleProcess) -> dict[str, Any]:
    """``{"bytes", "seconds"}``, on every rank the same: the median round of the slowest rank."""
    import tensorflow as tf

    found: dict[str, Any] = {"bytes": [], "seconds": []}
    for size in SIZES:
        values = tf.ones([size // 4])

        @tf.function
        def added(tensor: Any, name: str = f"sums/{size}") -> Any:
            return ranks.sum(tensor, name)

        mine = []
        for _ in range(WARMUP + ROUNDS):
            ranks.barrier()
            begun = time.perf_counter()
            total = added(values).numpy()
            mine.append(time.perf_counter() - begun)
        assert (total == ranks.size).all(), "the sum of ones is the number of ranks"
        rounds = [max(times) for times in zip(*ranks.gather(mine), strict=True)]
        seconds = statistics.median(rounds[WARMUP:])
        found["bytes"].append(size)
        found["seconds"].append(seconds)
        if seconds > LONGEST_S:
            break
    return found
