"""A year's Cropland Data Layer of a small place, as a national file with its pyramid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import Resampling

from dlbench.data.cdl import CDL, pixel_metres
from dlbench.data.grid import Grid
from dlbench.data.miniatures.coded_raster import write_coded_raster

EPSG = 5070
ORIGIN = (-2_356_095.0, 3_172_605.0)
"""North-western corner of the national layer, from which its pixels are counted."""


def write_labels(folder: Path, codes: np.ndarray, grid: Grid, year: int) -> Path:
    """Write the layer of ``year`` from CDL codes (height, width) on ``grid``; return its file."""
    pixel = pixel_metres(year)
    path = write_coded_raster(
        Path(folder) / f"{year}_{pixel}m_cdls.tif", codes, grid, CRS.from_epsg(EPSG), pixel,
        ORIGIN, CDL.entries(),
    )  # fmt: skip
    with rasterio.Env(TIFF_USE_OVR=True), rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], Resampling.nearest)
    return path
