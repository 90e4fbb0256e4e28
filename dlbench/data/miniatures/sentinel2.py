"""Miniature Sentinel-2 scenes of `parcels`: SAFE products and an Earth Engine-like export.

SAFE/S2A_MSIL1C_20220421T..._N0400_....SAFE   one a date: JP2, offset, cloud mask, no data
export/S2_HARMONIZED_20220421.tif             one a date: 13 bands at 10 m, no clouds
cover.tif                                     index in `parcels.COVERS`, number of the parcel
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from scipy.ndimage import gaussian_filter

from dlbench.data.dataset import DataError
from dlbench.data.grid import Grid
from dlbench.data.miniatures import parcels
from dlbench.data.safe import (
    CLASSI_RESOLUTION,
    NO_DATA,
    QUANTIFICATION,
    RESOLUTION,
    SATURATED,
)
from dlbench.data.scenes import new_folder

VERSION = 1
"""Raised whenever the same arguments would give other pixels."""
DATES = (date(2022, 4, 21), date(2022, 6, 10), date(2022, 8, 4))
CLASSES = ("winter wheat", "winter barley", "maize", "soya", "sunflower", "grassland")
OFFSET = -1000
TILE = "T32TQQ"
CLOUD_SHARE = 0.04
CLOUD_REFLECTANCE = 0.6
EDGE = 6
"""The last overpass misses a 6th of the eastern border, less and less to the west."""


def make(
    folder: Path,
    seed: int = 0,
    size: int = 360,
    dates: Sequence[date] = DATES,
    classes: Sequence[str] = CLASSES,
) -> Path:
    """Write one landscape of ``size`` pixels of 10 m on several dates to a new ``folder``.

    The folder appears whole or not at all. Raises `DataError` where one is in the way, and for a
    size that is no multiple of 6, as bands of 60 m need it.
    """
    if size < 60 or size % 6:
        raise DataError(f"size is {size} pixels of 10 m, allowed: multiples of 6 from 60")
    parcel, cover = parcels.landscape(seed, size, classes)
    with new_folder(folder, "manifest.json", "Sentinel-2 scenes") as unfinished:
        (unfinished / "export").mkdir()
        for number, day in enumerate(dates):
            ground = parcels.reflectance(cover, parcel, day.timetuple().tm_yday, seed)
            name = f"S2_HARMONIZED_{day:%Y%m%d}.tif"
            names = [f"B{band[1:].lstrip('0')}" for band in RESOLUTION]
            values = np.stack([_as_seen(ground, band, 10) for band in RESOLUTION])
            _write(unfinished / "export" / name, values, parcels.grid(size), names)
            cloudy = _clouds(seed, number, size)
            unseen = np.zeros((size, size), bool)
            if number == len(dates) - 1:
                y, x = np.indices(unseen.shape)
                unseen = y < size / EDGE * (x / size) ** 2
            _write_safe(unfinished / "SAFE", day, ground, cloudy, unseen)
        _write(unfinished / "cover.tif", np.stack([cover, parcel]), parcels.grid(size))
        manifest = {"generator": VERSION, "seed": seed, "size": size, "classes": list(classes)}
        (unfinished / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return Path(folder)


def product_name(day: date) -> str:
    """Of the SAFE folder of a date."""
    return f"S2A_MSIL1C_{day:%Y%m%d}T101601_N0400_R065_{TILE}_{day:%Y%m%d}T121530.SAFE"


def block_means(values: np.ndarray, side: int) -> np.ndarray:
    """(height, width) averaged over squares of ``side`` pixels."""
    height, width = values.shape
    return values.reshape(height // side, side, width // side, side).mean(axis=(1, 3))


def _as_seen(ground: np.ndarray, band: str, pixel: int) -> np.ndarray:
    """Digital numbers without offset of a band, averaged to its resolution, in ``pixel`` metres."""
    plane = ground[..., list(RESOLUTION).index(band)].astype(np.float64)
    side = RESOLUTION[band] // 10
    coarse = np.rint(block_means(plane, side) * QUANTIFICATION)
    repeats = RESOLUTION[band] // pixel
    return coarse.repeat(repeats, axis=0).repeat(repeats, axis=1).astype(np.uint16)


def _clouds(seed: int, number: int, size: int) -> np.ndarray:
    noise = np.random.default_rng([seed, 3, number]).normal(size=(size, size))
    field = gaussian_filter(noise, size / 24)
    return field > np.quantile(field, 1 - CLOUD_SHARE)


def _write_safe(
    folder: Path, day: date, ground: np.ndarray, cloudy: np.ndarray, unseen: np.ndarray
) -> None:
    granule = f"L1C_{TILE}_A035666_{day:%Y%m%d}T101559"
    root = folder / product_name(day)
    images, quality = (root / "GRANULE" / granule / sub for sub in ("IMG_DATA", "QI_DATA"))
    images.mkdir(parents=True)
    quality.mkdir()
    size = len(cloudy)
    ground = np.where(cloudy[..., None], CLOUD_REFLECTANCE, ground)
    for band, resolution in RESOLUTION.items():
        numbers = _as_seen(ground, band, resolution).astype(np.int64) - OFFSET
        numbers = numbers.clip(NO_DATA + 1, SATURATED - 1)
        numbers[block_means(unseen, resolution // 10) > 0] = NO_DATA
        name = f"{TILE}_{day:%Y%m%d}T101601_{band}.jp2"
        _write(images / name, numbers[None].astype(np.uint16), _coarser(size, resolution))
    opaque = block_means(cloudy, CLASSI_RESOLUTION // 10) > 0
    mask = np.stack([opaque, np.zeros_like(opaque), np.zeros_like(opaque)]).astype(np.uint8)
    _write(quality / "MSK_CLASSI_B00.jp2", mask, _coarser(size, CLASSI_RESOLUTION))
    (root / "MTD_MSIL1C.xml").write_text(_product_xml(day))
    (root / "GRANULE" / granule / "MTD_TL.xml").write_text(_tile_xml(day, size))


def _coarser(size: int, resolution: int) -> Grid:
    fine = parcels.grid(size)
    factor = resolution / parcels.PIXEL
    side = round(size / factor)
    return Grid(fine.crs, fine.transform * fine.transform.scale(factor), side, side)


def _write(path: Path, values: np.ndarray, grid: Grid, names: Sequence[str] | None = None) -> None:
    # Lossless, as the products are.
    options: dict[str, Any] = {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES"}
    if path.suffix == ".tif":
        options = {"driver": "GTiff", "compress": "deflate", "predictor": 2, "tiled": True,
                   "blockxsize": 256, "blockysize": 256}  # fmt: skip
    with rasterio.open(
        path, "w", height=grid.height, width=grid.width, count=len(values), dtype=values.dtype,
        crs=grid.crs, transform=grid.transform, **options,
    ) as file:  # fmt: skip
        file.write(values)
        if names:
            file.descriptions = names


def _product_xml(day: date) -> str:
    offsets = "".join(
        f'<RADIO_ADD_OFFSET band_id="{number}">{OFFSET}</RADIO_ADD_OFFSET>\n'
        for number in range(len(RESOLUTION))
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-1C_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-1C.xsd">
<n1:General_Info>
<Product_Info>
<PRODUCT_START_TIME>{day}T10:16:01.024Z</PRODUCT_START_TIME>
<PRODUCT_URI>{product_name(day)}</PRODUCT_URI>
<PROCESSING_LEVEL>Level-1C</PROCESSING_LEVEL>
<PROCESSING_BASELINE>04.00</PROCESSING_BASELINE>
</Product_Info>
<Product_Image_Characteristics>
<QUANTIFICATION_VALUE unit="none">{QUANTIFICATION}</QUANTIFICATION_VALUE>
<Radiometric_Offset_List>
{offsets}</Radiometric_Offset_List>
</Product_Image_Characteristics>
</n1:General_Info>
</n1:Level-1C_User_Product>
"""


def _tile_xml(day: date, size: int) -> str:
    west, north = parcels.ORIGIN
    sizes = "".join(
        f'<Size resolution="{r}"><NROWS>{size * 10 // r}</NROWS><NCOLS>{size * 10 // r}</NCOLS>'
        f'</Size>\n<Geoposition resolution="{r}"><ULX>{west:.0f}</ULX><ULY>{north:.0f}</ULY>'
        f"<XDIM>{r}</XDIM><YDIM>-{r}</YDIM></Geoposition>\n"
        for r in (10, 20, 60)
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-1C_Tile_ID xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-1C_Tile_Metadata.xsd">
<n1:General_Info>
<SENSING_TIME metadataLevel="Standard">{day}T10:15:59.123Z</SENSING_TIME>
</n1:General_Info>
<n1:Geometric_Info>
<Tile_Geocoding metadataLevel="Brief">
<HORIZONTAL_CS_CODE>EPSG:{parcels.EPSG}</HORIZONTAL_CS_CODE>
{sizes}</Tile_Geocoding>
</n1:Geometric_Info>
</n1:Level-1C_Tile_ID>
"""
