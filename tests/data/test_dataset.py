"""What holds for every data set of the table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlbench import data as package
from dlbench.data import DATASETS, IGNORE, DataError, DataSet, build
from dlbench.data.miniatures import MINIATURES, burned_area, potsdam


@pytest.fixture(scope="session")
def burned_area_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    return burned_area.make(tmp_path_factory.mktemp("scenes") / "burned_area", scene_size=200)


@pytest.fixture(scope="session")
def potsdam_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    folder = tmp_path_factory.mktemp("scenes") / "potsdam"
    return potsdam.make(folder, tiles=["2_10", "2_11", "3_13"], tile_size=96)


OF_LANDSCAPES = {"land_cover", "plantations", "sentinel2_aafc", "sentinel2_cdl", "sentinel2_lucas"}
CLASSES = {"field": [1], "wood": [2], "grass": [3], "vines": [4], "town": [8]}
OPTIONS: dict[str, dict[str, Any]] = {
    "land_cover": {"classes": CLASSES},
    "sentinel2_aafc": {"dates": "all"},
    "sentinel2_cdl": {"mapping": "belgiu_csillik_2018"},  # crops of its own table share colours
    "sentinel2_lucas": {"level": 2},
}


@pytest.fixture(params=sorted(DATASETS))
def data(request: pytest.FixtureRequest) -> DataSet:
    name = request.param
    if name in OF_LANDSCAPES:
        root = request.getfixturevalue("landscapes") / name
        return build(name, root, (24, 24), **OPTIONS.get(name, {}))
    tree = "miniature" if name == "vaihingen" else f"{name}_tree"
    return build(name, request.getfixturevalue(tree), (64, 64))


def test_samples_keep_the_contract(data: DataSet) -> None:
    allowed = {*range(len(data.classes)), IGNORE}
    assert data.outputs
    assert data.name in DATASETS
    assert data.splits
    for split in data.splits:
        assert data.count(split) > 0
        names = {data.sample_name(split, index) for index in range(data.count(split))}
        assert len(names) == data.count(split)
        for index in (0, data.count(split) - 1):
            image, target = data.read(split, index)
            assert image.dtype == data.dtype
            assert image.shape == (*target.shape[:2], len(data.bands))
            if data.classes:
                assert (target.ndim, target.dtype) == (2, np.uint8)
                assert set(np.unique(target)) <= allowed
            else:
                assert target.shape[2:] == (len(data.outputs),)
                assert target.dtype == np.float32
            again = data.read(split, index)
            np.testing.assert_array_equal(again[0], image)
            np.testing.assert_array_equal(again[1], target)


def test_classes_are_told_apart(data: DataSet) -> None:
    for field in ("name", "color", "code"):
        values = [getattr(c, field) for c in data.classes]
        assert len(set(values)) == len(values)


def test_it_says_where_it_comes_from(data: DataSet) -> None:
    assert data.licence
    assert data.units
    assert data.layout
    assert data.source.startswith("https://")


def test_pictures_and_networks_know_what_values_mean(data: DataSet) -> None:
    low, high = data.value_range
    image, _ = data.read(data.splits[0], 0)
    assert np.isfinite(image).all()
    assert low <= np.percentile(image, 10) < np.percentile(image, 90) <= high
    if data.shown is not None:
        assert set(data.shown) <= set(range(len(data.bands)))


def test_an_unknown_split_lists_the_splits(data: DataSet) -> None:
    with pytest.raises(DataError, match=f"no split 'training'.*{data.splits[0]}"):
        data.count("training")


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=f"unknown data set 'camvit'; known: {', '.join(sorted(DATASETS))}"
    ):
        build("camvit", tmp_path)


def test_an_unknown_option_lists_the_known_ones(miniature: Path, camvid_tree: Path) -> None:
    with pytest.raises(DataError, match="no option label; its options: stride, labels, areas"):
        build("vaihingen", miniature, (64, 64), label="full")
    with pytest.raises(DataError, match="options: by, .*unplanted, stride, bands, indices, harm"):
        build("plantations", miniature, (64, 64), species="Oil palm")
    with pytest.raises(DataError, match="no option stride; its options: none"):
        build("camvid", camvid_tree, stride=3)


def test_every_data_set_has_a_miniature() -> None:
    assert set(MINIATURES) == set(DATASETS)


def test_without_a_root_vaihingen_is_generated_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("dlbench.data.scenes.TILES", {"train": 1})
    monkeypatch.setattr("dlbench.data.scenes.TILE_SIZE", 128)
    data = build("vaihingen", None, (64, 64))
    assert tmp_path in data.root.parents
    assert data.count("train") == 4


def test_without_a_root_a_landscape_is_generated_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    root = build("land_cover", None, (64, 64), classes=CLASSES).root
    before = (root / "manifest.json").stat().st_mtime_ns
    assert root == tmp_path / "dlbench" / "land_cover-miniature-v1"
    assert build("land_cover", None, (64, 64), classes=CLASSES).count("val") > 0
    assert (root / "manifest.json").stat().st_mtime_ns == before


def test_pictures_and_velocities_bring_no_libraries_of_maps() -> None:
    """A rank would carry 60 MB of them."""
    code = (
        "import sys, dlbench.data.statistics, dlbench.data.sampling\n"
        "from dlbench.data import kind_of\n"
        "kind_of('camvid'), kind_of('granulation')\n"
        "found = {'rasterio', 'pyogrio', 'shapely'} & sys.modules.keys()\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_loads_no_tensorflow() -> None:
    code = "import sys, dlbench.data, dlbench.data.scenes; assert 'tensorflow' not in sys.modules"
    root = Path(str(package.__file__)).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)
