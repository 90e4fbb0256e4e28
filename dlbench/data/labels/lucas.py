"""LUCAS, the European Union's land use and cover survey in the field, as labels.

Points of 2009 to 2022 as Eurostat publishes them, of the harmonised release (d'Andrimont et al.,
Scientific Data 2020), and the polygons of the Copernicus module of 2018 (d'Andrimont et al., Earth
System Science Data 2021).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from rasterio.crs import CRS

from dlbench.data.dataset import IGNORE, ClassInfo, DataError
from dlbench.data.grid import Grid
from dlbench.data.labels.points import Points
from dlbench.data.labels.polygons import Polygons, class_indices, find_field, held_as, read_features

YEARS = (2009, 2012, 2015, 2018, 2022)
POINT_FILES = ("EU_{year}_*.csv", "EU_LUCAS_{year}*.csv", "lucas_harmo_uf_{year}.csv")
"""In any case: the survey's are upper case, the harmonised release is lower."""
POLYGON_FILE = "LUCAS_2018_Copernicus_polygons.shp"
ATTRIBUTE_FILE = "LUCAS_2018_Copernicus_attributes.csv"
POLYGON_YEAR = 2018
# 2022 renamed all; matched in any case.
FIELDS: dict[str, tuple[str, ...]] = {
    "point": ("POINT_ID",),
    "land cover": ("LC1", "SURVEY_LC1"),
    "observation": ("OBS_TYPE", "SURVEY_OBS_TYPE"),
}
COORDINATES: dict[str, dict[str, tuple[str, ...]]] = {
    "theoretical": {"latitude": ("TH_LAT", "POINT_LAT"), "longitude": ("TH_LONG", "POINT_LONG")},
    "gps": {
        "latitude": ("GPS_LAT", "SURVEY_GPS_LAT"),
        "longitude": ("GPS_LONG", "SURVEY_GPS_LONG"),
    },
}
EAST_OR_WEST = {"theoretical": "TH_EW", "gps": "GPS_EW"}
"""Where a longitude's sign stands: of the theoretical ones in 2009 alone, of the others in all
years but 2022."""
SPOOLED = re.compile(r"[\d.,\s]+rows selected\.?\s*", re.IGNORECASE)
"""The last cell of some of Eurostat's files, which end in "234,623 rows selected. "."""
MISSING_DEGREES = 88.888888
SIGN_OF_EAST_WEST = {"E": 1, "EAST": 1, "1": 1, "W": -1, "WEST": -1, "2": -1}
"""Of the longitude, whose number has none; 8 is missing."""
OBSERVATIONS = {
    "1": "in situ < 100 m",
    "2": "in situ > 100 m",
    "3": "in situ PI",
    "4": "in situ PI not possible",
    "5": "out of national territory",
    "6": "out of EU",
    "7": "in office PI",
    "8": "marine sea",
}
"""The survey's codes, and the harmonised release's words; PI is photo-interpretation."""
IN_SITU = ("1", "2")
MISSING_COVER = ("", "8")
WGS84 = CRS.from_epsg(4326)


def classes(level: int) -> tuple[ClassInfo, ...]:
    """Letters (1: 8 classes), groups such as B1 cereals (2), or kinds such as B11 wheat (3).

    The code of a class is that of LUCAS read in base 36. Raises `DataError` for another level.
    """
    return tuple(
        ClassInfo(name, _rgb(color), int(code, base=36)) for code, name, color in _table(level)
    )


