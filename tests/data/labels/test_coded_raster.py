from __future__ import annotations

import re
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform

from dlbench.data.dataset import IGNORE, ClassInfo, DataError
from dlbench.data.grid import Grid
from dlbench.data.labels import coded_raster
from dlbench.data.labels.coded_raster import CodedRaster
from dlbench.data.labels.legend import Legend

UTM, ALBERS, LONLAT = CRS.from_epsg(32615), CRS.from_epsg(5070), CRS.from_epsg(4326)
CODES = (1, 5, 24, 200)
LEGEND = Legend.of([ClassInfo(f"crop {code}", (code, 0, 0), code) for code in CODES], {0})
INDEX = {0: IGNORE, 1: 0, 5: 1, 24: 2, 200: 3}


def _write(path: Path, codes: np.ndarray, **profile: Any) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", height=codes.shape[-2], width=codes.shape[-1],
        count=1 if codes.ndim == 2 else len(codes), dtype=codes.dtype, **profile,
    ) as file:  # fmt: skip
        file.write(codes if codes.ndim == 3 else codes[None])
    return path


def _random(height: int, width: int, seed: int = 0) -> np.ndarray:
    choice = np.random.default_rng(seed).choice([0, *CODES], (height, width))
    return choice.astype(np.uint8)


def _decoded(codes: np.ndarray) -> np.ndarray:
    return np.vectorize(INDEX.get)(codes).astype(np.uint8)


def _albers(longitude: np.ndarray, latitude: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Conus Albers (EPSG:5070) in Snyder's ellipsoidal equations 14-1 to 14-5, GRS 80."""
    radius, flattening = 6378137.0, 1 / 298.257222101
    e2 = flattening * (2 - flattening)
    e = np.sqrt(e2)

    def q(phi: Any) -> Any:
        s = np.sin(phi)
        return (1 - e2) * (s / (1 - e2 * s * s) - np.log((1 - e * s) / (1 + e * s)) / (2 * e))

    def m(phi: Any) -> Any:
        return np.cos(phi) / np.sqrt(1 - e2 * np.sin(phi) ** 2)

    south, north, origin, meridian = np.radians([29.5, 45.5, 23.0, -96.0])
    n = (m(south) ** 2 - m(north) ** 2) / (q(north) - q(south))
    c = m(south) ** 2 + n * q(south)
    rho = radius * np.sqrt(c - n * q(np.radians(latitude))) / n
    rho0 = radius * np.sqrt(c - n * q(origin)) / n
    theta = n * (np.radians(longitude) - meridian)
    return rho * np.sin(theta), rho0 - rho * np.cos(theta)


def test_codes_lie_where_the_projection_formulas_say(tmp_path: Path) -> None:
    codes = _random(220, 220)
    west, north = 239_400.0, 2_112_000.0
    file = _write(tmp_path / "albers.tif", codes, crs=ALBERS,
                  transform=Affine(30, 0, west, 0, -30, north))  # fmt: skip
    # NAD 83 on both sides: between datums the formulas say nothing.
    grid = Grid(CRS.from_epsg(4269), Affine(1.1e-4, 0, -93.09, 0, -0.9e-4, 41.98), 300, 170)
    column, row = np.meshgrid(np.arange(170), np.arange(300))
    x, y = _albers(-93.09 + 1.1e-4 * (column + 0.5), 41.98 - 0.9e-4 * (row + 0.5))
    c, r = (x - west) / 30, (north - y) / 30
    inside = (c >= 0) & (c < 220) & (r >= 0) & (r < 220)
    assert 0.2 < inside.mean() < 1
    truth = np.full((300, 170), IGNORE, np.uint8)
    truth[inside] = _decoded(codes)[r[inside].astype(int), c[inside].astype(int)]
    clear = np.minimum(np.abs(c - np.rint(c)), np.abs(r - np.rint(r))) > 1e-4  # 3 mm of 30 m.
    assert clear.mean() > 0.999
    read = CodedRaster(file, LEGEND).read(grid)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read[clear], truth[clear])


def _by_hand(file: Path, grid: Grid) -> np.ndarray:
    """Codes at the projected centres, 0 off the file; every centre projected."""
    with rasterio.open(file) as raster:
        codes, crs, place = raster.read(1), raster.crs, raster.transform
    column, row = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    x, y = grid.transform @ (column.ravel(), row.ravel())
    c, r = ~place * tuple(map(np.asarray, transform(grid.crs, crs, x, y)))
    found = np.zeros(len(c), codes.dtype)
    inside = (c >= 0) & (c < codes.shape[1]) & (r >= 0) & (r < codes.shape[0])
    found[inside] = codes[r[inside].astype(int), c[inside].astype(int)]
    return found.reshape(grid.height, grid.width)


