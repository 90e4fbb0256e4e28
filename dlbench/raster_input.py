"""A raster that a map is made of: which bands, its pixels, and what of them is missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from dlbench.command_line import note
from dlbench.config import ConfigError
from dlbench.data import labelled_sentinel2, raster
from dlbench.data.burned_area import BurnedArea
from dlbench.data.dataset import DataError
from dlbench.data.facts import Facts
from dlbench.data.grid import Grid, Imagery
from dlbench.data.imagery import earth_engine
from dlbench.data.imagery.bands import read_masked
from dlbench.data.imagery.earth_engine import Mixer
from dlbench.data.imagery.landsat import Landsat, is_landsat, refuse_numbers
from dlbench.data.imagery.sentinel2_files import BANDS
from dlbench.data.imagery.spectral_indices import INDICES
from dlbench.tiling import Window

TOLERANCE = 0.1
"""Relative difference from the pixel size of training that is worth a note."""


Pixels = Callable[[int, int, int, int], tuple[np.ndarray, np.ndarray]]
"""Reads row, column, height, width: values (height, width, bands), where all are known (height,
width) bool."""


@dataclass(frozen=True)
class RasterInput:
    """Any raster that GDAL reads, of any size and transform; or a Sentinel-2 scene or series, or a
    Landsat scene."""

    path: Path
    height: int
    width: int
    crs: CRS | None
    transform: Affine
    dtype: np.dtype[np.generic]
    names: tuple[str | None, ...]
    """Descriptions of the bands that the network sees."""
    pixels: Pixels
    satellite: bool = False
    """Whether it was read as a satellite's scene, rather than the numbers of a raster."""
    mixer: Mixer | None = None
    """Of an Earth Engine export: how the patches lie that it came as."""

    def read(self, windows: list[Window]) -> tuple[np.ndarray, np.ndarray]:
        """Values (windows, height, width, bands) in `dtype`, 0 where one of the bands is missing
        (no-data, masked, not finite), and where none is (windows, height, width) bool. As in
        training, clouds of Sentinel-2 keep their values, and those of Landsat are 0.
        """
        parts = [
            self.pixels(
                rows.start, columns.start, rows.stop - rows.start, columns.stop - columns.start
            )
            for rows, columns in windows
        ]
        values, valid = (np.stack(part) for part in zip(*parts, strict=True))
        return values, valid

    @property
    def pixel_metres(self) -> float | None:
        """Height of a pixel on the ground; None without a CRS, or with one that is not of the
        Earth."""
        if self.crs is None or not (self.crs.is_geographic or self.crs.is_projected):
            return None
        height = math.hypot(self.transform.b, self.transform.e)
        return Grid(self.crs, Affine.scale(height, -height), 1, 1).pixel_metres


def opened(
    path: Path,
    chosen: str | None,
    needed: int,
    trained_on: Facts | None,
    options: Mapping[str, Any] | None = None,
) -> RasterInput:
    """The header of ``path``; ``chosen`` are bands by number or description, with commas between.

    Without them a network that has learnt from Sentinel-2 gets its scenes as in training: with
    ``options`` of `labelled_sentinel2.images`; one that has learnt from Landsat a folder of it, by
    the options ``clouds`` or else ``mask_clouds``, and no other raster; and of pictures of burned
    areas the black corners are no data. Raises `DataError` or `ConfigError` unless there
    are ``needed`` bands of numbers; an alpha band is a mask, none of them.
    """
    mixer = None
    earth_engine.refuse_csv(path)
    if earth_engine.is_export(path):
        (mixer,) = earth_engine.mixers([path])
    options = dict(options or {})
    # Burned areas name the contrary; what a map is made with may be told in either way.
    masked = options.setdefault("mask_clouds", not options.pop("clouds", False))
    if chosen is None and trained_on is not None and _of_sentinel2(trained_on):
        return replace(_sentinel2(path, trained_on, options), mixer=mixer)
    if chosen is None and trained_on is not None and _of_landsat(trained_on, path):
        _require_scene(path)
        return _input(path, Landsat(path, trained_on.bands, clouds=not masked))
    source = path if mixer is None else earth_engine.as_geotiff(mixer)
    with raster.open_raster(source) as file:
        alpha = raster.alpha_of(file)
        bands = tuple(index for index in file.indexes if index != alpha)
        names = dict(zip(file.indexes, file.descriptions, strict=True))
        if chosen is not None:
            bands = tuple(_index(path, word, names) for word in chosen.split(","))
        if len(bands) != needed:
            held = ", ".join(f"{index} {names[index] or ''}".strip() for index in bands)
            trained = f" ({', '.join(trained_on.bands)})" if trained_on else ""
            raise ConfigError(
                f"{path}: {len(bands)} bands ({held}), but the network takes {needed}{trained}; "
                f"choose them, by number or description: bands={_example(names, trained_on)}"
            )
        dtype = np.result_type(*(file.dtypes[index - 1] for index in bands))
        collar = None
        if trained_on is not None and trained_on.name == BurnedArea.name:
            collar = 0
            if chosen is None:
                refuse_numbers(path, [names[index] for index in bands], dtype)
        if dtype.kind not in "iuf":
            raise DataError(f"{path} has values of {dtype}; needed are whole or real numbers")
        return RasterInput(
            path=path,
            height=file.height,
            width=file.width,
            crs=file.crs,
            transform=file.transform,
            dtype=dtype,
            names=tuple(names[index] for index in bands),
            pixels=_reader(source, bands, None if alpha in bands else alpha, collar),
            mixer=mixer,
        )


