"""Labels of the Sentinel-2 data sets against the landscapes they were drawn from."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from scipy.ndimage import maximum_filter, minimum_filter

from dlbench.data import IGNORE, DataError, build
from dlbench.data.grid import Grid, Imagery
from dlbench.data.labelled_imagery import LabelledImagery
from dlbench.data.labelled_sentinel2 import common_bands, images
from dlbench.data.labels.lucas import classes as lucas_classes
from dlbench.data.miniatures import aafc, cdl, land_cover, lucas, parcels, plantations, sentinel2
from dlbench.data.windows import WindowedDataSet, place_of

SIZE = 120
WINDOW = (24, 24)
LAND_COVER = {name: [code] for name, (code, _) in land_cover.CODES.items()}


def opened(folder: Path, name: str, **options: Any) -> WindowedDataSet:
    data = build(name, folder / name, WINDOW, **options)
    assert isinstance(data, WindowedDataSet)
    return data


def images_of(root: Path) -> Sequence[Imagery]:
    found = images(root / "imagery", "all")
    bands = common_bands(found)
    assert bands[0] == "1/B02"
    assert bands[-1] == "2/B08"
    return found


def target_of(data: WindowedDataSet) -> np.ndarray:
    """The labels of the whole first scene."""
    scene, _, _ = place_of(data.scenes("train")[0], 0, 0)
    assert isinstance(scene, LabelledImagery)
    return scene.target(0, 0, scene.height, scene.width)


def interior(cover: np.ndarray, radius: int) -> np.ndarray:
    """Where a cover is farther than ``radius`` from another one."""
    side = 2 * radius + 1
    return maximum_filter(cover, side) == minimum_filter(cover, side)


def named(data: WindowedDataSet, wanted: dict[str, str], cover: np.ndarray) -> np.ndarray:
    """The class index of each pixel's cover, by the name that its class should have."""
    names = [c.name for c in data.classes]
    index = np.full(len(parcels.COVERS), IGNORE)
    for one, name in wanted.items():
        index[parcels.INDEX[one]] = names.index(name)
    return index[cover]


def test_crop_maps_have_the_covers_of_their_parcels(landscapes: Path) -> None:
    for name, codes, wanted in (
        ("sentinel2_cdl", cdl.CODES, {
            "winter wheat": "Winter Wheat", "winter barley": "Barley", "maize": "Corn",
            "soya": "Soybeans", "sunflower": "Sunflower", "grassland": "Grass/Pasture",
            "forest": "Deciduous Forest", "road": "Developed/Open Space"}),
        ("sentinel2_aafc", aafc.CODES, {
            "winter wheat": "Winter Wheat", "winter barley": "Barley",
            "rapeseed": "Canola and Rapeseed", "soya": "Soybeans", "sunflower": "Sunflower",
            "grassland": "Pasture and Forages", "forest": "Broadleaf",
            "road": "Urban and Developed"}),
    ):  # fmt: skip
        data = opened(landscapes, name)
        _, cover = parcels.landscape(0, SIZE, list(codes)[:-2])
        target, inner = target_of(data), interior(cover, 5)
        np.testing.assert_array_equal(target[inner], named(data, wanted, cover)[inner])
        assert len(np.unique(target[inner])) >= 5
        assert (target == named(data, wanted, cover)).mean() > 0.85, "pixels of 30 m"


def test_a_mapping_makes_the_classes(landscapes: Path) -> None:
    mapping = {"corn": ["Corn"], "grain": ["Winter Wheat", "Barley"]}
    data = opened(landscapes, "sentinel2_cdl", mapping=mapping, other="rest", dates="all")
    assert [c.name for c in data.classes] == ["corn", "grain", "rest"]
    whole = opened(landscapes, "sentinel2_cdl")
    names = np.array([c.name for c in whole.classes])[target_of(whole)]
    expected = np.select([names == "Corn", np.isin(names, mapping["grain"])], [0, 1], 2)
    np.testing.assert_array_equal(target_of(data), expected)


def test_land_cover(landscapes: Path) -> None:
    data = opened(landscapes, "land_cover", classes=LAND_COVER)
    _, cover = parcels.landscape(0, SIZE, land_cover.SOWN)
    wanted = {one: name for name, (_, covers) in land_cover.CODES.items() for one in covers}
    expected, inner = named(data, wanted, cover), interior(cover, 2)
    inner[[0, -1]] = inner[:, [0, -1]] = False  # the map's own pixels are turned
    np.testing.assert_array_equal(target_of(data)[inner], expected[inner])
    assert len({c.color for c in data.classes}) == 5
    with pytest.raises(DataError, match=r"LULC\.tif mean; it holds 0, 1, 2, 3, 4, 8: give"):
        opened(landscapes, "land_cover")


