"""Agriculture and Agri-Food Canada (AAFC) Annual Crop Inventory, a raster a province and year.

Fisette et al., Second International Conference on Agro-Geoinformatics (2013) 270-274. The CRS is
what the file says.
"""

from __future__ import annotations

from dlbench.data.labels.annual_layer import AnnualLayer

BACKGROUND = 0
"""Around the province; not in the published table."""
CLOUD = 10

ACI = AnnualLayer(
    name="AAFC Annual Crop Inventory",
    table="aafc_aci",
    nothing=frozenset({BACKGROUND, CLOUD}),
    # A later version of a province, aci_2019_sk_v2.tif, is preferred to those before.
    file_names=(
        *(rf"aci_(?P<year>\d{{4}})_[a-z]+_v{version}\.tif" for version in range(9, 0, -1)),
        r"aci_(?P<year>\d{4})_[a-z]+\.tif",
    ),
    examples="aci_2023_sk.tif or aci_2019_mb_v2.tif",
    source="https://open.canada.ca/data/en/dataset/ba2645d5-4458-414d-b196-6303ac06c1c9",
)


def pixel_metres(year: int) -> int:
    """30 m; 56 m in the first two years."""
    return 56 if year <= 2010 else 30
