from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from dlbench.data.dataset import DataError
from dlbench.data.raster import describe, read_window

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def _write(path: Path, values: np.ndarray, **profile: Any) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", count=values.shape[2], dtype=values.dtype,
        height=values.shape[0], width=values.shape[1], **profile,
    ) as file:  # fmt: skip
        file.write(np.moveaxis(values, -1, 0))
    return path


def test_header(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "a.tif", np.zeros((5, 7, 13), np.uint16),
        crs="EPSG:32632", transform=Affine(10, 0, 5e5, 0, -20, 5e6),
    )  # fmt: skip
    info = describe(path)
    assert (info.height, info.width, info.bands, info.dtype) == (5, 7, 13, np.uint16)
    assert info.crs == "EPSG:32632"
    assert info.pixel_size == (20, 10)
    assert describe(_write(tmp_path / "b.tif", np.zeros((2, 2, 1), np.uint8))).crs is None


def test_windows_equal_slices_in_many_threads(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (90, 110, 4), dtype=np.uint16)
    paths = [
        _write(tmp_path / f"{i}.tif", values + np.uint16(i), tiled=True, blockxsize=16,
               blockysize=16)
        for i in range(40)
    ]  # fmt: skip

    def check(job: int) -> bool:
        file, row, column = job % 40, job * 7 % 60, job * 13 % 80
        window, valid = read_window(paths[file], row, column, 30, 25)
        expected = values[row : row + 30, column : column + 25] + np.uint16(file)
        return bool(valid.all() and (window == expected).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(check, range(400)))


def test_no_data_is_masked(tmp_path: Path) -> None:
    values = np.full((4, 4, 2), 7, np.int16)
    values[1, 2, 1] = -1
    _, valid = read_window(_write(tmp_path / "a.tif", values, nodata=-1), 0, 0, 4, 4)
    assert np.argwhere(~valid).tolist() == [[1, 2]]
    floats = np.ones((4, 4, 1), np.float32)
    floats[3, 0] = np.nan
    _, valid = read_window(_write(tmp_path / "b.tif", floats), 2, 0, 2, 4)
    assert np.argwhere(~valid).tolist() == [[1, 0]]


def test_unusable_rasters_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.tif does not exist"):
        describe(tmp_path / "absent.tif")
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(DataError, match=r"text\.tif is no readable raster"):
        describe(tmp_path / "text.tif")
    turned = _write(
        tmp_path / "turned.tif", np.zeros((4, 4, 1), np.uint8), transform=Affine.rotation(30)
    )
    with pytest.raises(DataError, match=r"turned\.tif has a rotated geotransform"):
        describe(turned)
    with pytest.raises(DataError, match=r"at row 2, column 0 leaves .*turned\.tif"):
        read_window(turned, 2, 0, 3, 4)
