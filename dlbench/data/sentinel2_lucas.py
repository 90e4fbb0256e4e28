"""Sentinel-2 imagery labelled by LUCAS, the European Union's survey of land cover in the field."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from dlbench.data.dataset import DataError
from dlbench.data.fetching import Download
from dlbench.data.grid import Imagery, Labels
from dlbench.data.labelled_sentinel2 import (
    LABEL_FOLDER,
    LAYOUT,
    LICENCE,
    LabelledSentinel2,
    year_of,
)
from dlbench.data.labels.lucas import (
    ATTRIBUTE_FILE,
    IN_SITU,
    POINT_FILES,
    POLYGON_FILE,
    YEARS,
    classes,
    lucas,
)
from dlbench.data.labels.points import Points
from dlbench.data.labels.polygons import Polygons

# None has a checksum: Eurostat and the Joint Research Centre mend their files in place.
EUROSTAT = "https://ec.europa.eu/eurostat"
DOWNLOADS = {
    "polygons": "https://jeodpp.jrc.ec.europa.eu/ftp/jrc-opendata/LUCAS/LUCAS_2018_Copernicus.zip",
    "2009": f"{EUROSTAT}/documents/205002/208938/EU_2009_20200213.CSV",
    "2015": f"{EUROSTAT}/cache/lucas/EU_2015_20200225.CSV",
    "2018": f"{EUROSTAT}/cache/lucas/EU_2018_20200213.CSV",
}


class Sentinel2LUCAS(LabelledSentinel2):
    """Options as `LabelledSentinel2` and `dlbench.data.labels.lucas.lucas` have them.

    An image is labelled by the survey of its year (of a series: of its last), or by that of
    ``year``: what grew on a field is of one year. Little of the ground is labelled: only windows
    with labels are samples.
    """

    name = "sentinel2_lucas"
    sparse = True
    licence = f"LUCAS: reuse with acknowledgement of Eurostat; {LICENCE}"
    source = "https://ec.europa.eu/eurostat/web/lucas/database"
    downloads: ClassVar = {part: Download(url, LABEL_FOLDER) for part, url in DOWNLOADS.items()}
    layout = f"""{LAYOUT}\
{LABEL_FOLDER}/    {POINT_FILES[0].format(year=2018)} or {POINT_FILES[2].format(year=2018)}: points;
           or {POLYGON_FILE} with its parts and
           {ATTRIBUTE_FILE}"""

    def __init__(
        self,
        root: Path,
        size: tuple[int, int] | None = None,
        year: int | None = None,
        level: int = 1,
        geometry: str | None = None,
        coordinates: str = "theoretical",
        radius: float = 0.0,
        observed: Sequence[str] = IN_SITU,
        **imagery: Any,
    ) -> None:
        self._year = year
        self._choice = level, geometry, coordinates, radius, observed
        self._surveys: dict[int, Points | Polygons] = {}
        super().__init__(root, size, **imagery)
        self.classes = classes(level)

    def labels(self, image: Imagery) -> Labels:
        year = self._survey_year(image)
        if year not in self._surveys:
            self._surveys[year] = lucas(self.root / LABEL_FOLDER, year, *self._choice)
        self._surveys[year].require_overlap(image.grid, image.file)
        return self._surveys[year]

    def _survey_year(self, image: Imagery) -> int:
        if self._year is not None:
            return self._year
        year = year_of(image)
        if year not in YEARS:
            why = "its name does not tell its year" if year is None else f"it is of {year}"
            raise DataError(
                f"no LUCAS survey belongs to {image.file}: {why}; surveys are of "
                f"{', '.join(map(str, YEARS))}: choose one with data.options.year=..."
            )
        return year
