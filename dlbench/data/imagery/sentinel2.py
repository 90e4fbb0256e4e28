"""Sentinel-2 Level-1C imagery: SAFE products, Earth Engine exports, folders of single bands.

Values are uint16 top-of-atmosphere reflectance times 10000, whatever the processing baseline:
offsets are added, and what they make negative is 0. A digital number of 0 is no data in every file,
also where Earth Engine has harmonised one below 1000 to 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dlbench.data import raster
from dlbench.data.dataset import DataError
from dlbench.data.grid import Grid, require_overlay
from dlbench.data.imagery import earth_engine
from dlbench.data.imagery.bands import RESAMPLINGS, Bands, open_bands
from dlbench.data.imagery.clouds import CloudRaster, Clouds
from dlbench.data.imagery.safe import NO_DATA, SATURATED, is_safe, read_safe
from dlbench.data.imagery.sentinel2_files import (
    BANDS,
    SUFFIXES,
    band_name,
    exports,
    single_bands,
)
from dlbench.data.imagery.spectral_indices import INDICES, normalized_difference
from dlbench.data.imagery.stack import dates_in, days_of

SHIFT = 1000
"""In digital numbers since baseline 04.00, of 25 January 2022."""
SHIFT_SINCE = "20220125"
Harmonized = bool | Literal["by_date"] | None
"""What `open_sentinel2` is told of files that do not tell it themselves."""
# Cloud masks among the bands of an Earth Engine export, with the bits that mean clouds.
CLOUD_BANDS = {"QA60": 1 << 10 | 1 << 11, "MSK_CLASSI_OPAQUE": 1, "MSK_CLASSI_CIRRUS": 1}
NO_QA60 = "20220125", "20240228"
"""From the first day to before the second Earth Engine's QA60 holds nothing, says its catalogue."""
SCANNED = 512
"""Pixels along the side of what is looked through at once."""


@dataclass(frozen=True)
class Layer:
    """Bands that come from one raster, with what is added to their digital numbers."""

    raster: Bands
    names: tuple[str, ...]
    offsets: tuple[int, ...]


@dataclass
class Sentinel2:
    """A scene on the grid of the finest of its bands, indices after the bands."""

    file: Path
    name: str
    measured: tuple[str, ...]
    indices: tuple[str, ...]
    layers: tuple[Layer, ...]
    clouds: tuple[Clouds, ...]
    resampling: str

    def __post_init__(self) -> None:
        self.bands: tuple[str, ...] = self.measured + self.indices
        self.dtype: np.dtype[Any] = np.dtype(np.uint16)
        finest = min(self.layers, key=lambda layer: layer.raster.grid.pixel_metres).raster
        self.grid: Grid = finest.grid
        self.block = finest.block
        for layer in self.layers:
            require_overlay(layer.raster.file, layer.raster.grid, finest.file, finest.grid)

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """As `Imagery`; a pixel is usable where no band is no data or saturated and, if masks are
        used, no cloud is. Pixels without data are 0, clouds keep their values.
        """
        shape = self.grid.height, self.grid.width
        raster.require_window(self.file, shape, row, column, height, width)
        window = self.grid.window(row, column, height, width)
        planes: dict[str, np.ndarray] = {}
        valid = np.ones((height, width), bool)
        for layer in self.layers:
            values, known = layer.raster.on_grid(window, self.resampling)
            _refuse_fractions(layer.raster, values, known)
            valid &= known
            for band, offset, plane in zip(
                layer.names, layer.offsets, np.moveaxis(values, -1, 0), strict=True
            ):
                planes[band] = _digital_numbers(plane, known, offset)
        image = np.stack(
            [planes[band] for band in self.measured]
            + [normalized_difference(*(planes[b] for b in INDICES[i])) for i in self.indices],
            axis=-1,
        )
        image[~valid] = 0
        for mask in self.clouds:
            valid &= ~mask.cover(window)
        return image, valid


