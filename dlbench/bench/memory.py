"""Peak memory of a process, sampled by a second process.

A thread would miss the peaks that native code reaches while it holds the interpreter lock. The
sampler is this file run as a script: it imports psutil and nothing of the workload, costs one
read of /proc per interval, and ends when its standard input closes, so it cannot outlive the
process that opened it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

INTERVAL_S = 0.05
"""Shorter peaks may be missed; ``host_rss_hwm`` has them, over the life of the process."""

KINDS = ("host_rss", "host_private", "host_rss_hwm", "gpu_allocated", "gpu_device_used")


class HostSampler:
    """Sample the memory of process ``pid`` (children not included) until `stop`."""

    def __init__(self, pid: int, interval_s: float = INTERVAL_S) -> None:
        if interval_s <= 0:
            raise ValueError(f"interval_s is {interval_s}; it must be more than 0 seconds")
        psutil.Process(pid)  # raises psutil.NoSuchProcess here rather than in the sampler
        self._process = subprocess.Popen(
            # -P: the folder of this file must not shadow modules of the standard library.
            [sys.executable, "-P", __file__, str(pid), str(interval_s)],
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

    def stop(self) -> tuple[int, int] | None:
        """Largest resident and largest private memory seen, bytes; None, with a warning, if the
        sampler was killed."""
        answer, _ = self._process.communicate()  # closes its standard input: the signal to end
        if self._process.returncode or not answer:
            warnings.warn("the memory sampler died: peak memory is unknown", stacklevel=2)
            return None
        resident, private = map(int, answer.split())
        return resident, private


class PeakMemory:
    """Peak memory of this process while the ``with`` block runs: ``peak_bytes``, None if unknown.

    ``host_rss`` is sampled over the block, and ``host_private``, what of it is backed by no file:
    the pages of libraries are shared by the ranks of a host. ``host_rss_hwm`` is the kernel's exact
    high-water mark since the process began. ``gpu`` is called when the block ends and returns the
    GPU's kinds (``gpu_allocated``: the framework's own peak; ``gpu_device_used``: the device's).
    """

    def __init__(
        self,
        gpu: Callable[[], Mapping[str, int | None]] | None = None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._gpu = gpu
        self._interval_s = interval_s
        self.peak_bytes: dict[str, int | None] = dict.fromkeys(KINDS)

    def __enter__(self) -> PeakMemory:
        self._sampler = HostSampler(os.getpid(), self._interval_s)
        return self

    def __exit__(self, *failure: object) -> None:
        seen = self._sampler.stop()
        self.peak_bytes["host_rss"], self.peak_bytes["host_private"] = seen or (None, None)
        self.peak_bytes["host_rss_hwm"] = high_water_mark()
        if self._gpu is not None:
            found = self._gpu()
            unknown = set(found) - set(KINDS)
            if unknown:
                raise ValueError(f"gpu returned {sorted(unknown)}; known kinds are {KINDS}")
            self.peak_bytes.update(found)


def high_water_mark() -> int:
    """Largest resident memory of this process since it began, bytes."""
    # Not ru_maxrss on Linux: a new program there starts with the peak of the one it came from.
    with contextlib.suppress(FileNotFoundError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _sample(pid: int, interval_s: float) -> None:
    """Print ``sampling``, sample until standard input closes, print the peaks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the workload; we end with it
    parent = os.getppid()
    process = psutil.Process(pid)

    def now() -> tuple[int, int]:
        found = process.memory_info()
        return found.rss, found.rss - getattr(found, "shared", 0)  # Linux alone tells of files

    peaks = now()
    print("sampling", flush=True)
    closed = False
    # Children that the workload forks may hold our standard input open: watch the parent too.
    while not closed and os.getppid() == parent:
        closed = bool(select.select([sys.stdin], [], [], interval_s)[0])
        try:
            resident, private = now()
            peaks = max(peaks[0], resident), max(peaks[1], private)
        except psutil.NoSuchProcess:
            break
    with contextlib.suppress(BrokenPipeError):
        print(*peaks, flush=True)


if __name__ == "__main__":
    _sample(int(sys.argv[1]), float(sys.argv[2]))
