"""Sentinel-2 scenes given to a network that has learnt from them are read as in training."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.transform import from_origin

from dlbench import raster_input
from dlbench.config import ConfigError
from dlbench.data import IGNORE, DataError, build
from dlbench.data.facts import Facts, facts
from dlbench.data.imagery.landsat import Landsat
from dlbench.data.imagery.sentinel2 import open_sentinel2
from dlbench.data.miniatures import burned_area, land_cover, sentinel2

CLASSES = {"field": [1], "wood": [2], "grass": [3], "vines": [4], "town": [8]}
WHOLE = (slice(0, 60), slice(0, 60))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return land_cover.make(tmp_path_factory.mktemp("scenes") / "land_cover", size=60)


def learnt(folder: Path, **options: object) -> Facts:
    return facts(build("land_cover", folder, (12, 12), classes=CLASSES, **options))


def test_a_series(folder: Path) -> None:
    known = learnt(folder, dates="all", bands=["B04", "B11"], indices=["NDVI"])
    image = raster_input.opened(folder / "imagery", None, 6, known)
    assert image.names == known.bands
    values, valid = image.read([WHOLE, WHOLE])
    scenes = open_sentinel2(folder / "imagery", ["B04", "B11"], indices=["NDVI"])
    read = [scene.read(0, 0, 60, 60) for scene in scenes]
    np.testing.assert_array_equal(values[1], np.concatenate([one for one, _ in read], axis=-1))
    np.testing.assert_array_equal(valid[1], read[0][1] & read[1][1])
    assert not valid.all(), "clouds"
    clear = raster_input.opened(folder / "imagery", None, 6, known, {"mask_clouds": False})
    assert clear.read([WHOLE])[1].all()


def test_a_single_date(folder: Path) -> None:
    known = learnt(folder)
    (file, _) = sorted((folder / "imagery").iterdir())
    image = raster_input.opened(file, None, 4, known)
    assert (image.height, image.width, image.dtype) == (60, 60, np.uint16)
    raw = raster_input.opened(file, "B2,B3,B4,B8", 4, known)
    seen = image.read([WHOLE])[1]
    np.testing.assert_array_equal(raw.read([WHOLE])[0][seen], image.read([WHOLE])[0][seen])
    assert raw.read([WHOLE])[1].all(), "bands chosen by hand: the numbers as they are"


def test_a_granule_of_a_product_of_several_tiles(folder: Path, tmp_path: Path) -> None:
    made = sentinel2.make(tmp_path / "made", size=60, dates=[sentinel2.DATES[0]])
    (product,) = (made / "SAFE").iterdir()
    (granule,) = (product / "GRANULE").iterdir()
    other = granule.with_name(granule.name.replace("T32TQQ", "T32TQR"))
    shutil.copytree(granule, other)
    with pytest.raises(
        ConfigError, match=r"T32TQQ_.*, T32TQR_.* give one of them, such as (.*)$"
    ) as told:
        raster_input.opened(product, None, 4, learnt(folder))
    assert str(told.value).endswith(str(granule))
    image = raster_input.opened(other, None, 4, learnt(folder))
    (expected,) = [one for one in open_sentinel2(product) if one.name.startswith("T32TQR")]
    for found, right in zip(image.read([WHOLE]), expected.read(0, 0, 60, 60), strict=True):
        np.testing.assert_array_equal(found[0], right)
    archive = shutil.make_archive(str(tmp_path / "zipped"), "zip", product.parent, product.name)
    with pytest.raises(
        ConfigError, match="one of them: unpack it, and give the folder of a granule"
    ):
        raster_input.opened(Path(archive), None, 4, learnt(folder))


def test_what_is_not_what_was_learnt(folder: Path) -> None:
    imagery = folder / "imagery"
    one = sorted(imagery.iterdir())[0]
    with pytest.raises(ConfigError, match="of 4 bands; the network takes 2 date.s. of one place"):
        raster_input.opened(one, None, 8, learnt(folder, dates="all"))
    with pytest.raises(ConfigError, match="20170421, S2_HARMONIZED_20170804.* takes 1 date"):
        raster_input.opened(imagery, None, 4, learnt(folder))
    with pytest.raises(DataError, match="no Sentinel-2 scene.*; or give bands=1,2,"):
        raster_input.opened(folder / "labels/LULC.tif", None, 4, learnt(folder))


def test_a_landsat_scene(tmp_path: Path) -> None:
    """Reflectance as in training, not the numbers of its files, and its clouds left out."""
    root = burned_area.make(tmp_path / "burned", scene_size=96)
    known = facts(build("burned_area", root, (32, 32)))
    scene = next(place for place in sorted((root / "imagery").iterdir()) if place.is_dir())
    whole = (slice(0, 96), slice(0, 96))
    for clouds in (False, True):
        image = raster_input.opened(scene, None, 6, known, {"clouds": clouds, "dates": None})
        assert image.names == known.bands
        found = image.read([whole])
        for one, right in zip(found, Landsat(scene, clouds=clouds).read(0, 0, 96, 96), strict=True):
            np.testing.assert_array_equal(one[0], right)
        # The command line's word, beside what was told in training.
        told = {"clouds": not clouds, "mask_clouds": not clouds}
        again = raster_input.opened(scene, None, 6, known, told).read([whole])
        np.testing.assert_array_equal(again[1], found[1])


def test_rasters_are_no_landsat_scenes(tmp_path: Path) -> None:
    """Their numbers may be Landsat's own, which were taken for reflectance; clouds are unknown."""
    root = burned_area.make(tmp_path / "burned", scene_size=96)
    known = facts(build("burned_area", root, (32, 32)))
    path = tmp_path / "stack.tif"
    values = np.random.default_rng(0).integers(7273, 20000, (6, 40, 40)).astype(np.uint16)

    def write(values: np.ndarray, names: list[str]) -> None:
        with rasterio.open(
            path, "w", driver="GTiff", count=6, dtype=values.dtype, height=40, width=40,
            crs="EPSG:32618", transform=from_origin(*burned_area.CORNER, 30, 30),
        ) as file:  # fmt: skip
            file.write(values)
            file.descriptions = names

    exported = [f"SR_B{number}" for number in range(2, 8)]
    for names in (exported, [f"band {n}" for n in range(6)]):
        write(values, names)
        with pytest.raises(
            ConfigError, match=r"stack\.tif is no folder of a Landsat scene.* bands=1"
        ):
            raster_input.opened(path, None, 6, known)
        raw = raster_input.opened(path, "1,2,3,4,5,6", 6, known)
        read, _ = raw.read([(slice(0, 40), slice(0, 40))])
        np.testing.assert_array_equal(read[0], np.moveaxis(values, 0, -1))
    with pytest.raises(ConfigError, match=r"gone does not exist, and the network has learnt from"):
        raster_input.opened(tmp_path / "gone", None, 6, known)
    # Nor does a network of pictures take such numbers unasked.
    pictures = known.model_copy(update={"read_as": "raster"})
    write(values, exported)
    with pytest.raises(DataError, match=r"stack\.tif holds Landsat's own numbers, bands SR_B2, "):
        raster_input.opened(path, None, 6, pictures)
    write((values * 0.275 - 2000).astype(np.int16), exported)
    assert raster_input.opened(path, None, 6, pictures).dtype == np.int16


