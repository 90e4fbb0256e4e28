"""ISPRS Vaihingen 2D semantic labelling: aerial tiles of near infrared, red, green at 9 cm.

Also reads the miniature scenes of `dlbench.data.scenes`, which come in the same layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dlbench.data import raster
from dlbench.data.dataset import IGNORE, ClassInfo, DataError, Sample
from dlbench.data.windows import WindowedDataSet

IMAGE_FOLDER = "top"
TILE_NAME = "top_mosaic_09cm_area{area}.tif"
LABEL_NAMES = {
    "full": "top_mosaic_09cm_area{area}.tif",
    "eroded": "top_mosaic_09cm_area{area}_noBoundary.tif",
}
# The archive for participants has a folder, the COMPLETE archives unzip flat.
LABEL_FOLDERS = ("gts_for_participants", ".")
OFFICIAL_TRAIN = (1, 3, 5, 7, 11, 13, 15, 17, 21, 23, 26, 28, 30, 32, 34, 37)
COMMON_VALIDATION = (11, 15, 28, 30, 34)
AREAS = {
    "train": tuple(area for area in OFFICIAL_TRAIN if area not in COMMON_VALIDATION),
    "val": COMMON_VALIDATION,
    "test": (2, 4, 6, 8, 10, 12, 14, 16, 20, 22, 24, 27, 29, 31, 33, 35, 38),
}
# The code of a class packs its palette colour, each channel thresholded, into bits RGB.
CLASSES = (
    ClassInfo("impervious surface", (255, 255, 255), 0b111),
    ClassInfo("building", (0, 0, 255), 0b001),
    ClassInfo("low vegetation", (0, 255, 255), 0b011),
    ClassInfo("tree", (0, 255, 0), 0b010),
    ClassInfo("car", (255, 255, 0), 0b110),
    ClassInfo("clutter", (255, 0, 0), 0b100),
)
THRESHOLD = 127
BLACK = 0b000
"""Border zone of the eroded labels."""


@dataclass(frozen=True)
class _Tile:
    name: str
    file: Path
    label: Path
    height: int
    width: int

    def read(self, row: int, column: int, height: int, width: int) -> Sample:
        image, valid = raster.read_window(self.file, row, column, height, width)
        palette, _ = raster.read_window(self.label, row, column, height, width)
        target = decode(palette, self.label)
        target[~valid] = IGNORE
        return image, target


class Vaihingen(WindowedDataSet):
    """Windows of the tiles; 6 classes, clutter among them.

    ``labels`` is "full" or "eroded", ``areas`` replaces the area numbers of splits
    ({"train": [1, 3]}); ``stride`` as `WindowedDataSet` has it.
    """

    name = "vaihingen"
    bands = ("near infrared", "red", "green")
    classes = CLASSES
    dtype = np.dtype(np.uint8)
    units = "digital number"
    ground_sampling_distance: float | None = 0.09
    licence = "ISPRS benchmark terms: research only, after registration"
    source = "https://www.isprs.org/education/benchmarks/UrbanSemLab/2d-sem-label-vaihingen.aspx"
    layout = """\
