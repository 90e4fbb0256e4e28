"""Maps that are larger than memory, as cloud-optimised GeoTIFFs: whole, or not there at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from dlbench.errors import UserError
from dlbench.tiling import Window

BLOCK = 512
"""Pixels along the side of a block in the file, GDAL's default for such GeoTIFFs."""


class Layer:
    """A raster in the making: blocks go into a plain GeoTIFF in ``folder``, `publish` makes more.

    ``overviews`` is their resampling, "mode" for classes; ``profile`` has what rasterio needs:
    height, width, count, dtype, nodata, crs, transform. All methods raise `UserError` where the
    disk does not take what they write.
    """

    def __init__(self, path: Path, folder: Path, overviews: str, **profile: Any) -> None:
        self.path = path
        self.work = folder / f"work_{path.name}"
        self._overviews = overviews
        with _writing(path):
            self.dataset = rasterio.open(
                self.work,
                "w+",
                driver="GTiff",
                tiled=True,
                blockxsize=BLOCK,
                blockysize=BLOCK,
                compress="deflate",
                zlevel=1,  # it is read but once
                sparse_ok=True,
                bigtiff="yes",
                **profile,
            )

    def write(self, window: Window, values: np.ndarray) -> None:
        """Put ``values`` (rows, columns, bands) where ``window`` says."""
        with _writing(self.path):
            self.dataset.write(np.moveaxis(values, -1, 0), window=RasterWindow.from_slices(*window))

    def take(self, work: Path, columns: slice) -> None:
        """Copy ``columns`` of the `work` of another rank's layer."""
        with _writing(self.path), rasterio.open(work) as other:
            for top in range(0, other.height, BLOCK):
                rows = slice(top, min(top + BLOCK, other.height))
                place = RasterWindow.from_slices(rows, columns)
                self.dataset.write(other.read(window=place), window=place)

    def close(self) -> None:
        with _writing(self.path):
            self.dataset.close()

    def finish(self) -> Path:
        """The cloud-optimised file with its overviews, still in the folder."""
        self.close()
        finished = self.work.with_name(self.path.name)
        with _writing(self.path):
            rasterio.shutil.copy(
                self.work,
                finished,
                driver="COG",
                compress="DEFLATE",
                blocksize=BLOCK,
                overview_resampling=self._overviews,
                bigtiff="IF_SAFER",
                num_threads="ALL_CPUS",
            )
            with finished.open("rb") as file:
                os.fsync(file.fileno())
        return finished


def publish(layers: Sequence[Layer]) -> None:
    """Finish all layers, then give them their names."""
    for layer, finished in [(layer, layer.finish()) for layer in layers]:
        with _writing(layer.path):
            os.replace(finished, layer.path)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside ``path`` for what is unfinished; gone afterwards, whatever happens."""
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (RasterioError, OSError) as error:
        raise UserError(
            f"cannot write {path}: {error.__cause__ or error}; make room, or choose another folder"
        ) from error
