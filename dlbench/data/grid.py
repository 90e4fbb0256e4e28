"""Pixels on the ground: the grid of a scene, what imagery gives on it, what labels give on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from dlbench.data.dataset import DataError

METRES_PER_DEGREE = 111_320.0
"""Of latitude, on a sphere of the Earth's mean radius."""


@dataclass(frozen=True)
class Grid:
    """North-up pixels of one size: row 0 is the northernmost, column 0 the westernmost."""

    crs: CRS
    transform: Affine
    """From (column, row) of pixel corners to coordinates of `crs`."""
    height: int
    width: int

    def window(self, row: int, column: int, height: int, width: int) -> Grid:
        """The grid of a part, which may reach over the border."""
        moved = self.transform @ Affine.translation(column, row)
        return Grid(self.crs, moved, height, width)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in coordinates of `crs`."""
        west, north = self.transform @ (0, 0)
        east, south = self.transform @ (self.width, self.height)
        return west, south, east, north

    @property
    def pixel_metres(self) -> float:
        """Height of a pixel on the ground; of degrees along the meridian."""
        if self.crs.is_geographic:
            return abs(self.transform.e) * METRES_PER_DEGREE
        return float(abs(self.transform.e) * self.crs.linear_units_factor[1])

    def aligned_with(self, other: Grid, tolerance: float = 0.01) -> bool:
        """Whether pixels of the same size lie on pixels, to ``tolerance`` of a pixel."""
        if self.crs != other.crs:
            return False
        across = ~self.transform @ other.transform
        same = math.isclose(across.a, 1.0, rel_tol=1e-6) and math.isclose(
            across.e, 1.0, rel_tol=1e-6
        )
        return same and all(abs(shift - round(shift)) < tolerance for shift in (across.c, across.f))

    def equals(self, other: Grid) -> bool:
        """Whether the same pixels lie at the same places, as `aligned_with` has it."""
        if (self.height, self.width) != (other.height, other.width):
            return False
        shift = ~self.transform @ other.transform @ (0, 0)
        return self.aligned_with(other) and max(map(abs, shift)) < 0.5

    def __str__(self) -> str:
        west, _, _, north = self.bounds
        return (
            f"{self.height} x {self.width} pixels of {self.transform.a:g} from {west:.10g}, "
            f"{north:.10g} in {crs_name(self.crs)}"
        )


def crs_name(crs: CRS) -> str:
    """``EPSG:5070``, or the name that a CRS without a number gives itself."""
    code: str = crs.to_string()
    return code if len(code) < 20 else crs.to_wkt().split('"')[1]


def require_overlay(file: Path, grid: Grid, other_file: Path, other: Grid) -> None:
    """Raise `DataError` unless two grids cover the same ground, to a pixel of the coarser."""
    coarser = max(grid.transform.a, other.transform.a, -grid.transform.e, -other.transform.e)
    if grid.crs != other.crs or any(
        abs(a - b) > coarser for a, b in zip(grid.bounds, other.bounds, strict=True)
    ):
        raise DataError(
            f"{file} is {grid}, but {other_file} {other}; bands of one scene cover the same "
            "ground: warp them there first, or take them from one product"
        )


class Imagery(Protocol):
    """A georeferenced image of any size, read in windows."""

    @property
    def file(self) -> Path:
        """What an error names."""

    @property
    def name(self) -> str:
        """A short name of the scene, without slashes."""

    @property
    def grid(self) -> Grid: ...

    @property
    def bands(self) -> tuple[str, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns that its file, or the finest of them, has decoded at once."""

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Values (height, width, bands) in `dtype`, and where they can be used (height, width)
        bool: no-data, clouds that are to be left out and NaN cannot; there values are finite too.
        Raises `DataError` for a damaged file or a window that leaves `grid`.
        """


class Labels(Protocol):
    """Classes of the ground, from a raster or from polygons on any grid of their own."""

    def read(self, grid: Grid) -> np.ndarray:
        """Class indices (height, width) uint8 of the pixels of ``grid``; `IGNORE` where nothing is
        known. Rasters are warped with nearest neighbour. Raises `DataError`.
        """
