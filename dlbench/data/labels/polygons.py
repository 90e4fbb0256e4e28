"""Polygons of a vector file (shapefile, GeoPackage, file geodatabase, GeoJSON) as labels."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import rasterize
from rasterio.warp import transform, transform_bounds

from dlbench.data.dataset import IGNORE, DataError
from dlbench.data.grid import Grid

SHAPEFILE_PARTS = {".shp": "shapes", ".shx": "index", ".dbf": "attributes", ".prj": "CRS"}
_VERTICES_ACROSS = 32
"""An edge across the whole window is bent in at least so many places when it is reprojected."""


@dataclass(frozen=True)
class Features:
    """What a layer holds: its geometries, None where there is none, and the fields asked for."""

    file: Path
    crs: CRS
    geometries: np.ndarray
    fields: Mapping[str, np.ndarray]
    extent: tuple[float, float, float, float]
    """West, south, east, north of the whole layer, in `crs`."""


def read_features(
    file: Path,
    fields: Mapping[str, Sequence[str]],
    layer: str | None = None,
    grid: Grid | None = None,
    optional: Collection[str] = (),
) -> Features:
    """Read a layer, which must be named where the file has several; only what lies near ``grid``.

    ``fields`` gives for each name of ours those that releases have for it, in any case; those of
    ``optional`` are full of None where the file has none. Raises `DataError` for a file that is
    missing, incomplete, unreadable, or without CRS or field.
    """
    file = Path(file)
    layers = layer_names(file)
    if len(layers) > 1 if layer is None else layer not in layers:
        asked = "a layer must be named" if layer is None else f"there is no layer '{layer}'"
        raise DataError(f"{file} has the layers {', '.join(layers)}: {asked}")
    try:
        info = pyogrio.read_info(file, layer=layer, force_total_bounds=True)
        crs = _crs(file, info["crs"])
        held = list(info["fields"])
        columns = {
            name: find_field(file, held, variants)
            for name, variants in fields.items()
            if name not in optional or held_as(held, variants)
        }
        meta, _, geometries, values = pyogrio.raw.read(
            file,
            layer=layer,
            columns=list(columns.values()),
            force_2d=True,
            bbox=None if grid is None else _window(grid, crs, file).bounds,
        )
        shapes = shapely.from_wkb(geometries, on_invalid="fix")
    except (DataSourceError, DataLayerError, shapely.errors.GEOSException) as error:
        raise DataError(
            f"cannot read {file}: {str(error)[:300]}; it is damaged or incomplete, fetch it again"
        ) from error
    place = {name: index for index, name in enumerate(meta["fields"])}
    found = {
        name: values[place[columns[name]]]
        if name in columns
        else np.full(len(shapes), None, object)
        for name in fields
    }
    extent = tuple(info["total_bounds"] or [np.nan] * 4)
    return Features(file, crs, shapes, found, extent)


def layer_names(file: Path) -> list[str]:
    """The layers of a vector file. Raises `DataError` for a file that is none."""
    if not file.exists():
        raise DataError(f"{file} does not exist; give the path of the unpacked vector file")
    if file.suffix.lower() == ".shp":
        _require_whole_shapefile(file)
    try:
        names = [str(name) for name, _ in pyogrio.list_layers(file)]
    except (DataSourceError, DataLayerError) as error:
        raise DataError(
            f"{file} is no readable vector file ({str(error)[:300]}); fetch it again"
        ) from error
    if not names:
        raise DataError(f"{file} holds no layer; it is damaged or incomplete, fetch it again")
    return names


def held_as(names: Sequence[str], variants: Sequence[str]) -> str | None:
    """How a file spells the first of ``variants`` that is among its field names, in any case."""
    held = {name.strip().lower(): name for name in names}
    return next((held[v.lower()] for v in variants if v.lower() in held), None)


def find_field(file: Path, names: Sequence[str], variants: Sequence[str]) -> str:
    """`held_as`. Raises `DataError` where there is none."""
    found = held_as(names, variants)
    if found is None:
        # Of another format a first line may be anything, of any length.
        held = ", ".join(name[:40] for name in names[:40])
        raise DataError(f"{file} has no field {' or '.join(variants)}; it has {held}")
    return found


def class_indices(
    values: Sequence[Any] | np.ndarray, indices: Mapping[Any, int], file: Path, field: str
) -> np.ndarray:
    """Class index of each attribute; `IGNORE` where it is missing (None, NaN).

    Raises `DataError` for a value that is not in ``indices``.
    """
    found = [IGNORE if v is None or v != v else indices.get(v, -1) for v in values]
    if -1 in found:
        unknown = {str(v) for v, index in zip(values, found, strict=True) if index == -1}
        raise DataError(
            f"{file} holds in {field} the unknown {_few(unknown)}; known: {_few(indices)}"
        )
    return np.array(found, np.uint8)


class Polygons:
    """`Labels` of the polygons of ``features``, ``indices`` (features) their classes.

    A pixel has the class of the polygon that its centre lies in, and ``outside`` under none. Of
    overlapping polygons the smaller lies on top, so that none vanishes beneath a larger one; the
    parts of a multipolygon are taken one by one. Invalid rings are repaired. Only what a window
    touches is reprojected. Threads may share it: nothing changes after it is made.
    """

    def __init__(self, features: Features, indices: np.ndarray, outside: int = IGNORE) -> None:
        self.file = features.file
        self.crs = features.crs
        self.extent = features.extent
        self.outside = outside
        shapes = features.geometries.copy()
        broken = ~(shapely.is_valid(shapes) | shapely.is_missing(shapes))
        try:
            shapes[broken] = shapely.make_valid(shapes[broken])
        except shapely.errors.GEOSException as error:
            raise DataError(f"{self.file} holds a polygon beyond repair: {error}") from error
        parts, owners = _polygon_parts(shapes)
        if len(parts) == 0 and len(shapes) and not shapely.is_missing(shapes).all():
            raise DataError(f"{self.file} holds no polygons; points or lines are no areas")
        order = np.argsort(-shapely.area(parts), kind="stable")
        self._parts = parts[order]
        self._indices = indices[owners][order]
        self._tree = shapely.STRtree(self._parts)

    def read(self, grid: Grid) -> np.ndarray:
        target = np.full((grid.height, grid.width), self.outside, np.uint8)
        window = _window(grid, self.crs, self.file)
        near = np.sort(self._tree.query(window))
        parts, indices = self._parts[near], self._indices[near]
        if self.crs != grid.crs:
            parts, owners = _polygon_parts(shapely.intersection(parts, window))
            parts = _reproject(parts, window, self.crs, grid.crs)
            indices = indices[owners]
        if len(parts):
            pairs = zip(parts, indices.tolist(), strict=True)
            rasterize(pairs, out=target, transform=grid.transform)
        return target

    def require_overlap(self, grid: Grid, file: Path, extent: bool = False) -> None:
        """Raise `DataError` unless a polygon, or with ``extent`` that of all, touches the grid of
        the image ``file``."""
        window = _window(grid, self.crs, self.file, margin=0)
        touched = (
            shapely.box(*self.extent).intersects(window)
            if extent
            else self._tree.query(window, predicate="intersects").size
        )
        if not touched:
            raise no_overlap("polygon", self.file, self.extent, self.crs, grid, file)


def no_overlap(
    what: str,
    labels: Path,
    extent: tuple[float, float, float, float],
    crs: CRS,
    grid: Grid,
    file: Path,
) -> DataError:
    """The error for labels that miss an image, with both extents in the CRS of the labels."""
    places = [
        f"{west:.6g} to {east:.6g} east, {south:.6g} to {north:.6g} north"
        for west, south, east, north in (extent, bounds_in(grid, crs, labels))
    ]
    return DataError(
        f"no {what} of {labels} lies on {file}: the labels span {places[0]}, the image "
        f"{places[1]} (in {crs.to_string()}); take labels and imagery of one region"
    )


def _require_whole_shapefile(file: Path) -> None:
    parts = {
        p.suffix.lower(): p for p in file.parent.iterdir() if p.stem == file.stem and p.is_file()
    }
    missing = [f"{part} ({what})" for part, what in SHAPEFILE_PARTS.items() if part not in parts]
    if missing:
        raise DataError(
            f"{file} lacks {', '.join(missing)} beside it: a shapefile is several files of one "
            "name, copy all of them"
        )
    # Of what is cut off GDAL reads the rest as missing, without an error.
    head, table = (_head(parts[part]) for part in (".shp", ".dbf"))
    records, before, each = struct.unpack("<4xIHH", table[:12].ljust(12, b"\0"))
    for part, size in (
        (".shp", 2 * int.from_bytes(head[24:28], "big")),
        (".dbf", before + records * each),
    ):
        held = parts[part].stat().st_size
        if held < max(size, 28):
            raise DataError(
                f"{parts[part]} has {held} bytes, its header says {size}; it is incomplete, fetch "
                "it again"
            )


def _head(file: Path) -> bytes:
    with file.open("rb") as handle:
        return handle.read(28)


def _crs(file: Path, text: str | None) -> CRS:
    if not text:
        raise DataError(f"{file} has no CRS; assign it: ogr2ogr -a_srs EPSG:CODE out.gpkg {file}")
    try:
        return CRS.from_user_input(text)
    except CRSError as error:
        raise DataError(f"{file} has the CRS {text}, which PROJ cannot read: {error}") from error


def bounds_in(grid: Grid, crs: CRS, labels: Path) -> tuple[float, float, float, float]:
    """West, south, east, north of a grid in the CRS of ``labels``; west > east across the date
    line. Raises `DataError` that names them."""
    bounds: tuple[float, float, float, float] = (np.nan,) * 4
    reason: Exception | None = None
    try:
        bounds = transform_bounds(grid.crs, crs, *grid.bounds)
    except Exception as error:  # GDAL's own errors are of no public class
        reason = error
    if not np.isfinite(bounds).all():
        raise DataError(
            f"the image's extent {grid.bounds} in {grid.crs.to_string()} has no place in the "
            f"CRS of {labels}, {crs.to_string()}; is the CRS of one of them wrong?"
        ) from reason
    return bounds


def _window(grid: Grid, crs: CRS, labels: Path, margin: float = 0.05) -> shapely.Geometry:
    """The box of a grid in a CRS, widened by a share of its size; two at the date line."""
    west, south, east, north = bounds_in(grid, crs, labels)
    width = east - west + (360 if west > east else 0)
    west, east = west - margin * width, east + margin * width
    south, north = south - margin * (north - south), north + margin * (north - south)
    if west > east:
        return shapely.union(
            shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)
        )
    return shapely.box(west, south, east, north)


def _polygon_parts(geometries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Polygons, and which of ``geometries`` each is of: repairs also leave lines and points."""
    parts, owners = shapely.get_parts(geometries, return_index=True)
    # Twice: a repaired polygon may be a collection that holds multipolygons.
    parts, inner = shapely.get_parts(parts, return_index=True)
    area = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(parts)
    return parts[area], owners[inner[area]]


def _reproject(
    geometries: np.ndarray, window: shapely.Geometry, source: CRS, target: CRS
) -> np.ndarray:
    west, south, east, north = window.bounds

    def move(points: np.ndarray) -> np.ndarray:
        return np.column_stack(transform(source, target, points[:, 0], points[:, 1])[:2])

    # A long edge that is straight in one CRS is bent in another.
    step = max(east - west, north - south) / _VERTICES_ACROSS
    return shapely.transform(shapely.segmentize(geometries, step), move)


def _few(values: Iterable[Any]) -> str:
    texts = [f"'{value[:60]}'" for value in sorted(map(str, values))]
    return ", ".join(texts[:20]) + (f" and {len(texts) - 20} more" if len(texts) > 20 else "")
