"""Rasters larger than memory: checked headers and windowed reads with their no-data mask."""

from __future__ import annotations

import itertools
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from dlbench.data.dataset import DataError
from dlbench.data.grid import Grid

# Benchmark tiles often come without a CRS; whether one is needed is the data set's to say.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

# GDAL's own cache, a twentieth of the memory otherwise, need but span a read; `block_cache` keeps.
os.environ.setdefault("GDAL_CACHEMAX", "256")
# With threads of its own GDAL 3.10 reads a damaged JPEG 2000 of many tiles without an error.
os.environ["GDAL_NUM_THREADS"] = "1"

_OPEN_PER_THREAD = 32

headers_read = 0
"""Another number after each: a data set was opened, whose files may have been written anew."""
_numbers = itertools.count(1)

Decode = Callable[[np.ndarray], np.ndarray]
"""Of values (height, width, bands), pixel by pixel, to uint8 (height, width)."""
Signature = tuple[int, int, int] | None
"""What a file written anew has another of; None: of a path that GDAL alone can read."""


@dataclass(frozen=True)
class Header:
    """What a raster says of itself; ``crs`` is None where the file has none."""

    path: Path
    height: int
    width: int
    bands: int
    dtype: np.dtype[Any]
    crs: CRS | None
    transform: Affine
    """From (column, row) of pixel corners to coordinates of the CRS."""
    names: tuple[str | None, ...]
    """Descriptions of the bands."""
    block: tuple[int, int]
    """Rows and columns that are decoded at once."""
    alpha: int | None
    """The band, counted from 1, that is tagged as a mask and is 0 where there are no data."""

    @property
    def pixel_size(self) -> tuple[float, float]:
        """Height and width of a pixel, in units of the CRS."""
        return abs(self.transform.e), abs(self.transform.a)

    def grid(self) -> Grid:
        """Raises `DataError` for a raster that has no place, or rows from south to north."""
        # GDAL's transform of a raster that has none is the identity.
        if self.crs is None or self.transform.is_identity:
            lacks = "coordinate reference system" if self.crs is None else "geotransform"
            raise DataError(
                f"{self.path} has no {lacks}, so its place is unknown; write it in: gdal_translate "
                f"-a_srs EPSG:32633 -a_ullr WEST NORTH EAST SOUTH {self.path.name} "
                f"{self.path.stem}.tif, and remove the original"
            )
        if self.transform.e >= 0 or self.transform.a <= 0:
            raise DataError(
                f"{self.path} has a geotransform {tuple(self.transform)[:6]} that is not north-up; "
                "make it so first: gdalwarp in.tif out.tif"
            )
        return Grid(self.crs, self.transform, self.height, self.width)


def describe(path: Path) -> Header:
    """Read a header. Raises `DataError` as `open_raster`, and for a raster that is rotated."""
    global headers_read
    headers_read = next(_numbers)
    with open_raster(path) as dataset:
        transform = dataset.transform
        if transform.b or transform.d:
            raise DataError(
                f"{path} has a rotated geotransform {tuple(transform)[:6]}; "
                "make it north-up first: gdalwarp in.tif out.tif"
            )
        return Header(
            path=Path(path),
            height=dataset.height,
            width=dataset.width,
            bands=dataset.count,
            dtype=np.dtype(dataset.dtypes[0]),
            crs=dataset.crs or None,
            transform=transform,
            names=dataset.descriptions,
            block=dataset.block_shapes[0],
            alpha=alpha_of(dataset),
        )


def alpha_of(dataset: Any) -> int | None:
    """`Header.alpha` of an open data set; GDAL itself heeds it in files of 2 or 4 bands alone.
    Raises `DataError` for damage that is seen only now, such as that of a world file."""
    try:
        colours = list(zip(dataset.indexes, dataset.colorinterp, strict=True))
    except CPLE_BaseError as error:
        raise DataError(
            f"{dataset.name} is no readable raster ({error}); fetch it again"
        ) from error
    return next((index for index, colour in colours if colour == ColorInterp.alpha), None)


