"""Damage to shapes: GeoJSON, GeoPackage, shapefiles."""

from __future__ import annotations

import sqlite3
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from faults.mutations.any_file import HOSTILE, Mutation


def _layer(change: Callable[[dict[str, Any], np.random.Generator], None]) -> Mutation:
    """A vector file written anew."""
    drivers = {".shp": "ESRI Shapefile", ".gpkg": "GPKG", ".geojson": "GeoJSON"}

    def mutation(file: Path, rng: np.random.Generator) -> None:
        file = file.with_suffix(".shp") if file.suffix not in drivers else file
        meta, _, shapes, values = pyogrio.raw.read(file)
        layer = {
            "crs": meta["crs"], "kind": meta["geometry_type"], "shapes": shapely.from_wkb(shapes),
            "fields": dict(zip(meta["fields"], values, strict=True)),
        }  # fmt: skip
        change(layer, rng)
        if file.suffix != ".shp":
            file.unlink()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pyogrio.raw.write(
                file, shapely.to_wkb(layer["shapes"]), list(layer["fields"].values()),
                list(layer["fields"]), crs=layer["crs"], geometry_type=layer["kind"],
                driver=drivers[file.suffix],
            )  # fmt: skip
        if layer["crs"] is None and file.suffix == ".shp":
            file.with_suffix(".prj").unlink(missing_ok=True)

    return mutation


def _renamed_field(layer: dict[str, Any], rng: np.random.Generator) -> None:
    name = sorted(layer["fields"])[rng.integers(len(layer["fields"]))]
    layer["fields"] = {("other" if n == name else n): v for n, v in layer["fields"].items()}


def _unknown_value(layer: dict[str, Any], rng: np.random.Generator) -> None:
    name = sorted(layer["fields"])[rng.integers(len(layer["fields"]))]
    values = layer["fields"][name].copy()
    values[rng.integers(len(values))] = "Banana" if values.dtype == object else values.max() + 999
    layer["fields"][name] = values


def _other_kind(layer: dict[str, Any], rng: np.random.Generator) -> None:
    name = sorted(layer["fields"])[rng.integers(len(layer["fields"]))]
    size = len(layer["fields"][name])
    kinds = (np.zeros(size, bool), np.full(size, np.nan), np.zeros(size, "M8[D]"),
             np.arange(size, dtype=np.int32))  # fmt: skip
    layer["fields"][name] = kinds[rng.integers(len(kinds))]


def _shapes(change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Mutation:
    def changed(layer: dict[str, Any], rng: np.random.Generator) -> None:
        layer["shapes"] = change(layer["shapes"], rng)
        layer["kind"] = "Unknown" if layer["kind"] != "Polygon" else "Polygon"

    return _layer(changed)


def _points(layer: dict[str, Any], rng: np.random.Generator) -> None:
    layer["shapes"], layer["kind"] = shapely.centroid(layer["shapes"]), "Point"


VECTOR: dict[str, Mutation] = {
    "of no CRS": _layer(lambda layer, rng: layer.update(crs=None)),
    "of another CRS": _layer(lambda layer, rng: layer.update(crs="EPSG:32755")),
    "a local CRS": _layer(lambda layer, rng: layer.update(crs='LOCAL_CS["x",UNIT["metre",1]]')),
    "a field renamed": _layer(_renamed_field),
    "codes out of table": _layer(_unknown_value),
    "a field of another kind": _layer(_other_kind),
    "NaN": _shapes(lambda shapes, rng: shapely.transform(shapes, lambda xy: xy * np.nan)),
    "infinite": _shapes(lambda shapes, rng: shapely.transform(shapes, lambda xy: xy + np.inf)),
    "far away": _shapes(lambda shapes, rng: shapely.transform(shapes, lambda xy: xy + 1e6)),
    "collapsed": _shapes(lambda shapes, rng: shapely.transform(shapes, lambda xy: xy * 0)),
    "points": _layer(_points),
    "without shapes": _shapes(lambda shapes, rng: np.full(len(shapes), None, object)),
    "of no features": _layer(lambda layer, rng: layer.update(
        shapes=layer["shapes"][:0], fields={n: v[:0] for n, v in layer["fields"].items()})),
}  # fmt: skip


def sql(file: Path, rng: np.random.Generator) -> None:
    """A GeoPackage whose tables are at odds."""
    connection = sqlite3.connect(file)
    layer = connection.execute("SELECT table_name FROM gpkg_contents").fetchone()[0]
    statements = (
        "DROP TABLE gpkg_contents", "DROP TABLE gpkg_geometry_columns", f'DROP TABLE "{layer}"',
        "DROP TABLE gpkg_spatial_ref_sys", "UPDATE gpkg_geometry_columns SET srs_id = 77777",
        "UPDATE gpkg_geometry_columns SET column_name = 'fid'", f"DELETE FROM \"{layer}\"",
        "UPDATE gpkg_spatial_ref_sys SET definition = 'garbage'",
        f'UPDATE "{layer}" SET geom = X\'4750000100000000\'',
        f'UPDATE "{layer}" SET geom = randomblob(60)', f'UPDATE "{layer}" SET geom = \'text\'',
        "UPDATE gpkg_contents SET min_x = 'text', max_x = 9e999",
        "UPDATE gpkg_contents SET data_type = 'tiles'",
        f"DROP TABLE \"rtree_{layer}_geom\"",
    )  # fmt: skip
    connection.execute("PRAGMA writable_schema=1")
    try:
        connection.execute(statements[rng.integers(len(statements))])
        connection.commit()
    except sqlite3.Error:  # triggers may call functions of GDAL's own
        pass
    finally:
        connection.close()


def dbf(file: Path, rng: np.random.Generator) -> None:
    """A number in the header of a .dbf or .shp."""
    data = bytearray(file.read_bytes())
    places = ((4, "<I"), (8, "<H"), (10, "<H"), (28, "<H"), (48, "<B"))
    if file.suffix != ".dbf":
        places = ((0, ">I"), (24, ">I"), (28, "<I"), (32, "<I"), (104, ">I"))
    place, form = places[rng.integers(len(places))]
    if place + 4 <= len(data):
        value = HOSTILE[rng.integers(len(HOSTILE))] % 2 ** (8 * struct.calcsize(form))
        struct.pack_into(form, data, place, value)
    file.write_bytes(data)
