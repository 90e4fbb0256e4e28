"""Rasters larger than memory: checked headers and windowed reads with their no-data mask."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from dlbench.data.dataset import DataError
from dlbench.data.grid import Grid

# Benchmark tiles often come without a CRS; whether one is needed is the data set's to say.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

_OPEN_PER_THREAD = 32


@dataclass(frozen=True)
class RasterInfo:
    """What a raster's header says; ``crs`` is None where the file has none."""

    path: Path
    height: int
    width: int
    bands: int
    dtype: np.dtype[Any]
    crs: str | None
    pixel_size: tuple[float, float]
    """Height and width of a pixel, in units of the CRS."""
    transform: Affine
    """From (column, row) of pixel corners to coordinates of the CRS."""
    names: tuple[str | None, ...]
    """Descriptions of the bands."""


def describe(path: Path) -> RasterInfo:
    """Read a header. Raises `DataError` for a file that is missing, no raster, or rotated."""
    with open_raster(path) as dataset:
        transform = dataset.transform
        if transform.b or transform.d:
            raise DataError(
                f"{path} has a rotated geotransform {tuple(transform)[:6]}; "
                "make it north-up first: gdalwarp in.tif out.tif"
            )
        return RasterInfo(
            path=Path(path),
            height=dataset.height,
            width=dataset.width,
            bands=dataset.count,
            dtype=np.dtype(dataset.dtypes[0]),
            crs=dataset.crs.to_string() if dataset.crs else None,
            pixel_size=(abs(transform.e), abs(transform.a)),
            transform=transform,
            names=dataset.descriptions,
        )


def grid_of(path: Path) -> Grid:
    """The grid of a georeferenced raster. Raises `DataError` for one that has no place or is not
    north-up."""
    describe(path)
    with open_raster(path) as dataset:
        transform = dataset.transform
        if not dataset.crs or transform.is_identity:
            raise DataError(
                f"{path} has no georeference (CRS and geotransform), so its place is unknown; set "
                "what it was made in: gdal_edit.py -a_srs EPSG:... -a_ullr WEST NORTH EAST SOUTH "
                "FILE"
            )
        if transform.a <= 0 or transform.e >= 0:
            raise DataError(
                f"{path} has the geotransform {tuple(transform)[:6]}, which is not north-up; "
                "georeference it, or warp it first: gdalwarp in.tif out.tif"
            )
        return Grid(dataset.crs, transform, dataset.height, dataset.width)


def read_window(
    path: Path,
    row: int,
    column: int,
    height: int,
    width: int,
    indexes: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Read (height, width, bands) in the file's dtype, and where every band holds data (height,
    width) bool; ``indexes`` chooses bands, counted from 1. Raises `DataError` for a window outside
    the raster and for a damaged file.
    """
    dataset = _kept_open(path)
    if min(row, column) < 0 or row + height > dataset.height or column + width > dataset.width:
        raise DataError(
            f"the window of {height} x {width} pixels at row {row}, column {column} leaves {path} "
            f"({dataset.height} x {dataset.width} pixels)"
        )
    window = Window(column, row, width, height)
    try:
        indexes = list(dataset.indexes if indexes is None else indexes)
        values = np.moveaxis(dataset.read(indexes, window=window), 0, -1)
        if all(dataset.mask_flag_enums[i - 1] == [MaskFlags.all_valid] for i in indexes):
            valid = np.ones((height, width), bool)
        else:
            valid = (dataset.read_masks(indexes, window=window) != 0).all(axis=0)
    except (RasterioError, OSError) as error:
        _local.handles.pop(path).close()
        # The reason that GDAL gives (a short read, a bad block) hangs on the error's cause.
        raise DataError(
            f"cannot read {path}: {error.__cause__ or error}; it is damaged or incomplete, "
            "fetch it again"
        ) from error
    if np.issubdtype(values.dtype, np.floating):
        valid &= np.isfinite(values).all(axis=-1)
    return values, valid


_local = threading.local()


def _kept_open(path: Path) -> Any:
    """The calling thread's own handle: GDAL's may not be shared, and opening costs a header."""
    handles: OrderedDict[Path, Any] = _local.__dict__.setdefault("handles", OrderedDict())
    if path not in handles:
        handles[path] = open_raster(path)
    handles.move_to_end(path)
    if len(handles) > _OPEN_PER_THREAD:
        handles.popitem(last=False)[1].close()
    return handles[path]


def open_raster(path: Path) -> Any:
    """A rasterio data set. Raises `DataError` for a file that is missing or no raster."""
    try:
        return rasterio.open(path)
    except (RasterioError, OSError, UnicodeError) as error:  # names in headers are of any bytes
        reason = "is no readable raster" if Path(path).exists() else "does not exist"
        raise DataError(f"{path} {reason} ({error}); fetch it again") from error