@pytest.mark.parametrize("alpha", [False, True])
def test_a_picture_of_burned_areas(tmp_path: Path, alpha: bool) -> None:
    """Of the bands and without the pixels that training has left out."""
    root = burned_area.make(tmp_path / "burned", scene_size=96)
    shutil.rmtree(root / "imagery")
    (root / "imagery").mkdir()
    path = root / "imagery/aerial_2015.tif"
    values = np.random.default_rng(0).integers(1, 256, (3 + alpha, 64, 64), np.uint8)
    values[3:] = 255
    values[3:, 50:, 50:] = 0
    values[:3, :10, :20] = 0
    with rasterio.open(
        path, "w", driver="GTiff", count=3 + alpha, dtype="uint8", height=64, width=64,
        crs="EPSG:32618", transform=from_origin(*burned_area.CORNER, 30, 30), photometric="rgb",
        **({"alpha": "yes"} if alpha else {}),
    ) as file:  # fmt: skip
        file.write(values)
    data = build("burned_area", root, (64, 64), scenes={"train": ["aerial_2015"]})
    image, target = data.read("train", 0)
    known = facts(data)
    for chosen in (None, "1,2,3"):
        opened = raster_input.opened(path, chosen, len(data.bands), known)
        seen, valid = opened.read([(slice(0, 64), slice(0, 64))])
        np.testing.assert_array_equal(seen[0], image)
        np.testing.assert_array_equal(valid[0], target != IGNORE)
        assert valid.sum() == 64 * 64 - 200 - 196 * alpha
    others = known.model_copy(update={"name": "vaihingen"})
    _, valid = raster_input.opened(path, None, 3, others).read([(slice(0, 64), slice(0, 64))])
    assert valid.sum() == 64 * 64 - 196 * alpha, "black is a colour elsewhere"


