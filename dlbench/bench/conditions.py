"""What a process's machine and GPU were like while it ran: clocks, throttling, foreign load.

A `Watch` lives in the sampler process of `dlbench.bench.memory`. Its summary is `Rank.conditions`
of a result record once `settled` has told the ranks of a host from other processes. Keys, None
where it cannot be known:

own_load, machine_load    cores that this process with all that it started, and the whole machine,
                          kept busy on average
cores                     that its machine has
stolen_load               cores that the hypervisor gave to other guests
other_load, busy          cores that no rank of the host kept busy; more than `QUIET` of its cores
cpu_mhz, cpu_mhz_min      clock of all cores on average, and when it was lowest
gpu                       of the rank's GPU: sm_mhz, sm_mhz_min, temperature_c (highest),
                          power_limit_w, throttle_reasons (names of `REASONS`)
throttled                 the CPU's thermal counters grew, or the GPU gave a reason
checkpoint_wait_s         of a run: how long training stood still for checkpoints
energy_sources            on the first rank of a node: the counters in its energy, maybe none
foreign_processes         most compute processes of others on the GPU at a time
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from dlbench import gpus

QUIET = 0.05
"""Share of a machine's cores that others may use before it counts as busy."""
FAMILY_S = 10.0
"""Between questions for all that a process has started."""
SHORTEST_S = 0.5
"""The kernel counts CPU time in ticks of 10 ms: below this, loads are noise."""

REASONS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""NVML's reasons for lower clocks (nvml.h, nvmlClocksEventReasons) but for those that are chosen:
idleness, application clocks, a synchronised or display clock."""


class Gpu:
    """One GPU as NVIDIA's management library sees it, for the process ``pid``."""

    def __init__(self, nvml: Any, handle: Any, pid: int) -> None:
        self._nvml, self._handle, self._pid = nvml, handle, pid
        self._mhz: list[float] = []
        self._celsius: list[float] = []
        self._limit_w: list[float] = []
        self._foreign: list[int] = []
        self._used: list[int] = []
        self._reasons: int | None = None

    def sample(self) -> None:
        nvml, handle = self._nvml, self._handle

        def note(found: list[Any], read: Any) -> None:
            with contextlib.suppress(nvml.NVMLError):  # some devices lack some readings
                found.append(read())

        note(self._mhz, lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM))
        note(
            self._celsius, lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
        )
        note(self._limit_w, lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000)
        note(self._used, lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used))
        note(self._foreign, self._others)
        with contextlib.suppress(nvml.NVMLError):
            reasons = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
            self._reasons = (self._reasons or 0) | reasons

    def _others(self) -> int:
        running = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        pids = {process.pid for process in running}
        if pids <= {self._pid}:
            return 0
        mine: set[int] = set()
        with contextlib.suppress(psutil.NoSuchProcess):
            mine = pids & {process.pid for process in family(self._pid)}
        # In a container the pids may be the host's: one of them is then ours all the same.
        return len(pids) - max(len(mine), 1)

    @property
    def memory_used(self) -> int | None:
        """Most memory in use on the device, by whomever, bytes."""
        return max(self._used, default=None)

    @property
    def foreign_processes(self) -> int | None:
        return max(self._foreign, default=None)

    def summary(self) -> dict[str, Any]:
        reasons = self._reasons
        return {
            "sm_mhz": statistics.fmean(self._mhz) if self._mhz else None,
            "sm_mhz_min": min(self._mhz, default=None),
            "temperature_c": max(self._celsius, default=None),
            "power_limit_w": min(self._limit_w, default=None),
            "throttle_reasons": None
            if reasons is None
            else [name for bit, name in REASONS.items() if reasons & bit],
        }


class Watch:
    """Readings of the machine and of process ``pid`` from now on; ``gpu``: see `visible_gpu`.

    ``root`` stands for / where the kernel's files are read.
    """

    def __init__(self, pid: int, gpu: str | None = None, root: Path = Path("/")) -> None:
        self._pid, self._root = pid, root
        self._mhz: list[float] = []
        found = None if gpu is None else gpus.device(gpu)
        self.gpu = None if found is None else Gpu(*found, pid)
        self._ask()
        self._begun, self._at_begin = time.monotonic(), self._seconds()
        self._hot = throttle_count(root)
        self.sample()

    def sample(self, last: bool = False) -> None:
        """Read clocks, loads and the GPU. What the process has started is asked for now and then
        and at the ``last``: that takes milliseconds, by the number of processes on the machine."""
        mhz = cpu_mhz(self._root)
        if mhz is not None:
            self._mhz.append(mhz)
        if self.gpu is not None:
            self.gpu.sample()
        # Now, since at the end the process may be gone.
        with contextlib.suppress(psutil.NoSuchProcess):
            if last or time.monotonic() - self._asked > FAMILY_S:
                self._ask()
            self._lasted, self._at_end = time.monotonic() - self._begun, self._seconds()

    def summary(self) -> dict[str, Any]:
        own, machine, stolen = (
            None if self._lasted < SHORTEST_S else (end - begin) / self._lasted
            for begin, end in zip(self._at_begin, self._at_end, strict=True)
        )
        hot = throttle_count(self._root)
        gpu = None if self.gpu is None else self.gpu.summary()
        signs = [] if hot is None or self._hot is None else [hot > self._hot]
        if gpu is not None and gpu["throttle_reasons"] is not None:
            signs.append(bool(gpu["throttle_reasons"]))
        return {
            "own_load": own,
            "machine_load": machine,
            "cores": os.cpu_count(),
            "stolen_load": stolen,
            "cpu_mhz": statistics.fmean(self._mhz) if self._mhz else None,
            "cpu_mhz_min": min(self._mhz, default=None),
            "gpu": gpu,
            "throttled": any(signs) if signs else None,
            "foreign_processes": None if self.gpu is None else self.gpu.foreign_processes,
        }

    def _ask(self) -> None:
        """For the process and all that it started, its sampler too; raises `psutil.NoSuchProcess`
        where it is gone itself."""
        self._process, *others = family(self._pid)
        mine = {one.pid: one for one in (*others, psutil.Process())}
        mine.pop(self._pid, None)
        self._others, self._asked = list(mine.values()), time.monotonic()

    def _seconds(self) -> tuple[float, float, float]:
        """CPU time of the process, of all that it started and its sampler, of the machine, of the
        hypervisor's others."""
        own = cpu_s(self._process)
        for process in self._others:
            with contextlib.suppress(psutil.NoSuchProcess):
                own += cpu_s(process)
        times = psutil.cpu_times()._asdict()
        stolen = times.pop("steal", 0.0)
        # "guest" is part of "user" already.
        idle = sum(times.get(name, 0.0) for name in ("idle", "iowait", "guest", "guest_nice"))
        return own, sum(times.values()) - idle, stolen


def family(pid: int) -> list[psutil.Process]:
    """The process ``pid`` and all that it started, which may be gone when they are asked."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def cpu_s(process: psutil.Process) -> float:
    """CPU time that a process has used, s, with that of its children who have ended."""
    return sum(process.cpu_times()[:4])


def settled(ranks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The measurements of all ranks of a job (each as for `records.Rank`), with ``other_load`` and
    ``busy`` in their conditions: what a host's ranks use is no foreign load."""
    own: dict[str, list[float | None]] = defaultdict(list)
    for rank in ranks:
        own[rank["host"]].append(rank["conditions"].get("own_load"))
    done = []
    for rank in ranks:
        loads = [load for load in own[rank["host"]] if load is not None]
        machine, cores = (rank["conditions"].get(key) for key in ("machine_load", "cores"))
        other = busy = None
        if machine is not None and len(loads) == len(own[rank["host"]]):
            other = max(machine - sum(loads), 0.0)
            busy = None if cores is None else other > QUIET * cores
        done.append(
            {**rank, "conditions": {**rank["conditions"], "other_load": other, "busy": busy}}
        )
    return done


def visible_gpu(local_rank: int) -> str | None:
    """The GPU that TensorFlow has in this process, by the name that `gpus.device` knows it by; None
    without one."""
    import tensorflow as tf

    if not tf.config.list_logical_devices("GPU"):
        return None
    named = gpus.named(os.environ)
    return str(local_rank) if named is None else named[local_rank]


def cpu_mhz(root: Path = Path("/")) -> float | None:
    """Present clock of the cores, mean, MHz; a virtual machine may tell its nominal one."""
    with contextlib.suppress(OSError):
        text = (root / "proc/cpuinfo").read_text()
        if found := re.findall(r"^cpu MHz\s*:\s*([\d.]+)", text, re.MULTILINE):
            return statistics.fmean(map(float, found))
    khz = _numbers(root, "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    return statistics.fmean(khz) / 1000 if khz else None


def throttle_count(root: Path = Path("/")) -> int | None:
    """How often the cores and their package have been slowed down for heat since the start."""
    counts = _numbers(root, "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count")
    return sum(counts) if counts else None


def _numbers(root: Path, pattern: str) -> list[int]:
    found = []
    for path in root.glob(pattern):
        with contextlib.suppress(OSError, ValueError):
            found.append(int(path.read_text()))
    return found
