from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image

from dlbench.data import IGNORE, DataError
from dlbench.data.isprs import CLASSES, decode
from dlbench.data.miniatures import potsdam as miniatures
from dlbench.data.potsdam import AREAS, OFFICIAL_TRAIN, Potsdam
from dlbench.data.suburb import survey

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

SIZE = 96
TILES = ("2_10", "4_12", "6_7", "2_11", "3_13")
ONE = {"train": ["2_10"]}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    folder = tmp_path_factory.mktemp("scenes") / "potsdam"
    return miniatures.make(folder, seed=3, tiles=TILES, tile_size=SIZE)


@pytest.fixture
def own(tree: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tree, tmp_path / "potsdam"))


def _truth(area: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    row, column = area.split("_")
    return survey(3, 100 * int(row) + int(column), SIZE)


def _read(root: Path, area: str, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    data = Potsdam(root, (SIZE, SIZE), areas={"train": [area], "val": [], "test": []}, **options)
    assert data.count("train") == 1
    return data.read("train", 0)


def test_the_official_split() -> None:
    assert len(OFFICIAL_TRAIN) == 24
    assert sorted((*AREAS["train"], *AREAS["val"])) == sorted(OFFICIAL_TRAIN)
    assert len(AREAS["test"]) == 14
    assert len({area for split in AREAS.values() for area in split}) == 38
    assert {"2_10", "5_12", "6_7", "7_12"} <= set(OFFICIAL_TRAIN)
    assert "5_9" not in OFFICIAL_TRAIN


@pytest.mark.parametrize("bands", ["RGB", "IRRG", "RGBIR"])
def test_bands_come_in_their_order(tree: Path, bands: str) -> None:
    scene, label, _ = _truth("2_10")
    image, target = _read(tree, "2_10", bands=bands)
    places = {"R": 1, "G": 2, "I": 0}
    channels = bands.replace("IR", "I")
    for channel, letter in enumerate(channels):
        if letter != "B":
            np.testing.assert_array_equal(image[..., channel], scene[..., places[letter]])
    assert image.shape[-1] == len(channels)
    np.testing.assert_array_equal(target, label)


@pytest.mark.parametrize("area", ["4_12", "6_7"])
def test_faulty_labels_decode_by_thresholds(tree: Path, area: str) -> None:
    _, label, _ = _truth(area)
    with rasterio.open(tree / f"5_Labels_all/top_potsdam_{area}_label.tif") as file:
        colors = np.moveaxis(file.read(), 0, -1)
    exact = (colors == np.array([c.color for c in CLASSES])[label]).all(axis=-1)
    if area == "4_12":
        assert not exact.any()
        assert len(np.unique(colors.reshape(-1, 3), axis=0)) > 500
    else:
        assert not exact[label == 4].any()
    _, target = _read(tree, area)
    agreement = (target == label).mean()
    assert agreement > 0.97 if area == "4_12" else agreement == 1


def test_a_few_mixed_colours_are_ignored_and_many_refused(tmp_path: Path) -> None:
    palette = np.full((20, 10, 3), 255, np.uint8)
    palette[3, 4] = 140, 90, 150
    target = decode(palette, tmp_path / "label.tif")
    assert target[3, 4] == IGNORE
    assert (target == 0).sum() == 199
    palette[:, 2] = 140, 90, 150
    with pytest.raises(DataError, match=r"label\.tif holds the colour \(140, 90, 150\)"):
        decode(palette, tmp_path / "label.tif")


def test_normalised_heights_are_decimetres(tree: Path) -> None:
    _, _, heights = _truth("2_10")
    image, _ = _read(tree, "2_10", height="ndsm")
    assert image.shape[-1] == 4
    assert image.dtype == np.uint8
    difference = image[..., 3] - 10 * 0.25 * heights
    assert np.abs(difference).mean() < 1.5  # Released as JPEG.
    assert np.corrcoef(image[..., 3].ravel(), heights.ravel())[0, 1] > 0.99
    data = Potsdam(tree, (64, 64), height="ndsm", bands="RGBIR")
    assert data.bands == ("red", "green", "blue", "near infrared", "height above ground")


def test_surface_heights_rise_from_the_low_ground_of_the_tile(own: Path) -> None:
    ramp = np.linspace(0, 50, SIZE, dtype=np.float32)
    metres = 240 + np.tile(ramp, (SIZE, 1))
    metres[16, 5], metres[17, 6], metres[40, 40] = 100.0, np.nan, 900.0
    with rasterio.open(
        own / "1_DSM/1_DSM/dsm_potsdam_02_10.tif", "w", driver="GTiff", count=1,
        dtype="float32", height=SIZE, width=SIZE,
    ) as file:  # fmt: skip
        file.write(metres, 1)
    image, target = _read(own, "2_10", height="dsm")
    band = image[..., 3].astype(float)
    assert (band[16, 5], band[40, 40]) == (0, 255)  # A mismatched pixel moves no other.
    assert target[17, 6] == IGNORE
    assert (target == IGNORE).sum() == 1
    assert np.abs(band[0] - 4 * ramp).max() <= 4


@pytest.mark.parametrize("height", ["dsm", "ndsm"])
def test_heights_that_lack_a_column_repeat_their_last(tree: Path, height: str) -> None:
    with rasterio.open(tree / "1_DSM/1_DSM/dsm_potsdam_03_13.tif") as file:
        assert file.shape == (SIZE, SIZE - 1)
    data = Potsdam(tree, (40, 40), height=height)
    image, _ = data.read("test", data.count("test") - 1)
    assert image.shape == (40, 40, 4)
    np.testing.assert_array_equal(image[:, -1, 3], image[:, -2, 3])
    assert image[..., 3].any()


def test_both_folder_names_and_nestings_are_found(own: Path) -> None:
    expected = _read(own, "2_10", bands="RGB")
    (own / "5_Labels_all").rename(own / "5_Labels_for_participants")
    eroded = own / "5_Labels_all_noBoundary"
    other = own / "5_Labels_for_participants_no_Boundary"
    other.mkdir()
    eroded.rename(other / other.name)
    for file in (own / "2_Ortho_RGB/2_Ortho_RGB").iterdir():
        file.rename(own / "2_Ortho_RGB" / file.name)
    found = _read(own, "2_10", bands="RGB")
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    _, inner = _read(own, "2_10", bands="RGB", labels="eroded")
    kept = inner != IGNORE
    assert 0.4 < kept.mean() < 0.95
    np.testing.assert_array_equal(inner[kept], expected[1][kept])


def test_an_area_that_yaml_takes_for_a_number(tree: Path) -> None:
    data = Potsdam(tree, (SIZE, SIZE), areas={"train": [210, 67]})
    assert [scene.name for scene in data.scenes("train")] == ["area2_10", "area6_7"]


def test_a_world_file_gives_the_pixel_size(tree: Path) -> None:
    assert Potsdam(tree, (64, 64)).ground_sampling_distance == 0.25


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"bands": "BGR"}, "bands is 'BGR', allowed: RGB, IRRG, RGBIR"),
        ({"height": "dem"}, "height is 'dem', allowed: none, dsm, ndsm"),
        ({"areas": {"train": ["8_1"]}}, r"areas names \['8_1'\], allowed: 2_10"),
        ({"areas": {"train": ["2_13"]}}, r"areas \['2_13'\] are both in train and test"),
    ],
)
def test_bad_options_say_what_is_allowed(tree: Path, options: dict, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        Potsdam(tree, (64, 64), **options)


def test_missing_heights_are_named(own: Path) -> None:
    shutil.rmtree(own / "1_DSM")
    data = Potsdam(own, (64, 64), height="dsm")
    with pytest.raises(DataError, match=r"2_10_IRRG\.tif has no heights: .*dsm_potsdam_02_10\.tif"):
        data.count("train")


def test_heights_of_another_size_or_unit_are_named(own: Path) -> None:
    picture = own / "1_DSM_normalisation/1_DSM_normalisation/dsm_potsdam_02_10_normalized"
    picture = picture.with_name(picture.name + "_lastools.jpg")
    Image.fromarray(np.zeros((SIZE, SIZE - 2), np.uint8)).save(picture)
    with pytest.raises(DataError, match=r"lastools\.jpg is 96 x 94, but its image"):
        Potsdam(own, (64, 64), height="ndsm").count("train")
    Image.fromarray(np.zeros((SIZE, SIZE, 3), np.uint8)).save(picture)
    with pytest.raises(DataError, match=r"lastools\.jpg has 3 bands of uint8, expected 1"):
        Potsdam(own, (64, 64), height="ndsm").count("train")


def test_nothing_there_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"3_Ortho_IRRG/top_potsdam_\{area\}_IRRG\.tif"):
        Potsdam(tmp_path, (64, 64))
