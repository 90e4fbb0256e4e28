"""Global Annual Burned Area Mapping (GABAM): what burned in a year, at some 30 m.

Long et al., 30 m resolution global annual burned area mapping based on Landsat images and Google
Earth Engine, Remote Sensing 11 (2019) 489. A pixel burned in the year of the map, not before.
"""

from __future__ import annotations

from dlbench.data.labels.annual_layer import AnnualLayer

GABAM = AnnualLayer(
    name="GABAM",
    table="gabam",
    nothing=frozenset(),
    # 10 x 10 degrees of EPSG:4326 in 40,000 x 40,000 pixels. Where a tile lies is its
    # geotransform's to say: releases need not agree on the corner that the name means.
    file_names=(r"(?P<year>[12]\d{3})/[^/]+\.tif",),
    examples="2015/N10W080.TIF; not every year was released",
    source="https://vapd.gitlab.io/post/gabam/",
)
