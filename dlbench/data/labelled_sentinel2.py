"""Sentinel-2 imagery with labels of the ground: what the data sets of that kind share."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from dlbench.data.dataset import DataError
from dlbench.data.grid import Grid, Imagery, Labels
from dlbench.data.imagery.earth_engine import is_export
from dlbench.data.imagery.safe import is_safe
from dlbench.data.imagery.sentinel2 import Harmonized, open_sentinel2
from dlbench.data.imagery.sentinel2_files import SUFFIXES
from dlbench.data.imagery.stack import Stack, acquired, dates_in, days_of, stack
from dlbench.data.labelled_imagery import LabelledImagery
from dlbench.data.overlap import split_scenes
from dlbench.data.windows import SPLITS, Scene, WindowedDataSet

IMAGERY_FOLDER = "imagery"
LABEL_FOLDER = "labels"
TRUE_COLOUR = ("B04", "B03", "B02")
FALSE_COLOUR = ("B08", "B04", "B03")
LAYOUT = f"""\
{IMAGERY_FOLDER}/   Sentinel-2 Level-1C: SAFE products or their zip archives, Earth Engine exports
           (SCENE.tif, or SCENE-00000.tfrecord.gz ... with SCENE-mixer.json), files of a band each
           (B02.jp2, SCENE_B02.tif), or subfolders of these
"""
LICENCE = "Sentinel-2: free and open (Copernicus)"


class LabelledSentinel2(WindowedDataSet):
    """Windows of the scenes in ``imagery/``, in reflectance times 10000.

    ``bands``, ``indices``, ``harmonized``, ``mask_clouds`` and ``resampling`` are as
    `open_sentinel2` has them. ``dates`` makes time series, the scenes of each place as bands of one
    image: "all" of them, or those taken on the days of a list ([2022-04-21, 2022-06-10]); without,
    each scene is an image by itself. Blocks of every image go to every split, unless ``scenes``
    gives the names of whole images ({"train": [...], "val": [...]}); ground that images of two
    splits show is then left out of one, all images of a place being of one split.
    """

    units = "reflectance x 10000"
    # What soil and leaves reflect, the near infrared of dense canopies included; clouds and snow go
    # above, which does a network no harm.
    value_range = (0.0, 5_000.0)
    read_as = "sentinel2"

    def __init__(
        self,
        root: Path,
        size: tuple[int, int] | None = None,
        stride: int | None = None,
        bands: Sequence[str] = ("B02", "B03", "B04", "B08"),
        indices: Sequence[str] = (),
        harmonized: Harmonized = None,
        mask_clouds: bool = True,
        resampling: str = "bilinear",
        dates: str | int | date | Sequence[Any] | None = None,
        scenes: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__(root, size, stride)
        folder = self.root / IMAGERY_FOLDER
        self.imagery = images(
            folder if folder.is_dir() else self.root, dates, bands=bands, indices=indices,
            harmonized=harmonized, mask_clouds=mask_clouds, resampling=resampling,
        )  # fmt: skip
        first = self.imagery[0]
        self.bands, self.dtype = common_bands(self.imagery), first.dtype
        self.ground_sampling_distance = first.grid.pixel_metres
        self.shown = _shown(self.bands)
        of_grid: dict[tuple[Grid, int | None], Labels] = {}
        labelled = []
        for image in self.imagery:
            key = image.grid, year_of(image)
            if key not in of_grid:
                of_grid[key] = self.labels(image)
            labelled.append(LabelledImagery(image, of_grid[key]))
        self._scenes = split_scenes(labelled, self.window, scenes)
        self.splits = tuple(split for split in SPLITS if self._scenes[split])

    @abc.abstractmethod
    def labels(self, image: Imagery) -> Labels:
        """The labels of an image's place and year. Raises `DataError` where there are none."""

    def scenes(self, split: str) -> Sequence[Scene]:
        return self._scenes[split]

    def missing(self) -> list[str]:
        return [f"nothing for the split '{s}'" for s in SPLITS if s not in self.splits]


