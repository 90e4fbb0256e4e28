"""A raster is there whole or not at all, also where the disk has no room for its last bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from dlbench.raster_output import Layer, publish, scratch_folder

SIDE = 700
WRITER = """
import resource, signal, sys
from pathlib import Path
from tests.test_raster_output import write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
write(Path(sys.argv[1]))
"""


def values() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, (SIDE, SIDE, 1), np.uint8)


def write(path: Path) -> None:
    """Noise, which takes as many bytes as it has pixels, but for the last 100 rows."""
    with scratch_folder(path) as folder:
        profile: dict[str, Any] = {
            "height": SIDE,
            "width": SIDE,
            "crs": None,
            "transform": Affine.scale(2, -2),
        }
        layer = Layer(path, folder, "mode", count=1, dtype="uint8", nodata=255, **profile)
        for rows in (slice(0, 300), slice(300, SIDE - 100)):
            layer.write((rows, slice(0, SIDE)), values()[rows])
        publish([layer])


def test_what_was_written_and_what_was_not(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.tif"
    write(path)
    with rasterio.open(path) as file:
        found = file.read(1)
    np.testing.assert_array_equal(found[:-100], values()[:-100, :, 0])
    assert (found[-100:] == 255).all()
    assert [one.name for one in path.parent.iterdir()] == ["a.tif"]


@pytest.mark.parametrize("part", [0.1, 0.6, 0.97, 0.9999])
def test_a_full_disk_leaves_nothing(part: float, tmp_path: Path) -> None:
    write(tmp_path / "whole.tif")
    limit = int((tmp_path / "whole.tif").stat().st_size * part)
    path = tmp_path / "full" / "a.tif"
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", WRITER, str(path), str(limit)]
    ended = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert f"UserError: cannot write {path}" in ended.stderr
    assert not list(path.parent.iterdir())
