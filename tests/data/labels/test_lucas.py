from __future__ import annotations

import csv
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform

from dlbench.data import IGNORE, DataError
from dlbench.data.grid import Grid
from dlbench.data.labels.lucas import ATTRIBUTE_FILE, YEARS, classes, lucas
from dlbench.data.miniatures.lucas import write_points, write_polygons

GRID = Grid(CRS.from_epsg(32630), Affine(10, 0, 400_000, 0, -10, 4_500_000), 96, 112)
"""In Spain, west of Greenwich."""
CODES = ("B11", "B16", "E20", "C10", "G11", "A22")

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture
def parcels() -> np.ndarray:
    return np.kron(np.arange(1, 169).reshape(12, 14), np.ones((8, 8), int))


@pytest.fixture
def drawn(parcels: np.ndarray) -> np.ndarray:
    return (parcels % 6).astype(np.uint8)


def _codes(level: int) -> np.ndarray:
    """Code of each class index."""
    return np.array([np.base_repr(c.code, 36) for c in classes(level)])


def _degrees(row: float, column: float) -> tuple[float, float]:
    x, y = GRID.transform @ (column, row)
    (longitude,), (latitude,) = transform(GRID.crs, "EPSG:4326", [x], [y])[:2]
    return longitude, latitude


def _survey(folder: Path, *rows: dict[str, Any], name: str = "EU_2018_20200213.CSV") -> Path:
    """Points in the middle of pixels (row, column); the rest as the survey has it."""
    lines = []
    for number, row in enumerate(rows):
        place = row.pop("place", (40.5, 50.5))
        longitude, latitude = _degrees(*place)
        line = {"POINT_ID": number, "TH_LAT": latitude, "TH_LONG": longitude, "GPS_LAT": latitude,
                "GPS_EW": "W", "GPS_LONG": -longitude, "OBS_TYPE": "1", "LC1": "B11"}  # fmt: skip
        lines.append(line | row)
    if "harmo" in name:
        lines = [{key.lower(): value for key, value in line.items()} for line in lines]
    with (folder / name).open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return folder


def test_class_levels() -> None:
    assert [c.name for c in classes(1)] == [
        "artificial land", "cropland", "woodland", "shrubland", "grassland",
        "bare land and lichens or moss", "water", "wetland",
    ]  # fmt: skip
    names = {code: c.name for k in (1, 2, 3) for code, c in zip(_codes(k), classes(k), strict=True)}
    assert (names["B1"], names["B11"], names["B82"]) == ("cereals", "common wheat", "vineyards")
    for level in (2, 3):
        codes = _codes(level)
        assert {len(code) for code in codes} == {level}
        assert {code[:-1] for code in codes} == set(_codes(level - 1))
        assert len(set(codes)) == len({c.color for c in classes(level)}) == len(codes) < IGNORE
    with pytest.raises(DataError, match="levels 1, 2 and 3, not 4"):
        classes(4)


@pytest.mark.parametrize("year", YEARS)
@pytest.mark.parametrize("level", [1, 2, 3])
def test_points_of_every_year(tmp_path: Path, drawn: np.ndarray, year: int, level: int) -> None:
    write_points(tmp_path, GRID, drawn, CODES, year)
    labels = lucas(tmp_path, year, level)
    target = labels.read(GRID)
    known = target != IGNORE
    # Of 42 points, six are interpreted, and of every eleven one has no cover.
    assert known.sum() == 42 - 6 - 3
    truth = np.array([code[:level] for code in CODES])[drawn]
    np.testing.assert_array_equal(_codes(level)[target[known]], truth[known])
    labels.require_overlap(GRID, Path("image.tif"))
    # Some 8 m from there, a pixel; every fifth point has no such position.
    stood = lucas(tmp_path, year, level, coordinates="gps").read(GRID)
    assert 20 <= (stood != IGNORE).sum() <= known.sum()


def test_a_point_without_a_number_is_left_out(tmp_path: Path) -> None:
    file = _survey(tmp_path, {}, {"place": (5.5, 5.5), "POINT_ID": " "}) / "EU_2018_20200213.CSV"
    assert np.argwhere(lucas(tmp_path).read(GRID) != IGNORE).tolist() == [[40, 50]]
    with file.open("a") as text:
        text.write("2 rows selected. \nPOINT_ID\n")
    with pytest.raises(DataError, match="has 1 cells in row 4"):
        lucas(tmp_path)