def test_lucas_polygons_and_points(landscapes: Path) -> None:
    _, cover = parcels.landscape(0, SIZE, list(lucas.CODES)[:-2])
    names = {c.name: c.code for c in lucas_classes(3)}
    wanted = {
        one: next(n for n, code in names.items() if code == int(cover_code, base=36))
        for one, cover_code in lucas.CODES.items()
    }
    for geometry, least in (("polygons", 1000), ("points", 60)):
        data = opened(landscapes, "sentinel2_lucas", level=3, geometry=geometry)
        target = target_of(data)
        expected = named(data, wanted, cover)
        known = target != IGNORE
        assert known.sum() > least
        # Some points' covers are not those of the land about them; levels 2 and 3 tell.
        agree = (target == expected)[known]
        assert agree.mean() > 0.99
        for split in data.splits:
            targets = [data.read(split, i)[1] for i in range(data.count(split))]
            assert any((t != IGNORE).any() for t in targets)


def test_a_survey_labels_the_imagery_of_its_year(tmp_path: Path) -> None:
    """Two surveys of one ground that tell of other crops, beside exports of three years."""
    parcel, cover = parcels.landscape(0, SIZE, list(lucas.CODES)[:-2])
    for folder in ("imagery", "labels"):
        (tmp_path / folder).mkdir()
    covers = {2015: "B16", 2018: "C10"}
    for year, code in covers.items():
        day = date(year, 6, 10)
        for _, _, ground in parcels.overpasses(cover, parcel, [day], 0):
            sentinel2.write_export(tmp_path / "imagery", day, ground)
        grid = parcels.grid(SIZE)
        lucas.write_points(tmp_path / "labels", grid, np.zeros_like(cover), [code], year, 10)
    data = build("sentinel2_lucas", tmp_path, WINDOW)
    assert isinstance(data, WindowedDataSet)
    names = [c.name for c in data.classes]
    seen = {}
    for part in data.scenes("train"):
        scene, _, _ = place_of(part, 0, 0)
        assert isinstance(scene, LabelledImagery)
        target = scene.target(0, 0, SIZE, SIZE)
        seen[scene.name[-8:-4]] = {names[i] for i in np.unique(target[target != IGNORE])}
    assert seen == {"2015": {"cropland"}, "2018": {"woodland"}}
    old, undated = (tmp_path / f"imagery/{n}.tif" for n in ("S2_HARMONIZED_20160610", "median"))
    for image, told in ((old, "it is of 2016"), (undated, "does not tell its year")):
        (tmp_path / "imagery/S2_HARMONIZED_20150610.tif").rename(image)
        with pytest.raises(DataError, match=rf"{image.name}: .*{told}; .*2022: .*options.year="):
            build("sentinel2_lucas", tmp_path, WINDOW, harmonized=True)
        assert build("sentinel2_lucas", tmp_path, WINDOW, harmonized=True, year=2015).count("val")
        image.rename(tmp_path / "imagery/S2_HARMONIZED_20150610.tif")


def test_windows_without_a_label_are_no_samples(landscapes: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(landscapes / "sentinel2_lucas", tmp_path / "few"))
    (survey,) = (root / "labels").glob("EU_2018*.CSV")
    lines = survey.read_text().splitlines(keepends=True)
    survey.write_text("".join(lines[:1] + lines[1:14]))  # the northernmost row of points
    data = build("sentinel2_lucas", root, WINDOW, geometry="points", dates="all")
    names = [data.sample_name("train", i) for i in range(data.count("train"))]
    assert names
    assert all("/row0-" in name for name in names)
    survey.write_text("".join(lines[:1] + lines[1:3]))
    few = build("sentinel2_lucas", root, WINDOW, geometry="points", dates="all")
    with pytest.raises(DataError, match="has no label in the split"):
        [few.count(split) for split in few.splits]


def test_plantations_by_species_and_type(landscapes: Path) -> None:
    parcel, cover = parcels.landscape(0, SIZE, plantations.SOWN)
    species = np.zeros(cover.shape, int)
    for name, index in plantations.SPECIES.items():
        species[cover == parcels.INDEX[name]] = index
    small = (np.bincount(parcel.ravel())[parcel] < plantations.MEDIUM) & (species > 0)
    assert small.any()
    found = target_of(opened(landscapes, "plantations"))
    drawn = np.where(small, IGNORE, species)
    assert (found == drawn).mean() > 0.999, "reprojected outlines may lose a pixel"
    assert {0, 1, 7} <= set(np.unique(found))
    whole = target_of(opened(landscapes, "plantations", minimum_percent=0))
    assert (whole == species).mean() > 0.999
    types = target_of(opened(landscapes, "plantations", by="type", minimum_percent=50))
    assert (types[small] == IGNORE).mean() > 0.99, "mosaics that are planted to 30 %"
    assert set(np.unique(types[species > 0])) <= {0, 1, 2, IGNORE}