def _reader(path: Path, bands: tuple[int, ...], alpha: int | None, collar: float | None) -> Pixels:
    """``alpha`` and ``collar`` are as `read_masked` has them."""

    def pixels(row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        window = path, row, column, height, width
        values, valid = read_masked(raster.read_window, window, bands, alpha, collar)
        values[~valid] = 0
        return values, valid

    return pixels


def _of_sentinel2(facts: Facts) -> bool:
    if facts.read_as is not None:
        return facts.read_as == "sentinel2"
    return all(band.rpartition("/")[2] in (*BANDS, *INDICES) for band in facts.bands)


def _of_landsat(facts: Facts, path: Path) -> bool:
    return is_landsat(path) if facts.read_as is None else facts.read_as == "landsat"


def _require_scene(path: Path) -> None:
    """Raise `ConfigError` unless ``path`` is the folder of a Landsat scene: a raster's numbers may
    be anything, and their clouds are unknown."""
    if not is_landsat(path):
        held = "does not exist" if not path.exists() else "is no folder of a Landsat scene"
        raise ConfigError(
            f"{path} {held}, and the network has learnt from those: reflectance x 10000 of "
            "Collection 2 Level-2, *_SR_B2.TIF ... and *_QA_PIXEL.TIF; give one, or "
            "bands=1,2,..., which takes the numbers of a raster as they are"
        )


def _sentinel2(path: Path, facts: Facts, options: dict[str, Any]) -> RasterInput:
    """A scene, or as many dates of a place as in training, offsets and clouds seen to."""
    dates = list(dict.fromkeys(band.rpartition("/")[0] for band in facts.bands))
    names = [band.rpartition("/")[2] for band in facts.bands[: len(facts.bands) // len(dates)]]
    options["bands"] = [name for name in names if name in BANDS]
    options["indices"] = [name for name in names if name in INDICES]
    series = dates != [""]
    wanted = options.pop("dates", None)
    try:
        found = labelled_sentinel2.images(path, wanted or ("all" if series else None), **options)
    except DataError as error:
        raise DataError(
            f"{error}; or give bands=1,2,..., which takes the numbers of a raster as they are"
        ) from None
    if len(found) != 1 or len(found[0].bands) != len(facts.bands):
        held = ", ".join(image.name for image in found)
        one = f"one of them, such as {found[0].file}"
        if not found[0].file.exists():  # in an archive
            one = "one of them: unpack it, and give the folder of a granule"
        raise ConfigError(
            f"{path} holds {held}, of {len(found[0].bands)} bands; the network takes "
            f"{len(dates) if series else 1} date(s) of one place: give "
            + ("dates=YYYYMMDD,... or a folder of these" if series else one)
        )
    return _input(path, found[0])


def _input(path: Path, image: Imagery) -> RasterInput:
    grid = image.grid
    return RasterInput(
        path=path,
        height=grid.height,
        width=grid.width,
        crs=grid.crs,
        transform=grid.transform,
        dtype=image.dtype,
        names=image.bands,
        pixels=image.read,
        satellite=True,
    )


def note_differences(image: RasterInput, facts: Facts | None) -> None:
    """Tell what is unlike the training, which the network cannot know."""
    if image.crs is None:
        note(f"{image.path} has no CRS, so the map has none either")
    if facts is None:
        return
    if all(image.names) and image.names != facts.bands:
        names = ", ".join(str(name) for name in image.names)
        note(f"{image.path}: bands {names}; the network was trained on {', '.join(facts.bands)}")
    if image.dtype != facts.dtype:
        low, high = facts.value_range
        note(
            f"{image.path}: values of {image.dtype}; the network was trained on {facts.dtype} "
            f"({facts.units}, {low:g} to {high:g})"
        )
    if facts.resized_to not in (None, (image.height, image.width)):
        height, width = facts.resized_to
        note(
            f"{image.path}: {image.height} x {image.width} pixels; the network was trained on "
            f"images resized to {height} x {width}, and knows things of that size: resize it, for "
            f"example with gdal_translate -r average -outsize {width} {height}"
        )
    size, usual = image.pixel_metres, facts.ground_sampling_distance
    if size is not None and usual is not None and abs(size / usual - 1.0) > TOLERANCE:
        note(f"{image.path}: pixels of {size:.3g} m; the network was trained on {usual:.3g} m")


def _index(path: Path, word: str, names: dict[int, str | None]) -> int:
    found = [index for index, name in names.items() if word == name]
    if not found and word.isdecimal() and int(word) in names:
        found = [int(word)]
    if len(found) != 1:
        held = ", ".join(f"{index} {name or ''}".strip() for index, name in names.items())
        what = f"{len(found)} bands" if found else "no band"
        raise ConfigError(f"{path} has {what} '{word}'; its bands: {held}")
    return found[0]


def _example(names: dict[int, str | None], facts: Facts | None) -> str:
    if facts is not None and set(facts.bands) <= set(names.values()):
        return ",".join(facts.bands)
    return "1,2,..."
