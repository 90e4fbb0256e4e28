"""A map of class codes written as a coarser raster of another CRS, as crop maps come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject, transform_bounds

from dlbench.data.dataset import ClassInfo
from dlbench.data.grid import Grid

MARGIN = 3
"""Pixels of background on every side; corners that the turned map leaves are background too."""


def write_coded_raster(
    path: Path,
    codes: np.ndarray,
    grid: Grid,
    crs: CRS,
    pixel: float,
    origin: tuple[float, float],
    entries: Sequence[ClassInfo],
) -> Path:
    """Write ``codes`` (height, width) uint8 on ``grid`` as pixels of ``pixel`` metres in ``crs``.

    A pixel gets the code of the larger part of it. Corners of pixels lie a whole number of pixels
    from ``origin`` (x, y); the file has the colour table of ``entries`` and a world file.
    """
    west, south, east, north = transform_bounds(grid.crs, crs, *grid.bounds, densify_pts=21)
    left = math.floor((west - origin[0]) / pixel) - MARGIN
    right = math.ceil((east - origin[0]) / pixel) + MARGIN
    top = math.floor((origin[1] - north) / pixel) - MARGIN
    bottom = math.ceil((origin[1] - south) / pixel) + MARGIN
    transform = Affine(pixel, 0, origin[0] + left * pixel, 0, -pixel, origin[1] - top * pixel)
    coarse = np.zeros((bottom - top, right - left), np.uint8)
    is_coarser = pixel > grid.pixel_metres
    reproject(
        np.ascontiguousarray(codes, np.uint8), coarse,
        src_transform=grid.transform, src_crs=grid.crs, dst_transform=transform, dst_crs=crs,
        resampling=Resampling.mode if is_coarser else Resampling.nearest,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", height=coarse.shape[0], width=coarse.shape[1], count=1,
        dtype="uint8", crs=crs, transform=transform, compress="deflate", tiled=True,
        blockxsize=256, blockysize=256, tfw="YES",
    ) as file:  # fmt: skip
        file.write(coarse, 1)
        file.write_colormap(1, {e.code: (*e.color, 255) for e in entries})
    return path