def open_sentinel2(
    path: Path,
    bands: Sequence[str] = ("B02", "B03", "B04", "B08"),
    *,
    resampling: str = "bilinear",
    harmonized: Harmonized = None,
    mask_clouds: bool = True,
    indices: Sequence[str] = (),
) -> list[Sentinel2]:
    """The scenes of a file or folder, by name, headers checked.

    ``path`` is a SAFE product or its zip archive, the folder of a granule in a product, a GeoTIFF
    whose bands are named B1 or B01 as Earth Engine names them (of one split into parts: any part),
    its mixer file where it exports TFRecord patches, or a folder of these or of files of one band
    each (B02.jp2, T32TNM_20170226T102021_B02.jp2, scene.B2.tif).

    ``harmonized`` is of files other than SAFE, which do not tell: False if their digital numbers
    hold the +1000 of products since 25 January 2022 (files out of these, and of old scenes that ESA
    has processed anew), True if not (COPERNICUS/S2_HARMONIZED), "by_date" if those do whose names
    have a date since then (Earth Engine's COPERNICUS/S2). It may be None for GeoTIFFs with an
    earlier date, read as they are. ``mask_clouds`` leaves opaque clouds and cirrus out by
    the masks of SAFE products and by QA60 or MSK_CLASSI bands of exports, of which a QA60 that
    Earth Engine left empty is refused; other files hold no mask. ``resampling`` is nearest,
    bilinear or cubic; ``indices`` are of `INDICES`. Raises `DataError`.
    """
    path = Path(path)
    bands = tuple(band_name(band) or band for band in bands)
    for what, given, allowed in (
        ("bands", bands, BANDS),
        ("indices", tuple(indices), tuple(INDICES)),
        ("resampling", (resampling,), RESAMPLINGS),
    ):
        if not set(given) <= set(allowed) or len(set(given)) < len(given):
            raise DataError(
                f"{what} is {', '.join(map(str, given))}; allowed, each once: {', '.join(allowed)}"
            )
    needed = tuple(dict.fromkeys([*bands, *(b for i in indices for b in INDICES[i])]))
    if not needed:
        raise DataError(f"bands is empty, allowed: {', '.join(BANDS)}")
    if not path.exists():
        raise DataError(f"{path} does not exist; give a SAFE product, a GeoTIFF or their folder")

    def scene(file: Path, name: str, layers: list[Layer], clouds: list[Clouds]) -> Sentinel2:
        return Sentinel2(
            file, name, bands, tuple(indices), tuple(layers), tuple(clouds), resampling
        )

    scenes = []
    folder = path.is_dir() and not is_safe(path)
    entries = sorted(path.iterdir()) if folder else [path]
    for product in (entry for entry in entries if is_safe(entry)):
        for granule in read_safe(product, needed, mask_clouds):
            layers = [Layer(granule.bands[b], (b,), (granule.offsets[b],)) for b in needed]
            clouds = [granule.clouds] if granule.clouds else []
            scenes.append(scene(granule.file, granule.name, layers, clouds))
    rasters = [entry for entry in entries if entry.suffix.lower() in SUFFIXES]
    patches = [entry for entry in entries if earth_engine.is_export(entry)]
    rasters += [earth_engine.as_geotiff(mixer) for mixer in earth_engine.mixers(patches)]
    for name, files in single_bands(rasters).items():
        layers = _single_band_layers(path, files, needed, harmonized)
        scenes.append(scene(path, name or path.stem, layers, []))
    for name, (parts, names) in exports(rasters).items():
        layers = [_export_layer(parts, names, needed, harmonized)]
        clouds = _export_clouds(parts, names) if mask_clouds else []
        scenes.append(scene(parts[0], name, layers, clouds))
    if not scenes:
        # Beside other files a table may be an index or a survey, and is not what is wrong.
        if entries and all(map(earth_engine.is_table, entries)):
            earth_engine.refuse_csv(entries[0])
        raise DataError(
            f"{path} holds no Sentinel-2 scene: looked for are .SAFE folders and zip archives, "
            "GeoTIFFs whose bands are described as B1 .. B12, TFRecord patches of such bands, and "
            "files named *B02.jp2 or *B02.tif"
        )
    twice = [name for name, count in Counter(s.name for s in scenes).items() if count > 1]
    if twice:
        raise DataError(f"{path} holds the scene {twice[0]} twice; keep one of them")
    return sorted(scenes, key=lambda one: one.name)


def _digital_numbers(plane: np.ndarray, known: np.ndarray, offset: int) -> np.ndarray:
    if np.issubdtype(plane.dtype, np.floating):
        # Halves go up however the interpolation rounds, so that overlapping windows agree.
        plane = np.floor(np.where(known, plane, 0) + (0.5 + 1e-6))
    return np.clip(plane.astype(np.int64) + offset, 0, SATURATED).astype(np.uint16)


