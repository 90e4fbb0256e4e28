"""Which files of a folder make which Sentinel-2 scene: those of a band each, exports in parts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from dlbench.data import raster
from dlbench.data.dataset import DataError
from dlbench.data.imagery import earth_engine
from dlbench.data.imagery.safe import RESOLUTION, is_safe

BANDS = tuple(RESOLUTION)
SUFFIXES = (".jp2", ".tif", ".tiff")
SINGLE_BAND = re.compile(r"(?:(?P<scene>.+)[_.-])?(?P<band>B\d{1,2}|B8A)")
SPLIT_PART = re.compile(r"(?P<scene>.+)-\d{10}-\d{10}")
UNMISTAKABLE = frozenset({"B8A", "B12"})
"""Names that bands of no other satellite have."""


def holds_sentinel2(folder: Path, told: bool = False) -> bool:
    """Whether a folder itself, not one below it, holds products, exports or files of bands that are
    Sentinel-2's beyond doubt, or where one is ``told`` so: Landsat has a B2 to a B11 too.
    """
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    if any(is_safe(entry) or earth_engine.is_export(entry) for entry in entries):
        return True
    rasters = [entry for entry in entries if entry.suffix.lower() in SUFFIXES]
    known = frozenset(BANDS) if told else UNMISTAKABLE
    return any(
        bool(bands_in(file) & known) or (file.suffix.lower() == ".jp2" and bands_in(file))
        for file in rasters
    )


def bands_in(file: Path) -> set[str]:
    """The bands that the name of a raster, or the descriptions of its bands, tell of."""
    match = SINGLE_BAND.fullmatch(file.stem)
    names = [match["band"]] if match else raster.describe(file).names
    return {band for band in map(band_name, names) if band is not None}


def band_name(name: str | None) -> str | None:
    """B02 of B2, B02 or b2; None of what is no band."""
    match = re.fullmatch(r"[Bb](\d{1,2})([Aa]?)", name or "")
    if match is None:
        return None
    band = f"B{int(match[1])}A" if match[2] else f"B{int(match[1]):02d}"
    return band if band in BANDS else None


def single_bands(files: Sequence[Path]) -> dict[str, dict[str, Path]]:
    """Files of one band each, by scene and band."""
    scenes: dict[str, dict[str, Path]] = defaultdict(dict)
    for file in files:
        match = SINGLE_BAND.fullmatch(file.stem)
        band = band_name(match["band"]) if match else None
        if match is None or band is None:
            continue
        bands = scenes[match["scene"] or ""]
        if band in bands:
            raise DataError(f"{bands[band]} and {file} are the same band; remove one of them")
        bands[band] = file
    return dict(scenes)


def exports(files: Sequence[Path]) -> dict[str, tuple[list[Path], list[str | None]]]:
    """GeoTIFFs of many bands, by scene: their parts, the names of their bands."""
    scenes: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        if file.suffix.lower() == ".jp2" or SINGLE_BAND.fullmatch(file.stem):
            continue
        part = SPLIT_PART.fullmatch(file.stem)
        siblings = [file]
        if part and len(files) == 1:
            siblings = sorted(
                other
                for other in file.parent.iterdir()
                if (match := SPLIT_PART.fullmatch(other.stem)) and match["scene"] == part["scene"]
                and other.suffix == file.suffix
            )  # fmt: skip
        scenes[part["scene"] if part else file.stem] += siblings
    found = {}
    for name, parts in scenes.items():
        names = list(raster.describe(parts[0]).names)
        # Labels and other rasters may lie beside the scenes.
        if any(band_name(n) for n in names):
            found[name] = (parts, names)
    return found
