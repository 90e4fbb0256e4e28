"""Any georeferenced raster that GDAL reads as imagery."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio

from dlbench.data import raster


class GeoTiff:
    """All bands of one file, `Imagery` in its own dtype; bands are named as the file says."""

    def __init__(self, file: Path) -> None:
        self.file = Path(file)
        self.name = self.file.stem
        self.grid = raster.grid_of(self.file)
        info = raster.describe(self.file)
        self.dtype = info.dtype
        with rasterio.open(self.file) as dataset:
            self.bands = tuple(
                name or f"band {number}" for number, name in enumerate(dataset.descriptions, 1)
            )

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        values, valid = raster.read_window(self.file, row, column, height, width)
        return np.where(valid[..., None], values, 0).astype(self.dtype, copy=False), valid
