"""Miniature Sentinel-2 scenes of `parcels`: SAFE products and an Earth Engine-like export.

SAFE/S2A_MSIL1C_20220421T..._N0400_....SAFE   one a date: JP2, offset, cloud mask, no data
export/S2_HARMONIZED_20220421.tif             one a date: 13 bands at 10 m, no clouds
cover.tif                                     index in `parcels.COVERS`, number of the parcel
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from scipy.ndimage import gaussian_filter

from dlbench.data.dataset import DataError
from dlbench.data.grid import Grid
from dlbench.data.imagery.safe import (
    CLASSI_RESOLUTION,
    NO_DATA,
    QUANTIFICATION,
    RESOLUTION,
    SATURATED,
)
from dlbench.data.labelled_sentinel2 import IMAGERY_FOLDER, LABEL_FOLDER
from dlbench.data.miniatures import parcels
from dlbench.data.scenes import new_folder

VERSION = 1
"""Raised whenever the same arguments would give other pixels."""
DATES = (date(2022, 4, 21), date(2022, 6, 10), date(2022, 8, 4))
CLASSES = ("winter wheat", "winter barley", "maize", "soya", "sunflower", "grassland")
OFFSET = -1000
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
    _require_size(size, 60)
    parcel, cover = parcels.landscape(seed, size, classes)
    with new_folder(folder, "manifest.json", "Sentinel-2 scenes") as unfinished:
        (unfinished / "export").mkdir()
        for number, day, ground in parcels.overpasses(cover, parcel, dates, seed):
            write_export(unfinished / "export", day, ground)
            cloudy = clouds(seed, number, size)
            unseen = np.zeros((size, size), bool)
            if number == len(dates) - 1:
                y, x = np.indices(unseen.shape)
                unseen = y < size / EDGE * (x / size) ** 2
            write_safe(unfinished / "SAFE", day, ground, cloudy, unseen)
        _write(unfinished / "cover.tif", np.stack([cover, parcel]), parcels.grid(size))
        manifest = {"generator": VERSION, "seed": seed, "size": size, "classes": list(classes)}
        (unfinished / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return Path(folder)


@contextmanager
def labelled_landscape(
    folder: Path,
    seed: int,
    version: int,
    classes: Sequence[str],
    size: int = 360,
    place: parcels.Place = parcels.FERRARA,
) -> Iterator[tuple[Path, Path, np.ndarray, np.ndarray, Grid]]:
    """The start of a labelled data set that becomes ``folder`` at the end of the block: its
    folders of imagery and labels, the ground as `parcels.landscape` has it, and its grid. Raises
    `DataError` for a size that is no multiple of 6.
    """
    _require_size(size, 6)
    parcel, cover = parcels.landscape(seed, size, classes)
    with new_folder(folder, "manifest.json", "landscape") as unfinished:
        imagery, labels = (unfinished / name for name in (IMAGERY_FOLDER, LABEL_FOLDER))
        imagery.mkdir()
        labels.mkdir()
        yield imagery, labels, parcel, cover, parcels.grid(size, place)
        manifest = {"generator": version, "seed": seed, "size": size, "classes": list(classes)}
        (unfinished / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def _require_size(size: int, smallest: int) -> None:
    """Bands of 60 m have a sixth of the pixels."""
    if size < smallest or size % 6:
        raise DataError(f"size is {size} pixels of 10 m, allowed: multiples of 6 from {smallest}")


def product_name(day: date, tile: str = parcels.FERRARA.tile) -> str:
    """Of the SAFE folder of a date."""
    return f"S2A_MSIL1C_{day:%Y%m%d}T101601_N0400_R065_{tile}_{day:%Y%m%d}T121530.SAFE"


def write_export(
    folder: Path,
    day: date,
    ground: np.ndarray,
    place: parcels.Place = parcels.FERRARA,
    cloudy: np.ndarray | None = None,
) -> Path:
    """Write a GeoTIFF of COPERNICUS/S2_HARMONIZED from `parcels.reflectance`; ``cloudy`` (height,
    width) bool becomes its QA60 band.
    """
    if cloudy is not None:
        ground = np.where(cloudy[..., None], CLOUD_REFLECTANCE, ground)
    values = [_as_seen(ground, band, 10) for band in RESOLUTION]
    names = [f"B{band[1:].lstrip('0')}" for band in RESOLUTION]
    if cloudy is not None:
        values.append(np.where(cloudy, 1 << 10, 0).astype(np.uint16))
        names.append("QA60")
    path = folder / f"S2_HARMONIZED_{day:%Y%m%d}.tif"
    _write(path, np.stack(values), parcels.grid(len(ground), place), names)
    return path


def write_single_bands(
    folder: Path, day: date, ground: np.ndarray, place: parcels.Place = parcels.FERRARA
) -> Path:
    """Write a folder of GeoTIFFs, one a band in its own resolution, without offset."""
    scene = folder / f"{place.tile}_{day:%Y%m%d}T101601"
    scene.mkdir()
    for band, resolution in RESOLUTION.items():
        grid = _coarser(len(ground), resolution, place)
        _write(scene / f"{scene.name}_{band}.tif", _as_seen(ground, band, resolution)[None], grid)
    return scene


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


def clouds(seed: int, number: int, size: int) -> np.ndarray:
    """Where the sky of the overpass ``number`` is not clear (size, size) bool."""
    noise = np.random.default_rng([seed, 3, number]).normal(size=(size, size))
    field = gaussian_filter(noise, size / 24)
    return field > np.quantile(field, 1 - CLOUD_SHARE)


def write_safe(
    folder: Path,
    day: date,
    ground: np.ndarray,
    cloudy: np.ndarray,
    unseen: np.ndarray | None = None,
    place: parcels.Place = parcels.FERRARA,
) -> Path:
    """Write a product of a `parcels.reflectance`; ``cloudy``, ``unseen`` (height, width) bool."""
    granule = f"L1C_{place.tile}_A035666_{day:%Y%m%d}T101559"
    root = folder / product_name(day, place.tile)
    images, quality = (root / "GRANULE" / granule / sub for sub in ("IMG_DATA", "QI_DATA"))
    images.mkdir(parents=True)
    quality.mkdir()
    size = len(cloudy)
    ground = np.where(cloudy[..., None], CLOUD_REFLECTANCE, ground)
    for band, resolution in RESOLUTION.items():
        numbers = _as_seen(ground, band, resolution).astype(np.int64) - OFFSET
        numbers = numbers.clip(NO_DATA + 1, SATURATED - 1)
        if unseen is not None:
            numbers[block_means(unseen, resolution // 10) > 0] = NO_DATA
        name = f"{place.tile}_{day:%Y%m%d}T101601_{band}.jp2"
        _write(images / name, numbers[None].astype(np.uint16), _coarser(size, resolution, place))
    opaque = block_means(cloudy, CLASSI_RESOLUTION // 10) > 0
    mask = np.stack([opaque, np.zeros_like(opaque), np.zeros_like(opaque)]).astype(np.uint8)
    _write(quality / "MSK_CLASSI_B00.jp2", mask, _coarser(size, CLASSI_RESOLUTION, place))
    (root / "MTD_MSIL1C.xml").write_text(_product_xml(day, place))
    (root / "GRANULE" / granule / "MTD_TL.xml").write_text(_tile_xml(day, size, place))
    return root


def _coarser(size: int, resolution: int, place: parcels.Place) -> Grid:
    fine = parcels.grid(size, place)
    factor = resolution / parcels.PIXEL
    side = round(size / factor)
    return Grid(fine.crs, fine.transform @ fine.transform.scale(factor), side, side)


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


def _product_xml(day: date, place: parcels.Place) -> str:
    offsets = "".join(
        f'<RADIO_ADD_OFFSET band_id="{number}">{OFFSET}</RADIO_ADD_OFFSET>\n'
        for number in range(len(RESOLUTION))
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-1C_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-1C.xsd">
<n1:General_Info>
<Product_Info>
<PRODUCT_START_TIME>{day}T10:16:01.024Z</PRODUCT_START_TIME>
<PRODUCT_URI>{product_name(day, place.tile)}</PRODUCT_URI>
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


def _tile_xml(day: date, size: int, place: parcels.Place) -> str:
    west, north = place.origin
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
<HORIZONTAL_CS_CODE>EPSG:{place.epsg}</HORIZONTAL_CS_CODE>
{sizes}</Tile_Geocoding>
</n1:Geometric_Info>
</n1:Level-1C_Tile_ID>
"""