def lucas(
    folder: Path,
    year: int = 2018,
    level: int = 1,
    geometry: str | None = None,
    coordinates: str = "theoretical",
    radius: float = 0.0,
    observed: Sequence[str] = IN_SITU,
    grid: Grid | None = None,
) -> Polygons | Points:
    """Labels of a folder: its ``geometry`` "polygons", or "points" where it has none.

    Polygons are of one cover throughout and are to be preferred: a point lies at the edge of a
    field as often as in it. It is observed in a circle of 1.5 m radius, so that by default only
    the pixel of the image that holds it is labelled; a ``radius`` in metres labels those about it
    as well, which suits homogeneous land only. ``coordinates`` are those "theoretical", of the
    point whose cover was recorded, or those of "gps", where the surveyor stood. Points ``observed``
    otherwise, covers that are missing and 'X', which marks what an interpreter could not tell, are
    left out. Raises `DataError`.
    """
    folder = Path(folder)
    if geometry is None:
        held = year == POLYGON_YEAR and (folder / POLYGON_FILE).exists()
        geometry = "polygons" if held else "points"
    if geometry == "polygons" and year == POLYGON_YEAR:
        return _polygons(folder, level, grid)
    if geometry != "points":
        allowed = "points" + (", polygons" if year == POLYGON_YEAR else "")
        raise DataError(f"LUCAS {year} has no geometry '{geometry}', allowed: {allowed}")
    return _points(_point_file(folder, year), year, level, coordinates, radius, observed)


def _points(
    file: Path, year: int, level: int, coordinates: str, radius: float, observed: Sequence[str]
) -> Points:
    if coordinates not in COORDINATES:
        raise DataError(f"coordinates is '{coordinates}', allowed: {', '.join(COORDINATES)}")
    if not set(observed) <= set(OBSERVATIONS):
        known = ", ".join(f"{code} ({what})" for code, what in OBSERVATIONS.items())
        raise DataError(f"observed holds {list(observed)}, allowed: {known}")
    if not 0 <= radius < 1000:
        raise DataError(f"radius is {radius} m, allowed: 0 to 1000, half way to the next point")
    wanted = FIELDS | COORDINATES[coordinates]
    sign: dict[str, tuple[str, ...]] = {"east or west": (EAST_OR_WEST[coordinates],)}
    needs_sign = coordinates == "gps" and year < 2022
    table = _read_table(file, wanted | sign) if needs_sign else _read_table(file, wanted, sign)
    accepted = {*observed, *(OBSERVATIONS[code].casefold() for code in observed)}
    indices = _indices(table["land cover"], level, file)
    latitude, longitude = _degrees(table["latitude"], file), _degrees(table["longitude"], file)
    if "east or west" in table:
        signs = [SIGN_OF_EAST_WEST.get(t.strip().upper(), np.nan) for t in table["east or west"]]
        longitude = np.abs(longitude) * np.array(signs)
    # Rows of the harmonised release hold metres of another CRS in place of degrees.
    placed = (np.abs(latitude) <= 90) & (np.abs(longitude) <= 180)
    seen = np.array(
        [" ".join(t.casefold().split()) in accepted for t in table["observation"]], bool
    )
    used = placed & seen & (indices != IGNORE)
    if not used.any():
        raise DataError(
            f"{file} has no usable point: of {len(used)}, {placed.sum()} have {coordinates} "
            f"coordinates, {seen.sum()} are observed as {', '.join(observed)}, "
            f"{(indices != IGNORE).sum()} have a land cover of level {level}"
        )
    return Points(longitude[used], latitude[used], indices[used], WGS84, file, radius)


def _polygons(folder: Path, level: int, grid: Grid | None) -> Polygons:
    file, attributes = folder / POLYGON_FILE, folder / ATTRIBUTE_FILE
    features = read_features(file, {"point": FIELDS["point"]}, grid=grid)
    optional = {"cover": ("CPRN_LC",), "cleaned": ("COPERNICUS_CLEANED",)}
    table = _read_table(attributes, {n: FIELDS[n] for n in ("point", "land cover")}, optional)
    covers = table["land cover"]
    if "cover" in table:
        # The cover of the polygon is of level 2; that of its point refines it where both agree.
        covers = [
            _clean(point) if _clean(point)[:2] == _clean(whole) else _clean(whole)
            for point, whole in zip(covers, table["cover"], strict=True)
        ]
    if "cleaned" in table:
        flags = (flag.strip().casefold() in ("true", "1", "t") for flag in table["cleaned"])
        covers = [c if good else "" for c, good in zip(covers, flags, strict=True)]
    cover_of_point = dict(zip(map(_identity, table["point"]), covers, strict=True))
    points = [_identity(str(point)) for point in features.fields["point"]]
    if points and not any(point in cover_of_point for point in points):
        raise DataError(
            f"no POINT_ID of {file} is in {attributes} (such as {points[0]}); take both from one "
            "release"
        )
    found = [cover_of_point.get(point, "") for point in points]
    return Polygons(features, _indices(found, level, attributes))


