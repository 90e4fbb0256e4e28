from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS

from dlbench.data import IGNORE, DataError, build
from dlbench.data.grid import Grid
from dlbench.data.labels.plantations import CLASSES, FIELDS, plantations
from dlbench.data.miniatures.plantations import write_gfw, write_sdpt

GRID = Grid(CRS.from_epsg(32632), Affine(10, 0, 700_000, 0, -10, 500_000), 60, 84)
"""In Cameroon."""

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def parcels() -> np.ndarray:
    """Numbers 1 to 35 in squares of 12 pixels, with holes that are no parcel."""
    numbers = np.kron(np.arange(1, 36).reshape(5, 7), np.ones((12, 12), int))
    numbers[np.random.default_rng(0).random(numbers.shape) < 0.03] = 0
    return numbers


def _write(file: Path, field: str, values: list[str], percent: list[Any] | None = None) -> Path:
    """Polygons side by side, each of 10 columns of `GRID`."""
    west, south, _, north = GRID.bounds
    boxes = [shapely.box(west + 100 * n, south, west + 100 * (n + 1), north) for n in range(8)]
    fields = {field: np.array(values, object)}
    if percent is not None:
        text = any(isinstance(value, str) for value in percent)
        fields["percent"] = np.array(percent, object if text else None)
    pyogrio.raw.write(
        file, shapely.to_wkb(np.array(boxes[: len(values)], object)), list(fields.values()),
        list(fields), crs="EPSG:32632", geometry_type="Polygon",
    )  # fmt: skip
    return file


def test_the_miniature_reads_as_it_was_drawn(tmp_path: Path, parcels: np.ndarray) -> None:
    types, species = (parcels % 5).astype(np.uint8), (parcels % 12).astype(np.uint8)
    planted = (types > 0) & (species > 0)
    file = write_gfw(tmp_path, GRID, parcels, types, species)
    assert not file.with_suffix(".cpg").exists()
    # Of the mosaics, medium-sized ones are planted to 60, small-sized ones to 30 percent.
    for by, minimum, drawn in (
        ("type", None, types),
        ("type", 50, np.where(types == 3, IGNORE, types)),
        ("species", None, np.where(types == 3, IGNORE, species)),
        ("species", 0, species),
    ):
        labels = plantations(file, by, minimum_percent=minimum)
        np.testing.assert_array_equal(labels.read(GRID), np.where(planted, drawn, 0))


def test_countries_of_a_geodatabase(tmp_path: Path, parcels: np.ndarray) -> None:
    species = (parcels % 12).astype(np.uint8)
    east = GRID.window(0, 100, 60, 84)
    write_sdpt(tmp_path, GRID, parcels, species, "CMR")
    file = write_sdpt(tmp_path, east, parcels, species, "GAB")
    both, one = plantations(file), plantations(file, layer="cmr_plant_v2")
    for grid, labels, expected in ((GRID, both, species), (GRID, one, species), (east, one, None)):
        truth = np.zeros_like(species) if expected is None else expected
        np.testing.assert_array_equal(labels.read(grid), truth)
    np.testing.assert_array_equal(both.read(east), species)
    with pytest.raises(DataError, match=r"no polygon of .*sdpt_v2\.gdb lies on east\.tif"):
        one.require_overlap(east, Path("east.tif"))


@pytest.mark.parametrize("field", FIELDS["species"])
def test_spellings(tmp_path: Path, field: str) -> None:
    names = ["Oil palm ", "OIL PALM", "gr-Wood fiber / Timber ", "Oil Palm Mix", "Unknown", "n/a"]
    labels = plantations(_write(tmp_path / "p.gpkg", field, names))
    row = labels.read(GRID)[0]
    assert list(row[5:60:10]) == [1, 1, 2, 3, IGNORE, IGNORE]
    assert (row[60:] == 0).all()
    assert [CLASSES["species"][i].name for i in (1, 2, 3)] == [
        "Oil palm", "Wood fiber/timber", "Oil palm mix",
    ]  # fmt: skip


def test_percent(tmp_path: Path) -> None:
    percent = [100, 60, 59.5, float("nan")]
    file = _write(tmp_path / "p.gpkg", "Type_text", ["Large industrial plantation"] * 4, percent)
    row = plantations(file, "type", minimum_percent=60).read(GRID)[0]
    assert list(row[5:50:10]) == [1, 1, IGNORE, 1, 0]


def test_what_is_mostly_not_planted_teaches_no_species(tmp_path: Path) -> None:
    percent = [100, 50, 49.5, float("nan")]
    file = _write(tmp_path / "p.gpkg", "Spec_1", ["Oil palm"] * 4, percent)
    assert list(plantations(file).read(GRID)[0][5:50:10]) == [1, 1, IGNORE, 1, 0]


