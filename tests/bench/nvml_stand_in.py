"""A stand-in for NVIDIA's management library (pynvml) where there is no GPU: answers as set here.

Copied as ``pynvml.py`` into a folder of the module path, it is what `dlbench.bench` imports. Two
devices; the second lacks what old ones lack.
"""

from __future__ import annotations

from types import SimpleNamespace

NVML_CLOCK_SM = 1
NVML_CLOCK_MEM = 2
NVML_TEMPERATURE_GPU = 0


class NVMLError(Exception):
    pass


UUIDS = ["GPU-first", "GPU-second"]
PIDS: list[int] = []
MEMORY_USED = 3 << 30
MHZ = [1980, 1410]
REASONS = [0x1, 0x4]
MILLIJOULES = [5_000_000]
NAMES = ["NVIDIA A100-SXM4-40GB", "NVIDIA H100 PCIe"]
MEMORY = [40 << 30, 80 << 30]
LIMIT_MW = [400_000, 350_000]


def _next(values: list[int]) -> int:
    return values.pop(0) if len(values) > 1 else values[0]


def nvmlInit() -> None:  # noqa: N802
    pass


def nvmlSystemGetDriverVersion() -> bytes:  # noqa: N802
    return b"550.54.15"


def nvmlDeviceGetCount() -> int:  # noqa: N802
    return len(NAMES)


def nvmlDeviceGetUUID(handle: int) -> str:  # noqa: N802
    return UUIDS[handle]


def nvmlDeviceGetName(handle: int) -> str:  # noqa: N802
    return NAMES[handle]


def nvmlDeviceGetCudaComputeCapability(handle: int) -> tuple[int, int]:  # noqa: N802
    return ((8, 0), (9, 0))[handle]


def nvmlDeviceGetPowerManagementLimit(handle: int) -> int:  # noqa: N802
    return LIMIT_MW[handle]


def nvmlDeviceGetMigMode(handle: int) -> list[int]:  # noqa: N802
    if handle == 1:
        raise NVMLError("Not Supported")
    return [0, 1]


def nvmlDeviceGetApplicationsClock(handle: int, kind: int) -> int:  # noqa: N802
    if handle == 1:
        raise NVMLError("Not Supported")
    return {NVML_CLOCK_SM: 1095, NVML_CLOCK_MEM: 1215}[kind]


def nvmlDeviceGetHandleByIndex(index: int) -> int:  # noqa: N802
    if index > 1:
        raise NVMLError("Invalid Argument")
    return index


def nvmlDeviceGetHandleByUUID(uuid: str) -> int:  # noqa: N802
    if uuid not in UUIDS:
        raise NVMLError("Not Found")
    return UUIDS.index(uuid)


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
    return SimpleNamespace(used=MEMORY_USED, total=MEMORY[handle])


def nvmlDeviceGetComputeRunningProcesses(handle: int) -> list[SimpleNamespace]:  # noqa: N802
    return [SimpleNamespace(pid=pid) for pid in PIDS]


def nvmlDeviceGetTotalEnergyConsumption(handle: int) -> int:  # noqa: N802
    if handle == 1:
        raise NVMLError("Not Supported")
    return _next(MILLIJOULES)