def test_time_series(landscapes: Path) -> None:
    single = opened(landscapes, "sentinel2_cdl", bands=["B04", "B08"], indices=["NDVI"])
    assert single.bands == ("B04", "B08", "NDVI")
    assert single.shown is None
    series = opened(landscapes, "sentinel2_cdl", dates="all")
    days = ("20220421", "20220610", "20220804")
    assert series.bands == tuple(f"{d}/{b}" for d in days for b in ("B02", "B03", "B04", "B08"))
    assert series.shown == (6, 5, 4)
    assert single.count("train") == 3 * series.count("train")
    two = opened(landscapes, "sentinel2_cdl", dates=["2022-04-21", 20220804])
    names = [series.sample_name("val", i).split("/")[2] for i in range(series.count("val"))]
    assert len(names) == len(set(names))
    image, _ = series.read("val", 0)
    np.testing.assert_array_equal(two.read("val", 0)[0], image[..., [*range(4), *range(8, 12)]])
    for dates, message in (
        (["2022-04-21", "2022-05-01"], "has no scene of 20220501 on the grid of"),
        (["2021-05-01"], "has no scene of 20210501; it has those of 20220421, 20220610"),
        (["spring"], "dates is .*allowed: all, or a list"),
    ):
        with pytest.raises(DataError, match=message):
            opened(landscapes, "sentinel2_cdl", dates=dates)


def test_dates_are_those_of_sensing(landscapes: Path, tmp_path: Path) -> None:
    """Earth Engine's index of a product holds the date of its processing too."""
    names = {
        "S2_HARMONIZED_20170421": "20170421T101031_20170804T101033_T33UVP",
        "S2_HARMONIZED_20170804": "20170804T101029_20170804T101034_T33UVP",
    }
    for old, new in names.items():
        shutil.copy(landscapes / f"land_cover/imagery/{old}.tif", tmp_path / f"{new}.tif")
    (found,) = images(tmp_path, "2017-08-04")
    assert found.bands == tuple(f"20170804/{band}" for band in ("B02", "B03", "B04", "B08"))
    (both,) = images(tmp_path, "all")
    assert {band.partition("/")[0] for band in both.bands} == {"20170421", "20170804"}
    with pytest.raises(DataError, match="has no scene of 20170805; it has those of 20170421, 2017"):
        images(tmp_path, "2017-08-05")


def test_splits_by_whole_scenes(landscapes: Path) -> None:
    first, second = "S2_HARMONIZED_20170421", "S2_HARMONIZED_20170804"
    data = opened(landscapes, "land_cover", classes=LAND_COVER, scenes={"train": [first, second]})
    assert data.splits == ("train",)
    assert data.count("train") == 2 * 25
    assert data.missing() == ["nothing for the split 'val'", "nothing for the split 'test'"]
    with pytest.raises(
        DataError, match=rf"{first}\.tif, of the split 'train', shows the same ground"
    ):
        opened(landscapes, "land_cover", classes=LAND_COVER,
               scenes={"train": [first], "val": [second]})  # fmt: skip
    with pytest.raises(DataError, match="the scenes S2_HARMONIZED_20170421, S2_HARMONIZED"):
        opened(landscapes, "land_cover", classes=LAND_COVER, scenes={"val": ["other"]})


