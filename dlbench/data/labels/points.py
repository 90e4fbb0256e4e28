"""Points on the ground as labels: the pixel that holds a point, or a disc about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rasterio.crs import CRS
from rasterio.warp import transform

from dlbench.data.dataset import IGNORE
from dlbench.data.grid import METRES_PER_DEGREE, Grid
from dlbench.data.labels.polygons import bounds_in, no_overlap


class Points:
    """`Labels` of points at ``x``, ``y`` (points) in ``crs``, ``indices`` their classes.

    A point labels the pixel that holds it and those whose centres lie within ``radius`` metres;
    where discs meet, the nearest point counts. All else is `IGNORE`. Threads may share it.
    """

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        indices: np.ndarray,
        crs: CRS,
        file: Path,
        radius: float = 0.0,
    ) -> None:
        self.file = file
        self.crs = crs
        self.radius = radius
        self._x, self._y, self._indices = x, y, indices

    def read(self, grid: Grid) -> np.ndarray:
        target = np.full((grid.height, grid.width), IGNORE, np.uint8)
        x, y, indices = self._near(grid)
        if len(x) == 0:
            return target
        columns, rows = ~grid.transform @ (x, y)
        pixel_height, pixel_width = _pixel_metres(grid, y)
        reach_down = int(self.radius / pixel_height + 1)
        reach_across = int(self.radius / pixel_width.min() + 1)
        down, across = np.mgrid[
            -reach_down : reach_down + 1, -reach_across : reach_across + 1
        ].reshape(2, 1, -1)
        # (points, pixels of a patch about each)
        row = np.floor(rows).astype(int)[:, None] + down
        column = np.floor(columns).astype(int)[:, None] + across
        distance = np.hypot(
            (row + 0.5 - rows[:, None]) * pixel_height,
            (column + 0.5 - columns[:, None]) * pixel_width[:, None],
        )
        chosen = (distance <= self.radius) | ((down == 0) & (across == 0))
        chosen &= (row >= 0) & (row < grid.height) & (column >= 0) & (column < grid.width)
        # The nearest is written last.
        order = np.argsort(-distance[chosen], kind="stable")
        classes = np.broadcast_to(indices[:, None], chosen.shape)[chosen][order]
        target[row[chosen][order], column[chosen][order]] = classes
        return target

    def require_overlap(self, grid: Grid, file: Path) -> None:
        """Raise `DataError` unless a point lies on the grid of the image ``file``."""
        x, y, _ = self._near(grid)
        west, south, east, north = grid.bounds
        if not ((x >= west) & (x < east) & (y > south) & (y <= north)).any():
            extent = (self._x.min(), self._y.min(), self._x.max(), self._y.max())
            raise no_overlap("point", self.file, extent, self.crs, grid, file)

    def _near(self, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points in the CRS of ``grid`` that may reach into it, and their classes."""
        _, south, _, north = grid.bounds
        pixel_height, pixel_width = _pixel_metres(grid, np.array([south, north]))
        down = int(self.radius / pixel_height) + 1
        across = int(self.radius / pixel_width.min()) + 1
        grown = grid.window(-down, -across, grid.height + 2 * down, grid.width + 2 * across)
        west, south, east, north = bounds_in(grown, self.crs, self.file)
        near = (self._x > west) & (self._x < east) & (self._y > south) & (self._y < north)
        x, y = transform(self.crs, grid.crs, self._x[near], self._y[near])[:2]
        return np.array(x), np.array(y), self._indices[near]


def _pixel_metres(grid: Grid, y: np.ndarray) -> tuple[float, np.ndarray]:
    """Height of a pixel, and its width at each ``y`` of the grid's CRS, in metres."""
    if grid.crs.is_geographic:
        degree = METRES_PER_DEGREE * np.cos(np.radians(y))
        return grid.pixel_metres, abs(grid.transform.a) * degree
    width = abs(grid.transform.a) * grid.crs.linear_units_factor[1]
    return grid.pixel_metres, np.full(y.shape, width)
