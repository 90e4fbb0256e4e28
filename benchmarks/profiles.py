"""How much of the suite a command asks for."""

from __future__ import annotations

import os

import pytest

from benchmarks import links

MOST_RANKS, MOST_RANKS_FULL = 2, 8


def is_smoke(config: pytest.Config) -> bool:
    """``--benchmark-disable``: everything once, on inputs as small as they can be."""
    option = config.getoption
    return bool(option("benchmark_disable") and not option("benchmark_enable"))


def is_full(config: pytest.Config) -> bool:
    """``--profile full``, and measured."""
    return config.getoption("profile") == "full" and not is_smoke(config)


def chosen_ranks(config: pytest.Config) -> tuple[int, ...]:
    """Those of ``--ranks``, or powers of two up to the devices that there are."""
    if given := config.getoption("ranks"):
        if 0 in given:
            raise pytest.UsageError(f"--ranks is {given}; a job has at least 1 rank")
        return tuple(sorted({1, *given}))
    most = MOST_RANKS_FULL if is_full(config) else MOST_RANKS
    return tuple(n for n in (1, 2, 4, 8) if n == 1 or n <= min(most, places()))


def most_on_a_host(config: pytest.Config) -> int:
    """Of the chosen ranks: how many share the cores of the host that has most of them."""
    most = max(chosen_ranks(config))
    if (hosts := config.getoption("hosts")) is None:
        return most
    return min(most, max(links.slots(hosts)))


def places() -> int:
    """GPUs that this launch may use, or cores where there are none."""
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU")) or len(os.sched_getaffinity(0))
