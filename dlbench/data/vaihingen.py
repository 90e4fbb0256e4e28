"""ISPRS Vaihingen 2D semantic labelling: aerial tiles of near infrared, red, green at 9 cm.

Also reads the miniature scenes of `dlbench.data.scenes`, which come in the same layout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dlbench.data.isprs import AerialTiles

IMAGE_FOLDER = "top"
TILE_NAME = "top_mosaic_09cm_area{area}.tif"
LABEL_NAMES = {
    "full": "top_mosaic_09cm_area{area}.tif",
    "eroded": "top_mosaic_09cm_area{area}_noBoundary.tif",
}
# The archive for participants has a folder, the COMPLETE archives unzip flat.
LABEL_FOLDERS = ("gts_for_participants", ".")
# The normalised model is no part of the benchmark, but of Gerke's report of 2015 ("Use of the
# stair vision library within the ISPRS 2D semantic labeling benchmark"), in decimetres; copies
# of it differ in their names.
HEIGHT_NAMES = {
    "dsm": ("dsm/dsm_09cm_matching_area{area}.tif",),
    "ndsm": tuple(
        f"ndsm/dsm_09cm_matching_area{{area}}{end}.{kind}"
        for end in ("_normalized", "")
        for kind in ("tif", "jpg", "png")
    ),
}
OFFICIAL_TRAIN = (1, 3, 5, 7, 11, 13, 15, 17, 21, 23, 26, 28, 30, 32, 34, 37)
COMMON_VALIDATION = (11, 15, 28, 30, 34)
AREAS = {
    "train": tuple(area for area in OFFICIAL_TRAIN if area not in COMMON_VALIDATION),
    "val": COMMON_VALIDATION,
    "test": (2, 4, 6, 8, 10, 12, 14, 16, 20, 22, 24, 27, 29, 31, 33, 35, 38),
}


class Vaihingen(AerialTiles):
    """Options as `AerialTiles` has them; ``areas`` are the numbers in file names:
    {"train": [1, 3]}.
    """

    name = "vaihingen"
    bands = ("near infrared", "red", "green")
    ground_sampling_distance: float | None = 0.09
    source = "https://www.isprs.org/education/benchmarks/UrbanSemLab/2d-sem-label-vaihingen.aspx"
    layout = """\
top/top_mosaic_09cm_area1.tif ...                            33 images
gts_for_participants/top_mosaic_09cm_area1.tif ...           labels; or beside top/, as in the
                     top_mosaic_09cm_area1_noBoundary.tif    COMPLETE archives
dsm/dsm_09cm_matching_area1.tif ...                          heights, with height=dsm"""
    official_areas = AREAS

    def image_places(self, area: Any) -> list[Path]:
        return [self.root / IMAGE_FOLDER / TILE_NAME.format(area=area)]

    def label_places(self, area: Any) -> list[Path]:
        name = LABEL_NAMES[self._labels].format(area=area)
        return [self.root / folder / name for folder in LABEL_FOLDERS]

    def height_places(self, area: Any) -> list[Path]:
        return [self.root / name.format(area=area) for name in HEIGHT_NAMES[self._height]]
