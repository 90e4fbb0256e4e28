"""Scenes that overlap, as neighbouring tiles of a satellite's grid do: one set of blocks for all.

Blocks of each scene by itself would put ground that two tiles show into the training part of one
and the validation part of the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely
from rasterio.warp import transform

from dlbench.data.dataset import DataError
from dlbench.data.grid import Grid, crs_name
from dlbench.data.windows import Frame

_POINTS = 21
"""Along a side of a scene, which is bent in another CRS."""


def frames(grids: Sequence[Grid], files: Sequence[object]) -> list[Frame]:
    """For each grid, the smallest frame of all that overlap it, or overlap one that does.

    Raises `DataError`, naming two of ``files``, for grids that overlap but whose pixels do not lie
    on each other: no blocks of one are blocks of the other.
    """
    groups: list[list[int]] = []
    first_of = {grid: index for index, grid in reversed(list(enumerate(grids)))}  # dates of a place
    for grid, index in sorted(first_of.items(), key=lambda item: item[1]):
        touched = [group for group in groups if any(_overlap(grids[i], grid) for i in group)]
        for other in (i for group in touched for i in group):
            if not grids[other].aligned_with(grid) and _overlap(grids[other], grid):
                raise DataError(
                    f"{files[other]} and {files[index]} show the same ground on grids that differ "
                    f"({grids[other]}; {grid}), so blocks would put some of it into two splits; "
                    "warp both to one grid (gdalwarp -t_srs -tr -tap), or share whole scenes: "
                    "data.options.scenes={train: [...], val: [...]}"
                )
        groups = [group for group in groups if group not in touched]
        groups.append([i for group in touched for i in group] + [index])
    found: dict[int, Frame] = {}
    for group in groups:
        first = grids[group[0]]
        corners = {i: ~first.transform @ grids[i].transform @ (0, 0) for i in group}
        places = {i: (round(y), round(x)) for i, (x, y) in corners.items()}
        top, left = (min(place[axis] for place in places.values()) for axis in (0, 1))
        bottom = max(place[0] + grids[i].height for i, place in places.items())
        right = max(place[1] + grids[i].width for i, place in places.items())
        for i, (row, column) in places.items():
            found[i] = Frame(top - row, left - column, bottom - top, right - left)
    return [found[first_of[grid]] for grid in grids]


def _overlap(one: Grid, other: Grid) -> bool:
    """Whether grids share ground, more than an edge."""
    west, south, east, north = one.bounds
    if one.crs == other.crs:
        left, bottom, right, top = other.bounds
        return min(east, right) - max(west, left) > one.transform.a / 2 and (
            min(north, top) - max(south, bottom) > one.transform.a / 2
        )
    shares = np.linspace(0, 1, _POINTS)
    left, bottom, right, top = other.bounds
    across, down = left + shares * (right - left), top + shares * (bottom - top)
    ring_x = np.concatenate([across, np.full(_POINTS, right), across[::-1], np.full(_POINTS, left)])
    ring_y = np.concatenate([np.full(_POINTS, top), down, np.full(_POINTS, bottom), down[::-1]])
    try:
        x, y = transform(other.crs, one.crs, ring_x, ring_y)[:2]
    except Exception as error:  # GDAL's own errors are of no public class
        raise DataError(
            f"{crs_name(other.crs)} and {crs_name(one.crs)} cannot be compared: {error}"
        ) from error
    points = np.column_stack([x, y])
    if not np.isfinite(points).all():
        return False  # one lies where the other's CRS has no place
    turns: tuple[float, ...] = (0.0,)
    if one.crs.is_geographic:
        # Over the date line longitudes jump; the box may lie to either side of it.
        points[:, 0] = np.unwrap(points[:, 0], period=360.0)
        turns = (-360.0, 0.0, 360.0)
    shape = shapely.make_valid(shapely.Polygon(points))
    boxes = [shapely.box(west + turn, south, east + turn, north) for turn in turns]
    return any(shape.intersection(box).area > 0 for box in boxes)
