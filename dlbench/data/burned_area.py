"""Burned areas: Landsat scenes, or other georeferenced imagery, labelled by GABAM.

A folder with `imagery/`, which holds scene folders of Landsat Collection 2 Level-2 or GeoTIFF
files, and `gabam/<year>/*.TIF`. A scene is labelled by the map of its year: one taken early in a
year shows little of what that map holds, so take scenes from the end of the fire season.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dlbench.data import gabam
from dlbench.data.dataset import DataError
from dlbench.data.gabam import Gabam
from dlbench.data.geotiff import GeoTiff
from dlbench.data.landsat import Landsat
from dlbench.data.windows import (
    SPLITS,
    LabelledImagery,
    Scene,
    WindowedDataSet,
    split_scenes,
)

IMAGERY_FOLDER = "imagery"
LABEL_FOLDER = "gabam"


class BurnedArea(WindowedDataSet):
    """Windows of the scenes; classes unburned and burned.

    Blocks of every scene go to every split, unless ``scenes`` gives the names of whole scenes
    ({"train": ["LC08_..."], "val": [...]}). ``year`` of the map, where it is not that of a
    Landsat scene; ``clouds`` keeps what Landsat's quality band takes for clouds or shadows.
    """

    name = "burned_area"
    classes = gabam.CLASSES
    units = "reflectance x 10000"
    value_range = (0.0, 10_000.0)
    licence = "GABAM: free for research, cite Long et al. 2019; Landsat: public domain"
    source = gabam.SOURCE

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
        if self.dtype == np.uint8:
            self.value_range = (0.0, 255.0)
        self.ground_sampling_distance = first.grid.pixel_metres
        labels: dict[int, Gabam] = {}
        labelled = [self._labelled(image, year, labels) for image in imagery]
        self._scenes = split_scenes(labelled, self.window, scenes)
        self.splits = tuple(split for split in SPLITS if self._scenes[split])

    def scenes(self, split: str) -> Sequence[Scene]:
        return self._scenes[split]

    def _labelled(
        self, image: Landsat | GeoTiff, year: int | None, labels: dict[int, Gabam]
    ) -> LabelledImagery:
        root = self.root / LABEL_FOLDER
        if year is None and isinstance(image, Landsat):
            year = image.year
        if year is None:
            held = gabam.years(root)
            if len(held) != 1:
                raise DataError(
                    f"{image.file} does not say its year and {root} holds {held}; give "
                    "data.options.year=..."
                )
            year = held[0]
        if year not in labels:
            labels[year] = Gabam(root, year)
        if not labels[year].covers(image.grid):
            raise DataError(
                f"{image.file} lies on no tile of {labels[year].folder}; fetch the tile of its "
                f"place (from {self.source})"
            )
        return LabelledImagery(image, labels[year])


def _imagery(folder: Path, clouds: bool) -> list[Landsat | GeoTiff]:
    found: list[Landsat | GeoTiff] = []
    for place in sorted(folder.glob("*")):
        if place.is_dir() and any(place.glob("*_SR_B*")):
            found.append(Landsat(place, clouds=clouds))
        elif place.suffix.lower() in (".tif", ".tiff"):
            found.append(GeoTiff(place))
    if not found:
        raise DataError(
            f"{folder} holds no scene: a folder of Landsat Collection 2 Level-2 "
            "(*_SR_B1.TIF, ..., *_QA_PIXEL.TIF) or a georeferenced .tif"
        )
    return found
