"""What the ISPRS 2D semantic labelling data sets share: classes, palette, tiles and their heights.

Heights become a band of the image, so in its uint8: the normalised surface model (above ground) in
decimetres, 0 to 25.5 m; the surface model (above sea) in steps of 0.25 m from the low ground of
its tile, 0 to 63.75 m. What lies outside is clipped.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from dlbench.data import block_cache, raster
from dlbench.data.dataset import IGNORE, ClassInfo, DataError, Sample
from dlbench.data.windows import WindowedDataSet

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
MIXED_SHARE = 0.01
"""At most so much of a label may be of no class's colour: lossy coding mixes red and blue."""
LABELS = ("full", "eroded")
HEIGHT_BANDS = {"none": (), "dsm": ("surface height",), "ndsm": ("height above ground",)}
STEPS_PER_METRE = {"dsm": 4.0, "ndsm": 10.0}
MISSING = 1
"""Pixels that a height raster may lack at the right and bottom, as those of Potsdam's 3_13 do."""


def decode(palette: np.ndarray, file: Path) -> np.ndarray:
    """Class indices (height, width) uint8 of palette colours (height, width, 3).

    Channels are thresholded, since released labels hold colours that were resampled or re-encoded.
    Black is `IGNORE`, as is magenta, which no class has; much of it raises `DataError`.
    """
    return _known(_indices(palette), file, lambda: palette)


def _indices(palette: np.ndarray) -> np.ndarray:
    code = (palette[..., 0] > THRESHOLD).view(np.uint8)
    for channel in (1, 2):
        np.left_shift(code, 1, out=code)
        np.bitwise_or(code, palette[..., channel] > THRESHOLD, out=code)
    # NumPy would widen every code to 64 bits to look it up.
    return np.frombuffer(bytearray(code).translate(_INDEX_OF_CODE), np.uint8).reshape(code.shape)


def _known(target: np.ndarray, file: Path, palette: Callable[[], np.ndarray]) -> np.ndarray:
    """Indices, `IGNORE` in place of the few that are of no class. Raises `DataError` for many."""
    if _UNKNOWN not in target.tobytes():  # bytes do not hand the interpreter to another thread
        return target
    unknown = target == _UNKNOWN
    if np.count_nonzero(unknown) > MIXED_SHARE * unknown.size:
        row, column = np.argwhere(unknown)[0]
        raise DataError(
            f"{file} holds the colour {tuple(palette()[row, column].tolist())}, which is no class; "
            "is it an image in place of a label?"
        )
    target[unknown] = IGNORE
    return target


_UNKNOWN = 254
_INDICES = {BLACK: IGNORE, **{info.code: index for index, info in enumerate(CLASSES)}}
_INDEX_OF_CODE = bytes(_INDICES.get(code, _UNKNOWN) for code in range(256))


