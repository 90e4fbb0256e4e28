"""A year's Cropland Data Layer of a small place, as a national file with its pyramid; with SAFE
products of spring, early and late summer, a data set.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import Resampling

from dlbench.data.grid import Grid
from dlbench.data.labels.cdl import CDL, pixel_metres
from dlbench.data.miniatures import parcels
from dlbench.data.miniatures.coded_raster import write_coded_raster
from dlbench.data.miniatures.sentinel2 import clouds, labelled_landscape, write_safe

VERSION = 1
"""Raised whenever the same arguments would give other pixels."""
DATES = (date(2022, 4, 21), date(2022, 6, 10), date(2022, 8, 4))
CODES = {
    "winter wheat": 24, "winter barley": 21, "maize": 1, "soya": 5, "sunflower": 6,
    "grassland": 176, "forest": 141, "road": 121,
}  # fmt: skip
"""Of the covers of `parcels`; all but the last two are sown."""
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


def make(folder: Path, seed: int = 0, size: int = 360) -> Path:
    """Write three products and the layer of their year to a new ``folder``, whole or not at all."""
    place = parcels.IOWA
    start = labelled_landscape(folder, seed, VERSION, list(CODES)[:-2], size, place)
    with start as (imagery, labels, parcel, cover, grid):
        for number, day, ground in parcels.overpasses(cover, parcel, DATES, seed):
            write_safe(imagery, day, ground, clouds(seed, number, size), place=place)
        write_labels(labels, parcels.numbered(cover, CODES), grid, DATES[0].year)
    return Path(folder)