@pytest.mark.parametrize("names", [("B02", "B03", "B04"), ("B02",)])
def test_a_picture_whose_bands_are_named_as_sentinel2s(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    """What was a picture in training is one in prediction, whatever its bands are called."""
    root = burned_area.make(tmp_path / "burned", scene_size=96)
    shutil.rmtree(root / "imagery")
    (root / "imagery").mkdir()
    path = root / "imagery/B02.tif" if len(names) == 1 else root / "imagery/aerial_2015.tif"
    values = np.random.default_rng(0).integers(1, 4000, (len(names), 64, 64)).astype(np.uint16)
    with rasterio.open(
        path, "w", driver="GTiff", count=len(names), dtype="uint16", height=64, width=64,
        crs="EPSG:32618", transform=from_origin(*burned_area.CORNER, 30, 30),
    ) as file:  # fmt: skip
        file.write(values)
        file.descriptions = names
    data = build("burned_area", root, (64, 64), scenes={"train": [path.stem]}, year=2015)
    known = facts(data)
    assert (known.bands, known.read_as) == (names, "raster")
    image = raster_input.opened(path, None, len(names), known)
    seen, _ = image.read([(slice(0, 64), slice(0, 64))])
    np.testing.assert_array_equal(seen[0], data.read("train", 0)[0])
    assert not image.satellite
    assert facts(build("burned_area", burned_area.make(tmp_path / "landsat", scene_size=96),
                       (32, 32))).read_as == "landsat"  # fmt: skip


def test_a_plane_without_a_place_on_the_earth(tmp_path: Path) -> None:
    local = 'LOCAL_CS["on the table",UNIT["metre",1]]'
    path = tmp_path / "photo.tif"
    profile = {"driver": "GTiff", "height": 4, "width": 4, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", crs=local, transform=Affine.scale(0.1, -0.1), **profile) as file:
        file.write(np.ones((1, 4, 4), np.uint8))
    assert raster_input.opened(path, None, 1, None).pixel_metres is None


def test_pictures_that_were_resized_for_training(
    folder: Path, street: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert learnt(folder).resized_to is None
    known = facts(build("camvid", street, (20, 30)))
    assert known.resized_to == (20, 30)
    profile = {"driver": "GTiff", "count": 3, "dtype": "uint8", "transform": Affine.scale(2, -2)}
    for height, told in ((20, False), (40, True)):
        path = tmp_path / f"{height}.tif"
        with rasterio.open(path, "w", height=height, width=30, **profile) as file:
            file.write(np.ones((3, height, 30), np.uint8))
        raster_input.note_differences(raster_input.opened(path, None, 3, known), known)
        assert ("resized to 20 x 30" in capsys.readouterr().err) == told
