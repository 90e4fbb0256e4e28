from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from dlbench.data import DataError
from dlbench.data.imagery.landsat import BANDS, Landsat

L8 = "LC08_L2SP_007056_20150310_20200909_02_T1"
L5 = "LT05_L2SP_007056_20100110_20200909_02_T2"
CLEAR = 21824
"""What most clear land has in QA_PIXEL: bit 6, and low confidence of all else."""


def _write(file: Path, values: np.ndarray, west: float = 300_000) -> None:
    file.parent.mkdir(exist_ok=True)
    with rasterio.open(
        file, "w", driver="GTiff", count=1, dtype=values.dtype, height=values.shape[0],
        width=values.shape[1], crs="EPSG:32618", transform=from_origin(west, 665_000, 30, 30),
    ) as dataset:  # fmt: skip
        dataset.write(values, 1)


def _scene(folder: Path, product: str = L8, quality: int = CLEAR) -> Path:
    """Band n holds the reflectance 0.05 n, to the next whole number."""
    for number in range(1, 8):
        value = round((0.05 * number + 0.2) / 0.0000275)
        _write(folder / f"{product}_SR_B{number}.TIF", np.full((6, 8), value, np.uint16))
    _write(folder / f"{product}_QA_PIXEL.TIF", np.full((6, 8), quality, np.uint16))
    return folder


@pytest.mark.parametrize(
    ("product", "numbers"), [(L8, (2, 3, 4, 5, 6, 7)), (L5, (1, 2, 3, 4, 5, 7))]
)
def test_bands_of_each_sensor_as_reflectance(
    tmp_path: Path, product: str, numbers: tuple[int, ...]
) -> None:
    scene = Landsat(_scene(tmp_path / "scene", product))
    values, valid = scene.read(1, 2, 4, 5)
    assert values.shape == (4, 5, 6)
    assert values.dtype == np.uint16
    assert valid.all()
    np.testing.assert_allclose(values[0, 0], [500 * n for n in numbers], atol=1)
    assert (scene.name, scene.year) == (product, int(product[17:21]))
    assert scene.bands == BANDS
    assert scene.grid.pixel_metres == 30


def test_extremes_stay_in_range(tmp_path: Path) -> None:
    folder = _scene(tmp_path / "scene")
    values = np.full((6, 8), 7000, np.uint16)  # Reflectance -0.0075
    values[0, 0], values[0, 1] = 65535, 0
    _write(folder / f"{L8}_SR_B4.TIF", values)
    image, valid = Landsat(folder, ["red", "coastal aerosol"]).read(0, 0, 6, 8)
    assert image[0, 0].tolist() == [16022, 500]
    assert image[1, 1].tolist() == [0, 500]
    assert not valid[0, 1]
    assert valid.sum() == 47
    assert image[0, 1].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("bit", "hidden", "hidden_with_clouds"),
    [(0, True, True), (1, True, False), (2, True, False), (3, True, False), (4, True, False),
     (5, False, False), (7, False, False)],
)  # fmt: skip
def test_quality_bits(tmp_path: Path, bit: int, hidden: bool, hidden_with_clouds: bool) -> None:
    folder = _scene(tmp_path / "scene")
    quality = np.full((6, 8), CLEAR, np.uint16)
    quality[2, 3] |= 1 << bit
    _write(folder / f"{L8}_QA_PIXEL.TIF", quality)
    for clouds, expected in ((False, hidden), (True, hidden_with_clouds)):
        _, valid = Landsat(folder, clouds=clouds).read(0, 0, 6, 8)
        assert bool(valid[2, 3]) is not expected
        assert valid.sum() == 48 - expected


def test_a_missing_or_shifted_band_is_named(tmp_path: Path) -> None:
    folder = _scene(tmp_path / "scene")
    file = folder / f"{L8}_SR_B6.TIF"
    _write(file, np.ones((6, 8), np.uint16), west=300_030)
    with pytest.raises(DataError, match=r"SR_B6\.TIF .* expected 1 of uint16 on the grid of"):
        Landsat(folder)
    file.unlink()
    with pytest.raises(DataError, match=r"SR_B6\.TIF does not exist"):
        Landsat(folder)


def test_one_scene_a_folder(tmp_path: Path) -> None:
    folder = _scene(_scene(tmp_path / "scene"), L5)
    with pytest.raises(DataError, match="holds the bands of 2 scenes"):
        Landsat(folder)
    with pytest.raises(DataError, match="holds the bands of 0 scenes"):
        Landsat(tmp_path)
    with pytest.raises(DataError, match=r"no band \['thermal'\], allowed: blue"):
        Landsat(_scene(tmp_path / "other"), ["thermal"])