def test_polygons_are_preferred(tmp_path: Path, parcels: np.ndarray, drawn: np.ndarray) -> None:
    write_points(tmp_path, GRID, drawn, CODES)
    write_polygons(tmp_path, GRID, parcels, drawn, CODES)
    points = lucas(tmp_path, geometry="points").read(GRID)
    for level, part in ((1, "letter"), (2, "group"), (3, "kind")):
        target = lucas(tmp_path, level=level).read(GRID)
        known = target != IGNORE
        assert known.sum() > 10 * (points != IGNORE).sum(), part
        wanted = np.array([code[:level] for code in CODES])[drawn][known]
        np.testing.assert_array_equal(_codes(level)[target[known]], wanted)
    # A point whose cover is not that of its polygon says nothing of level 3.
    fine = (lucas(tmp_path, level=3).read(GRID) != IGNORE).sum()
    assert fine < (lucas(tmp_path, level=2).read(GRID) != IGNORE).sum()
    (tmp_path / ATTRIBUTE_FILE).write_text("POINT_ID,LC1\n7,B11\n")
    with pytest.raises(DataError, match=r"no POINT_ID of .*\.shp is in .*attributes\.csv"):
        lucas(tmp_path)


@pytest.mark.parametrize("radius", [0.0, 4.0, 15.0, 47.0])
def test_a_disc_holds_the_centres_within_its_radius(tmp_path: Path, radius: float) -> None:
    places = [(40.3, 50.9), (40.9, 53.2), (0.2, 0.1), (90.0, 111.5), (-2.5, 60.5)]
    covers = ["B11", "C10", "E20", "G11", "A22"]
    rows = [{"place": p, "LC1": c} for p, c in zip(places, covers, strict=True)]
    target = lucas(_survey(tmp_path, *rows), radius=radius).read(GRID)
    truth = np.full((96, 112), "", object)
    for row in range(96):
        for column in range(112):
            distances = [
                0.0 if (math.floor(r), math.floor(c)) == (row, column)
                else 10 * math.hypot(row + 0.5 - r, column + 0.5 - c)
                for r, c in places
            ]  # fmt: skip
            nearest = int(np.argmin(distances))
            if distances[nearest] <= radius:
                truth[row, column] = covers[nearest][0]
    known = truth != ""
    np.testing.assert_array_equal(target != IGNORE, known)
    np.testing.assert_array_equal(_codes(1)[target[known]], truth[known])


def test_a_disc_on_a_grid_of_degrees(tmp_path: Path) -> None:
    longitude, latitude = _degrees(40.5, 50.5)
    step = 0.0001
    grid = Grid(
        CRS.from_epsg(4326),
        Affine(step, 0, longitude - 20.5 * step, 0, -step, latitude + 20.5 * step), 41, 41,
    )  # fmt: skip
    known = lucas(_survey(tmp_path, {}), radius=100).read(grid) != IGNORE
    # 100 m are 9 pixels of 11.1 m along the meridian, 8.5 m across it at 40.6 north.
    across = 100 / (step * 111_320 * math.cos(math.radians(latitude)))
    assert known[:, 20].sum() == 2 * math.floor(100 / (step * 111_320)) + 1
    assert known[20].sum() == 2 * math.floor(across) + 1


def test_covers_are_cleaned_and_observations_filtered(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"LC1": "b11 "}, {"LC1": " B12"}, {"LC1": ""}, {"LC1": "8"}, {"LC1": "B1X"},
        {"LC1": "BX1"}, {"OBS_TYPE": "7"}, {"OBS_TYPE": "2"}, {"OBS_TYPE": "3"},
        {"TH_LAT": 4774000.0, "TH_LONG": 1530000.0},
    ]  # fmt: skip
    places = [(5.5, 5.5 + 10 * n) for n in range(len(rows))]
    _survey(tmp_path, *[{"place": p, **r} for p, r in zip(places, rows, strict=True)])

    def found(level: int, **options: Any) -> list[str]:
        row = lucas(tmp_path, level=level, **options).read(GRID)[5, 5::10]
        names = [*_codes(level), *[""] * 200]
        return [names[k] if k != IGNORE else "" for k in row[: len(rows)]]

    assert found(1) == ["B", "B", "", "", "B", "B", "", "B", "", ""]
    assert found(2) == ["B1", "B1", "", "", "B1", "", "", "B1", "", ""]
    assert found(3) == ["B11", "B12", "", "", "", "", "", "B11", "", ""]
    assert found(1, observed=["7"]) == ["", "", "", "", "", "", "B", "", "", ""]


