import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from dlbench.bench import memory
from dlbench.bench.memory import HostSampler, PeakMemory

MEBIBYTE = 1 << 20


def gone(pid: int, within_s: float = 5.0) -> bool:
    """Whether the process ends in time; a zombie that nobody collects has ended too."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def hold(mebibytes: int, seconds: float) -> None:
    """Touch that much memory and give it back."""
    block = np.ones(mebibytes * MEBIBYTE, np.uint8)
    time.sleep(seconds)
    del block


def test_a_passing_peak_is_seen() -> None:
    with PeakMemory() as before:
        time.sleep(0.03)
    with PeakMemory() as peak:
        hold(200, 0.1)
        time.sleep(0.05)
    low, high = before.peak_bytes["host_rss"], peak.peak_bytes["host_rss"]
    assert low is not None
    assert high is not None
    assert 195 * MEBIBYTE < high - low < 215 * MEBIBYTE
    hwm = peak.peak_bytes["host_rss_hwm"]
    assert hwm is not None
    assert hwm >= high - MEBIBYTE  # the kernel counts pages in batches
    assert peak.peak_bytes["gpu_allocated"] is None
    assert peak.peak_bytes["gpu_device_used"] is None


def test_an_earlier_peak_is_not_counted() -> None:
    hold(200, 0.0)
    with PeakMemory() as peak:
        time.sleep(0.05)
    rss, hwm = peak.peak_bytes["host_rss"], peak.peak_bytes["host_rss_hwm"]
    assert rss is not None
    assert hwm is not None
    assert rss < hwm - 150 * MEBIBYTE


def test_the_gpu_figures_come_from_the_caller() -> None:
    with PeakMemory(gpu=lambda: {"gpu_allocated": 7}) as peak:
        pass
    assert peak.peak_bytes["gpu_allocated"] == 7
    assert peak.peak_bytes["gpu_device_used"] is None
    with pytest.raises(ValueError, match=r"returned \['tpu'\]"), PeakMemory(gpu=lambda: {"tpu": 7}):
        pass


def test_the_sampler_ends_with_the_block_even_if_the_block_fails() -> None:
    peak = PeakMemory()
    with pytest.raises(KeyError), peak:
        sampler = peak._sampler.pid
        raise KeyError
    assert not psutil.pid_exists(sampler)
    assert peak.peak_bytes["host_rss"] is not None


def test_a_killed_sampler_gives_unknown_not_a_number() -> None:
    sampler = HostSampler(os.getpid())
    os.kill(sampler.pid, signal.SIGKILL)
    with pytest.warns(UserWarning, match="sampler died"):
        assert sampler.stop() is None


def test_the_sampler_loads_nothing_of_the_workload() -> None:
    sampler = HostSampler(os.getpid())
    mapped = {Path(m.path).name for m in psutil.Process(sampler.pid).memory_maps()}
    size = psutil.Process(sampler.pid).memory_info().rss
    sampler.stop()
    assert not [name for name in mapped if "tensorflow" in name or "numpy" in name]
    assert size < 40 * MEBIBYTE


@pytest.fixture
def start_parent() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts a process that samples itself, prints the sampler's pid, and never ends."""
    script = (
        "import os, sys, time\n"
        "from dlbench.bench.memory import HostSampler\n"
        "sampler = HostSampler(os.getpid())\n"
        "if sys.argv[1:] == ['fork'] and os.fork() == 0:\n"
        "    time.sleep(60)\n"  # holds a copy of the sampler's standard input
        "    os._exit(0)\n"
        "print(sampler.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)  # the session that we opened, forked child included
        process.communicate()


@pytest.mark.parametrize("arguments", [(), ("fork",)], ids=["alone", "forked-child-lives-on"])
def test_the_sampler_does_not_survive_a_killed_parent(
    start_parent: Callable[..., subprocess.Popen[bytes]], arguments: tuple[str, ...]
) -> None:
    process = start_parent(*arguments)
    assert process.stdout is not None
    sampler = int(process.stdout.readline())
    assert psutil.pid_exists(sampler)
    process.kill()
    assert gone(sampler)


def test_the_sampler_is_cheap() -> None:
    sampler = HostSampler(os.getpid())
    # Being woken has a price too, on a virtual machine nearly twice what is allowed.
    woken = f"import time\nfor _ in range(400): time.sleep({memory.INTERVAL_S})"
    bare = subprocess.Popen([sys.executable, "-c", woken])
    processes = psutil.Process(sampler.pid), psutil.Process(bare.pid)
    time.sleep(0.5)  # until the bare one has started

    def used_s() -> np.ndarray:
        times = [process.cpu_times() for process in processes]
        return np.array([one.user + one.system for one in times])

    def cheap() -> bool:
        before, start = used_s(), time.monotonic()
        time.sleep(2.0)
        of_sampler, of_bare = used_s() - before
        # 0.5 % plus one tick: the kernel counts CPU time in ticks of 10 ms. Being woken counts, up
        # to a tick.
        beyond = max(of_bare - 0.01, 0.0)
        return of_sampler - beyond <= 0.005 * (time.monotonic() - start) + 0.01

    found = sum(cheap() for _ in range(5))  # what else the host does only adds to it
    bare.kill()
    bare.communicate()
    sampler.stop()
    assert found >= 3


def test_bad_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="interval_s is 0"):
        HostSampler(os.getpid(), interval_s=0)
    with pytest.raises(psutil.NoSuchProcess):
        HostSampler(2**22 + 1)
    assert memory.high_water_mark() > MEBIBYTE


def test_pages_of_a_file_are_not_private(tmp_path: Path) -> None:
    """A mapped file that is read grows resident memory; written memory grows both."""
    size = 96 << 20
    path = tmp_path / "mapped"
    path.write_bytes(bytes(size))
    with PeakMemory() as before:
        pass
    with PeakMemory() as peak, path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        assert sum(mapped[:: mmap.PAGESIZE]) == 0
        time.sleep(0.3)
        mapped.close()
    grown = {k: (peak.peak_bytes[k] or 0) - (before.peak_bytes[k] or 0) for k in peak.peak_bytes}
    assert grown["host_rss"] > 0.8 * size
    assert grown["host_private"] < 0.2 * size
