"""A land-cover map of a small place, in the grid of Europe's maps, with Earth Engine exports."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from rasterio.crs import CRS

from dlbench.data.dataset import ClassInfo, DataError
from dlbench.data.miniatures import parcels
from dlbench.data.miniatures.coded_raster import write_coded_raster
from dlbench.data.miniatures.earth_engine import write_tfrecord_export
from dlbench.data.miniatures.sentinel2 import clouds, labelled_landscape, write_export

VERSION = 1
"""Raised whenever the same arguments would give other pixels."""
DATES = (date(2017, 4, 21), date(2017, 8, 4))
SOWN = ("winter wheat", "maize", "sunflower", "grassland", "vineyard", "built-up")
CODES = {
    "cultivated": (1, ("winter wheat", "maize", "sunflower")),
    "forest": (2, ("forest",)),
    "grassland": (3, ("grassland",)),
    "vineyard": (4, ("vineyard",)),
    "artificial": (8, ("built-up", "road")),
}
"""Code of a class, and its covers."""
FORMS = ("geotiff", "tfrecord")
EPSG = 3035
PIXEL = 10.0
"""Metres."""


def make(folder: Path, seed: int = 0, size: int = 360, form: str = "geotiff") -> Path:
    """Write two exports and their map to a new ``folder``, whole or not at all.

    The ``form`` of the exports is geotiff or tfrecord.
    """
    if form not in FORMS:
        raise DataError(f"form is '{form}', allowed: {', '.join(FORMS)}")
    with labelled_landscape(folder, seed, VERSION, SOWN, size) as (
        imagery,
        labels,
        parcel,
        cover,
        grid,
    ):
        for number, day, ground in parcels.overpasses(cover, parcel, DATES, seed):
            export = write_export(imagery, day, ground, cloudy=clouds(seed, number, size))
            if form == "tfrecord":
                write_tfrecord_export(export)
                export.unlink()
        of_cover = {name: code for code, covers in CODES.values() for name in covers}
        codes = parcels.numbered(cover, of_cover)
        entries = [ClassInfo(name, (40 * n, 255, 40 * n), c) for n, (name, (c, _)) in
                   enumerate(CODES.items())]  # fmt: skip
        write_coded_raster(
            labels / "LULC.tif", codes, grid, CRS.from_epsg(EPSG), PIXEL, (0.0, 0.0), entries
        )
    return Path(folder)
