"""Bands of a raster, or of the parts that an export was split into, read on any grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.enums import Resampling
from rasterio.warp import reproject

from dlbench.data import block_cache, raster
from dlbench.data.dataset import DataError
from dlbench.data.grid import Grid

RESAMPLINGS = ("nearest", "bilinear", "cubic")
_MARGIN = 3
"""Source pixels around a window that the widest kernel reaches."""


@dataclass(frozen=True)
class _Part:
    file: Path
    row: int
    column: int
    height: int
    width: int


@dataclass(frozen=True)
class Bands:
    """Chosen bands of one raster on its own grid: `Imagery` in the dtype of the file."""

    file: Path
    grid: Grid
    bands: tuple[str, ...]
    """As the file describes them, or `band 1` and so on."""
    indexes: tuple[int, ...]
    """Counted from 1."""
    dtype: np.dtype[Any]
    block: tuple[int, int]
    """Of the first part."""
    parts: tuple[_Part, ...]
    between: tuple[float, float]
    """Values that are not strictly between these are no data."""
    collar: float | None = None
    """What all bands hold together where a picture has none, such as the corners of a scene."""
    alpha: int | None = None
    """A further band, which is 0 where there are no data."""

    @property
    def name(self) -> str:
        return self.file.stem

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        shape = self.grid.height, self.grid.width
        raster.require_window(self.file, shape, row, column, height, width)
        values, valid = self._padded(row, column, height, width)
        values[~valid] = 0
        return values, valid

    def _padded(
        self, row: int, column: int, height: int, width: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values (height, width, bands) and where all are known (height, width) bool, of a window
        that may reach over the border. Raises `DataError` for a damaged file.
        """
        values = np.zeros((height, width, len(self.indexes)), self.dtype)
        valid = np.zeros((height, width), bool)
        for part in self.parts:
            top, left = max(row, part.row), max(column, part.column)
            bottom = min(row + height, part.row + part.height)
            right = min(column + width, part.column + part.width)
            if top >= bottom or left >= right:
                continue
            here = np.s_[top - row : bottom - row, left - column : right - column]
            values[here], valid[here] = read_masked(
                block_cache.read_window,
                (part.file, top - part.row, left - part.column, bottom - top, right - left),
                self.indexes, self.alpha, self.collar,
            )  # fmt: skip
        low, high = self.between
        return values, valid & ((values > low) & (values < high)).all(axis=-1)

    def on_grid(self, window: Grid, resampling: str) -> tuple[np.ndarray, np.ndarray]:
        """The same on any grid of the CRS, with one of `RESAMPLINGS`.

        Only what lies under the window is read. What is no data does not take part in the
        interpolation; a pixel is known where the pixel of the raster under its centre is.
        """
        across = ~self.grid.transform @ window.transform
        left, top = across @ (0, 0)
        if self.grid.aligned_with(window):
            return self._padded(round(top), round(left), window.height, window.width)
        right, bottom = across @ (window.width, window.height)
        row, column = math.floor(top) - _MARGIN, math.floor(left) - _MARGIN
        height = math.ceil(bottom) + _MARGIN - row
        width = math.ceil(right) + _MARGIN - column
        values, valid = self._padded(row, column, height, width)
        rows = np.floor((np.arange(window.height) + 0.5) * across.e + across.f).astype(int) - row
        columns = np.floor((np.arange(window.width) + 0.5) * across.a + across.c).astype(int)
        under = np.ix_(rows, columns - column)
        if resampling == "nearest":
            return values[under], valid[under]
        warped = np.full((values.shape[-1], window.height, window.width), np.nan)
        reproject(
            np.moveaxis(np.where(valid[..., None], values, np.nan), -1, 0).astype(np.float64),
            warped,
            src_transform=self.grid.window(row, column, height, width).transform,
            dst_transform=window.transform,
            src_crs=self.grid.crs,
            dst_crs=self.grid.crs,
            src_nodata=np.nan,
            dst_nodata=np.nan,
            resampling=Resampling[resampling],
        )
        warped = np.moveaxis(warped, 0, -1)
        return warped, valid[under] & np.isfinite(warped).all(axis=-1)


def read_masked(
    read: Callable[..., tuple[np.ndarray, np.ndarray | None]],
    window: tuple[Path, int, int, int, int],
    indexes: tuple[int, ...],
    alpha: int | None,
    collar: float | None,
) -> tuple[np.ndarray, np.ndarray]:
    """What ``read`` (`raster.read_window` or its twin) gives for the bands ``indexes`` of a window,
    known where ``alpha``, a further band, is not 0 and the bands are not ``collar`` together.
    """
    masks = () if alpha is None else (alpha,)
    values, known = read(*window, (*indexes, *masks))
    valid = np.ones(values.shape[:2], bool) if known is None else known
    if masks:
        values, valid = values[..., :-1], valid & (values[..., -1] != 0)
    if collar is not None:
        valid = valid & (values != collar).any(axis=-1)
    return values, valid


def open_bands(
    files: Sequence[Path],
    indexes: Sequence[int] | None = None,
    grid: Grid | None = None,
    between: tuple[float, float] = (-math.inf, math.inf),
    collar: float | None = None,
) -> Bands:
    """Bands of a raster, those of ``indexes`` or all but one of alpha, which is then a mask; its
    parts may be ``files`` side by side.

    ``grid`` is that of a single file whose place is known from elsewhere, for formats that need
    not hold it. Raises `DataError` for files that are empty or that do not match it or each other.
    """
    headers = [raster.describe(file) for file in files]
    first = headers[0]
    if grid is None:
        grids = [header.grid() for header in headers]
    else:
        grids = [grid]
        found = Grid(grid.crs, grid.transform, first.height, first.width)
        if first.crs is not None:
            found = first.grid()
        if not found.equals(grid):
            raise DataError(f"{first.path} is {found}, its metadata say {grid}")
    for header, other in zip(headers, grids, strict=True):
        if (header.names, header.dtype) != (first.names, first.dtype):
            raise DataError(f"{header.path} has other bands than {first.path}; export both anew")
        if not grids[0].aligned_with(other):
            raise DataError(f"{header.path} is {other}, {first.path} {grids[0]}")
    whole, parts = _assemble(files, grids)
    alpha = first.alpha if indexes is None and first.bands > 1 else None
    if indexes is None:
        indexes = [index for index in range(1, first.bands + 1) if index != alpha]
    names = tuple(first.names[i - 1] or f"band {i}" for i in indexes)
    return Bands(
        files[0], whole, names, tuple(indexes), first.dtype, first.block, parts, between, collar,
        alpha,
    )  # fmt: skip


def _assemble(files: Sequence[Path], grids: Sequence[Grid]) -> tuple[Grid, tuple[_Part, ...]]:
    """The grid of all parts, and where each lies on it."""
    corners = [~grids[0].transform @ grid.transform @ (0, 0) for grid in grids]
    top, left = (min(round(corner[axis]) for corner in corners) for axis in (1, 0))
    parts = tuple(
        _Part(file, round(y) - top, round(x) - left, grid.height, grid.width)
        for file, grid, (x, y) in zip(files, grids, corners, strict=True)
    )
    height = max(part.row + part.height for part in parts)
    width = max(part.column + part.width for part in parts)
    if sum(part.height * part.width for part in parts) != height * width:
        raise DataError(
            f"the {len(files)} parts of {files[0]} do not tile {height} x {width} pixels: one is "
            "missing or there twice; fetch all parts of the export"
        )
    return grids[0].window(top, left, height, width), parts
