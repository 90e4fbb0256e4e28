"""Scenes shared among the splits. They may overlap, as neighbouring tiles of a satellite's grid do:
ground that two show is of one split in both, or a model would be scored on what it has seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import shapely
from rasterio.warp import transform

from dlbench.data.dataset import DataError
from dlbench.data.grid import Grid, crs_name
from dlbench.data.labelled_imagery import LabelledImagery
from dlbench.data.windows import SPLITS, Frame, Part, Scene, split_by_blocks

LEAST = 0.5
"""Share of a scene that must be left where another split shows the rest of its ground: neighbours
of a satellite's grid leave far more, two dates of one place slivers."""
EDGE = 2.0
"""Pixels of its border that a scene may share with a neighbour: exports of areas that touch do."""
_POINTS = 21
"""Along a side of a scene, which is bent in another CRS."""
_MARGIN = 1
"""Pixels by which that bend may be missed."""


def split_scenes(
    scenes: Sequence[LabelledImagery],
    window: tuple[int, int],
    names: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, list[Scene]]:
    """Share ``scenes`` among the splits: whole ones by their ``names`` ({"train": ["valley"]}),
    but for ground that one of another split shows too, or without names blocks of each, ground that
    several show being of one split in all of them. Raises `DataError` for names that are unknown or
    given twice, for scenes of one place in several splits, and, without names, for scenes that
    overlap on grids that differ.
    """
    if names is None:
        found = frames([s.imagery.grid for s in scenes], [s.file for s in scenes])
        parts = [split_by_blocks(s, window, own) for s, own in zip(scenes, found, strict=True)]
        return {split: [part for each in parts for part in each[split]] for split in SPLITS}
    known = {scene.name: scene for scene in scenes}
    wanted = [name for split in names.values() for name in split]
    if not set(names) <= set(SPLITS) or not set(wanted) <= set(known):
        raise DataError(
            f"scenes is {dict(names)}; allowed are the splits {', '.join(SPLITS)} and the scenes "
            f"{', '.join(known)}"
        )
    if len(set(wanted)) < len(wanted):
        raise DataError(
            f"scenes names a scene twice: {wanted}; a model would be scored on what it has seen"
        )
    return without_shared({s: [known[n] for n in own] for s, own in names.items()}, window)


