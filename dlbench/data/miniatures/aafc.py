"""A year's Annual Crop Inventory of a small place in a Canadian province."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rasterio.crs import CRS

from dlbench.data.aafc import ACI, pixel_metres
from dlbench.data.grid import Grid
from dlbench.data.miniatures.coded_raster import write_coded_raster

EPSG = 3978
"""Canada Atlas Lambert: no more than an example, real files name their own."""


def write_labels(
    folder: Path, codes: np.ndarray, grid: Grid, year: int, province: str = "sk", version: int = 1
) -> Path:
    """Write the inventory of ``year`` from codes (height, width) on ``grid``; return its file."""
    suffix = "" if version == 1 else f"_v{version}"
    return write_coded_raster(
        Path(folder) / f"aci_{year}_{province}{suffix}.tif", codes, grid, CRS.from_epsg(EPSG),
        pixel_metres(year), (0.0, 0.0), ACI.entries(),
    )  # fmt: skip
