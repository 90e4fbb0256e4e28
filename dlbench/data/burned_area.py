"""Burned areas: Landsat scenes, or other georeferenced imagery, labelled by GABAM.

A folder with `imagery/`, which holds scene folders of Landsat Collection 2 Level-2 or GeoTIFF
files, and `gabam/<year>/*.TIF`. A scene is labelled by the map of its year: one taken early in a
year shows little of what that map holds, so take scenes from the end of the fire season.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from affine import Affine

from dlbench.data.dataset import IGNORE, DataError
from dlbench.data.grid import Grid
from dlbench.data.imagery.bands import Bands, open_bands
from dlbench.data.imagery.landsat import Landsat
from dlbench.data.labels.coded_raster import CodedRaster
from dlbench.data.labels.gabam import GABAM
from dlbench.data.windows import (
    SPLITS,
    LabelledImagery,
    Scene,
    WindowedDataSet,
    split_scenes,
)

IMAGERY_FOLDER = "imagery"
LABEL_FOLDER = "gabam"
SHOWN = ("shortwave infrared 1", "near infrared", "red")
"""As red, green and blue, in which scars are dark red."""


class BurnedArea(WindowedDataSet):
    """Windows of the scenes; classes unburned and burned.

    Blocks of every scene go to every split, unless ``scenes`` gives the names of whole scenes
    ({"train": ["LC08_..."], "val": [...]}). ``year`` of the map, where it is not that of a
    Landsat scene; ``clouds`` keeps what Landsat's quality band takes for clouds or shadows.
    """

    name = "burned_area"
    classes = GABAM.legend().classes
    units = "reflectance x 10000"
    value_range = (0.0, 5_000.0)
    """But for clouds, snow and bright sand."""
    licence = (
        "GABAM: free for research, cite Long et al., Remote Sensing 11 (2019) 489; "
        "Landsat: public domain (U.S. Geological Survey)"
    )
    source = GABAM.source
    layout = """\
imagery/LC08_L2SP_007056_20150310_20200909_02_T1/           scenes of Landsat Collection 2 Level-2
    *_SR_B2.TIF ... *_SR_B7.TIF, *_QA_PIXEL.TIF             (from https://earthexplorer.usgs.gov)
imagery/SCENE.tif ...                                       or other georeferenced imagery
gabam/2015/N10W080.TIF ...                                  tiles of the years of the scenes"""

    def __init__(
        self,
        root: Path,
        size: tuple[int, int] | None = None,
        stride: int | None = None,
        scenes: Mapping[str, Sequence[str]] | None = None,
        year: int | None = None,
        clouds: bool = False,
    ) -> None:
        super().__init__(root, size, stride)
        imagery = _imagery(self.root / IMAGERY_FOLDER, clouds)
        first = imagery[0]
        for other in imagery:
            if (other.bands, other.dtype) != (first.bands, first.dtype):
                raise DataError(
                    f"{other.file} has the bands {', '.join(other.bands)} in {other.dtype}, but "
                    f"{first.file} {', '.join(first.bands)} in {first.dtype}; scenes of one data "
                    "set must agree"
                )
        self.bands, self.dtype = first.bands, first.dtype
        if set(SHOWN) <= set(self.bands):
            red, green, blue = map(self.bands.index, SHOWN)
            self.shown = red, green, blue
        if self.dtype == np.uint8:
            self.value_range = (0.0, 255.0)
        elif self.dtype.kind == "f":
            self.value_range = (0.0, 0.5)
        self.ground_sampling_distance = first.grid.pixel_metres
        self._years = GABAM.find(self.root / LABEL_FOLDER)
        labels: dict[int, CodedRaster] = {}
        self._labelled = [self._with_labels(image, year, labels) for image in imagery]
        self._scenes = split_scenes(self._labelled, self.window, scenes)
        self.splits = tuple(split for split in SPLITS if self._scenes[split])

    def scenes(self, split: str) -> Sequence[Scene]:
        return self._scenes[split]

    def missing(self) -> list[str]:
        absent = []
        for scene in self._labelled:
            unknown = np.mean(scene.labels.read(_sparse(scene.imagery.grid)) == IGNORE)
            if unknown:
                absent.append(f"labels of {unknown:.0%} of {scene.file}: tiles of its place")
        return absent

    def _with_labels(
        self, image: Landsat | Bands, year: int | None, labels: dict[int, CodedRaster]
    ) -> LabelledImagery:
        if year is None and isinstance(image, Landsat):
            year = image.year
        if year is None:
            if len(self._years) != 1:
                raise DataError(
                    f"{image.file} does not say its year and {self.root / LABEL_FOLDER} holds "
                    f"{list(self._years)}; give data.options.year=..."
                )
            (year,) = self._years
        if year not in labels:
            files = GABAM.find(self.root / LABEL_FOLDER, year)[year]
            labels[year] = CodedRaster(files, GABAM.legend())
        labels[year].require_overlap(image.grid, image.file)
        return LabelledImagery(image, labels[year])


def _sparse(grid: Grid) -> Grid:
    """Pixels whose centres lie all over a grid."""
    across = Affine.scale(grid.width / 16, grid.height / 16)
    return Grid(grid.crs, grid.transform @ across, 16, 16)


def _imagery(folder: Path, clouds: bool) -> list[Landsat | Bands]:
    found: list[Landsat | Bands] = []
    for place in sorted(folder.glob("*")):
        if place.is_dir() and any(place.glob("*_SR_B*")):
            found.append(Landsat(place, clouds=clouds))
        elif place.suffix.lower() in (".tif", ".tiff"):
            found.append(open_bands([place]))
    if not found:
        raise DataError(
            f"{folder} holds no scene: a folder of Landsat Collection 2 Level-2 "
            "(*_SR_B1.TIF, ..., *_QA_PIXEL.TIF) or a georeferenced .tif"
        )
    return found
