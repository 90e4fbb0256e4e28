"""A stand-in for NVIDIA's management library (pynvml) where there is no GPU: answers as set here.

Copied as ``pynvml.py`` into a folder of the module path, it is what `dlbench.bench` imports. Two
devices; the second lacks what old ones lack.
"""

from __future__ import annotations

from types import SimpleNamespace

NVML_CLOCK_SM = 1
NVML_TEMPERATURE_GPU = 0


class NVMLError(Exception):
    pass


PIDS: list[int] = []
MEMORY_USED = 3 << 30
MHZ = [1980, 1410]
REASONS = [0x1, 0x4]
MILLIJOULES = [5_000_000]


def _next(values: list[int]) -> int:
    return values.pop(0) if len(values) > 1 else values[0]


def nvmlInit() -> None:  # noqa: N802
    pass


def nvmlDeviceGetHandleByIndex(index: int) -> int:  # noqa: N802
    if index > 1:
        raise NVMLError("Invalid Argument")
    return index


def nvmlDeviceGetHandleByUUID(uuid: str) -> int:  # noqa: N802
    return {"GPU-first": 0, "GPU-second": 1}[uuid]


def nvmlDeviceGetClockInfo(handle: int, kind: int) -> int:  # noqa: N802
    assert kind == NVML_CLOCK_SM
    return _next(MHZ)


def nvmlDeviceGetTemperature(handle: int, kind: int) -> int:  # noqa: N802
    assert kind == NVML_TEMPERATURE_GPU
    return 61


def nvmlDeviceGetEnforcedPowerLimit(handle: int) -> int:  # noqa: N802
    return 350_000


def nvmlDeviceGetCurrentClocksThrottleReasons(handle: int) -> int:  # noqa: N802
    return _next(REASONS)


def nvmlDeviceGetMemoryInfo(handle: int) -> SimpleNamespace:  # noqa: N802
    return SimpleNamespace(used=MEMORY_USED)


def nvmlDeviceGetComputeRunningProcesses(handle: int) -> list[SimpleNamespace]:  # noqa: N802
    return [SimpleNamespace(pid=pid) for pid in PIDS]


def nvmlDeviceGetTotalEnergyConsumption(handle: int) -> int:  # noqa: N802
    if handle == 1:
        raise NVMLError("Not Supported")
    return _next(MILLIJOULES)
