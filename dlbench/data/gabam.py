"""Global Annual Burned Area Mapping (GABAM): what burned in a year, at some 30 m.

Long et al., 30 m resolution global annual burned area mapping based on Landsat images and Google
Earth Engine, Remote Sensing 11 (2019) 489. A pixel burned in the year of the map, not before.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.warp import transform

from dlbench.data import raster
from dlbench.data.dataset import IGNORE, ClassInfo, DataError
from dlbench.data.grid import Grid

# `<year>/N10W080.TIF`: 10 x 10 degrees of EPSG:4326 in 40,000 x 40,000 pixels. Where a tile lies is
# its geotransform's to say: releases need not agree on the corner that the name means.
SUFFIX = ".tif"
CLASSES = (ClassInfo("unburned", (60, 110, 60), 0), ClassInfo("burned", (230, 70, 20), 1))
SOURCE = "https://vapd.gitlab.io/post/gabam/"


class Gabam:
    """The tiles of one year as `Labels`: a pixel gets the class that its centre lies in.

    Raises `DataError` for a year that ``root`` does not hold.
    """

    def __init__(self, root: Path, year: int) -> None:
        self.folder = Path(root) / str(year)
        files = sorted(f for f in self.folder.glob("*") if f.suffix.lower() == SUFFIX)
        if not files:
            raise DataError(
                f"{self.folder} holds no GABAM tile (such as N10W080.TIF); {root} has the years: "
                f"{', '.join(map(str, years(root))) or 'none'}; not every year was released "
                f"(from {SOURCE})"
            )
        self._tiles = [(file, raster.grid_of(file)) for file in files]
        for file, _ in self._tiles:
            info = raster.describe(file)
            if info.bands != 1 or info.dtype.kind not in "iu":
                raise DataError(
                    f"{file} has {info.bands} bands of {info.dtype}, expected 1 of whole numbers "
                    "(0 unburned, 1 burned)"
                )

    def covers(self, grid: Grid) -> bool:
        """Whether a tile reaches into ``grid``: a point in each sixteenth of it is looked at."""
        columns, rows = ((np.arange(16) + 0.5) / 16 * side for side in (grid.width, grid.height))
        return any(
            _inside(tile, *_places(tile, grid, rows, columns)).any() for _, tile in self._tiles
        )

    def read(self, grid: Grid) -> np.ndarray:
        target = np.full((grid.height, grid.width), IGNORE, np.uint8)
        for file, tile in self._tiles:
            centres = np.arange(grid.height) + 0.5, np.arange(grid.width) + 0.5
            row, column = _places(tile, grid, *centres)
            wanted = _inside(tile, row, column) & (target == IGNORE)
            if wanted.any():
                r, c = row[wanted].astype(int), column[wanted].astype(int)
                top, left = int(r.min()), int(c.min())
                classes = _classes(file, top, left, int(np.ptp(r)) + 1, int(np.ptp(c)) + 1)
                target[wanted] = classes[r - top, c - left]
        return target


def years(root: Path) -> list[int]:
    """The years that a folder holds."""
    return sorted(int(f.name) for f in Path(root).glob("[12][0-9][0-9][0-9]") if f.is_dir())


def _places(
    tile: Grid, grid: Grid, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Row and column (rows, columns) in a tile of places in ``grid``; NaN for what has none."""
    x, y = grid.transform.c + grid.transform.a * columns, grid.transform.f + grid.transform.e * rows
    x, y = np.meshgrid(x, y)
    try:
        across = (
            (x, y) if grid.crs == tile.crs else transform(grid.crs, tile.crs, x.ravel(), y.ravel())
        )
    except (RasterioError, CPLE_BaseError):
        across = np.full((2, x.size), np.nan)
    longitude, latitude = (np.reshape(values, x.shape) for values in across)
    own = tile.transform
    return np.floor((latitude - own.f) / own.e), np.floor((longitude - own.c) / own.a)


def _inside(tile: Grid, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    return (row >= 0) & (row < tile.height) & (column >= 0) & (column < tile.width)


def _classes(file: Path, row: int, column: int, height: int, width: int) -> np.ndarray:
    codes, valid = raster.read_window(file, row, column, height, width)
    target = np.full(codes.shape[:2], IGNORE, np.uint8)
    for index, kind in enumerate(CLASSES):
        target[codes[..., 0] == kind.code] = index
    unknown = valid & (target == IGNORE)
    if unknown.any():
        raise DataError(
            f"{file} holds the value {codes[unknown][0, 0]}, expected 0 (unburned) or 1 (burned)"
        )
    target[~valid] = IGNORE
    return target