def test_the_harmonised_release(tmp_path: Path) -> None:
    words = ["In situ < 100 m", "In situ > 100 m", "In situ PI", "In office PI"]
    rows = [{"place": (5.5, 5.5 + 10 * n), "OBS_TYPE": w} for n, w in enumerate(words)]
    _survey(tmp_path, *rows, name="lucas_harmo_uf_2015.csv")
    row = lucas(tmp_path, 2015).read(GRID)[5, 5:45:10]
    assert list(row != IGNORE) == [True, True, False, False]


def test_where_the_surveyor_stood(tmp_path: Path) -> None:
    longitude, latitude = _degrees(60.5, 70.5)
    assert longitude < 0
    missing = {"GPS_LAT": 88.888888, "GPS_EW": "8", "GPS_LONG": 88.888888, "place": (5.5, 5.5)}
    for sign, value in (("W", -longitude), ("West", longitude), ("2", -longitude)):
        _survey(tmp_path, {"GPS_LAT": latitude, "GPS_EW": sign, "GPS_LONG": value}, dict(missing))
        stood = lucas(tmp_path, coordinates="gps").read(GRID)
        assert np.argwhere(stood != IGNORE).tolist() == [[60, 70]]
        point = lucas(tmp_path).read(GRID)
        assert np.argwhere(point != IGNORE).tolist() == [[5, 5], [40, 50]]
    _survey(tmp_path, missing)
    with pytest.raises(DataError, match=r"no usable point: of 1, 0 have gps coordinates"):
        lucas(tmp_path, coordinates="gps")


def test_broken_surveys(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the folder of LUCAS, .*absent, does not exist"):
        lucas(tmp_path / "absent")
    with pytest.raises(DataError, match=r"EU_2018_\*\.csv or .*; it holds none; add it, or choose"):
        lucas(tmp_path)
    with pytest.raises(DataError, match="no LUCAS survey of 2019; years: 2009, 2012"):
        lucas(tmp_path, 2019)
    file = _survey(tmp_path, {"LC1": "Q11"}) / "EU_2018_20200213.CSV"
    with pytest.raises(DataError, match=r"EU_2018.*CSV holds in the land cover the unknown 'Q'"):
        lucas(tmp_path)
    _survey(tmp_path, {})
    with pytest.raises(DataError, match=r"geometry 'lines', allowed: points, polygons"):
        lucas(tmp_path, geometry="lines")
    with pytest.raises(DataError, match=r"LUCAS_2018_Copernicus_polygons\.shp does not exist"):
        lucas(tmp_path, geometry="polygons")
    with pytest.raises(DataError, match=r"observed holds \['9'\], allowed: 1 \(in situ < 100 m\)"):
        lucas(tmp_path, observed=["9"])
    with pytest.raises(DataError, match=r"radius is -1 m, allowed: 0 to 1000"):
        lucas(tmp_path, radius=-1)
    text = file.read_text("utf-8-sig")
    file.write_text(text.strip()[:-4])
    with pytest.raises(DataError, match=r"has 7 cells in row 2, its header 8; it is damaged"):
        lucas(tmp_path)
    file.write_text(text.replace("TH_LAT", "LATITUDE"))
    with pytest.raises(DataError, match=r"no field TH_LAT or POINT_LAT; it has POINT_ID, LATITUDE"):
        lucas(tmp_path)
    file.write_bytes(b"")
    with pytest.raises(DataError, match=r"cannot read .*EU_2018"):
        lucas(tmp_path)


def test_a_survey_is_not_held_whole(tmp_path: Path) -> None:
    """Of the 97 columns of a year a few are needed: less is held at once than the file has bytes,
    where all of its cells as texts take several times that."""
    others = {f"SURVEY_{n}": f"{n:012d}" for n in range(89)}
    places = [(0.5 + n // 112, 0.5 + n % 112) for n in range(4000)]
    rows = [{"place": p, "LC1": CODES[n % 6], **others} for n, p in enumerate(places)]
    file = _survey(tmp_path, *rows) / "EU_2018_20200213.CSV"
    tracemalloc.start()
    labels = lucas(tmp_path, level=3)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < file.stat().st_size
    found = _codes(3)[labels.read(GRID).ravel()[: len(places)]]
    np.testing.assert_array_equal(found, np.resize(np.array(CODES), len(places)))


def test_points_beside_the_image(tmp_path: Path) -> None:
    labels = lucas(_survey(tmp_path, {"place": (-0.5, 50.5)}))
    with pytest.raises(DataError, match=r"no point of .*CSV lies on image\.tif"):
        labels.require_overlap(GRID, Path("image.tif"))
