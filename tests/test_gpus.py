"""Which GPUs are described, and how: two that a stand-in for NVIDIA's library makes up."""

from __future__ import annotations

import os
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from dlbench import gpus

A100 = {
    "name": "NVIDIA A100-SXM4-40GB",
    "memory_bytes": 40 << 30,
    "compute_capability": [8, 0],
    "power_limit_w": 400.0,
    "mig": False,
    "application_sm_mhz": 1095,
    "application_memory_mhz": 1215,
}
H100 = {
    "name": "NVIDIA H100 PCIe",
    "memory_bytes": 80 << 30,
    "compute_capability": [9, 0],
    "power_limit_w": 350.0,
    "mig": None,
    "application_sm_mhz": None,
    "application_memory_mhz": None,
}


@pytest.mark.parametrize(
    ("shown", "devices"),
    [
        (None, [A100, H100]),
        ("1", [H100]),
        ("1, GPU-first", [H100, A100]),
        ("", []),
        ("0,-1,1", [A100]),
        ("0,7,1", [A100]),
    ],
)
def test_the_visible_devices_are_described(
    nvml: ModuleType, shown: str | None, devices: list[dict[str, Any]]
) -> None:
    environ = {} if shown is None else {"CUDA_VISIBLE_DEVICES": shown}
    assert gpus.describe(environ) == {"driver": "550.54.15", "devices": devices}


def test_a_device_is_found_by_number_and_uuid(nvml: ModuleType) -> None:
    assert gpus.device("GPU-first") == (nvml, 0)
    assert gpus.device("1") == (nvml, 1)
    assert gpus.device("GPU-s") == (nvml, 1)
    for absent in ("2", "GPU-third", "GPU-"):
        assert gpus.device(absent) is None


def test_a_device_that_is_lost_ends_no_run(
    nvml: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(handle: int) -> str:
        raise nvml.NVMLError("GPU is lost")

    monkeypatch.setattr(nvml, "nvmlDeviceGetName", lost)
    assert gpus.describe({}) == {"driver": None, "devices": []}


@pytest.mark.parametrize("exported", [None, "FASTEST_FIRST"])
def test_cuda_is_told_to_number_as_nvml_does(exported: str | None) -> None:
    """Unless the user has told it something else."""
    variables = {k: v for k, v in os.environ.items() if k != "CUDA_DEVICE_ORDER"}
    variables |= {} if exported is None else {"CUDA_DEVICE_ORDER": exported}
    code = "import os, dlbench; print(os.environ['CUDA_DEVICE_ORDER'])"
    found = subprocess.check_output([sys.executable, "-c", code], env=variables, text=True)
    assert found.strip() == (exported or "PCI_BUS_ID")


def test_without_the_library_or_the_driver(
    nvml: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_driver() -> None:
        raise nvml.NVMLError("Driver Not Loaded")

    monkeypatch.setattr(nvml, "nvmlInit", no_driver)
    assert gpus.describe({}) == {"driver": None, "devices": []}
    assert gpus.device("0") is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpus.describe({}) is None
    assert gpus.device("0") is None
