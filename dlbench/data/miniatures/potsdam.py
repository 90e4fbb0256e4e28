"""Miniature procedural scenes in the layout of ISPRS Potsdam, the release's oddities included.

Archives unpacked into two folders of one name, world files in place of a CRS, padded names of
heights, 4_12's lossy label, the other yellow of 6_7's cars, the column that 3_13's heights lack.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import rasterio
from PIL import Image
from pydantic import Field

from dlbench.data import potsdam
from dlbench.data.isprs import CLASSES
from dlbench.data.options import Count
from dlbench.data.scenes import PIXEL_SIZE, erode, new_folder
from dlbench.data.suburb import CAR, survey

VERSION = 1
"""Raised whenever the same arguments would give other pixels."""
TILES = ("2_10", "3_11", "4_11", "4_12", "6_7", "7_8", "2_11", "6_11", "2_13", "3_13")
Tile = Annotated[str, Field(pattern=r"^\d_\d+$", description="'ROW_COLUMN'")]
TILE_SIZE = 320
SEA_TO_STREET = 36.0
"""Metres."""
WEST, NORTH = 366_000.0, 5_810_000.0
"""Easting and northing in UTM zone 33 of a place in Potsdam."""
ORANGE_YELLOW = (252, 255, 0)


def make(
    folder: Path, seed: int = 0, tiles: Sequence[Tile] = TILES, tile_size: Count = TILE_SIZE
) -> Path:
    """Write scenes for the official ``tiles`` to a new ``folder``, whole or not at all.

    Raises `DataError` where a folder without scenes is in the way.
    """
    with new_folder(folder, "manifest.json", "scenes") as unfinished:
        for area in tiles:
            _write_tile(unfinished, area, seed, tile_size)
        manifest = {"generator": VERSION, "seed": seed, "tiles": tiles, "tile_size": tile_size}
        (unfinished / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return Path(folder)


def _write_tile(root: Path, area: str, seed: int, size: int) -> None:
    row, column = map(int, area.split("_"))
    number = 100 * row + column
    image, label, heights = survey(seed, number, size)
    rng = np.random.Generator(np.random.PCG64([seed, number, 1]))
    infrared, red, green = np.moveaxis(image, -1, 0)
    by_name = {
        "near infrared": infrared, "red": red, "green": green, "blue": _blue(image, rng),
    }  # fmt: skip
    corner = WEST + column * size * PIXEL_SIZE, NORTH - row * size * PIXEL_SIZE
    for variant, inner in potsdam.IMAGE_FOLDERS.items():
        values = np.stack([by_name[band] for band in potsdam.BANDS[variant]], axis=-1)
        name = potsdam.TILE_NAME.format(area=area, bands=variant)
        _write(root / inner / inner / name, values, corner)

    colors = np.array([c.color for c in CLASSES], np.uint8)
    if area == "6_7":
        colors[CAR] = ORANGE_YELLOW
    palette = colors[label]
    eroded = palette * erode(label)[..., None]
    if area == "4_12":
        palette = _recoded(palette)
    for kind, values in (("full", palette), ("eroded", eroded)):
        folder = root / potsdam.LABEL_FOLDERS[kind][0]
        _write(folder / potsdam.LABEL_NAMES[kind].format(area=area), values, corner)

    above = heights.astype(np.float32)[..., None] * np.float32(PIXEL_SIZE)
    y, x = np.mgrid[:size, :size] / size
    hill = SEA_TO_STREET + 3 * np.sin(x + row) + 5 * np.cos(y + column)
    surface = above + hill[..., None].astype(np.float32)
    if area == "3_13":
        above, surface = above[:, :-1], surface[:, :-1]
    padded = f"{row:02d}_{column:02d}"
    for kind in ("dsm", "ndsm"):
        inner = potsdam.HEIGHT_FOLDERS[kind]
        (root / inner / inner).mkdir(parents=True, exist_ok=True)
    inner = potsdam.HEIGHT_FOLDERS["dsm"]
    _write(root / inner / inner / f"dsm_potsdam_{padded}.tif", surface, corner)
    inner = potsdam.HEIGHT_FOLDERS["ndsm"]
    decimetres = np.clip(np.rint(10 * above[..., 0]), 0, 255).astype(np.uint8)
    picture = root / inner / inner / f"dsm_potsdam_{padded}_normalized_lastools.jpg"
    Image.fromarray(decimetres).save(picture, quality=95)


def _blue(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blue (height, width) uint8: near green, but leaves take most of it and red roofs some."""
    infrared, red, green = np.moveaxis(image.astype(float), -1, 0)
    leaves, rust = np.clip(infrared - red, 0, None), np.clip(red - green, 0, None)
    blue = 0.98 * green - 0.12 * leaves - 0.5 * rust + rng.normal(0, 2, green.shape)
    return np.clip(np.rint(blue), 0, 255).astype(np.uint8)


def _recoded(palette: np.ndarray) -> np.ndarray:
    """Thousands of colours in place of six, none of them exact."""
    pale = np.rint(12 + palette * 0.9).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pale).save(stream, "JPEG", quality=92, subsampling=0)
    return np.asarray(Image.open(stream))


def _write(path: Path, values: np.ndarray, corner: tuple[float, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, bands = values.shape
    profile: dict[str, Any] = {"photometric": "rgb"} if bands == 3 else {}
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=bands, dtype=values.dtype,
        compress="deflate", tiled=True, blockxsize=128, blockysize=128, **profile,
    ) as file:  # fmt: skip
        file.write(np.moveaxis(values, -1, 0))
    # A world file names the centre of the first pixel.
    west, north = corner[0] + PIXEL_SIZE / 2, corner[1] - PIXEL_SIZE / 2
    lines = (PIXEL_SIZE, 0.0, 0.0, -PIXEL_SIZE, west, north)
    path.with_suffix(".tfw").write_text("".join(f"{line}\n" for line in lines))
