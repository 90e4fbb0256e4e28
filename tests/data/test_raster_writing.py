"""What was written is compared with what is there, whatever the parts in which either comes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from dlbench.data.raster_writing import Written

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32", "float64"])
def test_blocks_of_a_file_hold_what_was_added_in_strips(tmp_path: Path, dtype: str) -> None:
    """The sum of the bits of few float64 is more than 64 bits hold."""
    values = np.random.default_rng(0).uniform(1, 250, (2, 300, 280)).astype(dtype)
    path = tmp_path / "a.tif"
    tiles = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    with rasterio.open(
        path, "w", driver="GTiff", count=2, height=300, width=280, dtype=dtype, **tiles
    ) as file:
        file.write(values)
    written, other = Written(), Written()
    for row in range(0, 300, 20):
        written.add(values[:, row : row + 20])
        other.add(np.roll(values, 1)[:, row : row + 20] if row else values[:, :20] + 1)
    written.require_in(path)
    with pytest.raises(OSError, match="cannot be read again"):
        other.require_in(path)
