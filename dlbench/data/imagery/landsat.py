"""Landsat Collection 2 Level-2: surface reflectance at 30 m of Landsat 4 to 9, a folder a scene.

Formats and constants: USGS, Landsat 8-9 Collection 2 Level 2 Science Product Guide (LSDS-1619).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dlbench.data import block_cache, raster
from dlbench.data.dataset import DataError

PRODUCT = re.compile(r"(L[COTEM]\d\d)_L2S[PR]_\d{6}_(\d{4})\d{4}_\d{8}_02_(?:T1|T2)")
"""Sensor, processing level, path and row, year and date, processing date, collection, tier."""
BAND_NAME = "{product}_SR_B{number}.TIF"
QUALITY_NAME = "{product}_QA_PIXEL.TIF"
EXPORTED = re.compile(r"SR_B\d")
"""How Earth Engine describes the same bands of its collections LANDSAT/*/C02/T1_L2."""
BANDS = ("blue", "green", "red", "near infrared", "shortwave infrared 1", "shortwave infrared 2")
"""What all sensors have, so that scenes of many years go together."""
NUMBERS = {
    "OLI": dict(zip(BANDS, (2, 3, 4, 5, 6, 7), strict=True)) | {"coastal aerosol": 1},
    "TM": dict(zip(BANDS, (1, 2, 3, 4, 5, 7), strict=True)),
}
"""Landsat 8 and 9; Landsat 4, 5 and 7."""
GAIN, OFFSET, FILL = 0.0000275, -0.2, 0
"""Reflectance = number * GAIN + OFFSET."""
SCALE = 10_000
FILL_BIT = 0
CLOUD_BITS = {"dilated cloud": 1, "cirrus": 2, "cloud": 3, "cloud shadow": 4}


def is_landsat(folder: Path) -> bool:
    """Whether a folder holds bands of a scene."""
    return any(folder.glob("*_SR_B*"))


def refuse_numbers(file: Path, names: Sequence[str | None], dtype: np.dtype[Any]) -> None:
    """Raise `DataError` for a raster of Landsat's numbers as they are, for which reflectance would
    be taken: of 0.1 the number is 10909. ``names`` are the descriptions of its bands."""
    if dtype == np.uint16 and any(EXPORTED.fullmatch(name or "") for name in names):
        raise DataError(
            f"{file} holds Landsat's own numbers, bands {', '.join(map(str, names))} of uint16, "
            "not reflectance x 10000; give the folder of the scene, *_SR_B*.TIF and "
            "*_QA_PIXEL.TIF, or export its bands scaled: "
            "image.multiply(0.275).subtract(2000).toInt16()"
        )


class Landsat:
    """A scene as `Imagery`: reflectance x 10000 uint16, as Sentinel-2 has it, negative ones 0.

    Fill cannot be used, nor, unless ``clouds``, what QA_PIXEL takes for cloud or its shadow.
    ``bands`` are names of `NUMBERS`. Raises `DataError`.
    """

    dtype = np.dtype(np.uint16)

    def __init__(self, folder: Path, bands: Sequence[str] = BANDS, clouds: bool = False) -> None:
        products = {m[0]: m for f in Path(folder).glob("*_SR_B*") if (m := PRODUCT.match(f.name))}
        if len(products) != 1:
            raise DataError(
                f"{folder} holds the bands of {len(products)} scenes, expected one: files "
                f"{BAND_NAME.format(product='LC08_L2SP_ppprrr_yyyymmdd_yyyymmdd_02_T1', number=4)} "
                "of Collection 2 Level-2"
            )
        self.name, found = next(iter(products.items()))
        self.year = int(found[2])
        """Of acquisition."""
        numbers = NUMBERS["OLI" if found[1] in ("LC08", "LC09", "LO08", "LO09") else "TM"]
        unknown = [band for band in bands if band not in numbers]
        if unknown:
            raise DataError(f"{self.name} has no band {unknown}, allowed: {', '.join(numbers)}")
        self.bands = tuple(bands)
        self._files = [
            Path(folder) / BAND_NAME.format(product=self.name, number=numbers[band])
            for band in bands
        ]
        self._quality = Path(folder) / QUALITY_NAME.format(product=self.name)
        refused = (FILL_BIT,) if clouds else (FILL_BIT, *CLOUD_BITS.values())
        self._refused = sum(1 << bit for bit in refused)
        self.file = self._files[0]
        first = raster.describe(self.file)
        self.grid, self.block = first.grid(), first.block
        for file in (*self._files, self._quality):
            header = raster.describe(file)
            if (header.bands, header.dtype) != (1, np.uint16) or header.grid() != self.grid:
                raise DataError(
                    f"{file} has {header.bands} bands of {header.dtype}, {header.height} x "
                    f"{header.width} pixels, expected 1 of uint16 on the grid of {self.file} "
                    f"({self.grid.height} x {self.grid.width}); fetch the scene again"
                )

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        place = row, column, height, width
        numbers = np.dstack([block_cache.read_window(file, *place)[0] for file in self._files])
        quality, _ = block_cache.read_window(self._quality, *place)
        valid = (numbers != FILL).all(axis=-1) & (quality[..., 0] & self._refused == 0)
        reflectance = numbers * np.float32(GAIN * SCALE) + np.float32(OFFSET * SCALE)
        values = np.clip(np.rint(reflectance), 0, None) * valid[..., None]
        return values.astype(self.dtype), valid
