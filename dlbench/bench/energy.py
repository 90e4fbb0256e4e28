"""Energy of a node in joules, from counters in its hardware.

NVML counts a GPU's millijoules since the driver was loaded, RAPL a processor package's and its
memory's microjoules (Linux, powercap). Counters are of the whole device, so one process a node
reads them, and what else ran there is in them. Many machines let only root read RAPL's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from dlbench.bench.conditions import visible_gpu
from dlbench.gpus import device

NODE = "node_energy_j"
"""Where one rank of each node has the node's joules until `of_all_nodes` has added them."""
UPDATE_S = 10.0
"""RAPL's counters start anew after some minutes at full power; one round must not be missed."""


class Counter:
    """A counter of a device: ``read`` gives joules, which start anew after ``range_j``."""

    def __init__(self, source: str, read: Callable[[], float], range_j: float | None) -> None:
        self.source = source
        self._read, self._range_j = read, range_j
        self._last = read()

    def since(self) -> float:
        """Joules since the last call."""
        last, self._last = self._last, self._read()
        used = self._last - last
        return used + self._range_j if used < 0 and self._range_j is not None else used


class EnergyMeter:
    """Sums a node's energy between `start` and `stop`, as often as they are called.

    ``gpus``: what `visible_gpu` tells of each local rank; one meter stands for all of them.
    ``root`` stands for /, where sysfs is.
    """

    def __init__(self, gpus: Iterable[str] = (), root: Path = Path("/")) -> None:
        self._counters = [*_rapl(root), *_nvml(gpus)]
        self._running = False
        self._joules = 0.0
        self._updated = 0.0

    @classmethod
    def of_node(cls, local_rank: int, local_size: int) -> EnergyMeter | None:
        """The meter of this node for its first rank, None for the others."""
        if local_rank:
            return None
        return cls(gpu for rank in range(local_size) if (gpu := visible_gpu(rank)))

    @property
    def sources(self) -> list[str]:
        """What is counted: ``package-0``, ``dram``, ``gpu 0``."""
        return [counter.source for counter in self._counters]

    @property
    def joules(self) -> float | None:
        """Of all stretches so far; None where nothing can be read."""
        return self._joules if self._counters else None

    def start(self) -> None:
        """Begin a stretch; within one, call it now and then."""
        if not self._running:
            self._take()
        elif time.monotonic() - self._updated > UPDATE_S:
            self._joules += self._take()
        self._running = True

    def stop(self) -> None:
        if self._running:
            self._joules += self._take()
        self._running = False

    def __enter__(self) -> EnergyMeter:
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.stop()

    def _take(self) -> float:
        self._updated = time.monotonic()
        return sum(counter.since() for counter in self._counters)


def of_all_nodes(ranks: Iterable[dict[str, Any]]) -> float | None:
    """Take the joules of all nodes out of the measurements of all ranks: their sum, None if that of
    a node is unknown."""
    nodes = [rank.pop(NODE) for rank in ranks if NODE in rank]
    return None if not nodes or None in nodes else sum(nodes)


def _rapl(root: Path) -> Iterable[Counter]:
    """Packages and the memory beside them; not their parts, nor "psys", which holds both."""
    for zone in sorted(root.glob("sys/class/powercap/intel-rapl:*")):
        with contextlib.suppress(OSError, ValueError):
            name = (zone / "name").read_text().strip()
            if name.startswith("package") or name == "dram":
                range_j = int((zone / "max_energy_range_uj").read_text()) / 1e6
                energy = zone / "energy_uj"
                yield Counter(name, lambda file=energy: int(file.read_text()) / 1e6, range_j)  # type: ignore[misc]


def _nvml(gpus: Iterable[str]) -> Iterable[Counter]:
    for gpu in gpus:
        if found := device(gpu):
            nvml, handle = found
            with contextlib.suppress(nvml.NVMLError):  # before Volta there is no counter
                yield Counter(
                    f"gpu {gpu}",
                    lambda n=nvml, h=handle: n.nvmlDeviceGetTotalEnergyConsumption(h) / 1000,  # type: ignore[misc]
                    None,
                )
