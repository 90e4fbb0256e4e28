"""Images and labels of a scene are made once, a cell at a time, and agree with what made them."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import from_origin

from dlbench.data import block_cache, raster
from dlbench.data.dataset import IGNORE, DataError
from dlbench.data.grid import Grid
from dlbench.data.imagery.bands import open_bands
from dlbench.data.labelled_imagery import LabelledImagery
from dlbench.data.labelled_sentinel2 import images

UTM = CRS.from_epsg(32633)


class _Flat:
    """Of its image one pixel, in row 0 and column 5, cannot be used."""

    file = Path("flat.tif")
    name = "flat"
    bands: tuple[str, ...] = ("grey",)
    dtype = np.dtype(np.uint8)
    block = (1, 1)
    grid = Grid(UTM, from_origin(500_000, 5_100_000, 10, 10), 40, 50)

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        self.asked.append((row, column, height, width))
        rows, columns = np.mgrid[row : row + height, column : column + width]
        return (rows + columns)[..., None].astype(np.uint8), (rows != 0) | (columns != 5)


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


class _Damaged(_Flat):
    """Its row 10 cannot be read."""

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        values = super().read(row, column, height, width)
        if row <= 10 < row + height:
            raise DataError("flat.tif is damaged in row 10")
        return values


class _Nothing:
    """Labels that are 0 throughout."""

    def read(self, grid: Grid) -> np.ndarray:
        return np.zeros((grid.height, grid.width), np.uint8)


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


def test_images_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_cache, "SIDE", 20)
    imagery = _Flat()
    scene = LabelledImagery(imagery, _North())
    for row, column, height, width in [
        (3, 4, 10, 10),
        (2, 15, 9, 8),
        (0, 0, 20, 30),
        (3, 4, 10, 10),
    ]:
        image, target = scene.read(row, column, height, width)
        wanted, valid = _Flat().read(row, column, height, width)
        np.testing.assert_array_equal(image, wanted)
        np.testing.assert_array_equal(target == IGNORE, ~valid)
    assert imagery.asked == [(0, 0, 20, 20), (0, 20, 20, 20)]
    with pytest.raises(DataError, match=r"leaves flat\.tif"):
        scene.read(35, 0, 10, 10)


def test_images_of_huge_blocks_are_made_by_windows() -> None:
    imagery = _Flat()
    imagery.block = (8000, 8000)
    scene = LabelledImagery(imagery, _North())
    for _ in range(2):
        image, target = scene.read(0, 5, 10, 20)
        assert image[3, 4] == 12
        assert np.argwhere(target == IGNORE).tolist() == [[0, 0]]
    assert imagery.asked == [(0, 5, 10, 20)] * 2


def test_what_an_image_is_made_of_is_not_kept_beside_it(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(1, 9999, (3, 40, 50), dtype=np.uint16)
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", height=40, width=50, count=3, dtype="uint16",
        crs=UTM, transform=_Flat.grid.transform, tiled=True, blockxsize=16, blockysize=32,
    ) as file:  # fmt: skip
        file.write(values)
    imagery = open_bands([tmp_path / "a.tif"])
    assert imagery.block == (32, 16)
    scene = LabelledImagery(imagery, _North())
    block_cache.clear()
    image, _ = scene.read(1, 2, 20, 30)
    np.testing.assert_array_equal(image, np.moveaxis(values, 0, -1)[1:21, 2:32])
    # The labels, damaged, are not kept.
    held = [cells.bytes for cells in block_cache._all_cells if cells.bytes]
    assert held == [40 * 50 * (3 * 2 + 1)]


@pytest.mark.parametrize("most_bytes", [2**30, 60_000], ids=["room", "little room"])
@pytest.mark.parametrize("name", ["sentinel2_cdl", "sentinel2_aafc"])
def test_windows_of_cells_are_what_the_imagery_gives(
    landscapes: Path, monkeypatch: pytest.MonkeyPatch, name: str, most_bytes: int
) -> None:
    """Bands of three resolutions with cloud masks, and a series; by several threads."""
    imagery = images(landscapes / name / "imagery", "all" if name == "sentinel2_aafc" else None)[0]
    monkeypatch.setattr(block_cache, "SIDE", 40)
    monkeypatch.setattr(block_cache, "MOST_BYTES", most_bytes)
    scene = LabelledImagery(imagery, _Nothing())
    if imagery.block[0] > 40:  # the blocks of files so small are whole images
        monkeypatch.setattr(imagery, "block", (20, 20))
    wanted, usable = imagery.read(0, 0, scene.height, scene.width)
    block_cache.clear()
    rng = np.random.default_rng(0)

    def check(corner: tuple[int, int]) -> None:
        row, column = corner
        image, target = scene.read(row, column, 24, 30)
        here = np.s_[row : row + 24, column : column + 30]
        np.testing.assert_array_equal(image, wanted[here])
        np.testing.assert_array_equal(target == IGNORE, ~usable[here])

    with ThreadPoolExecutor(4) as pool:
        corners = rng.integers(0, (scene.height - 23, scene.width - 29), (60, 2)).tolist()
        list(pool.map(check, map(tuple, corners)))
    assert scene._image_cells is not None
    held = len(scene._image_cells.held)
    assert held == 9 if most_bytes > 60_000 else 0 < held < 9


def test_bands_of_every_resolution_are_decoded_once(
    landscapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although the cells of an image reach over the border of coarser blocks."""
    (imagery, *_) = images(landscapes / "sentinel2_cdl/imagery", None)
    monkeypatch.setattr(block_cache, "SIDE", 20)
    monkeypatch.setattr(imagery, "block", (20, 20))
    pixels: Counter[tuple[Path, object]] = Counter()
    read_file = raster.read_window

    def told(path: Path, row: int, column: int, height: int, width: int, *how: Any) -> Any:
        pixels[path, how] += height * width
        return read_file(path, row, column, height, width, *how)

    monkeypatch.setattr(raster, "read_window", told)
    block_cache.clear()
    scene = LabelledImagery(imagery, _Nothing())
    for row in range(0, scene.height - 9, 10):
        for column in range(0, scene.width - 9, 10):
            scene.read(row, column, 10, 10)
    sizes = {path: (found := raster.describe(path)).height * found.width for path, _ in pixels}
    assert len(set(sizes.values())) > 1  # several resolutions
    assert {key: sizes[key[0]] for key in pixels} == pixels


def test_a_damaged_image_is_tried_as_a_cell_but_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_cache, "SIDE", 20)
    imagery = _Damaged()
    scene = LabelledImagery(imagery, _Nothing())
    for _ in range(3):
        assert scene.read(2, 3, 5, 5)[0][0, 0] == 5
        with pytest.raises(DataError, match="damaged in row 10"):
            scene.read(8, 3, 5, 5)
    assert imagery.asked.count((0, 0, 20, 20)) == 1
    assert len(imagery.asked) == 1 + 6
