from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform
from rasterio.windows import Window

from dlbench.data import IGNORE, DataError, raster
from dlbench.data.grid import Grid
from dlbench.data.labels.coded_raster import CodedRaster
from dlbench.data.labels.gabam import GABAM

PIXEL = 0.00025
UTM = CRS.from_epsg(32618)


def _labels(root: Path, year: int) -> CodedRaster:
    return CodedRaster(GABAM.find(root, year)[year], GABAM.legend())


def _grid_of(file: Path) -> Grid:
    return raster.describe(file).grid()


def _tile(file: Path, values: np.ndarray, west: float, north: float, **profile: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        file, "w", driver="GTiff", count=1, dtype=values.dtype, crs="EPSG:4326",
        height=values.shape[0], width=values.shape[1],
        transform=from_origin(west, north, PIXEL, PIXEL), **profile,
    ) as dataset:  # fmt: skip
        dataset.write(values, 1)
    return file


def _codes(rows: int = 120, columns: int = 140) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2, (rows, columns), np.uint8)


def _at_centres(values: np.ndarray, own: Affine, crs: CRS, grid: Grid) -> np.ndarray:
    """The value under each pixel's centre, worked out point by point; `IGNORE` off the values."""
    column, row = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    a, _, west, _, e, north = tuple(grid.transform)[:6]
    x, y = transform(grid.crs, crs, west + a * column.ravel(), north + e * row.ravel())
    c, r = (np.floor(v).astype(int) for v in ~own * (np.array(x), np.array(y)))
    inside = (r >= 0) & (r < values.shape[0]) & (c >= 0) & (c < values.shape[1])
    found = np.full(len(x), IGNORE, np.int16)
    found[inside] = values[r[inside], c[inside]]
    return found.reshape(grid.height, grid.width)


def _utm(height: int, width: int) -> Grid:
    """Pixels of 30 m about 6 N, 72 W, the corner of the tiles of these tests."""
    x, y = transform("EPSG:4326", UTM, [-72.005], [6.005])
    return Grid(UTM, from_origin(x[0], y[0], 30, 30), height, width)


def test_a_pixel_gets_the_code_under_its_centre(tmp_path: Path) -> None:
    codes = _codes()
    _tile(tmp_path / "2015/N10W080.TIF", codes, -72.0, 6.0)
    labels = _labels(tmp_path, 2015)
    grid = _utm(150, 150)
    truth = _at_centres(codes, from_origin(-72, 6, PIXEL, PIXEL), CRS.from_epsg(4326), grid)
    found = labels.read(grid)
    assert (truth == IGNORE).any()
    assert (truth != IGNORE).mean() > 0.5
    # A centre within a rounding of a border may fall to either side.
    assert (found != truth).mean() < 2e-4
    np.testing.assert_array_equal(labels.read(grid.window(20, 40, 50, 30)), found[20:70, 40:70])


def test_tiles_join_and_their_names_say_nothing(tmp_path: Path) -> None:
    codes = _codes()
    _tile(tmp_path / "2015/N80E170.TIF", codes[:, :77], -72.0, 6.0)
    _tile(tmp_path / "2015/S10W020.tif", codes[:, 77:], -72.0 + 77 * PIXEL, 6.0)
    _tile(tmp_path / "whole/2015/a.tif", codes, -72.0, 6.0)
    grid = _utm(150, 150)
    whole = _labels(tmp_path / "whole", 2015).read(grid)
    assert (_labels(tmp_path, 2015).read(grid) != whole).mean() < 2e-4


def test_off_the_tiles_nothing_is_known(tmp_path: Path) -> None:
    _tile(tmp_path / "2015/N10W080.TIF", _codes(), -72.0, 6.0)
    labels = _labels(tmp_path, 2015)
    far = Grid(UTM, from_origin(500_000, 100_000, 30, 30), 20, 30)
    with pytest.raises(DataError, match=r"image\.tif and its labels .*N10W080\.TIF do not overlap"):
        labels.require_overlap(far, tmp_path / "image.tif")
    assert (labels.read(far) == IGNORE).all()
    labels.require_overlap(_utm(100, 100), tmp_path / "image.tif")


