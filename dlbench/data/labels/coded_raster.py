"""Labels from rasters of integer class codes, in any CRS and of any size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.warp import transform, transform_bounds

from dlbench.data import raster
from dlbench.data.dataset import IGNORE, DataError
from dlbench.data.grid import Grid, crs_name
from dlbench.data.labels.legend import Legend

LATTICE_METRES = 200.0
"""Between points that are projected; linear in between, which misses by a millimetre at most
(the sag of an arc of that length on the Earth) and takes a twentieth of the time."""
LARGEST_BLOCK = 1 << 20
"""Pixels that are worked out at once."""
LARGEST_READ = 1 << 24
"""Pixels of a file that are read at once, as many finer ones may lie under a coarse grid."""
TIE = 1e-6
"""Pixels by which a centre on the border of two codes is moved to the one south and east."""

_NOTHING, _UNKNOWN = -1, -2

Bounds = tuple[float, float, float, float]


class CodedRaster:
    """Class indices from one raster of codes, or several that add up (tiles, clips).

    A pixel gets the code that its centre lies in (nearest neighbour), from the first file that
    holds data there. Raises `DataError` for files that are no coded rasters.
    """

    def __init__(self, files: Path | Sequence[Path], legend: Legend) -> None:
        self.files = tuple(map(Path, [files] if isinstance(files, str | Path) else files))
        if not self.files:
            raise DataError("a label raster is needed, but no file was given")
        self.legend = legend
        self._grids = [_checked_grid(file) for file in self.files]
        # A pixel about each file, for centres on its very border.
        self._reach = [g.window(-1, -1, g.height + 2, g.width + 2).bounds for g in self._grids]
        # The first file in the same CRS: a CRS takes long to look up in a dict.
        systems = [grid.crs for grid in self._grids]
        self._systems = [systems.index(crs) for crs in systems]
        known = {**legend.index_of_code, **dict.fromkeys(legend.nothing, _NOTHING)}
        self._index_of_code = np.full(max(known, default=0) + 1, _UNKNOWN, np.int16)
        for code, index in known.items():
            self._index_of_code[code] = index

    def read(self, grid: Grid) -> np.ndarray:
        """Class indices (height, width) uint8; `IGNORE` off the files, where they hold no data,
        and for codes that the legend leaves out. Raises `DataError` for an unknown code."""
        target = np.full((grid.height, grid.width), IGNORE, np.uint8)
        self._fill(target, grid)
        return target

    def require_overlap(self, grid: Grid, file: Path) -> None:
        """Raise `DataError` unless a file of labels meets ``grid``, which is that of ``file``."""
        extents = {i: _bounds_in(grid, self._grids[i].crs) for i in set(self._systems)}
        for own, system in zip(self._grids, self._systems, strict=True):
            if (extent := extents[system]) and _meet(extent, own.bounds):
                return
        own, extent = self._grids[0], extents[0]
        where = _extent(extent) if extent else "cannot be expressed in its CRS"
        more = f" (and {len(self.files) - 1} more files)" if len(self.files) > 1 else ""
        raise DataError(
            f"{file} and its labels {self.files[0]}{more} do not overlap: in {crs_name(own.crs)} "
            f"the image lies at {where}, the labels at {_extent(own.bounds)}; take labels of the "
            "image's place"
        )

    def _fill(self, target: np.ndarray, grid: Grid) -> None:
        """Write into ``target`` what is known of ``grid``, in halves where it is too much."""
        height, width = target.shape
        if height * width > LARGEST_BLOCK or not self._fill_block(target, grid):
            if height >= width:
                half = height // 2
                self._fill(target[:half], grid.window(0, 0, half, width))
                self._fill(target[half:], grid.window(half, 0, height - half, width))
            else:
                half = width // 2
                self._fill(target[:, :half], grid.window(0, 0, height, half))
                self._fill(target[:, half:], grid.window(0, half, height, width - half))

    def _fill_block(self, target: np.ndarray, grid: Grid) -> bool:
        """Fill a block at once; False, and nothing useful, where too much would be read."""
        centres: dict[int, tuple[np.ndarray, np.ndarray, Bounds] | None] = {}
        still_open = np.ones(target.shape, bool)
        tiles = zip(self.files, self._grids, self._reach, self._systems, strict=True)
        for file, own, reach, system in tiles:
            if system not in centres:
                centres[system] = _centres_in(grid, own.crs)
            place = centres[system]
            # Of hundreds of tiles one or two lie here.
            if place is None or not _meet(place[2], reach):
                continue
            x, y, _ = place
            columns = np.floor((x - own.transform.c) / own.transform.a + TIE)
            rows = np.floor((y - own.transform.f) / own.transform.e + TIE)
            wanted = still_open & (rows >= 0) & (rows < own.height)
            wanted &= (columns >= 0) & (columns < own.width)
            if not wanted.any():
                continue
            r, c = rows[wanted].astype(np.int64), columns[wanted].astype(np.int64)
            top, left = int(r.min()), int(c.min())
            height, width = int(r.max()) + 1 - top, int(c.max()) + 1 - left
            if height * width > LARGEST_READ and target.size > 1:
                return False
            codes, valid = raster.read_window(file, top, left, height, width)
            codes, valid = codes[r - top, c - left, 0], valid[r - top, c - left]
            indices = self._indices(codes, valid)
            if (indices == _UNKNOWN).any():
                at = int(np.argmax(indices == _UNKNOWN))
                self._refuse(file, own, int(codes[at]), int(r[at]), int(c[at]))
            known = indices != _NOTHING
            wanted[wanted] = known
            target[wanted] = indices[known]
            still_open &= ~wanted
            if not still_open.any():
                break
        return True

    def _indices(self, codes: np.ndarray, valid: np.ndarray) -> np.ndarray:
        in_table = (codes >= 0) & (codes < len(self._index_of_code))
        indices = np.where(in_table, self._index_of_code[np.where(in_table, codes, 0)], _UNKNOWN)
        return np.where(valid, indices, _NOTHING)

    def _refuse(self, file: Path, own: Grid, code: int, row: int, column: int) -> None:
        x, y = own.transform @ (column + 0.5, row + 0.5)
        known = sorted(self.legend.index_of_code)
        raise DataError(
            f"{file} holds the code {code} at row {row}, column {column} ({x:.10g}, {y:.10g} in "
            f"{crs_name(own.crs)}), which is none of the {len(known)} codes of its class table "
            f"({known[0]} to {known[-1]}); is it the file of another product or year?"
        )


def _checked_grid(file: Path) -> Grid:
    header = raster.describe(file)
    if header.bands != 1:
        raise DataError(
            f"{file} has {header.bands} bands, expected 1 of class codes; is it an image, or a "
            "picture of the labels? One band: gdal_translate -b 1 in.tif out.tif"
        )
    if not np.issubdtype(header.dtype, np.integer):
        raise DataError(
            f"{file} holds {header.dtype}, expected whole numbers, class codes; take the original, "
            "or if nothing was interpolated: gdal_translate -ot Byte in.tif out.tif"
        )
    return header.grid()


def _centres_in(grid: Grid, crs: CRS) -> tuple[np.ndarray, np.ndarray, Bounds] | None:
    """Coordinates x, y (height, width) in ``crs`` of the pixels' centres, to a millimetre, and
    what they lie within; None where the grid lies off what ``crs`` can express."""
    near = int(np.clip(LATTICE_METRES / grid.pixel_metres, 1, 16))
    step = max(grid.height, grid.width) if grid.crs == crs else near
    rows, columns = (np.append(np.arange(0, n - 1, step), n - 1) for n in (grid.height, grid.width))
    x, y = np.meshgrid(
        grid.transform.c + grid.transform.a * (columns + 0.5),
        grid.transform.f + grid.transform.e * (rows + 0.5),
    )
    if grid.crs != crs:
        try:
            moved = transform(grid.crs, crs, x.ravel(), y.ravel())
        except (RasterioError, CPLE_BaseError):
            return None
        x, y = (np.reshape(values, x.shape) for values in moved)
    turn = 360.0 if grid.crs != crs and crs.is_geographic else None
    x = _between(_between(x, rows, 0, turn), columns, 1, turn)
    y = _between(_between(y, rows, 0), columns, 1)
    if turn:
        x = np.where(x > 180, x - turn, np.where(x < -180, x + turn, x))
    known = np.isfinite(x) & np.isfinite(y)
    if not known.any():
        return None
    within = x[known].min(), y[known].min(), x[known].max(), y[known].max()
    return x, y, within


def _between(
    values: np.ndarray, places: np.ndarray, axis: int, turn: float | None = None
) -> np.ndarray:
    """Values at every pixel along an axis from those at ``places``, linearly; of angles, which are
    the same after a ``turn``, by the shorter way."""
    pixels = np.arange(places[-1] + 1)
    low = np.searchsorted(places, pixels, side="right") - 1
    high = np.minimum(low + 1, len(places) - 1)
    weight = (pixels - places[low]) / np.maximum(places[high] - places[low], 1)
    start, stop = np.take(values, low, axis), np.take(values, high, axis)
    with np.errstate(invalid="ignore"):  # What cannot be projected is infinite.
        way = stop - start
        if turn:
            way -= turn * np.rint(way / turn)
        return start + np.expand_dims(weight, 1 - axis) * way


def _bounds_in(grid: Grid, crs: CRS) -> Bounds | None:
    try:
        bounds = transform_bounds(grid.crs, crs, *grid.bounds)
    except (RasterioError, CPLE_BaseError):
        return None
    return bounds if np.isfinite(bounds).all() else None


def _meet(one: Bounds, other: Bounds) -> bool:
    """Whether boxes share ground; the west of ``one`` is its larger number over the date line."""
    west, south, east, north = one
    if west > east:
        halves = (west, south, 180.0, north), (-180.0, south, east, north)
        return any(_meet(half, other) for half in halves)
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _extent(bounds: Bounds) -> str:
    west, south, east, north = bounds
    return f"x {west:.10g} to {east:.10g}, y {south:.10g} to {north:.10g}"
