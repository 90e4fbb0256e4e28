"""Burned areas: Landsat or Sentinel-2 scenes, or other georeferenced imagery, labelled by GABAM.

A folder with `imagery/`, which holds the scenes, and `gabam/<year>/*.TIF`. A scene is labelled by
the map of its year: one taken early in a year shows little of what that map holds, so take scenes
from the end of the fire season.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from affine import Affine

from dlbench.data.dataset import IGNORE, DataError
from dlbench.data.grid import Grid, Imagery
from dlbench.data.imagery.bands import open_bands
from dlbench.data.imagery.landsat import Landsat, is_landsat, refuse_numbers
from dlbench.data.imagery.safe import is_safe
from dlbench.data.imagery.sentinel2 import Harmonized, Sentinel2, open_sentinel2
from dlbench.data.imagery.sentinel2_files import bands_in, holds_sentinel2
from dlbench.data.labelled_imagery import LabelledImagery
from dlbench.data.labelled_sentinel2 import LICENCE, TRUE_COLOUR, year_of
from dlbench.data.labels.coded_raster import CodedRaster
from dlbench.data.labels.gabam import GABAM
from dlbench.data.overlap import split_scenes
from dlbench.data.windows import (
    SPLITS,
    Scene,
    WindowedDataSet,
)

IMAGERY_FOLDER = "imagery"
LABEL_FOLDER = "gabam"
SENTINEL2_BANDS = ("B02", "B03", "B04", "B08", "B11", "B12")
"""Those nearest to what every Landsat sensor has."""
SHOWN = (("shortwave infrared 1", "near infrared", "red"), ("B11", "B08", "B04"), TRUE_COLOUR)
"""As red, green and blue: in the first two of these scars are dark red."""
YEAR = re.compile(r"(?<![0-9])(?:19[89]|20[0-9])[0-9](?![0-9])")


class BurnedArea(WindowedDataSet):
    """Windows of the scenes; classes unburned and burned.

    Blocks of every scene go to every split, unless ``scenes`` gives the names of whole scenes
    ({"train": ["LC08_..."], "val": [...]}), all of a place in one split. ``year`` of the map, where
    it is not that of a scene's name; ``clouds`` keeps what Landsat's quality band or the masks of
    Sentinel-2 take for clouds. ``bands`` (`SENTINEL2_BANDS` without), ``harmonized`` and
    ``resampling`` are of Sentinel-2, as `open_sentinel2` has them. Rasters whose bands Landsat has
    too are of Sentinel-2 where ``bands`` or ``harmonized`` is given. What is 0 in all bands of
    other imagery, or in a band of alpha, is no data; Landsat's numbers in a GeoTIFF, bands SR_B2
    and so on, are refused, as they are no reflectance.
    """

    name = "burned_area"
    classes = GABAM.legend().classes
    units = "reflectance x 10000"
    value_range = (0.0, 5_000.0)
    """But for clouds, snow and bright sand."""
    licence = (
        "GABAM: free for research, cite Long et al., Remote Sensing 11 (2019) 489; "
        f"Landsat: public domain (U.S. Geological Survey); {LICENCE}"
    )
    source = GABAM.source
    layout = """\
imagery/LC08_L2SP_007056_20150310_20200909_02_T1/           scenes of Landsat Collection 2 Level-2
    *_SR_B2.TIF ... *_SR_B7.TIF, *_QA_PIXEL.TIF             (from https://earthexplorer.usgs.gov)
imagery/S2A_MSIL1C_....SAFE, .zip, SCENE-mixer.json ...     or of Sentinel-2, as for sentinel2_cdl
imagery/SCENE_20150310.tif ...                              or other georeferenced imagery
gabam/2015/N10W080.TIF ...                                  tiles of the years of the scenes"""

    def __init__(
        self,
        root: Path,
        size: tuple[int, int] | None = None,
        stride: int | None = None,
        scenes: Mapping[str, Sequence[str]] | None = None,
        year: int | None = None,
        clouds: bool = False,
        bands: Sequence[str] | None = None,
        harmonized: Harmonized = None,
        resampling: str = "bilinear",
    ) -> None:
        super().__init__(root, size, stride)
        folder = self.root / IMAGERY_FOLDER
        imagery = _imagery(folder, clouds, bands, harmonized, resampling)
        first = imagery[0]
        for other in imagery:
            if (other.bands, other.dtype) != (first.bands, first.dtype):
                raise DataError(
                    f"{other.file} has the bands {', '.join(other.bands)} in {other.dtype}, but "
                    f"{first.file} {', '.join(first.bands)} in {first.dtype}; scenes of one data "
                    "set must agree"
                )
        self.bands, self.dtype = first.bands, first.dtype
        kinds = {Sentinel2: "sentinel2", Landsat: "landsat"}
        self.read_as = kinds.get(type(first), "raster")
        for colours in reversed(SHOWN):
            if set(colours) <= set(self.bands):
                red, green, blue = map(self.bands.index, colours)
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
        self, image: Imagery, year: int | None, labels: dict[int, CodedRaster]
    ) -> LabelledImagery:
        if year is None:
            year = _year(image)
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


def _year(image: Imagery) -> int | None:
    """The year that a scene's name tells, as a date or by itself; None: none, or several."""
    if isinstance(image, Landsat):
        return image.year
    if (year := year_of(image)) is not None:
        return year
    years = set(map(int, YEAR.findall(image.name)))
    return years.pop() if len(years) == 1 else None


def _imagery(
    folder: Path,
    clouds: bool,
    bands: Sequence[str] | None,
    harmonized: Harmonized,
    resampling: str,
) -> list[Imagery]:
    told = bands is not None or harmonized is not None
    entries = sorted(folder.glob("*"))
    landsat = [place for place in entries if place.is_dir() and is_landsat(place)]
    found: list[Imagery] = [Landsat(place, clouds=clouds) for place in landsat]
    below = (e for e in entries if e.is_dir() and e not in landsat and not is_safe(e))
    places = [place for place in (folder, *below) if holds_sentinel2(place, told)]
    for place in places:
        found += open_sentinel2(
            place,
            SENTINEL2_BANDS if bands is None else bands,
            resampling=resampling,
            harmonized=harmonized,
            mask_clouds=not clouds,
        )
    for file in (entry for entry in entries if entry.suffix.lower() in (".tif", ".tiff")):
        if folder not in places or not bands_in(file):
            picture = open_bands([file], collar=0)
            refuse_numbers(file, picture.bands, picture.dtype)
            found.append(picture)
    if not found:
        raise DataError(
            f"{folder} holds no scene: a folder of Landsat Collection 2 Level-2 "
            "(*_SR_B1.TIF, ..., *_QA_PIXEL.TIF), a product or an export of Sentinel-2, or a "
            "georeferenced .tif"
        )
    if told and not any(isinstance(one, Sentinel2) for one in found):
        raise DataError(
            f"data.options.bands and harmonized are of Sentinel-2, but {folder} holds none of its "
            "scenes; leave them out, or describe the bands of its rasters as B2, B3, ..."
        )
    return found
