"""NVIDIA's GPUs as its management library (NVML) knows them, and which of them a process is shown.

A GPU is named by its number or its UUID, as in CUDA_VISIBLE_DEVICES. NVML numbers by the place on
the bus, and so does CUDA, for which `dlbench` sets CUDA_DEVICE_ORDER.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any


def named(environ: Mapping[str, str]) -> list[str] | None:
    """The GPUs that CUDA_VISIBLE_DEVICES names; None: all that there are."""
    text = environ.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return None
    return [name.strip() for name in text.split(",") if name.strip()]


def showing(numbers: Iterable[int]) -> dict[str, str]:
    """The variables that show a process the GPUs of these numbers, which are nvidia-smi's."""
    return {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, numbers)),
    }


def device(gpu: str) -> tuple[Any, Any] | None:
    """NVML and its handle of ``gpu``, or None."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        if gpu.isdigit():
            return pynvml, pynvml.nvmlDeviceGetHandleByIndex(int(gpu))
        with contextlib.suppress(pynvml.NVMLError):
            return pynvml, pynvml.nvmlDeviceGetHandleByUUID(gpu)
        # Of a UUID CUDA takes as much as tells it from the others.
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        begun = [one for one in handles if _text(pynvml.nvmlDeviceGetUUID(one)).startswith(gpu)]
        return (pynvml, begun[0]) if len(begun) == 1 else None
    except pynvml.NVMLError:
        return None


def describe(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Driver and devices that ``environ`` shows, ready for JSON; None without NVML, and no driver
    and no devices where it fails.

    No number and no UUID: of two that are alike it does not matter which one it was.
    """
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return {
            "driver": _text(pynvml.nvmlSystemGetDriverVersion()),
            "devices": [_described(*found) for found in _shown(pynvml, named(environ))],
        }
    except pynvml.NVMLError:
        return {"driver": None, "devices": []}


def _shown(nvml: Any, names: list[str] | None) -> Iterator[tuple[Any, Any]]:
    if names is None:
        names = [str(number) for number in range(nvml.nvmlDeviceGetCount())]
    for name in names:
        found = device(name)
        if found is None:  # CUDA too ends at the first that does not exist
            return
        yield found


def _described(nvml: Any, handle: Any) -> dict[str, Any]:
    def known(read: Callable[[], Any]) -> Any:
        with contextlib.suppress(nvml.NVMLError):  # some devices lack some readings
            return read()
        return None

    limit_mw = known(lambda: nvml.nvmlDeviceGetPowerManagementLimit(handle))
    mig = known(lambda: nvml.nvmlDeviceGetMigMode(handle))
    return {
        "name": _text(nvml.nvmlDeviceGetName(handle)),
        "memory_bytes": known(lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).total)),
        "compute_capability": known(lambda: list(nvml.nvmlDeviceGetCudaComputeCapability(handle))),
        # What an administrator sets: nvidia-smi's -pl, -mig and -ac.
        "power_limit_w": None if limit_mw is None else limit_mw / 1000,
        "mig": None if mig is None else bool(mig[0]),
        "application_sm_mhz": known(
            lambda: nvml.nvmlDeviceGetApplicationsClock(handle, nvml.NVML_CLOCK_SM)
        ),
        "application_memory_mhz": known(
            lambda: nvml.nvmlDeviceGetApplicationsClock(handle, nvml.NVML_CLOCK_MEM)
        ),
    }


def _text(value: str | bytes) -> str:
    """Text, whichever of the two the version of pynvml returns."""
    return value.decode() if isinstance(value, bytes) else value
