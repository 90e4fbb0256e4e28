from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform, transform_bounds
from rasterio.windows import Window

from dlbench.data import IGNORE, DataError
from dlbench.data.burned_area import SENTINEL2_BANDS, BurnedArea
from dlbench.data.grid import Grid
from dlbench.data.imagery.sentinel2 import open_sentinel2
from dlbench.data.labels.coded_raster import CodedRaster
from dlbench.data.labels.gabam import GABAM
from dlbench.data.miniatures import burned_area as miniatures
from dlbench.data.miniatures import parcels
from dlbench.data.miniatures import sentinel2 as sentinel2_miniatures
from dlbench.data.miniatures.earth_engine import write_tfrecord_export
from dlbench.data.windows import Part

SIZE = 160
L8, L7 = miniatures.SCENES


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read only."""
    return miniatures.make(tmp_path_factory.mktemp("scenes") / "burned", 1, scene_size=SIZE)


@pytest.fixture
def own(tree: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tree, tmp_path / "burned"))


def _whole(tree: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    data = BurnedArea(tree, (SIZE, SIZE), scenes={"train": [name]})
    assert data.count("train") == 1
    return data.read("train", 0)


def test_tiles_have_the_real_size_and_are_small(tree: Path) -> None:
    for year in (2015, 2016):
        file = tree / f"gabam/{year}/N10W080.TIF"
        with rasterio.open(file) as dataset:
            assert dataset.shape == (40_000, 40_000)
            assert dataset.bounds == pytest.approx((-80, 0, -70, 10))
            assert dataset.dtypes == ("uint8",)
        assert file.stat().st_size < 300_000


def test_labels_are_the_map_of_the_scenes_year(tree: Path) -> None:
    for name, year in ((L8, 2015), (L7, 2016)):
        image, target = _whole(tree, name)
        band = next((tree / "imagery" / name).glob("*_SR_B4.TIF"))
        with rasterio.open(band) as file:
            column, row = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
            x, y = file.transform @ (column.ravel(), row.ravel())
            longitude, latitude = map(np.array, transform(file.crs, "EPSG:4326", x, y))
        r = np.floor((10 - latitude) / 0.00025).astype(int)
        c = np.floor((longitude + 80) / 0.00025).astype(int)
        with rasterio.open(tree / f"gabam/{year}/N10W080.TIF") as file:
            window = Window(c.min(), r.min(), np.ptp(c) + 1, np.ptp(r) + 1)
            codes = file.read(1, window=window)[r - r.min(), c - c.min()].reshape(SIZE, SIZE)
        known = target != IGNORE
        assert 0.8 < known.mean() < 1
        assert (target[known] != codes[known]).mean() < 5e-4
        assert (image[~known] == 0).all()
        assert 0.05 < target[known].mean() < 0.3


def test_blocks_share_the_scenes_without_overlap(tree: Path) -> None:
    data = BurnedArea(tree, (32, 32))
    assert data.splits == ("train", "val", "test")
    places: list[tuple[str, int, int]] = []
    for split in data.splits:
        for part in data.scenes(split):
            assert isinstance(part, Part)
            name = part.name.split("-part")[0]
            rows = range(part.row, part.row + part.height)
            columns = range(part.column, part.column + part.width)
            places += [(name, row, column) for row in rows for column in columns]
    assert len(places) == len(set(places)) == 2 * SIZE * SIZE


def test_what_no_tile_covers_is_missing(own: Path) -> None:
    assert BurnedArea(own, (64, 64)).missing() == []
    with rasterio.open(own / "gabam/2015/N10W080.TIF", "r+") as file:
        middle = own / "imagery" / L8
        with rasterio.open(next(middle.glob("*_SR_B4.TIF"))) as band:
            x, y = band.transform @ (SIZE / 2, SIZE / 2)
            (longitude,), _ = transform(band.crs, "EPSG:4326", [x], [y])
        file.transform = from_origin(longitude, 10, 0.00025, 0.00025)
    (line,) = BurnedArea(own, (64, 64)).missing()
    assert re.match(r"labels of (4[5-9]|5[0-5])% of .*LC08_.*: tiles of its place", line)


def test_pictures_show_scars_as_dark_red(tree: Path) -> None:
    data = BurnedArea(tree, (64, 64))
    assert data.shown is not None
    shown = [data.bands[index] for index in data.shown]
    assert shown == ["shortwave infrared 1", "near infrared", "red"]


def test_whole_scenes_as_splits(tree: Path) -> None:
    data = BurnedArea(tree, (64, 64), scenes={"train": [L8], "test": [L7]})
    assert data.splits == ("train", "test")
    assert data.sample_name("test", 0) == f"test/{L7}/row0-column0"


def test_burned_is_learnable_but_not_from_near_infrared(tree: Path) -> None:
    samples = [_whole(tree, name) for name in (L8, L7)]
    image = np.concatenate([i[t != IGNORE] for i, t in samples]).astype(float)
    burned = np.concatenate([t[t != IGNORE] for _, t in samples]).astype(bool)

    def overlap(guess: np.ndarray) -> float:
        return float((guess & burned).sum() / (guess | burned).sum())

    dark = max(overlap(image[:, 3] < limit) for limit in range(300, 3000, 50))
    assert 0.3 < dark < 0.8
    design = np.column_stack([image, image**2, image[:, 3] * image[:, 5], np.ones(len(image))])
    design /= design.std(axis=0) + 1e-9
    weights = np.linalg.lstsq(design, burned.astype(float), rcond=None)[0]
    fitted = max(overlap(design @ weights > limit) for limit in np.linspace(0.2, 0.7, 11))
    assert dark + 0.05 < fitted < 0.97


def test_other_imagery_takes_the_only_year_or_the_one_given(own: Path) -> None:
    shutil.rmtree(own / "imagery")
    (own / "imagery").mkdir()
    values = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
    with rasterio.open(
        own / "imagery/aerial.tif", "w", driver="GTiff", count=3, dtype="uint8", height=64,
        width=64, crs="EPSG:32618", transform=from_origin(*miniatures.CORNER, 30, 30),
    ) as file:  # fmt: skip
        file.write(values)
    with pytest.raises(DataError, match=r"does not say its year and .* holds \[2015, 2016\]"):
        BurnedArea(own, (64, 64))
    scenes = {"train": ["aerial"]}
    data = BurnedArea(own, (64, 64), scenes=scenes, year=2015)
    image, target = data.read("train", 0)
    np.testing.assert_array_equal(image, np.moveaxis(values, 0, -1))
    assert data.value_range == (0, 255)
    shutil.rmtree(own / "gabam/2016")
    np.testing.assert_array_equal(
        BurnedArea(own, (64, 64), scenes=scenes).read("train", 0)[1], target
    )


def test_a_year_or_a_place_without_labels_is_named(own: Path) -> None:
    with pytest.raises(DataError, match=r"gabam holds no GABAM of 2009; it holds 2015, 2016"):
        BurnedArea(own, (64, 64), year=2009)
    with rasterio.open(own / "gabam/2015/N10W080.TIF", "r+") as file:
        file.transform = from_origin(10, 10, 0.00025, 0.00025)
    with pytest.raises(DataError, match=r"LC08_.* its labels .*gabam/2015/.* do not overlap"):
        BurnedArea(own, (64, 64))


@pytest.mark.parametrize(
    ("scenes", "reason"),
    [
        ({"train": ["LC09"]}, "allowed are the splits train, val, test and the scenes LC08"),
        ({"train": [L8], "val": [L8]}, "names a scene twice"),
    ],
)
def test_scenes_are_checked(tree: Path, scenes: dict, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        BurnedArea(tree, (64, 64), scenes=scenes)


def test_scenes_of_other_bands_are_named(own: Path) -> None:
    with rasterio.open(
        own / "imagery/aerial.tif", "w", driver="GTiff", count=3, dtype="uint8", height=64,
        width=64, crs="EPSG:32618", transform=from_origin(*miniatures.CORNER, 30, 30),
    ):  # fmt: skip
        pass
    with pytest.raises(
        DataError, match=r"aerial\.tif has the bands band 1, band 2, band 3 in uint8"
    ):
        BurnedArea(own, (64, 64), year=2015)


def test_no_imagery_says_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"imagery holds no scene: a folder of Landsat"):
        BurnedArea(tmp_path, (64, 64))


@pytest.fixture(scope="module")
def sentinel2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of Sentinel-2 in each of their forms; read only."""
    return sentinel2_miniatures.make(tmp_path_factory.mktemp("s2") / "scenes", 3, size=120)