def _refuse_fractions(bands: Bands, values: np.ndarray, known: np.ndarray) -> None:
    if not np.issubdtype(bands.dtype, np.floating) or not known.any():
        return
    middle = np.median(values[known])
    if middle < 2:
        raise DataError(
            f"{bands.file} holds values about {middle:.3g}, expected are digital numbers, "
            "reflectance times 10000; export it without dividing by 10000"
        )


def _single_band_layers(
    path: Path, files: dict[str, Path], needed: Sequence[str], harmonized: Harmonized
) -> list[Layer]:
    _require_bands(path, needed, list(files))
    layers = []
    for band in needed:
        opened = open_bands([files[band]], [1], between=(NO_DATA, SATURATED))
        layers.append(Layer(opened, (band,), (_offset(files[band], harmonized),)))
    return layers


def _export_layer(
    parts: list[Path], names: list[str | None], needed: Sequence[str], harmonized: Harmonized
) -> Layer:
    held = [band_name(name) for name in names]
    _require_bands(parts[0], needed, [band for band in held if band])
    indexes = [held.index(band) + 1 for band in needed]
    opened = open_bands(parts, indexes, between=(NO_DATA, SATURATED))
    return Layer(opened, tuple(needed), (_offset(parts[0], harmonized),) * len(needed))


def _export_clouds(parts: list[Path], names: list[str | None]) -> list[Clouds]:
    found: dict[str, Clouds] = {
        name: CloudRaster(open_bands(parts, [names.index(name) + 1]), bits)
        for name, bits in CLOUD_BANDS.items()
        if name in names
    }
    if list(found) == ["QA60"]:
        _require_populated(parts, names.index("QA60") + 1)
    return list(found.values())


def _require_populated(parts: list[Path], index: int) -> None:
    """Raise `DataError` for a QA60 that holds nothing but what is masked, or that has no cloud in
    the years of `NO_QA60`: it would pass for a clear sky."""
    first, after = NO_QA60
    in_gap = any(first <= day < after for day in days_of(parts[0].stem))
    for part in parts:
        header = raster.describe(part)
        for row in range(0, header.height, SCANNED):
            for column in range(0, header.width, SCANNED):
                size = min(SCANNED, header.height - row), min(SCANNED, header.width - column)
                values, valid = raster.read_window(part, row, column, *size, [index])
                # Where 0 stands for no data, it is a clear sky all the same.
                known = values[valid | (values == 0)[..., 0]].astype(np.uint16)
                if (known & CLOUD_BANDS["QA60"]).any() or (known.size and not in_gap):
                    return
    why = (
        f"which has no cloud: Earth Engine did not fill it from {first} to {after}"
        if in_gap
        else "which is masked throughout"
    )
    raise DataError(
        f"{parts[0]} has QA60 as its only cloud mask, {why}; export MSK_CLASSI_OPAQUE and "
        "MSK_CLASSI_CIRRUS with it, or read with mask_clouds=false (burned_area: clouds=true)"
    )


def _require_bands(file: Path, needed: Sequence[str], held: Sequence[str]) -> None:
    missing = [band for band in needed if band not in held]
    if missing:
        raise DataError(
            f"{file} has no band {', '.join(missing)}; it holds {', '.join(held)}; choose among "
            "these, or add the missing"
        )


def _offset(file: Path, harmonized: Harmonized) -> int:
    if isinstance(harmonized, bool):
        return 0 if harmonized else -SHIFT
    dates = dates_in(file.stem)
    before = bool(dates) and max(dates) < SHIFT_SINCE
    since = bool(dates) and min(dates) >= SHIFT_SINCE
    # Earth Engine keeps old scenes as they were; ESA has processed them anew with the shift.
    if before and (harmonized == "by_date" or file.suffix.lower() != ".jp2"):
        return 0
    if since and harmonized == "by_date":
        return -SHIFT
    if harmonized == "by_date":
        raise DataError(
            f"harmonized=by_date, but the name of {file} tells of "
            f"{' and '.join(dates) or 'no date'}; needed are dates all before, or all since, 25 "
            "January 2022; give harmonized=false if its digital numbers hold +1000, else true"
        )
    raise DataError(
        f"{file} does not tell whether its digital numbers hold the +1000 of products since "
        "25 January 2022; give harmonized=false if so, else harmonized=true (COPERNICUS/"
        "S2_HARMONIZED, products of baselines before 04.00), or harmonized=by_date if the dates in "
        "the names of files do (COPERNICUS/S2)"
    )
