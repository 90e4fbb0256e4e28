from __future__ import annotations

import pytest
from rasterio.crs import CRS
from rasterio.transform import from_origin

from dlbench.data.grid import Grid

UTM = CRS.from_epsg(32633)


def test_a_grid_knows_where_it_is() -> None:
    grid = Grid(UTM, from_origin(500_000, 5_100_000, 10, 10), 40, 50)
    assert grid.bounds == (500_000, 5_099_600, 500_500, 5_100_000)
    assert grid.pixel_metres == 10.0
    part = grid.window(4, 3, 2, 5)
    assert part.bounds == (500_030, 5_099_940, 500_080, 5_099_960)
    assert grid.aligned_with(part)
    shifted = Grid(UTM, from_origin(500_003, 5_100_000, 10, 10), 4, 4)
    coarser = Grid(UTM, from_origin(500_000, 5_100_000, 20, 20), 4, 4)
    elsewhere = Grid(CRS.from_epsg(32632), grid.transform, 4, 4)
    for other in (shifted, coarser, elsewhere):
        assert not grid.aligned_with(other)
    degrees = Grid(CRS.from_epsg(4326), from_origin(10, 50, 1e-4, 1e-4), 4, 4)
    assert degrees.pixel_metres == pytest.approx(11.1, rel=0.01)
    feet = Grid(CRS.from_epsg(2263), from_origin(0, 0, 10, 10), 4, 4)
    assert feet.pixel_metres == pytest.approx(3.048, rel=1e-3)