def _tile(root: Path, year: int, grid: Grid) -> Path:
    """A tile of fields, those of every other block burned, over the scenes."""
    west, south, east, north = transform_bounds(grid.crs, "EPSG:4326", *grid.bounds)
    side = 80
    burned = np.kron(np.indices((8, 8)).sum(0) % 2, np.ones((10, 10))).astype(np.uint8)
    path = root / "gabam" / str(year) / "N50E010.TIF"
    path.parent.mkdir(parents=True)
    with rasterio.open(
        path, "w", driver="GTiff", height=side, width=side, count=1, dtype="uint8",
        crs="EPSG:4326",
        transform=from_origin(west, north, (east - west) / side, (north - south) / side),
    ) as file:  # fmt: skip
        file.write(burned, 1)
    return path


@pytest.mark.parametrize("form", ["safe", "zip", "geotiff", "tfrecord", "bands"])
def test_sentinel2_scenes_in_every_form_are_read_as_such(
    sentinel2: Path, tmp_path: Path, form: str
) -> None:
    imagery = tmp_path / "imagery"
    imagery.mkdir()
    product = sorted((sentinel2 / "SAFE").iterdir())[0]
    export = sorted((sentinel2 / "export").iterdir())[0]
    options: dict[str, Any] = {} if form in ("safe", "zip") else {"harmonized": True}
    if form == "safe":
        shutil.copytree(product, imagery / product.name)
    elif form == "zip":
        shutil.make_archive(str(imagery / product.stem), "zip", product.parent, product.name)
    elif form == "bands":
        ground = np.full((120, 120, 13), 0.2)
        sentinel2_miniatures.write_single_bands(imagery, sentinel2_miniatures.DATES[0], ground)
    else:
        shutil.copy(export, imagery)
        if form == "tfrecord":
            write_tfrecord_export(imagery / export.name)
            (imagery / export.name).unlink()
    place = next(imagery.iterdir()) if form == "bands" else imagery
    (scene,) = open_sentinel2(place, SENTINEL2_BANDS, **options)
    tile = _tile(tmp_path, 2022, scene.grid)
    _tile(tmp_path, 2021, scene.grid)

    data = BurnedArea(tmp_path, (120, 120), scenes={"train": [scene.name]}, **options)
    assert data.bands == SENTINEL2_BANDS
    assert data.shown == (4, 3, 2)
    assert data.ground_sampling_distance == pytest.approx(10, rel=0.01)
    image, target = data.read("train", 0)
    expected, valid = scene.read(0, 0, 120, 120)
    np.testing.assert_array_equal(image, expected)
    labels = CodedRaster([tile], GABAM.legend()).read(scene.grid)
    np.testing.assert_array_equal(target, np.where(valid, labels, IGNORE))
    assert set(np.unique(target)) >= {0, 1}


