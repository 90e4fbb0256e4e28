"""A year's Annual Crop Inventory of a small place in a Canadian province; with Earth Engine exports
of three dates, a data set.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
from rasterio.crs import CRS

from dlbench.data.grid import Grid
from dlbench.data.labels.aafc import ACI, pixel_metres
from dlbench.data.miniatures import parcels
from dlbench.data.miniatures.coded_raster import write_coded_raster
from dlbench.data.miniatures.sentinel2 import clouds, labelled_landscape, write_export

VERSION = 1
"""Raised whenever the same arguments would give other pixels."""
DATES = (date(2021, 5, 6), date(2021, 6, 15), date(2021, 8, 4))
CODES = {
    "winter wheat": 145, "winter barley": 133, "rapeseed": 153, "soya": 158, "sunflower": 157,
    "grassland": 122, "forest": 220, "road": 34,
}  # fmt: skip
"""Of the covers of `parcels`; all but the last two are sown."""
EPSG = 3978
"""Canada Atlas Lambert: no more than an example, real files name their own."""


def write_labels(
    folder: Path, codes: np.ndarray, grid: Grid, year: int, province: str = "sk", version: int = 1
) -> Path:
    """Write the inventory of ``year`` from codes (height, width) on ``grid``; return its file."""
    suffix = "" if version == 1 else f"_v{version}"
    return write_coded_raster(
        Path(folder) / f"aci_{year}_{province}{suffix}.tif", codes, grid, CRS.from_epsg(EPSG),
        pixel_metres(year), (0.0, 0.0), ACI.entries(),
    )  # fmt: skip


def make(folder: Path, seed: int = 0, size: int = 360) -> Path:
    """Write three exports and the inventory of their year to a new ``folder``, whole or not at
    all."""
    place = parcels.SASKATCHEWAN
    start = labelled_landscape(folder, seed, VERSION, list(CODES)[:-2], size, place)
    with start as (imagery, labels, parcel, cover, grid):
        for number, day, ground in parcels.overpasses(cover, parcel, DATES, seed):
            write_export(imagery, day, ground, place, clouds(seed, number, size))
        write_labels(labels, parcels.numbered(cover, CODES), grid, DATES[0].year)
    return Path(folder)
