from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from scipy.ndimage import map_coordinates

from dlbench.data.dataset import DataError
from dlbench.data.imagery.sentinel2 import open_sentinel2
from dlbench.data.imagery.sentinel2_files import BANDS
from dlbench.data.imagery.spectral_indices import INDEX_SCALE
from dlbench.data.imagery.stack import stack
from dlbench.data.raster import read_window

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

WEST, NORTH = 500_000.0, 5_000_000.0
EARTH_ENGINE = [f"B{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8)] + ["B8A", "B9", "B10", "B11", "B12"]
NAME = "S2_20210711"


def _write(
    path: Path,
    values: np.ndarray,
    names: list[str] | None = None,
    pixel: float = 10.0,
    **profile: Any,
) -> Path:
    """Bands (height, width, bands) with a north-western corner at `WEST`, `NORTH`."""
    options: dict[str, Any] = {
        "crs": "EPSG:32633", "transform": Affine(pixel, 0, WEST, 0, -pixel, NORTH),
    }  # fmt: skip
    if path.suffix == ".jp2":
        options |= {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES"}
    options |= profile
    with rasterio.open(
        path, "w", count=values.shape[2], dtype=values.dtype, height=values.shape[0],
        width=values.shape[1], **options,
    ) as file:  # fmt: skip
        file.write(np.moveaxis(values, -1, 0))
        if names:
            file.descriptions = names
    return path


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 9000, shape, dtype=np.uint16)


def _all(path: Path, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    (scene,) = open_sentinel2(path, **options)
    return scene.read(0, 0, scene.grid.height, scene.grid.width)


def test_an_export_by_band_names(tmp_path: Path) -> None:
    values = _random(20, 30, 13)
    path = _write(tmp_path / f"{NAME}.tif", values, EARTH_ENGINE)
    (scene,) = open_sentinel2(path, ["B8A", "B2", "B12"])
    assert scene.bands == ("B8A", "B02", "B12")
    assert (scene.name, scene.dtype, scene.grid.bounds[0]) == (NAME, np.uint16, WEST)
    image, valid = scene.read(3, 5, 10, 20)
    np.testing.assert_array_equal(image, values[3:13, 5:25][..., [8, 1, 12]])
    assert valid.all()
    padded = _write(tmp_path / "a_20210711.tif", values, list(BANDS))
    np.testing.assert_array_equal(_all(padded, bands=BANDS)[0], values)
    # Labels beside the scenes are none of them.
    _write(tmp_path / "labels.tif", values[..., :1])
    assert [one.name for one in open_sentinel2(tmp_path)] == [NAME, "a_20210711"]


def test_floats_in_degrees_with_all_that_is_no_data(tmp_path: Path) -> None:
    values = _random(6, 8, 13).astype(np.float64)
    values[0, 0, 1] = np.nan
    values[0, 1, 3] = 0
    values[0, 2, 2] = 65535
    values[0, 3, 7] = -9999
    values[0, 4, 12] = np.nan
    values[1, 1] = 1234.6
    path = _write(
        tmp_path / f"{NAME}.tif", values, EARTH_ENGINE, crs="EPSG:4326",
        transform=Affine(9e-5, 0, 14, 0, -9e-5, 46), nodata=-9999,
    )  # fmt: skip
    image, valid = _all(path)
    # Band B12, which is not asked for, masks nothing.
    assert np.argwhere(~valid).tolist() == [[0, 0], [0, 1], [0, 2], [0, 3]]
    assert (image[~valid] == 0).all()
    assert (image[1, 1] == 1235).all()
    scene = open_sentinel2(path)[0]
    assert scene.grid.pixel_metres == pytest.approx(10, rel=0.01)
    divided = _write(tmp_path / "20210711.tif", values / 10000, EARTH_ENGINE)
    with pytest.raises(DataError, match=r"20210711.tif holds values about 0\.\d+, expected"):
        _all(divided)


def test_whether_the_shift_is_in(tmp_path: Path) -> None:
    values = _random(4, 4, 13)
    values[0, 0] = 400
    after = _write(tmp_path / "S2_20220125.tif", values, EARTH_ENGINE)
    before = _write(tmp_path / "S2_2022-01-24.tif", values, EARTH_ENGINE)
    undated = _write(tmp_path / "median.tif", values, EARTH_ENGINE)
    shifted = np.maximum(values.astype(int) - 1000, 0)
    for path in (after, undated):
        with pytest.raises(DataError, match=rf"{path.name} does not tell .* harmonized=false"):
            open_sentinel2(path)
        np.testing.assert_array_equal(_all(path, harmonized=True, bands=BANDS)[0], values)
        image, valid = _all(path, harmonized=False, bands=BANDS)
        np.testing.assert_array_equal(image, shifted)
        assert valid.all()
    for harmonized in (None, True, "by_date"):
        np.testing.assert_array_equal(_all(before, harmonized=harmonized, bands=BANDS)[0], values)
    # Of an old scene that was processed anew the name says nothing; the user does.
    np.testing.assert_array_equal(_all(before, harmonized=False, bands=BANDS)[0], shifted)
    np.testing.assert_array_equal(_all(after, harmonized="by_date", bands=BANDS)[0], shifted)
    both = _write(tmp_path / "S2_20210701_20220701.tif", values, EARTH_ENGINE)
    for path, told in ((undated, "no date"), (both, "20210701 and 20220701")):
        with pytest.raises(DataError, match=rf"{path.name} tells of {told}; .* harmonized=false"):
            open_sentinel2(path, harmonized="by_date")


def test_an_old_file_of_esa_may_hold_the_shift_of_a_new_baseline(tmp_path: Path) -> None:
    values = _random(30, 30, 1)
    path = _write(tmp_path / "T33TVM_20170226T102021_B02.jp2", values)
    with pytest.raises(DataError, match=r"B02\.jp2 does not tell"):
        open_sentinel2(path, ["B02"])
    shifted = np.maximum(values.astype(int) - 1000, 0)
    for harmonized, expected in ((True, values), ("by_date", values), (False, shifted)):
        found, _ = _all(path, bands=["B02"], harmonized=harmonized)
        np.testing.assert_array_equal(found, expected)


def test_parts_of_a_split_export(tmp_path: Path) -> None:
    values = _random(50, 70, 13)
    for top, bottom in ((0, 32), (32, 50)):
        for left, right in ((0, 32), (32, 64), (64, 70)):
            _write(
                tmp_path / f"s_2019-05-01-{top:010d}-{left:010d}.tif",
                values[top:bottom, left:right], EARTH_ENGINE,
                transform=Affine(10, 0, WEST + 10 * left, 0, -10, NORTH - 10 * top),
            )  # fmt: skip
    (scene,) = open_sentinel2(tmp_path, BANDS)
    assert scene.name == "s_2019-05-01"
    for row, column, height, width in ((0, 0, 50, 70), (20, 25, 25, 44), (33, 65, 5, 5)):
        image, valid = scene.read(row, column, height, width)
        expected = values[row : row + height, column : column + width]
        np.testing.assert_array_equal(image, expected)
        assert valid.all()
    one = tmp_path / "s_2019-05-01-0000000032-0000000032.tif"
    np.testing.assert_array_equal(_all(one, bands=BANDS)[0], values)
    one.unlink()
    with pytest.raises(DataError, match="5 parts of .* do not tile 50 x 70 pixels"):
        open_sentinel2(tmp_path)


def _single_bands(folder: Path, prefix: str = "", suffix: str = ".jp2") -> dict[str, np.ndarray]:
    found = {}
    for number, (band, side, pixel) in enumerate(
        (("B02", 60, 10), ("B04", 60, 10), ("B05", 30, 20), ("B8A", 30, 20), ("B09", 10, 60))
    ):
        found[band] = _random(side, side) // (number + 1) + 1
        _write(folder / f"{prefix}{band}{suffix}", found[band][..., None], pixel=pixel)
    return found


@pytest.mark.parametrize("prefix", ["", "T33TVM_20170226T102021_"])
def test_bands_of_one_file_each_on_the_finest_grid(tmp_path: Path, prefix: str) -> None:
    truth = _single_bands(tmp_path, prefix)
    bands = ["B05", "B02", "B09"]
    (scene,) = open_sentinel2(tmp_path, bands, harmonized=True)
    assert scene.name == (prefix.rstrip("_") or tmp_path.name)
    assert (scene.grid.height, scene.grid.pixel_metres) == (60, 10)
    image, valid = scene.read(0, 0, 60, 60)
    assert valid.all()
    np.testing.assert_array_equal(image[..., 1], truth["B02"])
    # Centres of fine pixels in coarse ones; beyond the outermost centres the edge goes on.
    for band, factor, place in (("B05", 2, 0), ("B09", 6, 2)):
        at = (np.arange(60) + 0.5) / factor - 0.5
        expected = map_coordinates(
            truth[band].astype(float), np.meshgrid(at, at, indexing="ij"), order=1, mode="nearest"
        )
        assert np.abs(image[..., place] - expected).max() <= 0.5 + 1e-6
    for row, column, height, width in ((0, 0, 7, 9), (13, 21, 30, 11), (41, 1, 19, 59)):
        part, _ = scene.read(row, column, height, width)
        np.testing.assert_array_equal(part, image[row : row + height, column : column + width])
    near, _ = _all(tmp_path, bands=bands, harmonized=True, resampling="nearest")
    np.testing.assert_array_equal(near[..., 0], truth["B05"].repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(near[..., 2], truth["B09"].repeat(6, 0).repeat(6, 1))
    coarse = open_sentinel2(tmp_path, ["B05", "B8A"], harmonized=True)[0]
    np.testing.assert_array_equal(coarse.read(0, 0, 30, 30)[0][..., 1], truth["B8A"])


def test_no_data_does_not_bleed_into_its_neighbours(tmp_path: Path) -> None:
    fine, coarse = np.full((12, 12, 1), 3000, np.uint16), np.full((6, 6, 1), 3000, np.uint16)
    coarse[2, 3], coarse[4, 1] = 0, 65535
    _write(tmp_path / "B02.tif", fine)
    _write(tmp_path / "B11.tif", coarse, pixel=20)
    for resampling in ("nearest", "bilinear", "cubic"):
        image, valid = _all(tmp_path, bands=["B02", "B11"], resampling=resampling, harmonized=False)
        expected = np.ones((12, 12), bool)
        expected[4:6, 6:8] = expected[8:10, 2:4] = False
        np.testing.assert_array_equal(valid, expected)
        assert (image[valid] == 2000).all()


def test_threads_read_the_same(tmp_path: Path) -> None:
    _single_bands(tmp_path)
    (scene,) = open_sentinel2(tmp_path, ["B02", "B05", "B09"], harmonized=True)
    whole, _ = scene.read(0, 0, 60, 60)

    def check(job: int) -> bool:
        row, column = job * 7 % 40, job * 13 % 40
        image, _ = scene.read(row, column, 20, 20)
        return bool((image == whole[row : row + 20, column : column + 20]).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(check, range(16)))


def test_indices_follow_the_bands(tmp_path: Path) -> None:
    values = _random(9, 9, 13)
    path = _write(tmp_path / f"{NAME}.tif", values, EARTH_ENGINE)
    (scene,) = open_sentinel2(path, ["B02"], indices=["NDVI", "NDMI"])
    assert scene.bands == ("B02", "NDVI", "NDMI")
    image, _ = scene.read(0, 0, 9, 9)
    red, near, short = (values[..., i].astype(float) for i in (3, 7, 11))
    found = image.astype(float) / INDEX_SCALE - 1
    assert np.abs(found[..., 1] - (near - red) / (near + red)).max() <= 0.5 / INDEX_SCALE
    assert np.abs(found[..., 2] - (near - short) / (near + short)).max() <= 0.5 / INDEX_SCALE
    # What a shift makes 0 in both bands has no index, and is not divided by.
    dark = np.full((2, 2, 13), 900, np.uint16)
    _write(path, dark, EARTH_ENGINE).rename(tmp_path / "dark.tif")
    image, valid = _all(tmp_path / "dark.tif", bands=[], indices=["NDVI"], harmonized=False)
    assert (image == INDEX_SCALE).all()
    assert valid.all()


def test_clouds_of_an_export(tmp_path: Path) -> None:
    values = _random(4, 4, 14)
    values[..., 13] = 0
    values[0, 0, 13], values[0, 1, 13], values[0, 2, 13] = 1 << 10, 1 << 11, 1 << 9
    path = _write(tmp_path / f"{NAME}.tif", values, [*EARTH_ENGINE, "QA60"])
    image, valid = _all(path)
    assert np.argwhere(~valid).tolist() == [[0, 0], [0, 1]]
    np.testing.assert_array_equal(image[0, 0], values[0, 0, [1, 2, 3, 7]])
    assert _all(path, mask_clouds=False)[1].all()


def test_a_cloud_mask_that_was_never_filled(tmp_path: Path) -> None:
    """Earth Engine's QA60 from 2022 to 2024, all 0, and one that is masked throughout."""
    values = _random(600, 20, 14).astype(np.float32)
    values[..., 13] = 0
    names = [*EARTH_ENGINE, "QA60"]
    empty = r"tif has QA60 as its only cloud mask, which has no cloud: .* from 20220125 to 20240228"
    for day, told in (
        ("20220124", None), ("20220125", empty), ("2023-07-01", empty), ("20240227", empty),
        ("20240228", None), ("20230701T101031_20240804T101033_T33UVP", empty), ("median", None),
    ):  # fmt: skip
        path = _write(tmp_path / f"{day}.tif", values, names)
        if told is None:
            assert _all(path, harmonized=True)[1].all()
            continue
        with pytest.raises(DataError, match=told + r".*MSK_CLASSI_OPAQUE .* mask_clouds=false"):
            open_sentinel2(path, harmonized=True)
        assert _all(path, harmonized=True, mask_clouds=False)[1].all()
    cloudy = values.copy()
    cloudy[590, 3, 13] = 1 << 10
    filled = _write(tmp_path / "20230702.tif", cloudy, names)
    assert np.argwhere(~_all(filled, harmonized=True)[1]).tolist() == [[590, 3]]
    both = np.concatenate([values, np.zeros((600, 20, 1), np.float32)], axis=-1)
    both[7, 8, 14] = 1
    other = _write(tmp_path / "20230703.tif", both, [*names, "MSK_CLASSI_OPAQUE"])
    assert np.argwhere(~_all(other, harmonized=True)[1]).tolist() == [[7, 8]]
    masked = r"20210711\.tif has QA60 as its only cloud mask, which is masked throughout"
    for nothing, profile in ((np.nan, {}), (-1, {"nodata": -1})):
        values[..., 13] = nothing
        path = _write(tmp_path / f"{NAME}.tif", values, names, **profile)
        with pytest.raises(DataError, match=masked):
            open_sentinel2(path)
        values[590, 3, 13] = 0
        assert _all(_write(path, values, names, **profile))[1].all()
    values[..., 13] = 0  # a clear sky, in a file whose no data are 0
    assert _all(_write(tmp_path / f"{NAME}.tif", values, names, nodata=0))[1].all()


def test_a_stack_of_dates(tmp_path: Path) -> None:
    values = {day: _random(8, 9, 13) // (n + 1) for n, day in enumerate((20150711, 20150731))}
    values[20150731][2, 3, 1] = 0
    for day, one in values.items():
        _write(tmp_path / f"S2_{day}.tif", one, EARTH_ENGINE)
    series = stack(open_sentinel2(tmp_path, ["B02", "B04"]))
    assert series.bands == ("20150711/B02", "20150711/B04", "20150731/B02", "20150731/B04")
    image, valid = series.read(1, 0, 5, 9)
    expected = np.concatenate([one[1:6][..., [1, 3]] for one in values.values()], axis=-1)
    np.testing.assert_array_equal(image[valid], expected[valid])
    assert np.argwhere(~valid).tolist() == [[1, 3]]
    _write(
        tmp_path / "S2_20150820.tif", _random(8, 9, 13), EARTH_ENGINE,
        transform=Affine(10, 0, WEST + 10, 0, -10, NORTH),
    )  # fmt: skip
    with pytest.raises(DataError, match=r"S2_20150820\.tif has another grid than .*20150711"):
        stack(open_sentinel2(tmp_path))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    for options, message in (
        ({"bands": ["B13"]}, "bands is B13; allowed, each once: B01, B02"),
        ({"bands": ["B2", "B02"]}, "bands is B02, B02; allowed, each once"),
        ({"bands": []}, "bands is empty"),
        ({"indices": ["EVI"]}, "indices is EVI; allowed, each once: NDVI"),
        ({"resampling": "lanczos"}, "resampling is lanczos; allowed"),
        ({}, "holds no Sentinel-2 scene: looked for are"),
    ):
        with pytest.raises(DataError, match=message):
            open_sentinel2(tmp_path, **options)
    with pytest.raises(DataError, match="absent does not exist"):
        open_sentinel2(tmp_path / "absent")
    path = _write(tmp_path / f"{NAME}.tif", _random(8, 8, 3), ["B2", "B3", "B4"])
    with pytest.raises(DataError, match=rf"{NAME}.tif has no band B08; it holds B02, B03, B04"):
        open_sentinel2(path)
    (scene,) = open_sentinel2(path, ["B03"])
    with pytest.raises(DataError, match="window of 5 x 8 pixels at row 4, column 0 leaves"):
        scene.read(4, 0, 5, 8)


def test_damaged_single_bands_are_named(tmp_path: Path) -> None:
    def refuse(message: str) -> None:
        with pytest.raises(DataError, match=message):
            _all(tmp_path, bands=["B02", "B05"], harmonized=True)

    _single_bands(tmp_path)
    name = tmp_path / "B05.jp2"
    whole = name.read_bytes()
    name.write_bytes(b"")
    refuse(r"B05\.jp2 is empty \(0 bytes\)")
    name.write_bytes(whole[: len(whole) * 9 // 10])
    refuse(r"cannot read .*B05\.jp2: .*damaged or incomplete")
    name.write_bytes(whole[:40])
    refuse(r"B05\.jp2 is no readable raster")
    name.unlink()
    _write(name, _random(30, 30, 1), crs=None, transform=Affine.identity())
    refuse(r"B05\.jp2 has no geotransform, so its place is unknown.*gdal_translate -a_srs")
    for other in ({"crs": "EPSG:32632"}, {"transform": Affine(20, 0, WEST + 40, 0, -20, NORTH)}):
        _write(name, _random(30, 30, 1), pixel=20, **other)
        refuse(r"B05\.jp2 is 30 x 30 pixels of 20 .* but .*B02\.jp2 60 x 60 pixels of 10")
    name.unlink()
    refuse("has no band B05; it holds B02, B04, B09, B8A")
    _write(tmp_path / "B02.tif", _random(60, 60, 1))
    refuse(r"B02\.jp2 and .*B02\.tif are the same band")


def test_a_truncated_jp2_of_many_tiles(tmp_path: Path) -> None:
    values = _random(256, 256, 1)
    path = _write(tmp_path / "B02.jp2", values, BLOCKXSIZE=64, BLOCKYSIZE=64)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (scene,) = open_sentinel2(tmp_path, ["B02"], harmonized=True)
    for window in ((192, 192, 64, 64), (0, 0, 256, 256)):
        with pytest.raises(DataError, match=r"cannot read .*B02\.jp2"):
            scene.read(*window)
        with pytest.raises(DataError, match=r"cannot read .*B02\.jp2"):
            read_window(path, *window)


def test_real_exports_are_read(real_data: Path) -> None:
    scenes = open_sentinel2(real_data / "sentinel2_slovenia", BANDS)
    assert len(scenes) == 5
    for scene in scenes:
        with rasterio.open(scene.file) as file:
            expected = np.moveaxis(file.read(), 0, -1)
        image, valid = scene.read(0, 0, 101, 100)
        np.testing.assert_array_equal(image[valid], expected[valid])
        np.testing.assert_array_equal(valid, (expected > 0).all(axis=-1))
    assert len(stack(scenes).bands) == 5 * 13
    (togo,) = open_sentinel2(next((real_data / "crops").glob("togo_98*.tif")), BANDS)
    image, valid = togo.read(0, 0, 17, 17)
    with rasterio.open(togo.file) as file:
        first = [file.descriptions.index(name) + 1 for name in EARTH_ENGINE]
        expected = np.moveaxis(file.read(first), 0, -1)
    np.testing.assert_allclose(image[valid], expected[valid], atol=0.5)
    assert valid.any()


def test_real_jp2_are_read(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "sentinel2_jp2"
    (scene,) = open_sentinel2(folder, BANDS, harmonized=True)
    image, valid = scene.read(0, 0, 122, 122)
    assert (~valid).mean() == pytest.approx(0.37, abs=0.01)
    with rasterio.open(folder / "B8A.jp2") as file:
        np.testing.assert_array_equal(image[valid][:, 8], file.read(1)[valid])
    with pytest.raises(DataError, match=r"B02\.jp2 has no coordinate reference system"):
        open_sentinel2(folder / "preview", harmonized=True)
    # The remedy that the message gives, with the corners of a band that has them.
    for band in ("B02", "B01"):
        shutil.copy(folder / "preview" / f"{band}.jp2", tmp_path)
    with rasterio.open(tmp_path / "B01.jp2") as known, rasterio.open(tmp_path / "B02.jp2") as raw:
        placed = raw.read(1)[..., None]
        _write(tmp_path / "B02.tif", placed, crs=known.crs, transform=known.transform)
    (tmp_path / "B02.jp2").unlink()
    image, valid = _all(tmp_path, bands=["B01", "B02"], harmonized=True)
    np.testing.assert_array_equal(image[valid][:, 1], placed[valid][:, 0])
