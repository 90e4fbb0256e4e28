"""Maps that are larger than memory, as cloud-optimised GeoTIFFs or as patches for Earth Engine:
whole, or not there at all."""

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
from rasterio.windows import Window as RasterWindow

from dlbench.data.imagery.earth_engine import Mixer, write_patches
from dlbench.data.raster_writing import Written, writing
from dlbench.tiling import Window

RUN_TAG = "DLBENCH_RUN"
"""Metadata of every map: the network. A file that has it may be replaced by another map."""
BLOCK = 512
"""Pixels along the side of a block in the file, GDAL's default for such GeoTIFFs."""


class Layer:
    """A raster in the making: blocks go into a plain GeoTIFF in ``folder``, `publish` makes more.

    ``overviews`` is their resampling, "mode" for classes; ``profile`` has what rasterio needs:
    height, width, count, dtype, nodata, crs, transform. With a ``mixer`` the file becomes TFRecord
    patches, and the mixer is copied beside it. All methods raise `UserError` where the disk does
    not take what they write.
    """

    def __init__(
        self,
        path: Path,
        folder: Path,
        overviews: str,
        mixer: Mixer | None = None,
        **profile: Any,
    ) -> None:
        self.path = path
        self.mixer = mixer
        self.work = folder / f"work_{path.name}"
        self._overviews = overviews
        self._written = Written()
        with writing(path):
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
        """Put ``values`` (rows, columns, bands) where ``window`` says, once for each pixel."""
        self._put(RasterWindow.from_slices(*window), np.moveaxis(values, -1, 0))

    def take(self, work: Path, columns: slice) -> None:
        """Copy ``columns`` of the `work` of another rank's layer."""
        with writing(self.path), rasterio.open(work) as other:
            for top in range(0, other.height, BLOCK):
                rows = slice(top, min(top + BLOCK, other.height))
                place = RasterWindow.from_slices(rows, columns)
                self._put(place, other.read(window=place))

    def close(self) -> None:
        with writing(self.path):
            self.dataset.close()

    def finish(self) -> Path:
        """The cloud-optimised file with its overviews, or that of patches, still in the folder."""
        self.close()
        finished = self.work.with_name(self.path.name)
        if self.mixer is not None:
            with writing(self.path):
                self._written.require_in(self.work)
                with finished.open("wb") as file:
                    write_patches(file, self.path.suffix == ".gz", self.work, self.mixer)
                    os.fsync(file.fileno())
            return finished
        with writing(self.path):
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
            self._written.require_in(finished)
        return finished

    def _put(self, place: RasterWindow, values: np.ndarray) -> None:
        with writing(self.path):
            self.dataset.write(values, window=place)
        self._written.add(values)


def publish(layers: Sequence[Layer]) -> None:
    """Finish all layers, then give them their names."""
    for layer, finished in [(layer, layer.finish()) for layer in layers]:
        with writing(layer.path):
            if layer.mixer is not None:
                shutil.copyfile(layer.mixer.file, finished.with_suffix(".json"))
                os.replace(finished.with_suffix(".json"), mixer_beside(layer.path))
            os.replace(finished, layer.path)


def mixer_beside(path: Path) -> Path:
    """The mixer file that goes with patches: MAP-mixer.json of MAP.tfrecord.gz."""
    return path.with_name(f"{path.name.partition('.tfrecord')[0]}-mixer.json")


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside ``path`` for what is unfinished; gone afterwards, whatever happens."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
