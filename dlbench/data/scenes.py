"""Miniature procedural scenes in the layout and palette of ISPRS Vaihingen.

They stand in where the real tiles, which need a registration, are not at hand: the same files,
bands and colours, read by the same code, at a coarser ground resolution.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from scipy.ndimage import maximum_filter, minimum_filter

from dlbench.data.dataset import DataError
from dlbench.data.isprs import CLASSES
from dlbench.data.options import Count, Split
from dlbench.data.suburb import scene
from dlbench.data.vaihingen import (
    AREAS,
    IMAGE_FOLDER,
    LABEL_FOLDERS,
    LABEL_NAMES,
    TILE_NAME,
)

VERSION = 2
"""Raised whenever the same arguments would give other pixels."""
TILES = {"train": 10, "val": 3, "test": 2}
TILE_SIZE = 768
PIXEL_SIZE = 0.25
"""Metres: at the 9 cm of the real tiles a house would not fit a window of 128 pixels."""
CRS = "EPSG:32632"
ORIGIN = (496_000.0, 5_420_000.0)
"""Easting and northing in `CRS` of the town of Vaihingen an der Enz."""
EROSION = 3
"""Radius in pixels of the border zone that the eroded labels leave out, as in the benchmark."""


def default_folder() -> Path:
    """Where generated scenes are kept: the user's cache folder, so they are made but once."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "dlbench"


def make_vaihingen(
    folder: Path,
    seed: int = 0,
    tiles: dict[Split, Count] | None = None,
    tile_size: Count | None = None,
) -> Path:
    """Write scenes for the first ``tiles`` official areas of each split to a new ``folder``.

    The folder appears whole or not at all; of two processes that make it, the first wins.
    Raises `DataError` where a folder without scenes is in the way.
    """
    tiles = TILES if tiles is None else tiles
    tile_size = TILE_SIZE if tile_size is None else tile_size
    with new_folder(folder, "manifest.json", "scenes") as unfinished:
        for sub in (IMAGE_FOLDER, LABEL_FOLDERS[0]):
            (unfinished / sub).mkdir()
        for split, count in tiles.items():
            for area in AREAS[split][:count]:
                _write_tile(unfinished, area, *scene(seed, area, tile_size))
        manifest = {"generator": VERSION, "seed": seed, "tiles": tiles, "tile_size": tile_size}
        (unfinished / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return Path(folder)


@contextmanager
def new_folder(folder: Path, proof: str, what: str) -> Iterator[Path]:
    """A folder to fill that becomes ``folder`` at the end of the block, whole or not at all.

    Of two processes that make it, the first wins. Raises `DataError` where a folder is in the way
    that holds no generated ``what``: no file ``proof``, which the block writes last.
    """
    folder = Path(folder)
    in_the_way = DataError(
        f"{folder} is in the way: it holds no generated {what}; move it elsewhere"
    )
    # Seen at once, not after what may be an hour's work; an empty folder is replaced.
    replaceable = folder.is_dir() and not any(folder.iterdir())
    if folder.exists() and not replaceable and not (folder / proof).is_file():
        raise in_the_way
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        yield unfinished
        unfinished.chmod(0o755)
        try:
            unfinished.rename(folder)
        except OSError:
            if not (folder / proof).is_file():
                raise in_the_way from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def erode(label: np.ndarray) -> np.ndarray:
    """Where a label (height, width) is farther than `EROSION` pixels from another class."""
    y, x = np.mgrid[-EROSION : EROSION + 1, -EROSION : EROSION + 1]
    disc = x * x + y * y <= EROSION * EROSION
    return maximum_filter(label, footprint=disc) == minimum_filter(label, footprint=disc)


def _write_tile(root: Path, area: int, image: np.ndarray, label: np.ndarray) -> None:
    palette = np.array([c.color for c in CLASSES], np.uint8)[label]
    eroded = palette * erode(label)[..., None]
    labels = root / LABEL_FOLDERS[0]
    transform = from_origin(ORIGIN[0] + 1000 * area, ORIGIN[1], PIXEL_SIZE, PIXEL_SIZE)
    for path, values in (
        (root / IMAGE_FOLDER / TILE_NAME.format(area=area), image),
        (labels / LABEL_NAMES["full"].format(area=area), palette),
        (labels / LABEL_NAMES["eroded"].format(area=area), eroded),
    ):
        with rasterio.open(
            path, "w", driver="GTiff", height=values.shape[0], width=values.shape[1], count=3,
            dtype="uint8", crs=CRS, transform=transform, photometric="rgb", compress="deflate",
            tiled=True, blockxsize=128, blockysize=128,
        ) as file:  # fmt: skip
            file.write(np.moveaxis(values, -1, 0))