@pytest.mark.parametrize("missing", [0, -9999, float("nan")])
def test_a_missing_percent_is_no_small_one(tmp_path: Path, missing: float) -> None:
    """Shapefiles have a number in its place."""
    percent = [100, 40, missing]
    file = _write(tmp_path / "p.gpkg", "Spec_1", ["Oil palm"] * 3, percent)
    assert list(plantations(file).read(GRID)[0][5:40:10]) == [1, IGNORE, 1, 0]
    alone = _write(tmp_path / "alone.gpkg", "Spec_1", ["Oil palm"], [missing])
    assert list(plantations(alone).read(GRID)[0][5:20:10]) == [1, 0]


def test_shares_are_no_percent(tmp_path: Path) -> None:
    file = _write(tmp_path / "p.gpkg", "Spec_1", ["Oil palm"] * 4, [1, 0.5, 0.25, 0])
    with pytest.raises(DataError, match=r"p\.gpkg holds in percent 0\.25 to 1, expected are 0 to "):
        plantations(file)
    assert list(plantations(file, minimum_percent=0).read(GRID)[0][5:50:10]) == [1, 1, 1, 1, 0]


def test_percent_in_words(tmp_path: Path) -> None:
    file = _write(tmp_path / "p.gpkg", "Spec_1", ["Oil palm"] * 3, ["100", "40%", "unknown"])
    with pytest.raises(DataError, match=r"no number: .*'40%'; mend it, or give minimum_percent=0"):
        plantations(file)
    assert list(plantations(file, minimum_percent=0).read(GRID)[0][5:40:10]) == [1, 1, 1, 0]


def test_what_is_unknown(tmp_path: Path) -> None:
    file = _write(tmp_path / "p.gpkg", "spec_simp", ["Oil palm", "Tea"])
    with pytest.raises(DataError, match=r"p\.gpkg holds in spec_simp the unknown 'tea'; known: "):
        plantations(file)
    assert plantations(file, aliases={"Tea": "Other"}).read(GRID)[0, 15] == 5
    with pytest.raises(DataError, match=r"maps 'Tea' to 'Shrub', allowed: no plantation, Oil palm"):
        plantations(file, aliases={"Tea": "Shrub"})
    with pytest.raises(DataError, match=r"no field type_text; it has spec_simp"):
        plantations(file, "type")
    with pytest.raises(DataError, match=r"no field percent"):
        plantations(file, minimum_percent=50)
    with pytest.raises(DataError, match=r"labelled by 'crop', allowed: type, species"):
        plantations(file, "crop")


def test_a_scene_without_plantations(tmp_path: Path) -> None:
    """Refused, unless it is said to be one; of another place it is refused all the same."""
    imagery, labels = tmp_path / "imagery", tmp_path / "labels"
    imagery.mkdir()
    labels.mkdir()
    write_image(imagery / "S2_20160115.tif", GRID)
    west, south, _, north = GRID.bounds
    far = [shapely.box(west - 900, south - 900, west - 500, south - 500),
           shapely.box(west + 2000, north + 500, west + 2500, north + 900)]  # fmt: skip
    pyogrio.raw.write(
        labels / "p.gpkg", shapely.to_wkb(np.array(far, object)),
        [np.array(["Oil palm", "Rubber"], object)], ["spec_simp"], crs="EPSG:32632",
        geometry_type="Polygon",
    )  # fmt: skip
    told = r"no polygon of .*p\.gpkg lies on .*; or, .* give data\.options\.unplanted=true"
    with pytest.raises(DataError, match=told):
        build("plantations", tmp_path, (12, 12))
    data = build("plantations", tmp_path, (12, 12), unplanted=True)
    image, target = data.read("train", 0)
    assert (target == 0).all() and (image > 0).all()
    with pytest.raises(DataError, match="unplanted is 'yes', allowed: true or false"):
        build("plantations", tmp_path, (12, 12), unplanted="yes")
    write_image(imagery / "S2_20160115.tif", GRID.window(2000, 0, 60, 84))
    with pytest.raises(DataError, match=r"no polygon of .*one region$"):
        build("plantations", tmp_path, (12, 12), unplanted=True)


def write_image(path: Path, grid: Grid) -> None:
    names = ("B2", "B3", "B4", "B8")
    with rasterio.open(
        path, "w", height=grid.height, width=grid.width, count=len(names), dtype="uint16",
        crs=grid.crs, transform=grid.transform,
    ) as file:  # fmt: skip
        file.write(np.full((len(names), grid.height, grid.width), 1000, np.uint16))
        file.descriptions = names


def test_colours_differ() -> None:
    for classes in CLASSES.values():
        assert len({c.color for c in classes}) == len({c.name for c in classes}) == len(classes)
