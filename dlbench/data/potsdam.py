"""ISPRS Potsdam 2D semantic labelling: aerial tiles of 6000 x 6000 pixels at 5 cm, R, G, B, IR.

Also reads the miniature scenes of `dlbench.data.miniatures.potsdam`. Known faults of the release
are read through: the label of 4_12 was lossily re-encoded, 6_7 has cars of (252, 255, 0), the
heights of 3_13 lack a column.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dlbench.data.dataset import DataError
from dlbench.data.isprs import AerialTiles

IMAGE_FOLDERS = {"RGB": "2_Ortho_RGB", "IRRG": "3_Ortho_IRRG", "RGBIR": "4_Ortho_RGBIR"}
BANDS = {
    "RGB": ("red", "green", "blue"),
    "IRRG": ("near infrared", "red", "green"),
    "RGBIR": ("red", "green", "blue", "near infrared"),
}
TILE_NAME = "top_potsdam_{area}_{bands}.tif"
LABEL_NAMES = {
    "full": "top_potsdam_{area}_label.tif",
    "eroded": "top_potsdam_{area}_label_noBoundary.tif",
}
LABEL_FOLDERS = {
    "full": ("5_Labels_all", "5_Labels_for_participants"),
    "eroded": ("5_Labels_all_noBoundary", "5_Labels_for_participants_no_Boundary"),
}
HEIGHT_FOLDERS = {"dsm": "1_DSM", "ndsm": "1_DSM_normalisation"}
# A tile copied to a tiled GeoTIFF goes first: windows of a JPEG mean decoding all above them.
HEIGHT_NAMES = {
    "dsm": ("dsm_potsdam_{area}.tif",),
    "ndsm": tuple(
        f"dsm_potsdam_{{area}}_normalized_{method}.{kind}"
        for method in ("lastools", "ownapproach")
        for kind in ("tif", "jpg")
    ),
}
OFFICIAL_TRAIN = (
    *(f"{row}_{column}" for row in range(2, 6) for column in range(10, 13)),
    *(f"{row}_{column}" for row in range(6, 8) for column in range(7, 13)),
)
VALIDATION = ("2_11", "3_10", "4_10", "5_11", "6_11", "7_12")
"""The benchmark names none: our choice, one training tile of each row, none of the faulty."""
AREAS = {
    "train": tuple(area for area in OFFICIAL_TRAIN if area not in VALIDATION),
    "val": VALIDATION,
    "test": (
        "2_13", "2_14", "3_13", "3_14", "4_13", "4_14", "4_15",
        "5_13", "5_14", "5_15", "6_13", "6_14", "6_15", "7_13",
    ),
}  # fmt: skip


class Potsdam(AerialTiles):
    """Options as `AerialTiles` has them; ``areas`` are "row_column": {"train": ["2_10"]};
    ``bands`` is "RGB", "IRRG" or "RGBIR".
    """

    name = "potsdam"
    bands = BANDS["IRRG"]
    ground_sampling_distance: float | None = 0.05
    source = "https://www.isprs.org/education/benchmarks/UrbanSemLab/2d-sem-label-potsdam.aspx"
    layout = """\
3_Ortho_IRRG/top_potsdam_2_10_IRRG.tif ...                  38 images; or 2_Ortho_RGB, 4_Ortho_RGBIR
5_Labels_all/top_potsdam_2_10_label.tif ...                 labels, or 5_Labels_for_participants,
                                                            or *_noBoundary, the eroded ones
1_DSM/, 1_DSM_normalisation/                                heights, with height=dsm or ndsm
folders may be nested twice, as the archives unpack"""
    official_areas = AREAS

    def __init__(
        self, root: Path, size: tuple[int, int] | None = None, bands: str = "IRRG", **tiles: Any
    ) -> None:
        if bands not in BANDS:
            raise DataError(f"bands is '{bands}', allowed: {', '.join(BANDS)}")
        self._variant = bands
        self.bands = BANDS[bands]
        super().__init__(root, size, **tiles)

    def area(self, given: Any) -> Any:
        # YAML takes an unquoted 2_10 for the number 210.
        return f"{str(given)[0]}_{str(given)[1:]}" if isinstance(given, int) else given

    def image_places(self, area: Any) -> list[Path]:
        name = TILE_NAME.format(area=area, bands=self._variant)
        return self._places(IMAGE_FOLDERS[self._variant], name)

    def label_places(self, area: Any) -> list[Path]:
        name = LABEL_NAMES[self._labels].format(area=area)
        folders = LABEL_FOLDERS[self._labels]
        return [place for folder in folders for place in self._places(folder, name)]

    def height_places(self, area: Any) -> list[Path]:
        padded = "_".join(part.zfill(2) for part in str(area).split("_"))
        folder, names = HEIGHT_FOLDERS[self._height], HEIGHT_NAMES[self._height]
        return [p for name in names for p in self._places(folder, name.format(area=padded))]

    def _places(self, folder: str, name: str) -> list[Path]:
        """Most archives hold their folder, and unpack into another of its name."""
        return [self.root / folder / name, self.root / folder / folder / name]