def test_no_data_is_ignored_and_other_values_refused(tmp_path: Path) -> None:
    codes = _codes().astype(np.int16)
    codes[:, 50:60] = -1
    _tile(tmp_path / "2015/a.tif", codes, -72.0, 6.0, nodata=-1)
    file = _tile(tmp_path / "2016/a.tif", codes, -72.0, 6.0)
    grid = _grid_of(file)
    np.testing.assert_array_equal(
        _labels(tmp_path, 2015).read(grid), np.where(codes < 0, IGNORE, codes)
    )
    with pytest.raises(DataError, match=r"2016/a\.tif holds the code -1 .* none of the 2 codes"):
        _labels(tmp_path, 2016).read(grid)


def test_a_missing_year_lists_the_years(tmp_path: Path) -> None:
    for year in (2015, 2018):
        _tile(tmp_path / f"{year}/a.tif", _codes(), -72.0, 6.0)
    with pytest.raises(
        DataError, match=r"holds no GABAM of 2016; it holds 2015, 2018; add the file"
    ):
        _labels(tmp_path, 2016)


def test_a_picture_is_refused(tmp_path: Path) -> None:
    _tile(tmp_path / "2015/a.tif", _codes().astype(np.float32), -72.0, 6.0)
    with pytest.raises(DataError, match=r"a\.tif holds float32, expected whole numbers"):
        _labels(tmp_path, 2015)


def test_threads_read_the_same(tmp_path: Path) -> None:
    _tile(tmp_path / "2015/a.tif", _codes(), -72.0, 6.0)
    labels, grid = _labels(tmp_path, 2015), _utm(100, 100)
    whole = labels.read(grid)

    def check(row: int) -> bool:
        return bool(
            (labels.read(grid.window(row, 10, 20, 40)) == whole[row : row + 20, 10:50]).all()
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(check, range(0, 80, 4)))


def test_of_many_tiles_only_those_in_place_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles of the real size, side by side as in a release."""
    side, burned = 40_000, np.ones((4, 8), np.uint8)
    for number in range(200):
        west, north = -180 + number % 36 * 10, 80 - number // 36 * 10
        file = tmp_path / f"2015/{number}.tif"
        file.parent.mkdir(exist_ok=True)
        with rasterio.open(
            file, "w", driver="GTiff", count=1, dtype="uint8", crs="EPSG:4326", height=side,
            width=side, transform=from_origin(west, north, PIXEL, PIXEL), sparse_ok=True,
            tiled=True, blockxsize=4096, blockysize=4096, compress="deflate",
        ) as dataset:  # fmt: skip
            if (west, north) == (-70, 50):
                dataset.write(burned, 1, window=Window(0, 0, 8, 4))
    opened: list[Path] = []
    honest = raster.open_raster

    def counted(path: Path) -> object:
        opened.append(path)
        return honest(path)

    monkeypatch.setattr(raster, "open_raster", counted)
    start = time.process_time()
    labels = _labels(tmp_path, 2015)
    assert len(opened) == len(set(opened)) == 200
    # Four tiles meet here.
    place = from_origin(-70 - 8 * PIXEL, 50 + 4 * PIXEL, PIXEL, PIXEL)
    grid = Grid(CRS.from_epsg(4326), place, 8, 16)
    for _ in range(20):
        found = labels.read(grid)
    assert len(opened) == 204
    truth = np.zeros((8, 16), np.uint8)
    truth[4:, 8:] = 1
    np.testing.assert_array_equal(found, truth)
    assert time.process_time() - start < 5


def test_a_real_mask_in_a_crs_without_a_number(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "2018").mkdir()
    source = next((real_data / "burned").glob("*.mask.tif"))
    (tmp_path / "2018/mask.tif").symlink_to(source)
    with rasterio.open(source) as file:
        codes, own = file.read(1), file.transform
        crs = file.crs
    codes = np.where(codes < 0, IGNORE, codes)
    assert crs.to_epsg() is None
    labels, grid = _labels(tmp_path, 2018), _grid_of(source)
    np.testing.assert_array_equal(labels.read(grid), codes)
    longitude, latitude = transform(crs, "EPSG:4326", [own.c + 6000], [own.f - 6000])
    degrees = Grid(
        CRS.from_epsg(4326), from_origin(longitude[0], latitude[0], PIXEL, PIXEL), 100, 120
    )
    found = labels.read(degrees)
    assert set(np.unique(found)) == {0, 1}
    assert (found != _at_centres(codes, own, crs, degrees)).mean() < 2e-4
