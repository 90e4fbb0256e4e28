"""Miniature Landsat scenes of a burned savanna, with GABAM tiles of their real, sparse size.

Scars of this year are dark in near infrared and bright in shortwave; old scars, water and the
shadows of clouds that the quality band misses are dark too, so no single band tells them apart.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform, transform_bounds
from rasterio.windows import Window
from scipy.ndimage import gaussian_filter

from dlbench.data.burned_area import IMAGERY_FOLDER, LABEL_FOLDER
from dlbench.data.imagery import landsat
from dlbench.data.options import Count
from dlbench.data.scenes import new_folder

VERSION = 2
"""Raised whenever the same arguments would give other pixels."""
SCENES = {
    "LC08_L2SP_007056_20150310_20200909_02_T1": (2015, "OLI"),
    "LE07_L2SP_007056_20160319_20200902_02_T1": (2016, "TM"),
}
SCENE_SIZE = 512
UTM = CRS.from_epsg(32618)
CORNER = (830_000.0, 665_000.0)
"""Easting and northing of the Colombian Llanos near 6 N, 72 W."""
TILE = "N10W080.TIF"
TILE_SIDE = 40_000
TILE_PIXEL = 0.00025
TILE_CORNER = (-80.0, 10.0)
# Reflectance in the order of `landsat.BANDS`.
SAVANNA = np.array([0.05, 0.08, 0.09, 0.27, 0.23, 0.13])
FOREST = np.array([0.02, 0.04, 0.03, 0.30, 0.14, 0.06])
WATER = np.array([0.05, 0.06, 0.05, 0.04, 0.02, 0.01])
CHAR = np.array([0.04, 0.05, 0.06, 0.09, 0.16, 0.17])
CLOUD = np.array([0.55, 0.55, 0.56, 0.60, 0.45, 0.35])
QUALITY_CLEAR = 1 << 6
QUALITY_CLOUD = 1 << 3
QUALITY_FILL = 1 << 0


def make(folder: Path, seed: int = 0, scene_size: Count = SCENE_SIZE) -> Path:
    """Write two scenes and the tiles of their years to a new ``folder``, whole or not at all."""
    with new_folder(folder, "manifest.json", "scenes") as unfinished:
        for number, (product, (year, sensor)) in enumerate(SCENES.items()):
            rng = np.random.Generator(np.random.PCG64([seed, number]))
            place = from_origin(CORNER[0], CORNER[1] - 30 * scene_size * number, 30, 30)
            bands, quality, burned = _scene(rng, scene_size)
            _write_landsat(unfinished / IMAGERY_FOLDER / product, sensor, bands, quality, place)
            _write_tile(unfinished / LABEL_FOLDER / str(year) / TILE, burned, place)
        manifest = {"generator": VERSION, "seed": seed, "scene_size": scene_size}
        (unfinished / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return Path(folder)


def _scene(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reflectance (size, size, 6), quality (size, size) uint16, burned (size, size) bool."""

    def patches(scale: float, share: float) -> np.ndarray:
        field = gaussian_filter(rng.normal(size=(size, size)), scale)
        return field > np.quantile(field, 1 - share)

    def mixed(ground: np.ndarray, over: np.ndarray, share: np.ndarray) -> np.ndarray:
        soft = np.clip(gaussian_filter(share.astype(float), 0.7), 0, 1)[..., None]
        return ground * (1 - soft) + over * soft

    mottle = gaussian_filter(rng.normal(size=(size, size)), 3)
    color = SAVANNA * (1 + 0.25 * mottle / mottle.std())[..., None].clip(0.4, 1.8)
    color = mixed(color, FOREST, patches(9, 0.25))
    burned = patches(8, 0.15)
    color = mixed(color, 0.5 * CHAR + 0.5 * SAVANNA, patches(8, 0.08) & ~burned)
    # What the fire spared within a scar differs from it by degrees.
    color = mixed(color, CHAR, burned * rng.uniform(0.8, 1.0, (size, size)))
    water = patches(12, 0.06)
    burned &= ~water
    color = mixed(color, WATER, water)
    cloud = patches(10, 0.03)
    shadow = np.roll(cloud, (9, 7), (0, 1)) & ~cloud
    color = mixed(color * (1 - 0.65 * shadow[..., None]), CLOUD, cloud)
    quality = np.where(cloud, QUALITY_CLOUD, QUALITY_CLEAR).astype(np.uint16)
    y, x = np.mgrid[:size, :size]
    quality[y + x < size // 5] = QUALITY_FILL
    return color + rng.normal(0, 0.006, color.shape), quality, burned


def _write_landsat(
    folder: Path, sensor: str, color: np.ndarray, quality: np.ndarray, place: Affine
) -> None:
    folder.mkdir(parents=True)
    numbers = np.rint((color - landsat.OFFSET) / landsat.GAIN).clip(1, 65_535).astype(np.uint16)
    numbers[quality == QUALITY_FILL] = landsat.FILL
    profile: dict[str, Any] = {
        "crs": UTM, "transform": place, "dtype": "uint16", "blockxsize": 256, "blockysize": 256,
    }  # fmt: skip
    for index, band in enumerate(landsat.BANDS):
        number = landsat.NUMBERS[sensor][band]
        name = landsat.BAND_NAME.format(product=folder.name, number=number)
        _write(folder / name, numbers[..., index], nodata=landsat.FILL, **profile)
    name = landsat.QUALITY_NAME.format(product=folder.name)
    _write(folder / name, quality, nodata=1, **profile)


def _write_tile(path: Path, burned: np.ndarray, place: Affine) -> None:
    """A whole tile, of which only the blocks about the scene are stored."""
    path.parent.mkdir(parents=True)
    height, width = burned.shape
    corners = (*(place * (0, height)), *(place * (width, 0)))
    west, south, east, north = transform_bounds(UTM, "EPSG:4326", *corners)
    left, top = (int(d / TILE_PIXEL) for d in (west - TILE_CORNER[0], TILE_CORNER[1] - north))
    columns = np.arange(left, int((east - TILE_CORNER[0]) / TILE_PIXEL) + 1)
    rows = np.arange(top, int((TILE_CORNER[1] - south) / TILE_PIXEL) + 1)
    longitude, latitude = np.meshgrid(
        TILE_CORNER[0] + (columns + 0.5) * TILE_PIXEL, TILE_CORNER[1] - (rows + 0.5) * TILE_PIXEL
    )
    x, y = transform("EPSG:4326", UTM, longitude.ravel(), latitude.ravel())
    column, row = (np.floor(c).astype(int) for c in ~place * (np.array(x), np.array(y)))
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    values = np.zeros(longitude.size, np.uint8)
    values[inside] = burned[row[inside], column[inside]]
    with rasterio.open(
        path, "w", driver="GTiff", height=TILE_SIDE, width=TILE_SIDE, count=1, dtype="uint8",
        crs="EPSG:4326", transform=from_origin(*TILE_CORNER, TILE_PIXEL, TILE_PIXEL),
        tiled=True, blockxsize=512, blockysize=512, compress="deflate", SPARSE_OK=True,
    ) as file:  # fmt: skip
        file.write(
            values.reshape(longitude.shape), 1, window=Window(left, top, len(columns), len(rows))
        )


def _write(path: Path, values: np.ndarray, **profile: Any) -> None:
    with rasterio.open(
        path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=1,
        compress="deflate", tiled=True, **profile,
    ) as file:  # fmt: skip
        file.write(values, 1)
