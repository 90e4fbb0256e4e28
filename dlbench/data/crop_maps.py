"""Sentinel-2 imagery labelled by crop maps that come a year each: CDL and the AAFC inventory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from dlbench.data.labels.aafc import ACI
from dlbench.data.labels.annual_layer import AnnualLayer
from dlbench.data.labels.cdl import CDL
from dlbench.data.labels.coded_raster import CodedRaster
from dlbench.data.labels.legend import Legend

CDL_YEARS = range(2008, 2024)
"""Those of the whole country at 30 m. Its archives are made anew now and then, so that none has a
checksum."""


class CropMap(LabelledSentinel2):
    """Options as `LabelledSentinel2` has them, and those of the map.

    An image is labelled by the map of its year (of a series: of its last), or by that of ``year``.
    ``mapping``, ``other`` and ``colors`` make classes of one's own, see
    `dlbench.data.labels.remapping`; without, every class of the map's table is one.
    """

    layer: ClassVar[AnnualLayer]

    def __init__(
        self,
        root: Path,
        size: tuple[int, int] | None = None,
        year: int | None = None,
        mapping: str | Mapping[str, Sequence[str | int]] | None = None,
        other: str = "ignore",
        colors: Mapping[str, str] | None = None,
        **imagery: Any,
    ) -> None:
        self._year = year
        self._choice = mapping, other, colors
        self._legend: Legend | None = None
        super().__init__(root, size, **imagery)

    def labels(self, image: Imagery) -> Labels:
        if self._legend is None:
            years = {self._year_of(one) for one in self.imagery}
            self._legend = self.layer.legend(*self._choice, years=years)
            self.classes = self._legend.classes
        year = self._year_of(image)
        files = self.layer.find(self.root / LABEL_FOLDER, year)[year]
        found = CodedRaster(files, self._legend)
        found.require_overlap(image.grid, image.file)
        return found

    def _year_of(self, image: Imagery) -> int:
        year = self._year or year_of(image)
        if year is None:
            held = list(self.layer.find(self.root / LABEL_FOLDER))
            if len(held) > 1:
                raise DataError(
                    f"the name of {image.file} does not tell its year, and there are maps of "
                    f"{', '.join(map(str, held))}; choose with data.options.year=..."
                )
            (year,) = held
        return year


class Sentinel2CDL(CropMap):
    """Crops and land cover of the United States, by the USDA's Cropland Data Layer."""

    name = "sentinel2_cdl"
    layer = CDL
    licence = f"CDL: public domain; {LICENCE}"
    source = CDL.source
    downloads: ClassVar = {
        str(year): Download(f"{CDL.source}datasets/{year}_30m_cdls.zip", LABEL_FOLDER)
        for year in CDL_YEARS
    }
    layout = f"{LAYOUT}{LABEL_FOLDER}/    {CDL.examples}"


class Sentinel2AAFC(CropMap):
    """Crops and land cover of Canada, by the Annual Crop Inventory."""

    name = "sentinel2_aafc"
    layer = ACI
    licence = f"Annual Crop Inventory: Open Government Licence - Canada; {LICENCE}"
    source = ACI.source
    layout = f"{LAYOUT}{LABEL_FOLDER}/    {ACI.examples}"
