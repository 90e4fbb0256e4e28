"""Plantations of a miniature landscape in the files of Global Forest Watch and SDPT version 2; with
Sentinel-2 scenes in files of a band each, a data set.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np

from dlbench.data.grid import Grid
from dlbench.data.labels.plantations import BACKGROUND, CLASSES
from dlbench.data.miniatures import parcels as landscapes
from dlbench.data.miniatures.outlines import outlines, to_degrees, write_vector
from dlbench.data.miniatures.sentinel2 import labelled_landscape, write_single_bands

VERSION = 1
"""Raised whenever the same arguments would give other pixels."""
DATES = (date(2016, 1, 15), date(2016, 7, 20))
SOWN = ("oil palm", "vineyard", "grassland", "maize", "built-up")
SPECIES = {"oil palm": 1, "vineyard": 7}
"""Class of a cover; vines stand for rubber, which sheds its leaves as they do."""
LARGE, MEDIUM = 500, 250
"""Pixels of a parcel from which its plantation is of type 1, or of 2."""
GFW_FILE = "Tree_plantations.shp"
SDPT_FILE = "sdpt_v2.gdb"
MOSAIC_PERCENT = {2: 60, 3: 30}
"""Share that is planted, by index of the type."""


def write_gfw(
    folder: Path, grid: Grid, parcels: np.ndarray, types: np.ndarray, species: np.ndarray
) -> Path:
    """Write the shapefile of the ``parcels`` (height, width) int, 0 being none, that are planted.

    ``types`` and ``species`` (height, width) are class indices of `CLASSES`, one a parcel. As in
    the real files attributes have trailing blanks, case varies, groups begin with gr-.
    """
    polygons, numbers = outlines(parcels, grid)
    of_type, of_species = (_of_parcel(parcels, values, numbers) for values in (types, species))
    planted = (of_type != BACKGROUND) & (of_species != BACKGROUND)
    polygons, of_type, of_species = polygons[planted], of_type[planted], of_species[planted]
    names = [_quirk(CLASSES["species"][k].name, n) for n, k in enumerate(of_species)]
    areas = np.array([polygon.area / 10_000 for polygon in polygons])
    fields = {
        "Type_text": _text(
            # The blank after the slash is in the real files.
            [CLASSES["type"][k].name.replace("/very", "/ very") for k in of_type]
        ),
        "spec_org": _text([f"gr-{name.strip()}" for name in names]),
        "spec_simp": _text(names),
        "area_ha": areas,
        "percent": np.array([MOSAIC_PERCENT.get(int(k), 100) for k in of_type], np.int32),
    }
    file = Path(folder) / GFW_FILE
    write_vector(file, to_degrees(polygons, grid), fields)
    return file


def write_sdpt(
    folder: Path, grid: Grid, parcels: np.ndarray, species: np.ndarray, iso3: str = "CMR"
) -> Path:
    """Write the feature class of a country; ``parcels`` and ``species`` as `write_gfw` has them."""
    polygons, numbers = outlines(parcels, grid)
    of_species = _of_parcel(parcels, species, numbers)
    planted = of_species != BACKGROUND
    polygons, of_species = polygons[planted], of_species[planted]
    names = [_quirk(CLASSES["species"][k].name, n) for n, k in enumerate(of_species)]
    fields = {
        "final_id": _text([f"{iso3}_{n}" for n in range(len(names))]),
        "iso3": _text([iso3] * len(names)),
        "simpleName": _text(names),
    }
    file = Path(folder) / SDPT_FILE
    layer = f"{iso3.lower()}_plant_v2"
    write_vector(file, to_degrees(polygons, grid), fields, "OpenFileGDB", layer)
    return file


def _quirk(name: str, number: int) -> str:
    spellings = (
        name,
        f"{name} ",
        name.replace("/", " / "),
        name.replace(" mix", " Mix").replace(" palm", " Palm"),
        f"gr-{name}",
    )
    return spellings[number % len(spellings)]


def _of_parcel(parcels: np.ndarray, values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The value (numbers) that each parcel has at its first pixel."""
    present, first = np.unique(parcels, return_index=True)
    return values.ravel()[first[np.searchsorted(present, numbers)]]


def _text(values: list[str]) -> np.ndarray:
    return np.array(values, object)


def make(folder: Path, seed: int = 0, size: int = 360) -> Path:
    """Write two scenes and the shapefile to a new ``folder``, whole or not at all."""
    place = landscapes.CAMEROON
    start = labelled_landscape(folder, seed, VERSION, SOWN, size, place)
    with start as (imagery, labels, parcel, cover, grid):
        for _, day, ground in landscapes.overpasses(cover, parcel, DATES, seed):
            write_single_bands(imagery, day, ground, place)
        species = landscapes.numbered(cover, SPECIES, others=BACKGROUND)
        pixels = np.bincount(parcel.ravel())[parcel]
        types = np.select([species == BACKGROUND, pixels >= LARGE, pixels >= MEDIUM], [0, 1, 2], 3)
        write_gfw(labels, grid, parcel, types, species)
    return Path(folder)
