"""USDA Cropland Data Layer (CDL): crops and land cover of the United States, a raster a year.

Boryan et al., Geocarto International 26 (2011) 341-358. Classes are told by code, never by colour:
many crops share one.
"""

from __future__ import annotations

from dlbench.data.labels.annual_layer import AnnualLayer

BACKGROUND = 0
CLOUDS = 81

CDL = AnnualLayer(
    name="CDL",
    table="cdl",
    nothing=frozenset({BACKGROUND, CLOUDS}),
    file_names=(
        # The whole country; 10 m pixels from 2024 on, beside 30 m ones.
        r"(?P<year>\d{4})_10m_cdls\.(tif|img)",
        r"(?P<year>\d{4})_30m_cdls\.(tif|img)",
        # Clips of a state or county by its FIPS code, background around it.
        r"CDL_(?P<year>\d{4})_\w+\.tif",
    ),
    examples="2023_30m_cdls.tif, 2024_10m_cdls.tif or CDL_2023_19.tif",
    source="https://www.nass.usda.gov/Research_and_Science/Cropland/Release/",
)


def pixel_metres(year: int) -> int:
    """The finest pixels of a year's layer."""
    return 10 if year >= 2024 else 30