def test_a_map_of_another_place_or_year_is_refused(landscapes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no CDL of 2021; it holds 2022"):
        opened(landscapes, "sentinel2_cdl", year=2021)
    root = tmp_path / "abroad"
    shutil.copytree(landscapes / "land_cover/imagery", root / "imagery")
    shutil.copytree(landscapes / "sentinel2_cdl/labels", root / "labels")
    with pytest.raises(DataError, match="do not overlap"):
        build("sentinel2_cdl", root, WINDOW, year=2022)
    with pytest.raises(DataError, match=r"abroad/labels must hold one map.*it holds none"):
        build("plantations", root, WINDOW)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_label_rasters_that_cannot_be_read(landscapes: Path, tmp_path: Path) -> None:
    """With the codes of the classes, and without, where the raster is asked which it holds."""
    shutil.copytree(landscapes / "land_cover/imagery", tmp_path / "imagery")
    (whole,) = (landscapes / "land_cover/labels").glob("*.tif")
    with rasterio.open(whole) as file:
        codes, profile = file.read(), file.profile
    noise = np.random.default_rng(0).integers(0, 9, codes.shape, np.uint8)
    for name, values in (("two.tif", np.concatenate([codes, codes])), ("cut.tif", noise)):
        with rasterio.open(tmp_path / name, "w", **profile | {"count": len(values)}) as file:
            file.write(values)
    rasterio.shutil.copy(tmp_path / "two.tif", tmp_path / "map.nc", driver="netCDF")
    (tmp_path / "cut.tif").write_bytes((tmp_path / "cut.tif").read_bytes()[:-2000])
    nothing = r"map\.nc holds no bands; its sub-datasets: netcdf:.*Band1.*; .*gdal_translate 'netc"
    for classes in (None, LAND_COVER):
        with pytest.raises(DataError, match=nothing):
            build("land_cover", tmp_path, WINDOW, labels="map.nc", classes=classes)
    with pytest.raises(DataError, match=r"cannot read .*cut\.tif: .*; it is damaged or incomplete"):
        build("land_cover", tmp_path, WINDOW, labels="cut.tif")
    floats = np.where(codes == 1, np.nan, codes).astype(np.float32)
    with rasterio.open(tmp_path / "f.tif", "w", **profile | {"dtype": "float32"}) as file:
        file.write(floats)
    with pytest.raises(DataError, match=r"needs what the codes of .*f\.tif mean; it holds 0, 2, 3"):
        build("land_cover", tmp_path, WINDOW, labels="f.tif")


def test_places_with_dates_of_their_own(landscapes: Path, tmp_path: Path) -> None:
    """Series of two places: bands by number, as their dates differ; scenes lie in subfolders."""
    for name, source in (("west", "land_cover"), ("east", "sentinel2_aafc")):
        shutil.copytree(landscapes / source / "imagery", tmp_path / "imagery" / name)
    with pytest.raises(DataError, match="one of 12 bands|of 12 bands in uint16, .* one of 8"):
        images_of(tmp_path)
    (tmp_path / "imagery/east/S2_HARMONIZED_20210615.tif").unlink()
    found = images_of(tmp_path)
    assert [image.name for image in found] == [
        "S2_HARMONIZED_20170421-20170804", "S2_HARMONIZED_20210506-20210804",
    ]  # fmt: skip


def test_the_real_land_cover_of_slovenia(real_data: Path) -> None:
    classes = {"cultivated": [1], "forest": [2], "grass": [3], "shrub": [4], "artificial": [8]}
    data = build(
        "land_cover", real_data / "sentinel2_slovenia", (20, 20), labels="LULC.tif", dates="all",
        classes=classes,
    )  # fmt: skip
    assert isinstance(data, WindowedDataSet)
    assert data.splits == ("train", "val", "test")
    assert len(data.bands) == 5 * 4
    target = target_of(data)
    forest = [c.name for c in data.classes].index("forest")
    shares = np.bincount(target[target != IGNORE], minlength=5) / target.size
    assert shares.argmax() in (0, forest)
    image = data.imagery[0].read(0, 0, *target.shape)[0]  # type: ignore[attr-defined]
    red, infrared = (image[..., data.bands.index(f"20150731/{b}")] for b in ("B04", "B08"))
    # Woods are darker in the red than fields are.
    assert red[target == forest].mean() < red[target == 0].mean()
    assert infrared[target == forest].mean() > 2 * red[target == forest].mean()


def test_the_grid_of_a_place(landscapes: Path) -> None:
    data = opened(landscapes, "sentinel2_cdl")
    grid: Grid = data.imagery[0].grid  # type: ignore[attr-defined]
    assert grid == parcels.grid(SIZE, parcels.IOWA)
    assert data.ground_sampling_distance == 10.0


def test_scenes_beside_the_folder_of_labels(tmp_path: Path) -> None:
    folder = land_cover.make(tmp_path / "land_cover", size=SIZE)
    assert (folder / "labels").is_dir()
    right = opened(tmp_path, "land_cover", classes=LAND_COVER)
    names = [scene.name for scene in right.scenes("train")]
    for scene in (folder / "imagery").iterdir():
        shutil.move(scene, folder)
    (folder / "imagery").rmdir()
    found = opened(tmp_path, "land_cover", classes=LAND_COVER)
    assert [scene.name for scene in found.scenes("train")] == names
    np.testing.assert_array_equal(target_of(found), target_of(right))
