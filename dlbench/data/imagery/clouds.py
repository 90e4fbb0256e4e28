"""Where clouds are: mask rasters, and the polygons of GML masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from xml.etree import ElementTree

import numpy as np
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.features import rasterize
from shapely import Polygon, STRtree, box

from dlbench.data.dataset import DataError
from dlbench.data.grid import Grid
from dlbench.data.imagery.bands import Bands

MASK_TYPES = ("OPAQUE", "CIRRUS")
"""Of a GML feature; both are left out."""


class Clouds(Protocol):
    """A cloud mask of one scene."""

    def cover(self, window: Grid) -> np.ndarray:
        """Where clouds are (height, width) bool. Raises `DataError`."""


@dataclass(frozen=True)
class CloudRaster:
    """A raster whose values have one of ``bits`` set where clouds are."""

    bands: Bands
    bits: int = 0xFFFF

    def cover(self, window: Grid) -> np.ndarray:
        values, valid = self.bands.on_grid(window, "nearest")
        flags = np.where(valid[..., None], values, 0).astype(np.uint16)
        return ((flags & self.bits) != 0).any(axis=-1)


@dataclass(frozen=True)
class CloudPolygons:
    """Polygons in the CRS of the scene; perhaps none."""

    polygons: STRtree

    def cover(self, window: Grid) -> np.ndarray:
        near = self.polygons.geometries[self.polygons.query(box(*window.bounds))]
        shape = (window.height, window.width)
        if not len(near):
            return np.zeros(shape, bool)
        return rasterize(near, shape, transform=window.transform, dtype="uint8").astype(bool)


def read_gml(root: ElementTree.Element, file: Path, crs: CRS) -> CloudPolygons:
    """The opaque clouds and cirrus of a ``MSK_CLOUDS`` mask, which may hold no feature at all.

    Raises `DataError` for coordinates that are no rings, or of another CRS.
    """
    for envelope in root.iterfind(".//{*}Envelope"):
        name = envelope.get("srsName", "")
        code = name.rsplit(":", 1)[-1]
        try:
            same = CRS.from_epsg(int(code)) == crs
        except (CRSError, ValueError):
            same = False
        if not same:
            raise DataError(f"{file} is in {name or 'no CRS'}, its scene in {crs.to_string()}")
    polygons = []
    for feature in root.iterfind(".//{*}MaskFeature"):
        kind = feature.findtext("{*}maskType", "").strip()
        if kind not in MASK_TYPES:
            continue
        for polygon in feature.iterfind(".//{*}Polygon"):
            outer = [_ring(e, file) for e in polygon.iterfind("{*}exterior//{*}posList")]
            holes = [_ring(e, file) for e in polygon.iterfind("{*}interior//{*}posList")]
            if len(outer) != 1:
                raise DataError(f"{file} has a polygon of {len(outer)} outer rings, expected 1")
            polygons.append(Polygon(outer[0], holes))
    return CloudPolygons(STRtree(polygons))


def _ring(element: ElementTree.Element, file: Path) -> np.ndarray:
    try:
        dimension = int(element.get("srsDimension", 2))
        numbers = np.array((element.text or "").split(), np.float64)
        ring = numbers.reshape(-1, dimension)[:, :2]
    except ValueError:
        ring = np.empty((0, 2))
    if len(ring) < 4 or not np.isfinite(ring).all():
        raise DataError(
            f"{file} has a posList '{(element.text or '')[:40]}' that is no ring; fetch it again, "
            "or read with mask_clouds=false"
        )
    return ring
