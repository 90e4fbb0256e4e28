"""Outlines of the parcels of a miniature landscape, and vector files of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyogrio
import shapely
from rasterio.features import shapes
from rasterio.warp import transform

from dlbench.data.grid import Grid


def outlines(parcels: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Polygons (polygons) in the CRS of ``grid`` of the connected parts of each parcel, and the
    numbers (polygons) of these; of ``parcels`` (height, width) int, 0 is none.
    """
    pairs = list(shapes(parcels.astype(np.int32), mask=parcels != 0, transform=grid.transform))
    polygons = np.array([shapely.geometry.shape(outline) for outline, _ in pairs], object)
    return polygons, np.array([int(number) for _, number in pairs])


def to_degrees(polygons: np.ndarray, grid: Grid) -> np.ndarray:
    """The same in EPSG:4326, the CRS in which such labels are published."""

    def move(points: np.ndarray) -> np.ndarray:
        return np.column_stack(transform(grid.crs, "EPSG:4326", *points.T)[:2])

    return shapely.transform(polygons, move)


def write_vector(
    file: Path,
    polygons: np.ndarray,
    fields: Mapping[str, np.ndarray],
    driver: str = "ESRI Shapefile",
    layer: str | None = None,
) -> None:
    """Write polygons in EPSG:4326, shapefiles without the .cpg that names their encoding."""
    pyogrio.raw.write(
        file,
        shapely.to_wkb(polygons),
        list(fields.values()),
        list(fields),
        driver=driver,
        layer=layer,
        crs="EPSG:4326",
        geometry_type="MultiPolygon" if driver == "OpenFileGDB" else "Polygon",
        promote_to_multi=driver == "OpenFileGDB",
    )
    file.with_suffix(".cpg").unlink(missing_ok=True)
