"""Ground that several scenes show is of one split in all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform

from dlbench.data.dataset import DataError
from dlbench.data.grid import Grid
from dlbench.data.labelled_imagery import LabelledImagery
from dlbench.data.overlap import frames, split_scenes
from dlbench.data.windows import SPLITS, Frame, Part, split_by_blocks

UTM33, UTM32 = CRS.from_epsg(32633), CRS.from_epsg(32632)


def grid(
    row: int, column: int, height: int, width: int, pixel: float = 10, crs: CRS = UTM33
) -> Grid:
    origin = from_origin(500_000 + 10 * column, 5_100_000 - 10 * row, pixel, pixel)
    return Grid(crs, origin, height, width)


@dataclass(frozen=True)
class Tile:
    name: str
    grid: Grid
    bands: tuple[str, ...] = ("grey",)
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.uint8))
    block: tuple[int, int] = (1, 1)

    @property
    def file(self) -> Path:
        return Path(f"{self.name}.tif")

    def read(self, *window: int) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError


class Nothing:
    def read(self, grid: Grid) -> np.ndarray:
        raise NotImplementedError


def scenes(*grids: Grid) -> list[LabelledImagery]:
    return [LabelledImagery(Tile(f"tile{n}", one), Nothing()) for n, one in enumerate(grids)]


def split_of_ground(given: list[LabelledImagery], window: tuple[int, int]) -> np.ndarray:
    """The one split of each 10 m pixel about the origin, -1 where no window may lie."""
    parts = split_scenes(given, window)
    ground = np.full((700, 700), -1)
    for index, split in enumerate(SPLITS):
        for part in parts[split]:
            assert isinstance(part, Part)
            assert isinstance(part.whole, LabelledImagery)
            assert part.height >= window[0] and part.width >= window[1]
            transform = part.whole.imagery.grid.transform
            top = round((5_100_000 - transform.f) / 10) + part.row + 100
            left = round((transform.c - 500_000) / 10) + part.column + 100
            place = ground[top : top + part.height, left : left + part.width]
            assert np.isin(place, (-1, index)).all(), "of two splits"
            place[...] = index
    return ground


def test_neighbouring_tiles_share_their_blocks() -> None:
    tiles = scenes(grid(0, 0, 300, 300), grid(0, 270, 300, 300), grid(290, -50, 300, 300))
    ground = split_of_ground(tiles, (16, 16))
    for index in range(3):
        assert 0.1 < (ground == index).mean() / (ground >= 0).mean() < 0.75
    # Only slivers too narrow for a window are left out.
    assert (ground >= 0).sum() > 0.93 * (3 * 300 * 300 - 30 * 300 - 10 * 250)
    by_themselves = [split_by_blocks(tile, (16, 16)) for tile in tiles[:2]]
    assert [len(p["val"]) for p in by_themselves] != [0, 0]


def test_scenes_apart_and_dates_of_one_place_are_as_they_were() -> None:
    tiles = scenes(grid(0, 0, 203, 317), grid(0, 0, 203, 317), grid(0, 317, 100, 100),
                   grid(900, 900, 200, 200, crs=UTM32))  # fmt: skip
    found = split_scenes(tiles, (16, 24))
    for tile in tiles:
        alone = split_by_blocks(tile, (16, 24))
        for split in SPLITS:
            assert [p for p in found[split] if isinstance(p, Part) and p.whole is tile] == alone[
                split
            ]


def test_frames_hold_chains_of_tiles() -> None:
    grids = [grid(0, 0, 100, 100), grid(0, 180, 100, 100), grid(0, 90, 100, 100)]
    assert frames(grids, "abc") == [
        Frame(0, 0, 100, 280), Frame(0, -180, 100, 280), Frame(0, -90, 100, 280),
    ]  # fmt: skip


def test_grids_that_differ_are_refused() -> None:
    here = grid(0, 0, 300, 300)
    west, _, _, north = here.bounds
    degrees = Grid(CRS.from_epsg(4326), from_origin(14.9, 46.06, 1e-4, 1e-4), 2000, 2000)
    for other in (grid(0, 0, 150, 150, 20), degrees,
                  Grid(UTM33, from_origin(west + 3, north, 10, 10), 50, 50)):  # fmt: skip
        with pytest.raises(DataError, match=r"tile0\.tif and tile1\.tif show the same ground on g"):
            split_scenes(scenes(here, other), (16, 16))
        named = split_scenes(scenes(here, other), (16, 16), {"train": ["tile0", "tile1"]})
        assert [len(named[split]) for split in SPLITS] == [2, 0, 0]
    far = Grid(CRS.from_epsg(4326), from_origin(16.0, 46.05, 1e-4, 1e-4), 900, 900)
    assert frames([here, far], "ab") == [Frame(0, 0, 300, 300), Frame(0, 0, 900, 900)]


def test_whole_scenes_of_one_place_are_of_one_split() -> None:
    """Dates of a tile, or what covers it on another grid, have the same labels."""
    here = grid(0, 0, 300, 300)
    degrees = Grid(CRS.from_epsg(4326), from_origin(14.9, 46.06, 1e-4, 1e-4), 2000, 2000)
    for other in (here, grid(0, 0, 150, 150, 20), grid(100, 0, 300, 300), degrees):
        for names in (
            {"train": ["tile0"], "val": ["tile1"]},
            {"val": ["tile0"], "test": ["tile1"]},
        ):
            with pytest.raises(
                DataError, match=r"tile0\.tif.* shows the same ground as tile1\.tif"
            ):
                split_scenes(scenes(here, other), (16, 16), names)
        tiles = scenes(here, other)
        together = split_scenes(tiles, (16, 16), {"val": ["tile0", "tile1"]})
        assert together == {"train": [], "val": tiles, "test": []}


@pytest.mark.parametrize("crs", [UTM33, UTM32])
def test_neighbours_of_other_splits_leave_their_shared_ground_to_the_later(crs: CRS) -> None:
    """As tiles of Sentinel-2 do, in the next zone too, whose pixels are turned."""
    tiles = scenes(grid(0, 0, 300, 300), grid(0, 270, 300, 300), grid(290, -50, 300, 280))
    if crs == UTM32:
        x, y = transform(UTM33, UTM32, [500_000 + 2700], [5_100_000 - 100])
        tiles[1] = LabelledImagery(
            Tile("tile1", Grid(UTM32, from_origin(x[0], y[0], 10, 10), 280, 300)), Nothing()
        )
    names = {"train": ["tile0"], "val": ["tile1"], "test": ["tile2"]}
    found = split_scenes(tiles, (16, 16), names)
    assert found["test"] == [tiles[2]]
    assert found["val"] == [tiles[1]]
    used = np.zeros((300, 300), int)
    for part in found["train"]:
        assert isinstance(part, Part)
        assert part.whole is tiles[0]
        used[part.row : part.row + part.height, part.column : part.column + part.width] += 1
    assert used.max() == 1, "no pixel twice"
    # Where the other tiles lie, pixel by pixel.
    rows, columns = np.mgrid[:300, :300] + 0.5
    x, y = 500_000 + 10 * columns, 5_100_000 - 10 * rows
    shown = np.zeros((300, 300), bool)
    for tile in tiles[1:]:
        there = tile.imagery.grid
        xs, ys = transform(UTM33, there.crs, x.ravel(), y.ravel())
        column, row = ~there.transform @ (np.array(xs), np.array(ys))
        shown |= ((row > 0) & (row < there.height) & (column > 0) & (column < there.width)).reshape(
            300, 300
        )
    assert 0.05 < shown.mean() < 0.2
    assert not (shown & (used == 1)).any()
    assert (used == 1).sum() > 0.85 * (~shown).sum()


@pytest.mark.parametrize("west", [20.0, 179.99, -180.0])
def test_a_scene_over_the_date_line_overlaps_what_lies_there_alone(west: float) -> None:
    utm, lonlat = CRS.from_epsg(32660), CRS.from_epsg(4326)
    (x,), (y,) = transform(lonlat, utm, [179.98], [65.0])
    scene = Grid(utm, from_origin(x, y, 30, 30), 70, 90)
    other = Grid(lonlat, from_origin(west, 65, 3e-4, 3e-4), 80, 80)
    for both in ([scene, other], [other, scene]):
        if west == 20.0:
            assert [frame[2:] for frame in frames(both, "ab")] == [
                (one.height, one.width) for one in both
            ]
        else:
            with pytest.raises(DataError, match="show the same ground"):
                frames(both, "ab")


def test_neighbours_whose_borders_touch_are_whole() -> None:
    """As exports of adjacent areas share a row of pixels, and windows may be as large as they."""
    tiles = scenes(grid(0, 0, 256, 256), grid(0, 255, 256, 256), grid(254, 0, 256, 256))
    names = {"train": ["tile0"], "val": ["tile1"], "test": ["tile2"]}
    found = split_scenes(tiles, (256, 256), names)
    assert [found[split] for split in ("train", "val", "test")] == [[tile] for tile in tiles]


def test_what_is_left_must_hold_a_window() -> None:
    tiles = scenes(grid(0, 0, 256, 256), grid(0, 250, 256, 256))
    names = {"train": ["tile0"], "val": ["tile1"]}
    with pytest.raises(DataError, match=r"holds no window of 256 x 256 pixels; lower data\.size"):
        split_scenes(tiles, (256, 256), names)
    assert len(split_scenes(tiles, (250, 250), names)["train"]) == 1