@pytest.mark.parametrize("pixel", [3.0, 10.0, 70.0])
def test_every_window_is_what_projecting_each_centre_gives(tmp_path: Path, pixel: float) -> None:
    (x,), (y,) = transform(UTM, ALBERS, [500_000.0], [4_600_000.0])
    file = _write(tmp_path / "albers.tif", _random(300, 280), crs=ALBERS,
                  transform=Affine(30, 0, x - 300, 0, -30, y + 200))  # fmt: skip
    labels = CodedRaster(file, LEGEND)
    whole = Grid(UTM, Affine(pixel, 0, 499_900, 0, -pixel, 4_600_100), 120, 140)
    truth = _decoded(_by_hand(file, whole))
    assert len(np.unique(truth)) == 5
    # A centre within a millimetre of a border may fall to either side.
    assert (labels.read(whole) != truth).mean() < 1e-3
    for row, column, height, width in ((0, 0, 64, 64), (50, 33, 17, 1), (119, 139, 1, 1)):
        part = labels.read(whole.window(row, column, height, width))
        expected = truth[row : row + height, column : column + width]
        assert (part != expected).mean() < 1e-3


def test_the_same_grid_needs_no_warp(tmp_path: Path) -> None:
    codes = _random(40, 50)
    place = Affine(10, 0, 500_000, 0, -10, 4_600_000)
    file = _write(tmp_path / "labels.tif", codes, crs=UTM, transform=place)
    whole = Grid(UTM, place, 40, 50)
    labels = CodedRaster(file, LEGEND)
    np.testing.assert_array_equal(labels.read(whole), _decoded(codes))
    over = labels.read(whole.window(-3, -2, 10, 10))  # Over the border nothing is known.
    assert (over[:3] == IGNORE).all() and (over[:, :2] == IGNORE).all()
    np.testing.assert_array_equal(over[3:, 2:], _decoded(codes)[:7, :8])
    tripled = Grid(UTM, place * Affine.scale(1 / 3), 120, 150)
    np.testing.assert_array_equal(labels.read(tripled), _decoded(codes).repeat(3, 0).repeat(3, 1))


def test_the_first_file_that_holds_data_counts(tmp_path: Path) -> None:
    place = Affine(10, 0, 500_000, 0, -10, 4_600_000)
    first, second = np.full((8, 8), 1, np.uint8), np.full((8, 8), 5, np.uint8)
    first[:, :2] = 0  # Background within the file's frame.
    first[0, 7], second[7] = 77, 255
    files = [
        _write(tmp_path / "a.tif", first, crs=UTM, transform=place, nodata=77),
        _write(tmp_path / "b.tif", second, crs=UTM, transform=place * Affine.translation(4, 0),
               nodata=255),
        _write(tmp_path / "c.tif", np.full((9, 9), 24, np.uint8), crs=UTM, transform=place),
    ]  # fmt: skip
    read = CodedRaster(files, LEGEND).read(Grid(UTM, place, 9, 13))
    truth = np.full((9, 13), IGNORE, np.uint8)
    truth[:9, :9], truth[:7, 4:12], truth[:8, 2:8] = 2, 1, 0
    truth[0, 7] = 1
    np.testing.assert_array_equal(read, truth)


def test_codes_that_are_left_out_are_known_ground(tmp_path: Path) -> None:
    place = Affine(10, 0, 500_000, 0, -10, 4_600_000)
    legend = Legend((ClassInfo("wheat", (1, 2, 3), 24),), {24: 0, 5: IGNORE}, frozenset({0}))
    files = [
        _write(tmp_path / f"{code}.tif", np.full((4, 4), code, np.uint8), crs=UTM, transform=place)
        for code in (5, 24)
    ]
    grid = Grid(UTM, place, 4, 4)
    assert (CodedRaster(files, legend).read(grid) == IGNORE).all()
    assert (CodedRaster(files[::-1], legend).read(grid) == 0).all()


