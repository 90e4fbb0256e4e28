from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.transform import from_origin

from dlbench.data import block_cache
from dlbench.data.dataset import IGNORE, ClassInfo, DataError, Sample
from dlbench.data.grid import Grid
from dlbench.data.windows import (
    SPLITS,
    LabelledImagery,
    Part,
    WindowedDataSet,
    split_by_blocks,
)


@dataclass(frozen=True)
class _Numbers:
    """A scene whose pixel values are their row and column."""

    height: int
    width: int
    file: Path = Path("numbers.tif")
    name: str = "numbers"

    def read(self, row: int, column: int, height: int, width: int) -> Sample:
        assert row >= 0 <= column and row + height <= self.height and column + width <= self.width
        rows, columns = np.mgrid[row : row + height, column : column + width]
        return np.stack([rows, columns], axis=-1).astype(np.uint16), np.zeros(
            (height, width), np.uint8
        )


class _Blocks(WindowedDataSet):
    name = "blocks"
    bands = ("row", "column")
    classes = (ClassInfo("only", (0, 0, 0), 0),)
    dtype = np.dtype(np.uint16)
    units = "pixels"
    ground_sampling_distance = None
    licence = source = "none"
    splits = SPLITS

    def scenes(self, split: str) -> list[Part]:
        return split_by_blocks(_Numbers(203, 317), self.window)[split]


def _seen(data: WindowedDataSet, split: str, jitter: bool) -> np.ndarray:
    seen = np.zeros((203, 317), int)
    for index in range(data.count(split)):
        generator = np.random.default_rng(index) if jitter else None
        image, target = data.read(split, index, generator)
        kept = target != IGNORE
        np.add.at(seen, (image[kept][:, 0], image[kept][:, 1]), 1)
    return seen


def test_blocks_share_out_the_scene_and_no_window_leaves_its_split(tmp_path: Path) -> None:
    data = _Blocks(tmp_path, (16, 24))
    still = {split: _seen(data, split, jitter=False) for split in SPLITS}
    assert (sum(np.minimum(seen, 1) for seen in still.values()) == 1).all()
    assert still["val"].max() == still["test"].max() == 1
    shares = [np.minimum(still[split], 1).mean() for split in SPLITS]
    np.testing.assert_allclose(shares, (0.6, 0.2, 0.2), atol=0.05)
    moved = _seen(data, "train", jitter=True)
    assert not (moved * still["val"]).any()
    assert not (moved * still["test"]).any()


def test_every_part_of_the_scene_has_each_split_near() -> None:
    parts = split_by_blocks(_Numbers(1000, 1000), (20, 20))
    for split in SPLITS:
        for half in (slice(0, 500), slice(500, 1000)):
            assert any(half.start <= part.row < half.stop for part in parts[split])
            assert any(half.start <= part.column < half.stop for part in parts[split])


def test_a_scene_of_one_window_is_all_training() -> None:
    parts = split_by_blocks(_Numbers(30, 30), (20, 20))
    assert [len(parts[split]) for split in SPLITS] == [1, 0, 0]


def test_a_scene_smaller_than_the_window_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"numbers\.tif is .* smaller than the windows of 300 x 20"):
        _Blocks(tmp_path, (300, 20)).count("train")


UTM = CRS.from_epsg(32633)


class _Flat:
    file = Path("flat.tif")
    name = "flat"
    bands: tuple[str, ...] = ("grey",)
    dtype = np.dtype(np.uint8)
    grid = Grid(UTM, from_origin(500_000, 5_100_000, 10, 10), 40, 50)

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        valid = np.ones((height, width), bool)
        valid[0, 0] = False
        return np.zeros((height, width, 1), np.uint8), valid


class _North:
    """Labels north and south of a line, the row 30 of `_Flat` being damaged."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def read(self, grid: Grid) -> np.ndarray:
        self.asked.append((grid.height, grid.width))
        y = grid.transform.f + grid.transform.e * (np.arange(grid.height) + 0.5)
        if ((y < 5_099_700) & (y > 5_099_690)).any():
            raise DataError("labels.shp is damaged in row 30")
        return np.repeat(np.where(y > 5_099_900, 3, 4)[:, None], grid.width, 1).astype(np.uint8)


def test_labels_lie_on_the_images_grid_and_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_cache, "SIDE", 20)
    labels = _North()
    scene = LabelledImagery(_Flat(), labels)
    for _ in range(3):
        image, target = scene.read(0, 5, 6, 7)
        assert image.shape == (6, 7, 1)
        assert target.shape == (6, 7)
        assert target[0, 0] == IGNORE  # the imagery holds nothing there
        assert (target.ravel()[1:] == 3).all()
    assert scene.target(0, 5, 1, 1) == [[3]]  # of that pixel the image alone knows nothing
    assert labels.asked == [(20, 20)]
    target = scene.target(5, 10, 15, 35)
    assert (target[:5] == 3).all()
    assert (target[5:] == 4).all()
    assert labels.asked == [(20, 20), (20, 20), (20, 10)]


def test_damaged_labels_are_missed_by_windows_that_hold_them_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(block_cache, "SIDE", 20)
    scene = LabelledImagery(_Flat(), _North())
    for _ in range(2):
        assert (scene.target(15, 0, 15, 10) == 4).all()
        with pytest.raises(DataError, match="damaged in row 30"):
            scene.target(28, 0, 5, 5)
        assert (scene.target(31, 0, 9, 5) == 4).all()


def test_a_grid_knows_where_it_is() -> None:
    grid = _Flat.grid
    assert grid.bounds == (500_000, 5_099_600, 500_500, 5_100_000)
    assert grid.pixel_metres == 10.0
    part = grid.window(4, 3, 2, 5)
    assert part.bounds == (500_030, 5_099_940, 500_080, 5_099_960)
    assert grid.aligned_with(part)
    shifted = Grid(UTM, from_origin(500_003, 5_100_000, 10, 10), 4, 4)
    coarser = Grid(UTM, from_origin(500_000, 5_100_000, 20, 20), 4, 4)
    elsewhere = Grid(CRS.from_epsg(32632), grid.transform, 4, 4)
    for other in (shifted, coarser, elsewhere):
        assert not grid.aligned_with(other)
    degrees = Grid(CRS.from_epsg(4326), from_origin(10, 50, 1e-4, 1e-4), 4, 4)
    assert degrees.pixel_metres == pytest.approx(11.1, rel=0.01)
    feet = Grid(CRS.from_epsg(2263), from_origin(0, 0, 10, 10), 4, 4)
    assert feet.pixel_metres == pytest.approx(3.048, rel=1e-3)
