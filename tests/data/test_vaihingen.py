from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from dlbench.data import IGNORE, DataError, build
from dlbench.data.isprs import CLASSES, decode
from dlbench.data.vaihingen import AREAS, COMMON_VALIDATION, OFFICIAL_TRAIN

IMAGE = "top/top_mosaic_09cm_area1.tif"
LABEL = "gts_for_participants/top_mosaic_09cm_area1.tif"

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def tree(miniature: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(miniature, tmp_path / "vaihingen"))


def _rewrite(path: Path, values: np.ndarray) -> None:
    with rasterio.open(
        path, "w", driver="GTiff", count=values.shape[2], dtype=values.dtype,
        height=values.shape[0], width=values.shape[1],
    ) as file:  # fmt: skip
        file.write(np.moveaxis(values, -1, 0))


def _whole(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return np.moveaxis(file.read(), 0, -1)


def test_the_official_split() -> None:
    assert len(OFFICIAL_TRAIN) == 16
    assert len(AREAS["test"]) == 17
    assert set(AREAS["val"]) == {11, 15, 28, 30, 34} == set(COMMON_VALIDATION)
    assert sorted((*AREAS["train"], *AREAS["val"])) == sorted(OFFICIAL_TRAIN)
    every = [area for split in AREAS.values() for area in split]
    assert len(set(every)) == 33


def test_evaluation_windows_count_every_pixel_once(miniature: Path) -> None:
    data = build("vaihingen", miniature, (128, 112))
    labels = [
        decode(_whole(miniature / f"gts_for_participants/top_mosaic_09cm_area{a}.tif"), Path())
        for a in (11, 15)
    ]
    truth = np.bincount(np.concatenate(labels).ravel(), minlength=256)
    counted = np.zeros(256, np.int64)
    for index in range(data.count("val")):
        image, target = data.read("val", index)
        assert image.shape == (128, 112, 3)
        counted += np.bincount(target.ravel(), minlength=256)
    assert data.count("val") == 2 * 3 * 3
    assert truth[IGNORE] == 0
    np.testing.assert_array_equal(counted[:6], truth[:6])


@pytest.mark.parametrize("stride", [None, 50])
def test_training_windows_cover_every_pixel(miniature: Path, stride: int | None) -> None:
    data = build("vaihingen", miniature, (128, 128), stride=stride, areas={"train": [1]})
    whole = _whole(miniature / IMAGE)
    seen = np.zeros(whole.shape[:2], bool)
    for index in range(data.count("train")):
        image, target = data.read("train", index)
        name = data.sample_name("train", index).rsplit("/", 1)[1]
        row, column = (int(number) for number in re.findall(r"\d+", name))
        np.testing.assert_array_equal(image, whole[row : row + 128, column : column + 128])
        assert (target != IGNORE).all()
        seen[row : row + 128, column : column + 128] = True
    assert seen.all()
    assert data.count("train") == (9 if stride is None else 25)


def test_jitter_moves_the_window_on_its_tile(miniature: Path) -> None:
    data = build("vaihingen", miniature, (64, 64))
    assert data.jitters
    image, _ = data.read("train", 0)
    moved = data.read("train", 0, np.random.default_rng(1))
    again = data.read("train", 0, np.random.default_rng(1))
    np.testing.assert_array_equal(moved[0], again[0])
    np.testing.assert_array_equal(moved[1], again[1])
    assert (moved[0] != image).any()
    whole, label = _whole(miniature / IMAGE), decode(_whole(miniature / LABEL), Path())
    places = [
        (r, c)
        for r in range(33)
        for c in range(33)
        if (whole[r, c] == moved[0][0, 0]).all()
        and (whole[r : r + 64, c : c + 64] == moved[0]).all()
    ]
    assert len(places) == 1
    row, column = places[0]
    np.testing.assert_array_equal(label[row : row + 64, column : column + 64], moved[1])


def test_palette_survives_resampled_and_recoded_colours(tmp_path: Path) -> None:
    palette = np.array([[c.color for c in CLASSES] + [(0, 0, 0)]], np.int16)
    noisy = np.clip(palette + np.array([3, -4, 2]), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(decode(noisy, tmp_path), [[0, 1, 2, 3, 4, 5, IGNORE]])
    with pytest.raises(DataError, match=r"label\.tif holds the colour \(250, 3, 240\)"):
        decode(np.array([[(250, 3, 240)]], np.uint8), tmp_path / "label.tif")


def test_eroded_labels_ignore_the_borders(miniature: Path) -> None:
    full = build("vaihingen", miniature, (300, 300))
    eroded = build("vaihingen", miniature, (300, 300), labels="eroded")
    for index in range(full.count("val")):
        (_, whole), (_, inner) = full.read("val", index), eroded.read("val", index)
        kept = inner != IGNORE
        np.testing.assert_array_equal(inner[kept], whole[kept])
        assert 0.5 < kept.mean() < 0.95


def test_the_complete_archive_unzips_flat(tree: Path) -> None:
    expected = build("vaihingen", tree, (64, 64)).read("train", 5)
    for label in (tree / "gts_for_participants").iterdir():
        label.rename(tree / label.name)
    found = build("vaihingen", tree, (64, 64)).read("train", 5)
    np.testing.assert_array_equal(found[1], expected[1])


def test_a_split_holds_the_tiles_that_are_there(tree: Path) -> None:
    (tree / "top/top_mosaic_09cm_area3.tif").unlink()
    for label in (tree / "gts_for_participants").glob("*area2*"):
        label.unlink()
    data = build("vaihingen", tree, (100, 100))
    assert data.splits == ("train", "val")  # Area 2 keeps its image, as in the real archive.
    assert data.count("train") == 9
    with pytest.raises(DataError, match=r"no labelled tile of the split 'test' \(areas 2, 4, .*"):
        data.count("test")


def test_nothing_there_says_where_it_looked(tree: Path) -> None:
    shutil.rmtree(tree / "top")
    with pytest.raises(DataError, match=r"holds no labelled tile: .*top/top_mosaic_09cm_area\{"):
        build("vaihingen", tree, (64, 64))


def test_a_missing_label_is_named(tree: Path) -> None:
    (tree / LABEL).unlink()
    with pytest.raises(DataError, match=r"area1\.tif has no label top_mosaic_09cm_area1\.tif"):
        build("vaihingen", tree, (64, 64)).count("train")


def test_a_label_of_another_size_is_named(tree: Path) -> None:
    _rewrite(tree / LABEL, _whole(tree / LABEL)[:200])
    with pytest.raises(DataError, match=f"{LABEL} is 200 x 300, but its image .*300 x 300"):
        build("vaihingen", tree, (64, 64)).count("train")


def test_an_index_label_is_named(tree: Path) -> None:
    _rewrite(tree / LABEL, np.zeros((300, 300, 1), np.uint8))
    with pytest.raises(DataError, match=f"{LABEL} has 1 bands of uint8, expected 3"):
        build("vaihingen", tree, (64, 64)).count("train")


def test_a_tile_smaller_than_the_window_is_named(tree: Path) -> None:
    with pytest.raises(DataError, match=r"area1\.tif is 300 x 300 pixels, smaller than"):
        build("vaihingen", tree, (64, 301)).count("train")


@pytest.mark.parametrize("compressed", [True, False])
def test_a_truncated_tile_is_named(tree: Path, compressed: bool) -> None:
    image = tree / IMAGE
    if not compressed:
        _rewrite(image, _whole(image))
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    with pytest.raises(DataError, match=IMAGE) as error:
        data = build("vaihingen", tree, (64, 64))
        for index in range(data.count("train")):
            data.read("train", index)
    assert "fetch it again" in str(error.value)


def test_tiles_need_no_georeference(tree: Path) -> None:
    values = _whole(tree / IMAGE)
    assert build("vaihingen", tree, (64, 64)).ground_sampling_distance == 0.25
    _rewrite(tree / IMAGE, values)
    data = build("vaihingen", tree, (64, 64))
    np.testing.assert_array_equal(data.read("train", 0)[0], values[:64, :64])
    assert data.ground_sampling_distance == 0.09


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"labels": "fine"}, "labels is 'fine', allowed: full, eroded"),
        ({"stride": 65}, "stride is 65, allowed: 1 to"),
        ({"areas": {"train": [11]}}, r"areas \[11\] are both in train and val"),
        ({"areas": {"valid": [1]}}, "allowed are the splits"),
    ],
)
def test_bad_options_say_what_is_allowed(miniature: Path, options: dict, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        build("vaihingen", miniature, (64, 64), **options)


def test_windows_need_a_size(miniature: Path) -> None:
    with pytest.raises(DataError, match=r"data\.size="):
        build("vaihingen", miniature)


def test_heights_are_a_last_band(tree: Path) -> None:
    metres = 250 + np.tile(np.linspace(0, 20, 300, dtype=np.float32), (300, 1))[..., None]
    (tree / "dsm").mkdir()
    _rewrite(tree / "dsm/dsm_09cm_matching_area1.tif", metres)
    data = build("vaihingen", tree, (300, 300), areas={"train": [1]}, height="dsm")
    image, _ = data.read("train", 0)
    assert data.bands == ("near infrared", "red", "green", "surface height")
    np.testing.assert_array_equal(image[..., :3], _whole(tree / IMAGE))
    # A hundredth of the ramp of 20 m lies below 0.2 m.
    np.testing.assert_allclose(
        image[..., 3] / 4, np.clip(metres[..., 0] - 250.2, 0, None), atol=0.13
    )
    (tree / "ndsm").mkdir()
    _rewrite(tree / "ndsm/dsm_09cm_matching_area1_normalized.tif", metres - 250)
    image, _ = build("vaihingen", tree, (300, 300), areas={"train": [1]}, height="ndsm").read(
        "train", 0
    )
    np.testing.assert_allclose(image[..., 3] / 10, metres[..., 0] - 250, atol=0.051)