def test_a_sparse_raster_of_40000_pixels_is_read_in_little_time_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coded_raster, "LARGEST_READ", 1 << 20)
    file, side = tmp_path / "large.tif", 40_000
    patch = _random(256, 256)
    with rasterio.open(
        file, "w", driver="GTiff", height=side, width=side, count=1, dtype="uint8", crs=LONLAT,
        transform=Affine(0.00025, 0, -100, 0, -0.00025, 45), sparse_ok=True, tiled=True,
        blockxsize=256, blockysize=256,
    ) as raster:  # fmt: skip
        raster.write(patch, 1, window=rasterio.windows.Window(100 * 256, 50 * 256, 256, 256))
    assert file.stat().st_size < 2e6
    labels = CodedRaster(file, LEGEND)
    west, north = -100 + 100 * 256 * 0.00025, 45 - 50 * 256 * 0.00025
    grid = Grid(LONLAT, Affine(0.00025, 0, west, 0, -0.00025, north), 256, 256)
    coarse = Grid(LONLAT, Affine(0.1, 0, -100.05, 0, -0.1, 45.05), 101, 101).window(29, 61, 12, 12)
    tracemalloc.start()
    start = time.process_time()
    near = labels.read(grid)
    tracemalloc.reset_peak()
    far = labels.read(coarse)
    seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(near, _decoded(patch))
    # Its centres lie on corners of pixels 400 apart: the pixel to the south-east counts.
    truth = np.full((12, 12), IGNORE, np.uint8)
    truth[3, 3] = _decoded(patch)[(29 + 3) * 400 - 12_800, (61 + 3) * 400 - 25_600]
    np.testing.assert_array_equal(far, truth)
    assert peak < 15e6  # What lies under the coarse grid takes 23e6 bytes.
    assert seconds < 10


