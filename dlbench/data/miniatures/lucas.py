"""A LUCAS survey of a miniature landscape, points, and polygons of the Copernicus module; with
zipped SAFE products of its year, a data set.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np
import shapely
from rasterio.warp import transform

from dlbench.data.grid import Grid
from dlbench.data.labels.lucas import ATTRIBUTE_FILE, MISSING_DEGREES, POLYGON_FILE
from dlbench.data.miniatures import parcels as landscapes
from dlbench.data.miniatures.outlines import outlines, to_degrees, write_vector
from dlbench.data.miniatures.sentinel2 import clouds, labelled_landscape, write_safe

VERSION = 1
"""Raised whenever the same arguments would give other pixels."""
DATES = (date(2018, 4, 21), date(2018, 6, 10), date(2018, 8, 4))
CODES = {
    "winter wheat": "B11", "winter barley": "B13", "maize": "B16", "sugar beet": "B22",
    "sunflower": "B31", "soya": "B33", "grassland": "E20", "forest": "C10", "road": "A22",
}  # fmt: skip
"""Of the covers of `parcels`; all but the last two are sown."""
SPACING = 10
"""Pixels between points, where the survey has 2 km."""
POINT_FILE = "EU_{year}_20200213.CSV"
POINT_FILE_2022 = "EU_LUCAS_2022.csv"
HEADER = (
    "POINT_ID", "NUTS0", "TH_LAT", "TH_LONG", "GPS_LAT", "GPS_EW", "GPS_LONG", "OBS_TYPE", "LC1",
    "LC1_PERC", "LU1",
)  # fmt: skip
RENAMED_2022 = {"POINT_ID": "POINT_ID", "TH_LAT": "POINT_LAT", "TH_LONG": "POINT_LONG"}
REACH = 51.0
"""Metres to which the Copernicus module looks north, east, south and west for another cover."""


def write_points(
    folder: Path,
    grid: Grid,
    classes: np.ndarray,
    codes: Sequence[str],
    year: int = 2018,
    spacing: int = 16,
    seed: int = 0,
) -> Path:
    """Write points of every ``spacing`` pixels of ``classes`` (height, width), indices of the
    LUCAS ``codes``, with the survey's quirks: blanks, case, missing covers and GPS positions,
    longitudes without a sign, covers that were read from a photograph and are wrong, and the line
    that ends the files of the earlier years.
    """
    rng = np.random.default_rng(seed)
    lines: list[list[object]] = []
    for number, (row, column) in enumerate(_places(classes.shape, spacing, rng)):
        point = np.array(grid.transform @ (column, row))
        longitude, latitude = _degrees(grid, point)
        # Where the surveyor stood.
        east, north = _degrees(grid, point + rng.normal(0, 8, 2))
        cover = codes[classes[int(row), int(column)]]
        cover = (cover, f"{cover} ", cover.lower())[number % 3]
        kind = "1"
        if number % 7 == 3:
            kind, cover = "7", codes[int(rng.integers(len(codes)))]
        elif number % 11 == 5:
            cover = ("8", "")[number % 2]
        gps: list[object] = [f"{north:.8f}", "E" if east >= 0 else "W", f"{abs(east):.8f}"]
        if number % 5 == 2:
            gps = [MISSING_DEGREES, "8", MISSING_DEGREES]
        share = "80" if year >= 2018 else "5"
        position = [f"{latitude:.9f}", f"{longitude:.9f}"]
        lines.append([_identity(number), "DE", *position, *gps, kind, cover, share, "U111"])
    header, name = list(HEADER), POINT_FILE.format(year=year)
    if year == 2022:
        header, name = [RENAMED_2022.get(h, f"SURVEY_{h}") for h in HEADER], POINT_FILE_2022
        sign = header.index("SURVEY_GPS_EW")
        for line in lines:
            west = line.pop(sign) == "W"
            line[sign] = f"-{line[sign]}" if west else line[sign]
        header.pop(sign)
    if year == 2009:
        header.insert(header.index("TH_LONG") + 1, "TH_EW")
        place = header.index("TH_LONG")
        for line in lines:
            degrees = str(line[place])
            line[place] = degrees.removeprefix("-")
            line.insert(place + 1, "W" if degrees.startswith("-") else "E")
    if year < 2018:
        lines.append([f"{len(lines)} rows selected. "])
    return _write_csv(Path(folder) / name, header, lines)


def write_polygons(
    folder: Path,
    grid: Grid,
    parcels: np.ndarray,
    classes: np.ndarray,
    codes: Sequence[str],
    spacing: int = 16,
    seed: int = 0,
) -> Path:
    """Write polygons of the Copernicus module about such points: what of the `REACH` about a point
    lies in its parcel, of ``parcels`` (height, width) int, 0 being none.
    """
    rng = np.random.default_rng(seed)
    shapes, numbers = outlines(parcels, grid)
    found: list[shapely.Geometry] = []
    lines: list[list[object]] = []
    for number, (row, column) in enumerate(_places(classes.shape, spacing, rng)):
        point = shapely.Point(grid.transform @ (column, row))
        parcel = parcels[int(row), int(column)]
        around = next((s for s in shapes[numbers == parcel] if s.intersects(point)), None)
        if around is None:
            continue
        diamond = point.buffer(REACH, quad_segs=1)
        parts = shapely.get_parts(shapely.intersection(diamond, around))
        found.append(next(part for part in parts if part.intersects(point)))
        cover = codes[classes[int(row), int(column)]]
        # Now and then the cover of the point is not that of the land about it.
        own = "A22" if number % 9 == 4 else cover
        lines.append([_identity(number), own, cover[:2], "True"])
    identities = np.array([line[0] for line in lines], np.int64)
    file = Path(folder) / POLYGON_FILE
    write_vector(file, to_degrees(np.array(found, object), grid), {"POINT_ID": identities})
    header = ["POINT_ID", "LC1", "CPRN_LC", "COPERNICUS_CLEANED"]
    _write_csv(Path(folder) / ATTRIBUTE_FILE, header, lines)
    return file


def _places(
    shape: tuple[int, ...], spacing: int, rng: np.random.Generator
) -> list[tuple[float, float]]:
    """Row and column of points somewhere in a pixel, one for each square of ``spacing``."""
    return [
        (row + rng.uniform(0.05, 0.95), column + rng.uniform(0.05, 0.95))
        for row in range(spacing // 2, shape[0], spacing)
        for column in range(spacing // 2, shape[1], spacing)
    ]


def _degrees(grid: Grid, point: np.ndarray) -> tuple[float, float]:
    (longitude,), (latitude,) = transform(grid.crs, "EPSG:4326", [point[0]], [point[1]])[:2]
    return longitude, latitude


def _identity(number: int) -> int:
    return 40_000_000 + number


def _write_csv(file: Path, header: list[str], lines: list[list[object]]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as text:
        csv.writer(text).writerows([header, *lines])
    return file


def make(folder: Path, seed: int = 0, size: int = 360) -> Path:
    """Write three zipped products and the survey of their year to a new ``folder``, whole or not at
    all."""
    start = labelled_landscape(folder, seed, VERSION, list(CODES)[:-2], size)
    with start as (imagery, labels, parcel, cover, grid):
        for number, day, ground in landscapes.overpasses(cover, parcel, DATES, seed):
            product = write_safe(imagery, day, ground, clouds(seed, number, size))
            shutil.make_archive(str(product.with_suffix("")), "zip", imagery, product.name)
            shutil.rmtree(product)
        numbers = {name: number for number, name in enumerate(CODES)}
        classes, codes = landscapes.numbered(cover, numbers), list(CODES.values())
        write_points(labels, grid, classes, codes, DATES[0].year, SPACING, seed)
        write_polygons(labels, grid, parcel, classes, codes, SPACING, seed)
    return Path(folder)
