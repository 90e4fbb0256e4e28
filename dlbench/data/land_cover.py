"""Sentinel-2 imagery labelled by any raster of class codes: land cover, land use, crop types."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.errors import RasterioError

from dlbench.data import raster
from dlbench.data.dataset import ClassInfo, DataError
from dlbench.data.grid import Imagery, Labels
from dlbench.data.labelled_sentinel2 import LABEL_FOLDER, LAYOUT, LICENCE, LabelledSentinel2
from dlbench.data.labels.coded_raster import CodedRaster
from dlbench.data.labels.remapping import remap

MOST_CODES = 1 << 16


class LandCover(LabelledSentinel2):
    """Options as `LabelledSentinel2` has them, and what the raster's codes mean.

    ``classes`` gives the codes of each class ({forest: [2], crops: [1, 10-19]}); codes of none are
    ignored, or of the class ``other``. ``labels`` names the raster, from the data set's folder;
    without, all those in ``labels/`` add up.
    """

    name = "land_cover"
    licence = f"labels: as their source says; {LICENCE}"
    source = "https://dataspace.copernicus.eu"
    layout = f"{LAYOUT}{LABEL_FOLDER}/    one or more GeoTIFFs of class codes, or labels=FILE.tif"

    def __init__(
        self,
        root: Path,
        size: tuple[int, int] | None = None,
        classes: Mapping[str, Sequence[str | int]] | None = None,
        labels: str | None = None,
        other: str = "ignore",
        colors: Mapping[str, str] | None = None,
        **imagery: Any,
    ) -> None:
        files = _files(Path(root), labels)
        if not classes or not isinstance(classes, Mapping):
            held = ", ".join(map(str, _codes_of(files[0])))
            raise DataError(
                f"{self.name} needs what the codes of {files[0]} mean; it holds {held}: give "
                "data.options.classes={NAME: [CODE, ...], ...}"
            )
        known = [ClassInfo(f"code {code}", (0, 0, 0), code) for code in range(MOST_CODES)]
        palette = {str(name): _color(number) for number, name in enumerate(classes)}
        legend = remap(known, classes, other, palette | dict(colors or {}))
        self._raster = CodedRaster(files, legend)
        super().__init__(root, size, **imagery)
        self.classes = legend.classes

    def labels(self, image: Imagery) -> Labels:
        self._raster.require_overlap(image.grid, image.file)
        return self._raster


def _files(root: Path, labels: str | None) -> list[Path]:
    if labels is not None:
        return [root / labels]
    folder = root / LABEL_FOLDER
    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in (".tif", ".tiff"))
    if not files:
        raise DataError(
            f"{folder} holds no .tif of class codes; put it there, or name it from {root}: "
            "data.options.labels=FILE.tif"
        )
    return files


def _codes_of(file: Path) -> list[int]:
    """The codes of a raster, of a large one as a sample of its pixels shows them."""
    with raster.open_raster(file) as dataset:
        shape = min(dataset.height, 2000), min(dataset.width, 2000)
        try:
            codes = np.unique(dataset.read(1, out_shape=shape))
        except (RasterioError, OSError) as error:
            raise raster.unreadable(file, error) from error
    return [int(code) for code in codes[np.isfinite(codes)]]


def _color(number: int) -> str:
    """Hues a golden section apart, so that no two classes are alike."""
    parts = colorsys.hsv_to_rgb(0.35 + 0.618034 * number, 0.75, 0.9 - 0.15 * (number % 3))
    return "#" + bytes(round(255 * part) for part in parts).hex()
