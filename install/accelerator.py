"""Which TensorFlow this machine gets: `cuda` with an NVIDIA driver, `cpu` without one."""

import shutil
from pathlib import Path

ACCELERATORS = ("cpu", "cuda")
DRIVER = Path("/proc/driver/nvidia/version")


def detect(driver: Path = DRIVER, search_path: str | None = None) -> str:
    """Return `cuda` where the NVIDIA kernel driver or its `nvidia-smi` is found, else `cpu`.

    The driver decides, not the toolkit: TensorFlow's CUDA wheels bring their own libraries.
    Under WSL there is no `/proc/driver/nvidia`, hence the second look for `nvidia-smi`.
    """
    if driver.exists() or shutil.which("nvidia-smi", path=search_path):
        return "cuda"
    return "cpu"


if __name__ == "__main__":
    print(detect())