def read_window(
    path: Path,
    row: int,
    column: int,
    height: int,
    width: int,
    indexes: Sequence[int] | None = None,
    decode: Decode | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Read (height, width, bands) in the file's dtype, and where every band holds data (height,
    width) bool; ``indexes`` chooses bands, counted from 1, and values go through ``decode``. Raises
    `DataError` for a window outside the raster and for a damaged file.
    """
    dataset, masked = kept_open(path)
    require_window(path, dataset.shape, row, column, height, width)
    window = Window(column, row, width, height)
    try:
        indexes = list(dataset.indexes if indexes is None else indexes)
        if decode is not None:
            values = decode(np.moveaxis(dataset.read(indexes, window=window), 0, -1))
        else:
            # Pixel by pixel, as networks read it; GDAL writes it so at no cost.
            dtype = np.result_type(*(dataset.dtypes[index - 1] for index in indexes))
            values = np.empty((height, width, len(indexes)), dtype)
            dataset.read(indexes, out=np.moveaxis(values, -1, 0), window=window)
        if masked.isdisjoint(indexes):
            valid = np.ones((height, width), bool)
        else:
            valid = (dataset.read_masks(indexes, window=window) != 0).all(axis=0)
    except (RasterioError, OSError) as error:
        _local.handles.pop(path)[0].close()
        raise unreadable(path, error) from error
    if np.issubdtype(values.dtype, np.floating):
        valid &= np.isfinite(values).all(axis=-1)
    return values, valid


def require_window(
    path: Path, shape: tuple[int, int], row: int, column: int, height: int, width: int
) -> None:
    """Raise `DataError` unless a window lies on the raster of ``shape`` (height, width)."""
    if min(row, column) < 0 or row + height > shape[0] or column + width > shape[1]:
        raise DataError(
            f"the window of {height} x {width} pixels at row {row}, column {column} leaves {path} "
            f"({shape[0]} x {shape[1]} pixels)"
        )


_local = threading.local()


def kept_open(path: Path) -> tuple[Any, frozenset[int]]:
    """The calling thread's own handle, and which bands have a mask, asked but once: GDAL's handles
    may not be shared, opening costs a header, and the masks a tenth of a small window."""
    handles: OrderedDict[Path, tuple[Any, frozenset[int], Signature]]
    handles = _local.__dict__.setdefault("handles", OrderedDict())
    now = signature(path)
    if path in handles and handles[path][2] != now:
        handles.pop(path)[0].close()
    if path not in handles:
        dataset = open_raster(path)
        flags = zip(dataset.indexes, dataset.mask_flag_enums, strict=True)
        masked = frozenset(index for index, flag in flags if flag != [MaskFlags.all_valid])
        handles[path] = dataset, masked, now
    handles.move_to_end(path)
    if len(handles) > _OPEN_PER_THREAD:
        handles.popitem(last=False)[1][0].close()
    return handles[path][:2]


def signature(path: Path) -> Signature:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def open_raster(path: Path) -> Any:
    """A rasterio data set. Raises `DataError` for a file that is missing, no raster, or a container
    of several."""
    try:
        dataset = rasterio.open(path)
    except (RasterioError, OSError, UnicodeError) as error:  # names in headers are of any bytes
        reason = f"is no readable raster ({error})"
        if not Path(path).exists():
            reason = f"does not exist ({error})"
        elif Path(path).stat().st_size == 0:
            reason = "is empty (0 bytes)"
        raise DataError(f"{path} {reason}; fetch it again") from error
    if not dataset.count:
        inside = dataset.subdatasets
        dataset.close()
        raise DataError(
            f"{path} holds no bands; its sub-datasets: {'; '.join(inside) or 'none'}; make one a "
            f"file: gdal_translate '{inside[0] if inside else 'NAME'}' {Path(path).stem}.tif"
        )
    return dataset


def unreadable(path: Path, error: Exception) -> DataError:
    """Of what GDAL raised as it read pixels; why (a short read, a bad block) hangs on its cause."""
    return DataError(
        f"cannot read {path}: {error.__cause__ or error}; it is damaged or incomplete, fetch it "
        "again"
    )