def _point_file(folder: Path, year: int) -> Path:
    if year not in YEARS:
        raise DataError(f"there is no LUCAS survey of {year}; years: {', '.join(map(str, YEARS))}")
    if not folder.is_dir():
        raise DataError(f"the folder of LUCAS, {folder}, does not exist")
    names = [name.format(year=year) for name in POINT_FILES]
    files = sorted(
        path for path in folder.iterdir() if any(_matches(path.name, name) for name in names)
    )
    if len(files) != 1:
        found = ", ".join(path.name for path in files) or "none"
        remedy = "keep one of them" if files else "add it, or choose another year"
        raise DataError(
            f"{folder} must hold one survey of {year}, {' or '.join(names)}; it holds {found}; "
            f"{remedy}"
        )
    return files[0]


def _matches(name: str, pattern: str) -> bool:
    return re.fullmatch(pattern.casefold().replace("*", ".*"), name.casefold()) is not None


def _read_table(
    file: Path,
    wanted: Mapping[str, Sequence[str]],
    optional: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, list[str]]:
    """Columns of a CSV by names of ours. Raises `DataError` for a damaged file."""
    rows = _rows(file)
    header = next(rows, None)
    if header is None:
        raise DataError(f"cannot read {file}: it is empty; fetch it again")
    columns = {name: find_field(file, header, variants) for name, variants in wanted.items()}
    for name, variants in (optional or {}).items():
        if field := held_as(header, variants):
            columns[name] = field
    places = {name: header.index(column) for name, column in columns.items()}
    # A survey of 2018 has 97 columns and 338,000 rows: as texts, 2 GB.
    cells: dict[str, list[str]] = {name: [] for name in places}
    for number, row in enumerate(rows, 2):
        if SPOOLED.fullmatch(row[-1]) and next(rows, None) is None:
            break
        if len(row) != len(header):
            raise DataError(
                f"{file} has {len(row)} cells in row {number}, its header {len(header)}; it is "
                "damaged or incomplete, fetch it again"
            )
        if row[places["point"]].strip():  # 2015 has some that are empty
            for name, place in places.items():
                cells[name].append(row[place])
    return cells


def _rows(file: Path) -> Iterator[list[str]]:
    """The rows of a CSV that hold anything. Raises `DataError` for what is no text."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace", newline="") as text:
            yield from filter(None, csv.reader(text))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read {file}: {error}; fetch it again") from error


def _indices(covers: Sequence[str], level: int, file: Path) -> np.ndarray:
    known = {code: i for i, (code, _, _) in enumerate(_table(level))}
    cut = [_clean(cover)[:level] for cover in covers]
    told = [
        None if _clean(cover) in MISSING_COVER or len(code) < level or "X" in code else code
        for cover, code in zip(covers, cut, strict=True)
    ]
    return class_indices(told, known, file, "the land cover")


def _table(level: int) -> list[tuple[str, str, str]]:
    if level not in (1, 2, 3):
        raise DataError(f"LUCAS has the class levels 1, 2 and 3, not {level}")
    table = resources.files("dlbench.data.labels") / "tables" / "lucas.csv"
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [(r["code"], r["name"], r["color"]) for r in rows if len(r["code"]) == level]


def _clean(cover: str) -> str:
    return cover.strip().upper()


def _identity(point: str) -> str:
    """Numbers may have come through a float column."""
    return point.strip().removesuffix(".0")


def _degrees(texts: Sequence[str], file: Path) -> np.ndarray:
    try:
        degrees = np.array([float(t) if t.strip() else np.nan for t in texts])
    except ValueError as error:
        raise DataError(f"{file} holds a coordinate that is no number: {error}") from error
    return np.where(np.isclose(degrees, MISSING_DEGREES, atol=1e-5), np.nan, degrees)


def _rgb(color: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue
