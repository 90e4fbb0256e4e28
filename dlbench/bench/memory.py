"""Peak memory of a process, and the conditions it ran in, sampled by a second process.

A thread would miss the peaks that native code reaches while it holds the interpreter lock. The
sampler is this module run by itself: it imports psutil and nothing of the workload, costs one
read of /proc per interval, and ends when its standard input closes, so it cannot outlive the
process that opened it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from dlbench.bench.conditions import Watch, visible_gpu

INTERVAL_S = 0.05
"""Shorter peaks may be missed; ``host_rss_hwm`` has them, over the life of the process."""
CONDITIONS_S = 1.0
"""Between two looks at clocks and the GPU."""

KINDS = ("host_rss", "host_private", "host_rss_hwm", "gpu_allocated", "gpu_device_used")


class Sampled(NamedTuple):
    """What the sampler saw until it was stopped."""

    resident: int
    """Largest resident memory of the process, bytes."""
    private: int
    """Largest memory of it that no file backs, bytes."""
    gpu_used: int | None
    """Most memory in use on its GPU, bytes."""
    conditions: dict[str, Any]
    """`Watch.summary`."""


class HostSampler:
    """Sample the memory of process ``pid`` (children not included) until `stop`, and its GPU's, if
    it has one: see `visible_gpu`."""

    def __init__(self, pid: int, interval_s: float = INTERVAL_S, gpu: str | None = None) -> None:
        if interval_s <= 0:
            raise ValueError(f"interval_s is {interval_s}; it must be more than 0 seconds")
        psutil.Process(pid)  # raises psutil.NoSuchProcess here rather than in the sampler
        self._process = subprocess.Popen(
            # -P, and the path as it is here: no folder may shadow modules that this process has.
            [sys.executable, "-P", "-m", __name__, str(pid), str(interval_s), gpu or ""],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"sampling\n":
            self._process.kill()
            self._process.communicate()
            raise RuntimeError("the memory sampler did not start; its message is above")

    @property
    def pid(self) -> int:
        """The sampler's own process."""
        return self._process.pid

    def stop(self) -> Sampled | None:
        """What was seen; None, with a warning, if the sampler was killed."""
        answer, _ = self._process.communicate()  # closes its standard input: the signal to end
        if self._process.returncode or not answer:
            warnings.warn("the memory sampler died: peak memory is unknown", stacklevel=2)
            return None
        return Sampled(**json.loads(answer))


class PeakMemory:
    """Peak memory of this process while the ``with`` block runs: ``peak_bytes``, None if unknown.

    ``host_rss`` is sampled over the block, and ``host_private``, what of it is backed by no file:
    the pages of libraries are shared by the ranks of a host. ``host_rss_hwm`` is the kernel's exact
    high-water mark since the process began. ``device`` names the process's GPU (`visible_gpu`) for
    ``gpu_device_used``, the most in use there; ``gpu`` is called when the block ends and returns
    what else is known of it (``gpu_allocated``: the framework's own peak).

    ``conditions`` are those of the block (`dlbench.bench.conditions`), empty if unknown.
    """

    def __init__(
        self,
        gpu: Callable[[], Mapping[str, int | None]] | None = None,
        interval_s: float = INTERVAL_S,
        device: str | None = None,
    ) -> None:
        self._gpu = gpu
        self._interval_s = interval_s
        self._device = device
        self.peak_bytes: dict[str, int | None] = dict.fromkeys(KINDS)
        self.conditions: dict[str, Any] = {}

    @classmethod
    def of_rank(cls, local_rank: int) -> PeakMemory:
        """That of a process with TensorFlow, GPU included, which is the only one it sees."""
        device = visible_gpu(local_rank)
        return cls(None if device is None else framework_peak(), device=device)

    def __enter__(self) -> PeakMemory:
        self._sampler = HostSampler(os.getpid(), self._interval_s, self._device)
        return self

    def __exit__(self, *failure: object) -> None:
        if seen := self._sampler.stop():
            self.peak_bytes["host_rss"] = seen.resident
            self.peak_bytes["host_private"] = seen.private
            self.peak_bytes["gpu_device_used"] = seen.gpu_used
            self.conditions = seen.conditions
        self.peak_bytes["host_rss_hwm"] = high_water_mark()
        if self._gpu is not None:
            found = self._gpu()
            unknown = set(found) - set(KINDS)
            if unknown:
                raise ValueError(f"gpu returned {sorted(unknown)}; known kinds are {KINDS}")
            self.peak_bytes.update(found)


def framework_peak() -> Callable[[], dict[str, int | None]]:
    """Start TensorFlow's own count of GPU memory anew; the function returned reads its peak."""
    from tensorflow.config import experimental

    experimental.reset_memory_stats("GPU:0")
    return lambda: {"gpu_allocated": experimental.get_memory_info("GPU:0")["peak"]}


def high_water_mark() -> int:
    """Largest resident memory of this process since it began, bytes."""
    # Not ru_maxrss on Linux: a new program there starts with the peak of the one it came from.
    with contextlib.suppress(FileNotFoundError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _memory_of(pid: int) -> Callable[[], tuple[int, int]]:
    """Tells at each call of a process's resident memory, and of what no file backs, bytes."""
    process = psutil.Process(pid)
    if sys.platform != "linux":  # which alone tells of files
        return lambda: (process.memory_info().rss,) * 2
    # What psutil reads, kept open: opening it at every reading costs several times as much, of
    # cores on which the workload is measured.
    statm = os.open(f"/proc/{pid}/statm", os.O_RDONLY)
    page = os.sysconf("SC_PAGE_SIZE")

    def now() -> tuple[int, int]:
        _, resident, shared, *_ = os.pread(statm, 128, 0).split()
        return int(resident) * page, (int(resident) - int(shared)) * page

    return now


def _sample(pid: int, interval_s: float, gpu: str | None) -> None:
    """Print ``sampling``, sample until standard input closes, print `Sampled` as JSON."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the workload; we end with it
    parent = os.getppid()
    now = _memory_of(pid)
    watch = Watch(pid, gpu)
    peaks = now()
    print("sampling", flush=True)
    watched = time.monotonic()
    closed = False
    # Children that the workload forks may hold our standard input open: watch the parent too.
    while not closed and os.getppid() == parent:
        closed = bool(select.select([sys.stdin], [], [], interval_s)[0])
        try:
            resident, private = now()
            peaks = max(peaks[0], resident), max(peaks[1], private)
        except (psutil.NoSuchProcess, ProcessLookupError):
            break
        if closed or time.monotonic() - watched > CONDITIONS_S:
            watch.sample(last=closed)
            watched = time.monotonic()
    used = None if watch.gpu is None else watch.gpu.memory_used
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(Sampled(*peaks, used, watch.summary())._asdict()), flush=True)


if __name__ == "__main__":
    _sample(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3] or None)