@dataclass(frozen=True)
class _Heights:
    """A height raster of ``rows`` x ``columns`` pixels on the grid of its tile."""

    file: Path
    kind: str
    rows: int
    columns: int
    in_decimetres: bool

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Steps (height, width) uint8, and where they are known (height, width) bool."""
        rows = np.minimum(np.arange(row, row + height), self.rows - 1)
        columns = np.minimum(np.arange(column, column + width), self.columns - 1)
        top, left = int(rows[0]), int(columns[0])
        values, known = block_cache.read_window(
            self.file, top, left, int(rows[-1]) - top + 1, int(columns[-1]) - left + 1
        )
        valid = np.ones(values.shape[:2], bool) if known is None else known
        if not self.in_decimetres:
            ground = _low_ground(self.file, self.rows, self.columns) if self.kind == "dsm" else 0.0
            metres = np.where(valid[..., None], values, ground) - ground
            values = np.clip(np.rint(metres * STEPS_PER_METRE[self.kind]), 0, 255).astype(np.uint8)
        within = np.ix_(rows - top, columns - left)
        return values[..., 0][within], valid[within]


@functools.cache
def _low_ground(file: Path, rows: int, columns: int) -> float:
    """Height in metres that 1 % of a tile lie below: its minimum may be a mismatched pixel."""
    lines = [raster.read_window(file, row, 0, 1, columns) for row in range(0, rows, 16)]
    known = np.concatenate([values[..., 0][valid] for values, valid in lines])
    return float(np.percentile(known, 1)) if known.size else 0.0


@dataclass(frozen=True)
class _Tile:
    name: str
    file: Path
    label: Path
    heights: _Heights | None
    height: int
    width: int

    def read(self, row: int, column: int, height: int, width: int) -> Sample:
        window = row, column, height, width
        image, valid = block_cache.read_window(self.file, *window)
        if self.heights is not None:
            steps, known = self.heights.read(*window)
            image = np.dstack([image, steps])
            valid = known if valid is None else valid & known
        found, _ = block_cache.read_window(self.label, *window, decode=_indices)
        target = _known(found, self.label, lambda: raster.read_window(self.label, *window)[0])
        if valid is not None:
            target[~valid] = IGNORE
        return image, target


class AerialTiles(WindowedDataSet):
    """Windows of the tiles; 6 classes, clutter among them.

    ``labels`` is "full" or "eroded"; ``areas`` replaces the tiles of splits; ``height`` is "none",
    "dsm" or "ndsm", a last band; ``stride`` as `WindowedDataSet` has it.
    """

    classes = CLASSES
    headline_leaves_out = ("clutter",)
    dtype = np.dtype(np.uint8)
    units = "digital number"
    ground_sampling_distance: float | None
    licence = "ISPRS benchmark terms: research only, after registration"
    official_areas: ClassVar[Mapping[str, tuple[Any, ...]]]
    """The tiles of each split."""

    def __init__(
        self,
        root: Path,
        size: tuple[int, int] | None = None,
        stride: int | None = None,
        labels: str = "full",
        areas: Mapping[str, Sequence[Any]] | None = None,
        height: str = "none",
    ) -> None:
        super().__init__(root, size, stride)
        for option, value, allowed in (
            ("labels", labels, LABELS),
            ("height", height, tuple(HEIGHT_BANDS)),
        ):
            if value not in allowed:
                raise DataError(f"{option} is '{value}', allowed: {', '.join(allowed)}")
        self._labels, self._height = labels, height
        self._image_bands = self.bands
        self.bands = (*self.bands, *HEIGHT_BANDS[height])
        self._areas = self._chosen_areas(areas or {})
        self._refuse_shared_areas()
        self.splits = tuple(s for s in self._areas if self._labelled(s))
        if not self.splits:
            image, *others = (*self.image_places("{area}"), *self.label_places("{area}"))
            raise DataError(
                f"{self.root} holds no labelled tile: an image is looked for at {image}, tiles "
                f"and labels also at {', '.join(map(str, others))}; unpack image and label "
                f"archives there (from {self.source})"
            )
        first = raster.describe(self._image(self._labelled(self.splits[0])[0]))
        if first.crs or first.pixel_size != (1.0, 1.0):
            self.ground_sampling_distance = first.pixel_size[0]

    @abc.abstractmethod
    def image_places(self, area: Any) -> list[Path]:
        """Where the image of a tile may lie; the first file found is taken."""

    @abc.abstractmethod
    def label_places(self, area: Any) -> list[Path]:
        """Where the label of a tile may lie."""

    @abc.abstractmethod
    def height_places(self, area: Any) -> list[Path]:
        """Where the height raster of a tile may lie."""

    def area(self, given: Any) -> Any:
        """A tile as `official_areas` names it, from how a user wrote it."""
        return given

    def scenes(self, split: str) -> list[_Tile]:
        return [self._tile(a) for a in self._areas[split] if _found(self.image_places(a))]

    def missing(self) -> list[str]:
        absent = []
        for split, areas in self._areas.items():
            for area in areas:
                places = [self.image_places(area), self.label_places(area)]
                places += [self.height_places(area)] if self._height != "none" else []
                absent += [f"{among[0]} ({split})" for among in places if not _found(among)]
        return absent

    def require_split(self, split: str) -> None:
        if split in self._areas and not self._labelled(split):
            raise DataError(
                f"{self.root} holds no labelled tile of the split '{split}' "
                f"(areas {', '.join(map(str, self._areas[split]))}); it holds the splits "
                f"{', '.join(self.splits)}; "
                f"other areas: data.options.areas={{{split}: [{self.official_areas['train'][0]}]}}"
            )
        super().require_split(split)

    def _chosen_areas(self, areas: Mapping[str, Sequence[Any]]) -> dict[str, tuple[Any, ...]]:
        official = self.official_areas
        if not set(areas) <= set(official):
            raise DataError(f"areas names {sorted(areas)}, allowed are the splits {list(official)}")
        chosen = {s: tuple(map(self.area, areas.get(s, official[s]))) for s in official}
        known = [area for tiles in official.values() for area in tiles]
        unknown = [area for tiles in chosen.values() for area in tiles if area not in known]
        if unknown:
            raise DataError(f"areas names {unknown}, allowed: {', '.join(map(str, known))}")
        return chosen

    def _refuse_shared_areas(self) -> None:
        for split, other in (("train", "val"), ("train", "test"), ("val", "test")):
            shared = sorted(set(self._areas[split]) & set(self._areas[other]))
            if shared:
                raise DataError(
                    f"areas {shared} are both in {split} and {other}: a model would be scored on "
                    "what it has seen; override the areas of both splits"
                )

    def _image(self, area: Any) -> Path:
        places = self.image_places(area)
        return _found(places) or places[0]

    def _labelled(self, split: str) -> list[Any]:
        return [
            area
            for area in self._areas[split]
            if _found(self.image_places(area)) and _found(self.label_places(area))
        ]

    def _tile(self, area: Any) -> _Tile:
        image_file, label_file = self._image(area), _found(self.label_places(area))
        if label_file is None:
            places = self.label_places(area)
            raise DataError(
                f"{image_file} has no label {places[0].name} in "
                f"{' or '.join(str(place.parent) for place in places)}, "
                "though other tiles of its split have; add it or remove the image"
            )
        image, label = raster.describe(image_file), raster.describe(label_file)
        for header, bands in ((image, self._image_bands), (label, ("red", "green", "blue"))):
            if header.bands != len(bands) or header.dtype != np.uint8:
                raise DataError(
                    f"{header.path} has {header.bands} bands of {header.dtype}, expected "
                    f"{len(bands)} of uint8 ({', '.join(bands)}); take it from {self.source}"
                )
        if (image.height, image.width) != (label.height, label.width):
            raise DataError(
                f"{label_file} is {label.height} x {label.width}, but its image {image_file} is "
                f"{image.height} x {image.width} pixels; take both from one release"
            )
        heights = None if self._height == "none" else self._heights(area, image)
        return _Tile(f"area{area}", image_file, label_file, heights, image.height, image.width)

    def _heights(self, area: Any, image: raster.Header) -> _Heights:
        places = self.height_places(area)
        file = _found(places)
        if file is None:
            raise DataError(
                f"{image.path} has no heights: height={self._height} looks for "
                f"{' or '.join(map(str, places))}; unpack that archive too, or give height=none"
            )
        header = raster.describe(file)
        short = image.height - header.height, image.width - header.width
        if min(short) < 0 or max(short) > MISSING:
            raise DataError(
                f"{file} is {header.height} x {header.width}, but its image {image.path} is "
                f"{image.height} x {image.width} pixels; take both from one release"
            )
        in_decimetres = header.dtype == np.uint8
        if header.bands != 1 or (in_decimetres and self._height == "dsm"):
            raise DataError(
                f"{file} has {header.bands} bands of {header.dtype}, expected 1 of float32 "
                "(metres) or, of a normalised model, uint8 (decimetres)"
            )
        return _Heights(file, self._height, header.height, header.width, bool(in_decimetres))


def _found(places: Sequence[Path]) -> Path | None:
    return next((path for path in places if path.is_file()), None)