def frames(grids: Sequence[Grid], files: Sequence[object]) -> list[Frame]:
    """For each grid, the smallest frame of all that overlap it, or overlap one that does.

    Raises `DataError`, naming two of ``files``, for grids that overlap but whose pixels do not lie
    on each other: no blocks of one are blocks of the other.
    """
    groups: list[list[int]] = []
    first_of = {grid: index for index, grid in reversed(list(enumerate(grids)))}  # dates of a place
    for grid, index in sorted(first_of.items(), key=lambda item: item[1]):
        touched = [group for group in groups if any(_shared(grids[i], grid) for i in group)]
        for other in (i for group in touched for i in group):
            if not grids[other].aligned_with(grid) and _shared(grids[other], grid):
                raise DataError(
                    f"{files[other]} and {files[index]} show the same ground on grids that differ "
                    f"({grids[other]}; {grid}), so blocks would put some of it into two splits; "
                    "warp both to one grid (gdalwarp -t_srs -tr -tap), or share whole scenes, "
                    "those of a place to one split: data.options.scenes={train: [...], val: [...]}"
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


def without_shared(
    splits: Mapping[str, Sequence[LabelledImagery]], window: tuple[int, int]
) -> dict[str, list[Scene]]:
    """Whole scenes of several splits without the ground that a later one of `SPLITS` shows too:
    that of test is left out of val and train, that of val out of train.

    What is left of a scene are rectangles that hold a ``window``. Raises `DataError` where less
    than `LEAST` of it is.
    """
    found: dict[str, list[Scene]] = {}
    later: dict[Grid, LabelledImagery] = {}
    for split in reversed(SPLITS):
        scenes = splits.get(split, ())
        pieces: dict[Grid, list[Frame]] = {}
        found[split] = []
        for scene in scenes:
            grid = scene.imagery.grid
            if grid not in pieces:
                pieces[grid] = _unshared(scene, split, later, window)
            for piece in pieces[grid]:
                whole = (piece.height, piece.width) == (grid.height, grid.width)
                found[split].append(scene if whole else Part(scene, *piece))
        later |= {scene.imagery.grid: scene for scene in scenes}
    return {split: found[split] for split in SPLITS}


def _unshared(
    scene: LabelledImagery,
    split: str,
    later: Mapping[Grid, LabelledImagery],
    window: tuple[int, int],
) -> list[Frame]:
    """The rectangles of a scene, counted from its corner, that no scene of ``later`` shows."""
    grid = scene.imagery.grid
    pieces, others = [Frame(0, 0, grid.height, grid.width)], []
    for other, shown in later.items():
        shared = _shared(grid, other)
        if shared and _narrowest(grid, shared) > EDGE:
            margin = 0 if grid.crs == other.crs else _MARGIN
            box = _pixels(grid, shared, margin)
            pieces = [rest for piece in pieces for rest in _around(piece, box)]
            others.append(str(shown.file))
    if not others:
        return pieces
    share = sum(p.height * p.width for p in pieces) / (grid.height * grid.width)
    if share < LEAST:
        raise DataError(
            f"{scene.file}, of the split '{split}', shows the same ground as {', '.join(others)}, "
            "of another one, so a model would be scored on what it has seen; without that "
            f"{share:.0%} of it are left; put all scenes of a place into one split, or leave "
            "data.options.scenes out to share blocks of each"
        )
    held = [p for p in pieces if p.height >= window[0] and p.width >= window[1]]
    if not held:
        raise DataError(
            f"{scene.file}, of the split '{split}', shows some ground that {', '.join(others)}, of "
            f"another one, shows too, and what is left holds no window of {window[0]} x "
            f"{window[1]} pixels; lower data.size"
        )
    return held


def _narrowest(grid: Grid, bounds: tuple[float, float, float, float]) -> float:
    """The shorter side of ``bounds`` in pixels."""
    west, south, east, north = bounds
    return min((east - west) / grid.transform.a, (south - north) / grid.transform.e)


def _pixels(
    grid: Grid, bounds: tuple[float, float, float, float], margin: int
) -> tuple[int, int, int, int]:
    """The pixels that ``bounds`` touch: top, left, bottom, right."""
    west, south, east, north = bounds
    left, top = ~grid.transform @ (west, north)
    right, bottom = ~grid.transform @ (east, south)
    # Rounding puts a border that lies on pixels a little to either side.
    return (
        math.floor(top + 0.01) - margin,
        math.floor(left + 0.01) - margin,
        math.ceil(bottom - 0.01) + margin,
        math.ceil(right - 0.01) + margin,
    )


def _around(piece: Frame, box: tuple[int, int, int, int]) -> list[Frame]:
    """What is left of a rectangle without a box: strips above and below it, to its sides."""
    first_row, first_column = piece.row, piece.column
    last_row, last_column = first_row + piece.height, first_column + piece.width
    top, bottom = (min(max(edge, first_row), last_row) for edge in (box[0], box[2]))
    left, right = (min(max(edge, first_column), last_column) for edge in (box[1], box[3]))
    if top == bottom or left == right:
        return [piece]
    edges = (
        (first_row, top, first_column, last_column),
        (bottom, last_row, first_column, last_column),
        (top, bottom, first_column, left),
        (top, bottom, right, last_column),
    )
    return [Frame(r, c, rr - r, cc - c) for r, rr, c, cc in edges if rr > r and cc > c]


def _shared(one: Grid, other: Grid) -> tuple[float, float, float, float] | None:
    """West, south, east, north, in the CRS of ``one``, of what it shows of the ground of the other;
    None: no more than an edge."""
    west, south, east, north = one.bounds
    if one.crs == other.crs:
        left, bottom, right, top = other.bounds
        both = max(west, left), max(south, bottom), min(east, right), min(north, top)
        least = one.transform.a / 2
        return both if both[2] - both[0] > least and both[3] - both[1] > least else None
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
        return None  # one lies where the other's CRS has no place
    turns: tuple[float, ...] = (0.0,)
    if one.crs.is_geographic:
        # Over the date line longitudes jump; the box may lie to either side of it.
        points[:, 0] = np.unwrap(points[:, 0], period=360.0)
        turns = (-360.0, 0.0, 360.0)
    shape = shapely.make_valid(shapely.Polygon(points))
    found = []
    for turn in turns:
        part = shape.intersection(shapely.box(west + turn, south, east + turn, north))
        if part.area > 0:
            found.append(part.bounds - np.array([turn, 0, turn, 0]))
    if not found:
        return None
    lowest, highest = np.min(found, axis=0), np.max(found, axis=0)
    return lowest[0], lowest[1], highest[2], highest[3]
