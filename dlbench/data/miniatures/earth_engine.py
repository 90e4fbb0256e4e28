"""A GeoTIFF in the files of Earth Engine's other form of export: patches and their mixer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window

from dlbench.data.dataset import DataError
from dlbench.data.imagery import tfrecord


def write_tfrecord_export(
    source: Path, patch: tuple[int, int] = (60, 60), files: int = 2, kernel: int = 0
) -> Path:
    """Write patches (height, width) of the raster ``source``, which they must divide, beside it to
    several files, by ``kernel`` larger on both sides together; the mixer's path.

    All values are floats, as those of Earth Engine are.
    """
    height, width = patch
    with rasterio.open(source) as raster:
        if raster.height % height or raster.width % width:
            raise DataError(f"patches of {height} x {width} do not divide {raster.shape}")
        values = raster.read().astype(np.float32)
        names = raster.descriptions
        mixer = {
            "projection": {
                "crs": raster.crs.to_string(),
                "affine": {"doubleMatrix": list(raster.transform)[:6]},
            },
            "patchDimensions": [width, height],
            "patchesPerRow": raster.width // width,
            "totalPatches": (raster.width // width) * (raster.height // height),
        }
    before = kernel // 2
    margins = (before, kernel - before)
    values = np.pad(values, ((0, 0), margins, margins), mode="edge")
    corners = [
        Window(column, row, width + kernel, height + kernel)
        for row in range(0, values.shape[1] - kernel, height)
        for column in range(0, values.shape[2] - kernel, width)
    ]
    for number, share in enumerate(np.array_split(np.arange(len(corners)), files)):
        path = source.with_name(f"{source.stem}-{number:05d}.tfrecord.gz")
        with path.open("wb") as file, tfrecord.Writer(file, compressed=True) as writer:
            for index in share:
                rows, columns = corners[index].toslices()
                patches = values[:, rows, columns].reshape(len(names), -1)
                writer.write(dict(zip(names, patches, strict=True)))
    out = source.with_name(f"{source.stem}-mixer.json")
    out.write_text(json.dumps(mixer, indent=1))
    return out