top/top_mosaic_09cm_area1.tif ...                            33 images
gts_for_participants/top_mosaic_09cm_area1.tif ...           labels; or beside top/, as in the
                     top_mosaic_09cm_area1_noBoundary.tif    COMPLETE archives"""

    def __init__(
        self,
        root: Path,
        size: tuple[int, int] | None = None,
        stride: int | None = None,
        labels: str = "full",
        areas: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        super().__init__(root, size, stride)
        if labels not in LABEL_NAMES:
            raise DataError(f"labels is '{labels}', allowed: {', '.join(LABEL_NAMES)}")
        if areas is not None and not set(areas) <= set(AREAS):
            raise DataError(f"areas names {sorted(areas)}, allowed are the splits {list(AREAS)}")
        self._labels = labels
        self._areas = {split: tuple((areas or {}).get(split, AREAS[split])) for split in AREAS}
        self._refuse_shared_areas()
        self.splits = tuple(s for s in AREAS if self._labelled(s))
        if self.splits:
            first = raster.describe(self._image(self._labelled(self.splits[0])[0]))
            if first.crs:
                self.ground_sampling_distance = first.pixel_size[0]
        else:
            places = " or ".join(str(self.root / f / LABEL_NAMES[labels]) for f in LABEL_FOLDERS)
            raise DataError(
                f"{self.root} holds no labelled tile: an image is looked for at "
                f"{self.root / IMAGE_FOLDER / TILE_NAME}, its label at {places}; unpack image "
                f"and label archives there (from {self.source})"
            )

    def scenes(self, split: str) -> list[_Tile]:
        return [self._tile(a) for a in self._areas[split] if self._image(a).is_file()]

    def missing(self) -> list[str]:
        absent = []
        for split in AREAS:
            for area in self._areas[split]:
                if not self._image(area).is_file():
                    absent.append(f"{self._image(area)} ({split})")
                if self._label(area) is None:
                    place = self.root / LABEL_FOLDERS[0] / LABEL_NAMES[self._labels]
                    absent.append(f"{str(place).format(area=area)} ({split})")
        return absent

    def require_split(self, split: str) -> None:
        if split in AREAS and not self._labelled(split):
            raise DataError(
                f"{self.root} holds no labelled tile of the split '{split}' "
                f"(areas {', '.join(map(str, self._areas[split]))}); it holds the splits "
                f"{', '.join(self.splits)}; other areas: data.options.areas={{{split}: [1]}}"
            )
        super().require_split(split)

    def _refuse_shared_areas(self) -> None:
        for split, other in (("train", "val"), ("train", "test"), ("val", "test")):
            shared = sorted(set(self._areas[split]) & set(self._areas[other]))
            if shared:
                raise DataError(
                    f"areas {shared} are both in {split} and {other}: a model would be scored on "
                    "what it has seen; override the areas of both splits"
                )

    def _image(self, area: int) -> Path:
        return self.root / IMAGE_FOLDER / TILE_NAME.format(area=area)

    def _label(self, area: int) -> Path | None:
        name = LABEL_NAMES[self._labels].format(area=area)
        found = (self.root / folder / name for folder in LABEL_FOLDERS)
        return next((path for path in found if path.is_file()), None)

    def _labelled(self, split: str) -> list[int]:
        return [a for a in self._areas[split] if self._image(a).is_file() and self._label(a)]

    def _tile(self, area: int) -> _Tile:
        image_file, label_file = self._image(area), self._label(area)
        if label_file is None:
            name = LABEL_NAMES[self._labels].format(area=area)
            raise DataError(
                f"{image_file} has no label {name} in {self.root / LABEL_FOLDERS[0]} or "
                f"{self.root}, though other tiles of its split have; add it or remove the image"
            )
        image, label = raster.describe(image_file), raster.describe(label_file)
        for header, what in ((image, "near infrared, red, green"), (label, "palette colours")):
            if header.bands != 3 or header.dtype != np.uint8:
                raise DataError(
                    f"{header.path} has {header.bands} bands of {header.dtype}, expected 3 of "
                    f"uint8 ({what}); take it from {self.source}"
                )
        if (image.height, image.width) != (label.height, label.width):
            raise DataError(
                f"{label_file} is {label.height} x {label.width}, but its image {image_file} is "
                f"{image.height} x {image.width} pixels; take both from one release"
            )
        return _Tile(f"area{area}", image_file, label_file, image.height, image.width)


def decode(palette: np.ndarray, file: Path) -> np.ndarray:
    """Class indices (height, width) uint8 of palette colours (height, width, 3).

    Channels are thresholded, since released labels hold colours that were resampled or
    re-encoded. Black is `IGNORE`; magenta, which no class has, raises `DataError`.
    """
    codes = ((palette > THRESHOLD) * np.array([4, 2, 1], np.uint8)).sum(axis=-1, dtype=np.uint8)
    target = _INDEX_OF_CODE[codes]
    if (target == _UNKNOWN).any():
        row, column = np.argwhere(target == _UNKNOWN)[0]
        raise DataError(
            f"{file} holds the colour {tuple(map(int, palette[row, column]))}, which is no class; "
            "is it an image in place of a label?"
        )
    return target


_UNKNOWN = 254
_INDEX_OF_CODE = np.full(8, _UNKNOWN, np.uint8)
_INDEX_OF_CODE[BLACK] = IGNORE
for _index, _class in enumerate(CLASSES):
    _INDEX_OF_CODE[_class.code] = _index
