from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label

from dlbench.data.dataset import DataError
from dlbench.data.miniatures.parcels import COVERS, INDEX, grid, landscape, reflectance

SOWN = ("winter wheat", "winter barley", "maize", "soya", "oil palm", "grassland")
SIZE = 240
RED, NEAR = 3, 7


@pytest.fixture(scope="module")
def ground() -> tuple[np.ndarray, np.ndarray]:
    return landscape(3, SIZE, SOWN)


def _ndvi(image: np.ndarray) -> np.ndarray:
    return (image[..., NEAR] - image[..., RED]) / (image[..., NEAR] + image[..., RED])


def test_the_same_arguments_give_the_same_ground(ground: tuple[np.ndarray, np.ndarray]) -> None:
    parcel, cover = ground
    for found, again in zip(ground, landscape(3, SIZE, SOWN), strict=True):
        np.testing.assert_array_equal(found, again)
    assert (landscape(4, SIZE, SOWN)[1] != cover).mean() > 0.5
    first, again, other = (reflectance(cover, parcel, day, 3) for day in (110, 110, 111))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.9
    assert first.shape == (SIZE, SIZE, 13)
    assert first.dtype == np.float32
    assert (grid(SIZE).height, grid(SIZE).pixel_metres) == (SIZE, 10)


def test_a_parcel_has_one_cover_and_lies_in_one_place(
    ground: tuple[np.ndarray, np.ndarray],
) -> None:
    parcel, cover = ground
    assert (parcel.dtype, cover.dtype) == (np.int32, np.uint8)
    assert (cover[parcel == 0] == INDEX["road"]).all()
    forest = INDEX["forest"]
    scattered = 0
    for number in range(1, int(parcel.max()) + 1):
        inside = parcel == number
        assert inside.any()
        assert len(np.unique(cover[inside])) == 1
        # Woods that grow across a parcel may cut it in two.
        scattered += label(inside)[1] > 2
    assert scattered <= 0.03 * parcel.max()
    shares = {name: (cover == INDEX[name]).mean() for name in SOWN}
    assert min(shares.values()) > 0.08
    assert 0.08 < (cover == forest).mean() < 0.12
    assert set(np.unique(cover)) == {INDEX[name] for name in (*SOWN, "forest", "road")}


def test_time_parts_what_one_date_does_not(ground: tuple[np.ndarray, np.ndarray]) -> None:
    parcel, cover = ground
    ndvi = {day: _ndvi(reflectance(cover, parcel, day, 3)) for day in (110, 162, 215)}

    def gap(a: str, b: str, day: int) -> float:
        one, other = (ndvi[day][cover == INDEX[name]] for name in (a, b))
        return float(abs(one.mean() - other.mean()) / np.hypot(one.std(), other.std()))

    assert gap("winter wheat", "winter barley", 110) < 1
    assert gap("winter wheat", "winter barley", 162) > 2
    assert gap("maize", "soya", 215) < 1
    assert gap("maize", "soya", 162) > 1.5
    assert gap("winter wheat", "maize", 110) > 5


def test_texture_parts_what_a_mean_does_not(ground: tuple[np.ndarray, np.ndarray]) -> None:
    parcel, cover = ground
    near = reflectance(cover, parcel, 162, 3)[..., NEAR]
    palm, forest = (near[cover == INDEX[name]] for name in ("oil palm", "forest"))
    assert abs(palm.mean() - forest.mean()) < 0.5 * forest.std()
    assert palm.std() > 1.7 * forest.std()


def test_reflectances_are_physical(ground: tuple[np.ndarray, np.ndarray]) -> None:
    _, cover = ground
    every = np.resize(np.arange(len(COVERS), dtype=np.uint8), cover.shape)
    image = reflectance(every, every.astype(np.int32), 180)
    assert np.isfinite(image).all()
    assert 0 <= image.min() < image.max() < 1
    assert _ndvi(image)[every == INDEX["water"]].max() < 0
    # Cirrus at 1375 nm does not see the ground.
    assert image[..., 10].max() < 0.01


def test_unknown_covers_are_named() -> None:
    with pytest.raises(DataError, match=r"classes is \['oats'\]; allowed .*winter wheat"):
        landscape(0, 60, ["oats"])