def test_threads_read_alike(tmp_path: Path) -> None:
    place = Affine(30, 0, 500_000, 0, -30, 4_600_000)
    file = _write(tmp_path / "labels.tif", _random(300, 300), crs=UTM, transform=place, tiled=True,
                  blockxsize=128, blockysize=128, compress="deflate")  # fmt: skip
    labels, grid = (
        CodedRaster(file, LEGEND),
        Grid(LONLAT, Affine(1e-4, 0, -93, 0, -1e-4, 41.5), 300, 300),
    )
    parts = [grid.window(r, c, 100, 100) for r in range(0, 300, 100) for c in range(0, 300, 100)]
    expected = [labels.read(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(expected, pool.map(labels.read, parts), strict=True):
            np.testing.assert_array_equal(one, other)
    assert any((part != IGNORE).any() for part in expected)


def _place(**changes: Any) -> dict[str, Any]:
    return {"crs": UTM, "transform": Affine(10, 0, 500_000, 0, -10, 4_600_000)} | changes


@pytest.mark.parametrize(
    ("codes", "profile", "message"),
    [
        (_random(4, 4), _place(crs=None), r"no coordinate reference system.* gdal_translate"),
        (_random(4, 4), _place(transform=Affine(7, 7, 0, 7, -7, 0)), "rotated geotransform"),
        (_random(4, 4), _place(transform=Affine(10, 0, 0, 0, 10, 0)), "not north-up"),
        (_random(4, 4).astype(np.float32), _place(), "holds float32, expected whole numbers"),
        (np.stack([_random(4, 4)] * 3), _place(), "has 3 bands, expected 1 of class codes"),
    ],
)
def test_a_file_that_is_no_coded_raster(
    tmp_path: Path, codes: np.ndarray, profile: dict[str, Any], message: str
) -> None:
    file = _write(tmp_path / "labels.tif", codes, **profile)
    with pytest.raises(DataError, match=rf"labels\.tif .*{message}"):
        CodedRaster(file, LEGEND)


def test_a_missing_and_a_damaged_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.tif does not exist"):
        CodedRaster(tmp_path / "absent.tif", LEGEND)
    with pytest.raises(DataError, match="no file was given"):
        CodedRaster([], LEGEND)
    file = _write(tmp_path / "cut.tif", _random(600, 600), **_place(), compress="deflate")
    file.write_bytes(file.read_bytes()[:20_000])
    with pytest.raises(DataError, match=r"cut\.tif"):
        CodedRaster(file, LEGEND).read(Grid(UTM, _place()["transform"], 600, 600))


@pytest.mark.parametrize(
    ("code", "dtype"), [(6, "uint8"), (255, "uint8"), (-7, "int16"), (70_000, "int32")]
)
def test_an_unknown_code_is_found(tmp_path: Path, code: int, dtype: str) -> None:
    codes = np.ones((9, 9), dtype)
    codes[4, 7] = code
    file = _write(tmp_path / "labels.tif", codes, **_place())
    labels, grid = CodedRaster(file, LEGEND), Grid(UTM, _place()["transform"], 9, 9)
    where = r"row 4, column 7 \(500075, 4599955 in EPSG:32615\), which is none of the 4 codes"
    with pytest.raises(DataError, match=rf"labels\.tif holds the code {code} at {where}"):
        labels.read(grid)
    assert (labels.read(grid.window(0, 0, 4, 9)) == 0).all()


def test_labels_of_another_place(tmp_path: Path) -> None:
    labels = CodedRaster(_write(tmp_path / "labels.tif", _random(9, 9), **_place()), LEGEND)
    near = Grid(LONLAT, Affine(1e-5, 0, -93, 0, -1e-5, 41.5512), 50, 50)
    labels.require_overlap(near, tmp_path / "image.tif")
    assert (labels.read(near) != IGNORE).any()
    far = Grid(UTM, Affine(10, 0, 600_000, 0, -10, 4_600_000), 20, 30)
    with pytest.raises(DataError) as caught:
        labels.require_overlap(far, tmp_path / "image.tif")
    assert re.search(
        r"image\.tif and its labels .*labels\.tif do not overlap: in EPSG:32615 the image lies at "
        r"x 600000 to 600300, y 4599800 to 4600000, the labels at x 500000 to 500090, "
        r"y 4599910 to 4600000",
        str(caught.value),
    )
    assert (labels.read(far) == IGNORE).all()
    nowhere = Grid(LONLAT, Affine(1, 0, 0, 0, -1, 400), 5, 5)
    assert (labels.read(nowhere) == IGNORE).all()
    with pytest.raises(DataError, match="cannot be expressed in its CRS"):
        labels.require_overlap(nowhere, tmp_path / "image.tif")


def test_a_scene_over_the_date_line(tmp_path: Path) -> None:
    """Longitudes in between are not those through 0, where other tiles lie."""
    codes = {-180.0: 1, -90.0: 24, 0.0: 24, 90.0: 24, 179.0: 5}
    tiles = [
        _write(
            tmp_path / f"{west}.tif", np.full((200, 100), code, np.uint8), crs=LONLAT,
            transform=Affine(0.01, 0, west, 0, -0.01, 66),
        )
        for west, code in codes.items()
    ]  # fmt: skip
    utm = CRS.from_epsg(32660)
    (x,), (y,) = transform(LONLAT, utm, [179.98], [65.0])
    scene = Grid(utm, Affine(30, 0, x, 0, -30, y), 70, 90)
    columns, rows = np.meshgrid(np.arange(90) + 0.5, np.arange(70) + 0.5)
    longitude = transform(utm, LONLAT, *(scene.transform @ (columns.ravel(), rows.ravel())))[0]
    expected = np.where(np.reshape(longitude, (70, 90)) < 0, INDEX[1], INDEX[5])
    assert 0.2 < (expected == INDEX[5]).mean() < 0.8
    labels = CodedRaster(tiles, LEGEND)
    np.testing.assert_array_equal(labels.read(scene), expected)
    for tile in (tiles[0], tiles[-1]):
        CodedRaster(tile, LEGEND).require_overlap(scene, tmp_path / "image.tif")
    with pytest.raises(DataError, match="do not overlap"):
        CodedRaster(tiles[1:-1], LEGEND).require_overlap(scene, tmp_path / "image.tif")


def test_real_burn_scars_whose_crs_has_no_number(real_data: Path) -> None:
    (file,) = (real_data / "burned").glob("*.mask.tif")
    legend = Legend.of([ClassInfo("unburned", (0, 0, 0), 0), ClassInfo("burned", (9, 0, 0), 1)])
    labels = CodedRaster(file, legend)
    with rasterio.open(file) as raster:
        codes = raster.read(1)
        own = Grid(raster.crs, raster.transform, raster.height, raster.width)
    np.testing.assert_array_equal(labels.read(own), np.where(codes == -1, IGNORE, codes))
    lonlat = Grid(LONLAT, Affine(3e-4, 0, -120.35, 0, -2e-4, 46.9), 90, 100)
    codes = _by_hand(file, lonlat)
    np.testing.assert_array_equal(labels.read(lonlat), np.where(codes == -1, IGNORE, codes))
    labels.require_overlap(lonlat, file)


def test_real_land_cover_on_the_grid_of_its_image(real_data: Path) -> None:
    folder = real_data / "sentinel2_slovenia"
    entries = [ClassInfo(str(code), (code, 0, 0), code) for code in (1, 2, 3, 4, 8)]
    labels = CodedRaster(folder / "LULC.tif", Legend.of(entries))
    with rasterio.open(folder / "S2_L1C_20150711.tif") as image:
        grid = Grid(image.crs, image.transform, image.height, image.width)
    codes = _by_hand(folder / "LULC.tif", grid)
    truth = np.array([IGNORE, 0, 1, 2, 3, IGNORE, IGNORE, IGNORE, 4], np.uint8)[codes]
    assert len(np.unique(truth)) > 3
    np.testing.assert_array_equal(labels.read(grid), truth)
