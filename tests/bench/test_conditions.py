"""Loads, clocks and flags, from fake files of the kernel and a stand-in for NVIDIA's library."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from dlbench import gpus
from dlbench.bench import conditions
from dlbench.bench.conditions import Gpu, Watch, settled
from dlbench.bench.memory import PeakMemory


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_clock_of_the_cores(tmp_path: Path) -> None:
    assert conditions.cpu_mhz(tmp_path) is None
    for core, khz in enumerate((2_000_000, 3_000_000)):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{core}/cpufreq"
        write(folder / "scaling_cur_freq", f"{khz}\n")
    write(tmp_path / "proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd\n")
    assert conditions.cpu_mhz(tmp_path) == 2500.0
    write(tmp_path / "proc/cpuinfo", "cpu MHz\t\t: 1000.5\nmodel\t: x\ncpu MHz\t\t: 1500.5\n")
    assert conditions.cpu_mhz(tmp_path) == 1250.5


def test_a_core_that_was_throttled(tmp_path: Path) -> None:
    assert Watch(os.getpid(), root=tmp_path).summary()["throttled"] is None, "cannot be known"
    counter = tmp_path / "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    write(counter, "7\n")
    watch = Watch(os.getpid(), root=tmp_path)
    assert watch.summary()["throttled"] is False
    write(counter, "8\n")
    assert watch.summary()["throttled"] is True


def test_loads_are_cores_kept_busy() -> None:
    before, begun = time.process_time(), time.monotonic()
    watch = Watch(os.getpid())
    assert watch.summary()["own_load"] is None, "too short to tell"
    while time.process_time() - before < 0.3 or time.monotonic() - begun < 0.6:
        pass
    used, lasted = time.process_time() - before, time.monotonic() - begun
    watch.sample()
    found = watch.summary()
    tick = 0.02 / lasted  # of 10 ms, at both ends
    # The process counts once, although it is its own sampler.
    assert found["own_load"] == pytest.approx(used / lasted, abs=2 * tick + 0.02)
    cores = os.cpu_count() or 1
    assert used / lasted - 2 * tick - 0.02 < found["machine_load"] < cores * (1 + tick)


@pytest.mark.parametrize("ends", [True, False], ids=["one that ends", "one that goes on"])
def test_what_a_process_has_started_is_its_own_load(ends: bool) -> None:
    """As a peer that is timed in a process of its own: no other work that disturbs."""
    until = "0.5" if ends else "math.inf"
    code = f"import math, time\nwhile time.process_time() < {until}: pass"
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        seen = psutil.Process(child.pid)
        before, begun = sum(seen.cpu_times()[:2]), time.monotonic()
        watch = Watch(os.getpid())
        if ends:
            at_start = resource.getrusage(resource.RUSAGE_CHILDREN)
            child.wait()
            at_end = resource.getrusage(resource.RUSAGE_CHILDREN)
            used = at_end.ru_utime + at_end.ru_stime - at_start.ru_utime - at_start.ru_stime
        else:
            while sum(seen.cpu_times()[:2]) < 0.5:
                time.sleep(0.05)
        time.sleep(max(0.0, begun + 0.6 - time.monotonic()))  # shorter is too short to tell
        if not ends:
            used = sum(seen.cpu_times()[:2])
        watch.sample()
        lasted = time.monotonic() - begun
    finally:
        child.kill()
        child.wait()
    # This process itself does next to nothing meanwhile.
    found_s = watch.summary()["own_load"] * lasted
    assert found_s == pytest.approx(used - before, abs=0.1)


def rank(
    host: str, own: float | None, machine: float | None, cores: int | None = 4
) -> dict[str, object]:
    loads = {"own_load": own, "machine_load": machine, "cores": cores}
    return {"host": host, "conditions": loads}


def test_ranks_are_no_foreign_load() -> None:
    ranks = [rank("a", 1.5, 3.1), rank("a", 1.5, 3.1), rank("b", 1.5, 3.1), rank("c", None, 3.1)]
    first, second, third, fourth = (one["conditions"] for one in settled(ranks))
    assert first == second
    assert first["other_load"] == pytest.approx(0.1)
    assert first["busy"] is False
    assert third["other_load"] == pytest.approx(1.6)
    assert third["busy"] is True
    assert (fourth["other_load"], fourth["busy"]) == (None, None)
    assert "busy" not in ranks[0]["conditions"], "what was given is left alone"  # type: ignore[operator]
    (alone,) = settled([rank("a", 2.0, 1.9)])
    assert alone["conditions"]["other_load"] == 0.0


def test_a_host_is_busy_by_its_own_cores() -> None:
    """Half a core is nothing on a large node, and a quarter of a small one, whoever asks."""
    ranks = [rank("large", 1.0, 1.5, 96), rank("small", 1.0, 1.5, 2), rank("a", 1.0, 1.5, None)]
    found = [one["conditions"] for one in settled(ranks)]
    assert [one["busy"] for one in found] == [False, True, None]
    assert {one["other_load"] for one in found} == {0.5}
    assert Watch(os.getpid()).summary()["cores"] == os.cpu_count()


def test_a_gpu_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = Watch(os.getpid(), gpu="0").summary()
    assert (found["gpu"], found["foreign_processes"]) == (None, None)


def test_a_gpu(nvml: ModuleType) -> None:
    """Its clock falls between two looks, as it meets its power limit."""
    device = gpus.device("GPU-first")
    assert device is not None
    nvml.PIDS[:] = [7, os.getpid()]
    gpu = Gpu(*device, os.getpid())
    gpu.sample()
    assert gpu.summary()["throttle_reasons"] == [], "idleness is none"
    gpu.sample()
    assert gpu.summary() == {
        "sm_mhz": 1695.0,
        "sm_mhz_min": 1410,
        "temperature_c": 61,
        "power_limit_w": 350.0,
        "throttle_reasons": ["power cap"],
    }
    assert gpu.foreign_processes == 1
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    nvml.PIDS[:] = [child.pid, os.getpid()]
    shared = Gpu(*device, os.getpid())
    shared.sample()
    child.communicate(b"\n")
    assert shared.foreign_processes == 0, "what a process has started is no other's"
    assert gpu.memory_used == 3 << 30


def test_ours_among_the_pids_of_another_namespace(nvml: ModuleType) -> None:
    for pids, foreign in (([], 0), ([12], 0), ([12, 13], 1)):
        nvml.PIDS[:] = pids
        gpu = Gpu(nvml, 0, os.getpid())
        gpu.sample()
        assert gpu.foreign_processes == foreign


def test_the_sampler_watches_the_gpu(nvml: ModuleType) -> None:
    with PeakMemory(device="0") as memory:
        time.sleep(0.1)
    assert memory.peak_bytes["gpu_device_used"] == 3 << 30
    assert memory.peak_bytes["gpu_allocated"] is None
    assert memory.conditions["throttled"] is True
    assert memory.conditions["foreign_processes"] == 0
    assert memory.conditions["gpu"]["temperature_c"] == 61


def test_the_gpu_of_a_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    assert conditions.visible_gpu(0) is None, "this test is for machines without one"
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["one"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert conditions.visible_gpu(1) == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-abc")
    assert [conditions.visible_gpu(rank) for rank in (0, 1)] == ["3", "GPU-abc"]