def images(
    folder: Path, dates: str | int | date | Sequence[Any] | None = None, **options: Any
) -> list[Imagery]:
    """The scenes of a folder and its subfolders, or of one file; with ``dates`` stacked, as
    `LabelledSentinel2` has it. ``options`` are those of `open_sentinel2`. Raises `DataError`.
    """
    places = [folder]
    if folder.is_dir() and not is_safe(folder):
        inside = (entry for entry in sorted(folder.iterdir()) if entry.is_dir())
        below = [entry for entry in inside if entry.name != LABEL_FOLDER]
        places = [place for place in (folder, *below) if _holds_scenes(place)] or places
        places = [place for place in places if not is_safe(place)]
    found: list[Imagery] = [scene for place in places for scene in open_sentinel2(place, **options)]
    if dates is None:
        _refuse_twins(found)
        return found
    wanted = None if dates == "all" else _as_dates(dates)
    series: list[list[Imagery]] = []
    for scene in sorted(found, key=lambda one: (days_of(one.name), one.name)):
        if wanted is not None and not set(days_of(scene.name)) & set(wanted):
            continue
        place = next((s for s in series if s[0].grid.equals(scene.grid)), None)
        if place is None:
            series.append([scene])
        else:
            place.append(scene)
    for scenes in series:
        held = {day for scene in scenes for day in days_of(scene.name)}
        if absent := sorted(set(wanted or ()) - held):
            raise DataError(
                f"{folder} has no scene of {', '.join(absent)} on the grid of {scenes[0].file}; "
                "give dates that every place has"
            )
    if not series:
        held_by_all = sorted({day for scene in found for day in days_of(scene.name)})
        raise DataError(
            f"{folder} has no scene of {', '.join(wanted or ())}; it has those of "
            f"{', '.join(held_by_all) or 'no known date'}"
        )
    stacks: list[Imagery] = [stack(scenes) for scenes in series]
    _refuse_twins(stacks)
    return stacks


def year_of(image: Imagery) -> int | None:
    """The year in which an image, or the last of a series, was taken; None: its name tells none."""
    last = image.scenes[-1] if isinstance(image, Stack) else image
    day = acquired(last.name)
    return int(day[:4]) if day else None


def _holds_scenes(folder: Path) -> bool:
    return any(is_safe(e) or is_export(e) or e.suffix.lower() in SUFFIXES for e in folder.iterdir())


def _refuse_twins(found: Sequence[Imagery]) -> None:
    names: dict[str, Path] = {}
    for image in found:
        if names.setdefault(image.name, image.file) != image.file:
            raise DataError(
                f"{names[image.name]} and {image.file} are both named {image.name}; keep one"
            )


def _as_dates(dates: str | int | date | Sequence[Any]) -> list[str]:
    """YYYYMMDD of dates as YAML reads them: 2022-04-21 is a date, 20220421 a number."""
    listed = [dates] if isinstance(dates, str | int | date) else list(dates)
    found = [dates_in(str(day)) for day in listed]
    if not found or any(len(one) != 1 for one in found):
        raise DataError(f"dates is {dates!r}; allowed: all, or a list such as [2022-04-21]")
    return [day for (day,) in found]


def common_bands(found: Sequence[Imagery]) -> tuple[str, ...]:
    """The bands of all images; series of several places need not have the same dates."""
    first = found[0]
    for image in found:
        if len(image.bands) != len(first.bands) or image.dtype != first.dtype:
            raise DataError(
                f"{image.file} begins an image of {len(image.bands)} bands in {image.dtype}, "
                f"{first.file} one of {len(first.bands)} in {first.dtype}; all must agree: take as "
                "many dates of each place, dates=[...]"
            )
    if all(image.bands == first.bands for image in found):
        return first.bands
    dates = list(dict.fromkeys(band.partition("/")[0] for band in first.bands))
    return tuple(
        f"{dates.index(day) + 1}/{band}" for day, _, band in (b.partition("/") for b in first.bands)
    )


def _shown(bands: tuple[str, ...]) -> tuple[int, int, int] | None:
    """Bands to be seen as red, green and blue, of the middle date of a series."""
    names = np.array([band.rpartition("/")[2] for band in bands])
    for colours in (TRUE_COLOUR, FALSE_COLOUR):
        places = [np.flatnonzero(names == band) for band in colours]
        if all(len(place) for place in places):
            red, green, blue = (int(place[len(place) // 2]) for place in places)
            return red, green, blue
    return None