def test_clouds_of_sentinel2_are_left_out_or_kept(sentinel2: Path, tmp_path: Path) -> None:
    product = sorted((sentinel2 / "SAFE").iterdir())[0]
    shutil.copytree(product, tmp_path / "imagery" / product.name)
    _tile(tmp_path, 2022, parcels.grid(120))
    unknown = [
        (BurnedArea(tmp_path, (120, 120), scenes={"train": [_name(tmp_path)]}, clouds=clouds)
         .read("train", 0)[1] == IGNORE).sum()
        for clouds in (False, True)
    ]  # fmt: skip
    assert unknown[0] > unknown[1] + 100


def _name(root: Path) -> str:
    (scene,) = open_sentinel2(root / "imagery")
    return scene.name


def _picture(
    path: Path, values: np.ndarray, names: list[str] | None = None, **profile: str
) -> None:
    path.parent.mkdir(exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(values), dtype=values.dtype, height=64, width=64,
        crs="EPSG:32618", transform=from_origin(*miniatures.CORNER, 30, 30), **profile,
    ) as file:  # fmt: skip
        file.write(values)
        if names:
            file.descriptions = names


def test_bands_that_landsat_has_too_are_taken_as_they_are(own: Path) -> None:
    shutil.rmtree(own / "imagery")
    values = np.random.default_rng(0).integers(1, 256, (6, 64, 64), np.uint8)
    names = ["B2", "B3", "B4", "B5", "B6", "B7"]
    _picture(own / "imagery/toa_20150310.tif", values, names)
    data = BurnedArea(own, (64, 64), scenes={"train": ["toa_20150310"]})
    assert data.bands == tuple(names)
    np.testing.assert_array_equal(data.read("train", 0)[0], np.moveaxis(values, 0, -1))


def test_landsats_numbers_in_a_raster_are_no_reflectance(own: Path) -> None:
    """As Earth Engine exports LANDSAT/LC08/C02/T1_L2; by their range they were reflectance."""
    shutil.rmtree(own / "imagery")
    values = np.random.default_rng(0).integers(7273, 20000, (6, 64, 64)).astype(np.uint16)
    names = [f"SR_B{number}" for number in range(2, 8)]
    path = own / "imagery/LC08_007056_20150310.tif"
    _picture(path, values, names)
    with pytest.raises(
        DataError, match=r"20150310\.tif holds Landsat's own numbers, bands SR_B2, S"
    ):
        BurnedArea(own, (64, 64))
    scaled = (values * 0.275 - 2000).astype(np.int16)
    _picture(path, scaled, names)
    data = BurnedArea(own, (64, 64), scenes={"train": [path.stem]})
    np.testing.assert_array_equal(data.read("train", 0)[0], np.moveaxis(scaled, 0, -1))


