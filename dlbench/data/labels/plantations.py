"""Tree plantations as labels: Global Forest Watch / Transparent World, and SDPT version 2.

Petersen et al., Mapping Tree Plantations with Multispectral Imagery, World Resources Institute
2016; Richter et al., Spatial Database of Planted Trees Version 2.0, World Resources Institute 2024.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dlbench.data.dataset import IGNORE, ClassInfo, DataError
from dlbench.data.grid import Grid, Imagery, Labels
from dlbench.data.labelled_sentinel2 import LABEL_FOLDER, LAYOUT, LICENCE, LabelledSentinel2
from dlbench.data.labels.polygons import (
    Features,
    Polygons,
    class_indices,
    layer_names,
    read_features,
)

BACKGROUND = 0
"""Index of "no plantation", which is a class: the maps cover their countries whole."""
# Attributes are names; the code of a class is its index.
_CLASSES = {
    "type": (
        ("no plantation", (225, 225, 215)),
        ("Large industrial plantation", (230, 85, 70)),
        ("Mosaic of medium-sized plantations", (240, 160, 60)),
        ("Mosaic of small-sized plantations", (250, 220, 110)),
        ("Clearing/very young plantation", (120, 80, 160)),
    ),
    "species": (
        ("no plantation", (225, 225, 215)),
        ("Oil palm", (230, 85, 70)),
        ("Wood fiber/timber", (45, 105, 175)),
        ("Oil palm mix", (250, 170, 150)),
        ("Wood fiber/timber mix", (150, 195, 235)),
        ("Other", (60, 140, 75)),
        ("Recently cleared", (120, 80, 160)),
        ("Rubber", (110, 110, 120)),
        ("Rubber mix", (180, 180, 190)),
        ("Fruit", (235, 190, 40)),
        ("Fruit mix", (250, 235, 150)),
        ("Other mix", (165, 215, 160)),
    ),
}
CLASSES = {
    by: tuple(ClassInfo(name, color, code) for code, (name, color) in enumerate(rows))
    for by, rows in _CLASSES.items()
}
UNKNOWN = ("", "Unknown", "Unknown mix", "n/a")
"""Planted, but with what nobody could tell: `IGNORE`."""
# Releases differ in names and case; spec_org, the species as interpreted, is no class.
FIELDS = {
    "type": ("type_text",),
    "species": ("spec_simp", "Spec_1", "species_simp", "simpleName"),
}
PERCENT = "percent"
MINIMUM_PERCENT = {"type": 0.0, "species": 50.0}
"""Planted to less, most of a mosaic is not of the species that its polygon names; the type says
itself that it is a mosaic."""
VECTOR_SUFFIXES = (".shp", ".gdb", ".gpkg", ".geojson")
SDPT_LAYER = re.compile(r"([a-z]{3})_plant_v2", re.IGNORECASE)


class Plantations(LabelledSentinel2):
    """Sentinel-2 scenes labelled by a map of plantations.

    Options as `LabelledSentinel2` and `plantations` have them; ``labels`` names the file where
    ``labels/`` holds several. The maps cover their countries whole, so that ground of no polygon is
    background; but a scene without any is more often one of another place, and refused unless
    ``unplanted`` says that such are meant. Even then it must lie within the extent of the map.
    """

    name = "plantations"
    licence = f"Global Forest Watch and SDPT: CC BY 4.0; {LICENCE}"
    source = "https://data.globalforestwatch.org"
    layout = f"""{LAYOUT}\
{LABEL_FOLDER}/    Tree_plantations.shp with its parts, or the .gdb or .gpkg of SDPT version 2"""

    def __init__(
        self,
        root: Path,
        size: tuple[int, int] | None = None,
        by: str = "species",
        minimum_percent: float | None = None,
        labels: str | None = None,
        layer: str | None = None,
        aliases: Mapping[str, str] | None = None,
        unplanted: bool = False,
        **imagery: Any,
    ) -> None:
        self._file, self._unplanted = labels, unplanted
        self._choice: dict[str, Any] = {
            "by": by, "minimum_percent": minimum_percent, "layer": layer, "aliases": aliases,
        }  # fmt: skip
        super().__init__(root, size, **imagery)
        self.classes = CLASSES[by]

    def labels(self, image: Imagery) -> Labels:
        folder = self.root / LABEL_FOLDER
        held = sorted(p for p in folder.glob("*") if p.suffix.lower() in VECTOR_SUFFIXES)
        if self._file is None and len(held) != 1:
            raise DataError(
                f"{folder} must hold one map, {', '.join(VECTOR_SUFFIXES)}; it holds "
                f"{', '.join(p.name for p in held) or 'none'}; choose with data.options.labels=..."
            )
        file = held[0] if self._file is None else folder / self._file
        found = plantations(file, grid=image.grid, **self._choice)
        try:
            found.require_overlap(image.grid, image.file, extent=self._unplanted)
        except DataError as error:
            if self._unplanted:
                raise
            raise DataError(
                f"{error}; or, where the map covers that place, give data.options.unplanted=true"
            ) from None
        return found


def plantations(
    file: Path,
    by: str = "species",
    minimum_percent: float | None = None,
    layer: str | None = None,
    grid: Grid | None = None,
    aliases: Mapping[str, str] | None = None,
) -> Polygons:
    """Labels in the classes `CLASSES`[``by``], of what lies near ``grid``.

    Of a file with several layers (SDPT: a country each) all of that kind are read unless
    ``layer`` names one. A mosaic is planted only to its ``percent``: what has less than
    ``minimum_percent``, by default `MINIMUM_PERCENT`, is `IGNORE`, being neither plantation nor
    background; a polygon without that number (shapefiles have 0 or less for none) counts as planted
    whole. A minimum of 0 leaves it unread. ``aliases`` maps further attribute values to class
    names. Raises `DataError`.
    """
    file = Path(file)
    if by not in CLASSES:
        raise DataError(f"plantations are labelled by '{by}', allowed: {', '.join(CLASSES)}")
    least = MINIMUM_PERCENT[by] if minimum_percent is None else minimum_percent
    wanted = {by: FIELDS[by]} | ({PERCENT: (PERCENT,)} if least > 0 else {})
    # SDPT has no percent, which matters to who asks for a minimum.
    optional = (PERCENT,) if minimum_percent is None else ()
    layers = [layer] if layer is not None else _layers(file)
    features = _join([read_features(file, wanted, name, grid, optional) for name in layers])
    names = [None if v is None else _key(str(v)) for v in features.fields[by]]
    indices = class_indices(names, _index_of_name(by, aliases or {}), file, FIELDS[by][0])
    if least > 0:
        indices[_percent(features) < least] = IGNORE
    return Polygons(features, indices, outside=BACKGROUND)


def _layers(file: Path) -> list[str]:
    names = layer_names(file)
    countries = [name for name in names if SDPT_LAYER.fullmatch(name)]
    if len(names) > 1 and not countries:
        raise DataError(
            f"{file} has the layers {', '.join(names)}, none a country of SDPT such as "
            "cmr_plant_v2; name the one to read as layer"
        )
    return countries or names


def _join(features: list[Features]) -> Features:
    first = features[0]
    extents = np.array([f.extent for f in features])
    return replace(
        first,
        geometries=np.concatenate([f.geometries for f in features]),
        fields={n: np.concatenate([f.fields[n] for f in features]) for n in first.fields},
        extent=(*np.nanmin(extents[:, :2], axis=0), *np.nanmax(extents[:, 2:], axis=0)),
    )


def _key(value: str) -> str:
    """'gr-Wood fiber / Timber ' and 'wood fiber/timber' are one; gr- marks a group of species."""
    value = re.sub(r"\s*/\s*", "/", " ".join(value.split())).casefold()
    return value.removeprefix("gr-")


def _index_of_name(by: str, aliases: Mapping[str, str]) -> dict[str, int]:
    indices = {_key(c.name): c.code for c in CLASSES[by]}
    indices |= {_key(name): IGNORE for name in UNKNOWN}
    for value, name in aliases.items():
        if _key(name) not in indices:
            allowed = ", ".join(c.name for c in CLASSES[by])
            raise DataError(f"aliases maps '{value}' to '{name}', allowed: {allowed}")
        indices[_key(value)] = indices[_key(name)]
    return indices


def _percent(features: Features) -> np.ndarray:
    values = features.fields[PERCENT]
    try:
        found = np.array([np.nan if v in (None, "") else float(v) for v in values])
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{features.file} holds in {PERCENT} no number: {error}; mend it, or give "
            "minimum_percent=0, which leaves it unread"
        ) from error
    known = found > 0
    if known.any() and found[known].max() <= 1:
        raise DataError(
            f"{features.file} holds in {PERCENT} {found[known].min():g} to "
            f"{found[known].max():g}, expected are 0 to 100; multiply shares by 100 (ogr2ogr -sql, "
            "or the field calculator of QGIS), or give minimum_percent=0, which leaves it unread"
        )
    return np.where(known, found, 100.0)