@pytest.mark.parametrize(
    "name",
    ["llanos_20150310", "llanos_2015-03-10", "llanos-2015",
     "LC08_L2SP_007056_20150310_20160909_02_T1"],
)  # fmt: skip
def test_the_year_of_other_imagery_is_read_from_its_name(own: Path, name: str) -> None:
    shutil.rmtree(own / "imagery")
    values = np.ones((3, 64, 64), np.uint8)
    _picture(own / "imagery" / f"{name}.tif", values)
    scenes = {"train": [name]}
    target = BurnedArea(own, (64, 64), scenes=scenes).read("train", 0)[1]
    given = BurnedArea(own, (64, 64), scenes=scenes, year=2015).read("train", 0)[1]
    other = BurnedArea(own, (64, 64), scenes=scenes, year=2016).read("train", 0)[1]
    np.testing.assert_array_equal(target, given)
    assert (target != other).any()
    shutil.rmtree(own / "gabam/2015")
    with pytest.raises(DataError, match="holds no GABAM of 2015; it holds 2016"):
        BurnedArea(own, (64, 64), scenes=scenes)


def test_the_black_corners_of_a_picture_are_no_unburned_ground(own: Path) -> None:
    shutil.rmtree(own / "imagery")
    values = np.ones((3, 64, 64), np.uint8)
    values[:, :10, :20] = 0
    values[:2, 30, 30] = 0
    _picture(own / "imagery/aerial_2015.tif", values)
    target = BurnedArea(own, (64, 64), scenes={"train": ["aerial_2015"]}).read("train", 0)[1]
    assert (target[:10, :20] == IGNORE).all()
    assert (target == IGNORE).sum() == 200


def test_bands_or_harmonized_say_that_a_raster_is_of_sentinel2(own: Path) -> None:
    """B2, B3, B4 and B8 are bands of Landsat too."""
    shutil.rmtree(own / "imagery")
    values = np.random.default_rng(0).integers(1200, 4000, (4, 64, 64), np.uint16)
    _picture(own / "imagery/stack_20150310.tif", values, ["B2", "B3", "B4", "B8"])
    bands, scenes = ["B04", "B08"], {"train": ["stack_20150310"]}
    plain = BurnedArea(own, (64, 64), scenes=scenes)
    assert plain.bands == ("B2", "B3", "B4", "B8")
    read = BurnedArea(own, (64, 64), scenes=scenes, bands=bands)
    assert read.bands == tuple(bands)
    np.testing.assert_array_equal(read.read("train", 0)[0], np.moveaxis(values[2:], 0, -1))
    (own / "imagery/stack_20150310.tif").rename(own / "imagery/stack.tif")
    scenes = {"train": ["stack"]}
    data = BurnedArea(own, (64, 64), scenes=scenes, bands=bands, harmonized=False, year=2015)
    np.testing.assert_array_equal(data.read("train", 0)[0], np.moveaxis(values[2:], 0, -1) - 1000)
    with pytest.raises(DataError, match=r"stack\.tif has no band B11, B12; it holds B02, B03"):
        BurnedArea(own, (64, 64), harmonized=True)


@pytest.mark.parametrize("options", [{"bands": ["B04"]}, {"harmonized": False}])
def test_options_of_sentinel2_are_not_dropped_where_there_is_none(
    tree: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match=r"are of Sentinel-2, but .*imagery holds none of its sc"):
        BurnedArea(tree, (64, 64), **options)


def test_a_band_of_alpha_is_a_mask(own: Path) -> None:
    shutil.rmtree(own / "imagery")
    values = np.random.default_rng(0).integers(1, 256, (4, 64, 64), np.uint8)
    values[3] = 255
    values[3, :10, :20] = 0
    path = own / "imagery/aerial_2015.tif"
    _picture(path, values, alpha="yes", photometric="rgb")
    data = BurnedArea(own, (64, 64), scenes={"train": ["aerial_2015"]})
    assert data.bands == ("band 1", "band 2", "band 3")
    image, target = data.read("train", 0)
    assert (target[:10, :20] == IGNORE).all() and (target == IGNORE).sum() == 200
    assert (image[:10, :20] == 0).all()
    expected = np.moveaxis(values[:3], 0, -1)
    np.testing.assert_array_equal(image[10:], expected[10:])


def test_a_picture_beside_scenes_of_sentinel2_is_not_passed_over(
    sentinel2: Path, tmp_path: Path
) -> None:
    export = sorted((sentinel2 / "export").iterdir())[0]
    _picture(tmp_path / "imagery/aerial.tif", np.ones((3, 64, 64), np.uint8))
    shutil.copy(export, tmp_path / "imagery")
    _tile(tmp_path, 2022, parcels.grid(120))
    with pytest.raises(DataError, match=r"aerial\.tif has the bands band 1"):
        BurnedArea(tmp_path, (64, 64), harmonized=True)
