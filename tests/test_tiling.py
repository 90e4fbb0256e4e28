"""Tiles cover an image once, and what a network sees in them is what it sees in the whole."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from dlbench.config import ConfigError
from dlbench.tiling import Tiling, Window, blend_tiled, predict_tiled

RADIUS = 3
Network = Callable[[np.ndarray], np.ndarray]


def convolutions(batch: np.ndarray) -> np.ndarray:
    """Three 3 x 3 convolutions, zero-padded, with a kink between: a receptive radius of 3."""
    generator = np.random.default_rng(5)
    for outputs in (4, 4, 2):
        kernel = generator.standard_normal((3, 3, batch.shape[-1], outputs))
        padded = np.pad(batch, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
        batch = np.abs(np.einsum("bhwcij,ijco->bhwo", windows, kernel) + 0.5)
    return batch


def strided(batch: np.ndarray) -> np.ndarray:
    """Means of 4 x 4 pixels, those at the border of what is there; a convolution; then enlarged."""
    height, width = batch.shape[1:3]
    rows, columns = np.arange(0, height, 4), np.arange(0, width, 4)
    sums = np.add.reduceat(np.add.reduceat(batch, rows, axis=1), columns, axis=2)
    small = convolutions(sums / 16.0)
    return small.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width]


def image(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).standard_normal((height, width, 2))


@pytest.mark.parametrize("align", [1, 4])
@pytest.mark.parametrize("overlap", [0, 1, 5])
@pytest.mark.parametrize("size", [(1, 1), (16, 7), (17, 16), (40, 61), (100, 33)])
def test_each_pixel_is_kept_once_from_the_tile_that_sees_most_around_it(
    size: tuple[int, int], overlap: int, align: int
) -> None:
    tiling = Tiling(*size, 16, overlap, align)
    tiles = list(tiling)
    assert [tiling.number(tile.source) for tile in tiles] == list(range(len(tiles)))
    assert len(Tiling(*size, 16, overlap, align)) == len(tiles)
    kept = np.zeros(size, int)
    around = np.zeros(size)
    best = np.zeros(size)
    for tile in tiles:
        rows, columns = tile.source
        assert rows.start % align == columns.start % align == 0
        for length, span, found in zip(size, tile.source, tile.shape, strict=True):
            assert 0 <= span.start < span.stop <= length
            assert min(16, length) - align < found <= min(16, length)
        kept[tile.target] += 1
        y, x = (np.arange(span.start, span.stop) for span in tile.source)
        # To the tile's border along either axis; the image's own border is none.
        dy, dx = (
            np.minimum(
                np.where(span.start > 0, p - span.start, 1e3),
                np.where(span.stop < length, span.stop - 1 - p, 1e3),
            )
            for length, span, p in zip(size, tile.source, (y, x), strict=True)
        )
        distance = np.minimum(dy[:, None], dx[None])
        around[tile.target] = distance[tile.inner]
        best[tile.source] = np.maximum(best[tile.source], distance)
        assert around[tile.target].min() >= overlap
    assert (kept == 1).all()
    assert (best - around <= 1).all()  # a tie, where an odd number of pixels is shared


@pytest.mark.parametrize("size", [(60, 75), (61, 20), (24, 25), (9, 80), (5, 3)])
@pytest.mark.parametrize("batch", [1, 4])
def test_tiles_give_what_the_whole_image_gives(size: tuple[int, int], batch: int) -> None:
    whole = image(*size)
    expected = convolutions(whole[None])[0]
    found = predict_tiled(convolutions, whole, 24, RADIUS, batch)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_less_overlap_leaves_seams_and_no_overlap_works() -> None:
    whole = image(64, 104)  # a whole number of tiles: nothing is left over for more overlap
    expected = convolutions(whole[None])[0]
    for overlap in (RADIUS - 1, 0):
        found = predict_tiled(convolutions, whole, 24, overlap)
        assert found.shape == expected.shape
        wrong = ~np.isclose(found, expected).all(axis=-1)
        assert 0.0 < wrong.mean() < 0.6


@pytest.mark.parametrize("size", [(96, 64), (97, 63), (50, 131)])
def test_tiles_of_a_strided_network_start_on_its_stride(size: tuple[int, int]) -> None:
    whole = image(*size)
    expected = strided(whole[None])[0]
    # Of three small pixels around, of 4 each, and the pixel itself may lie at their far side.
    found = predict_tiled(strided, whole, 48, 4 * RADIUS + 3, align=4)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    unaligned = predict_tiled(strided, whole, 47, 4 * RADIUS + 3)
    assert not np.allclose(unaligned, expected)


def test_files_are_read_and_written_by_windows(tmp_path: Path) -> None:
    whole = image(50, 40)
    read: list[int] = []

    class Watched:
        shape = whole.shape

        def __init__(self, source: object) -> None:
            self.source = source

        def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
            part = self.source[window]  # type: ignore[index]
            read.append(part.shape[0] * part.shape[1])
            return part

    mapped = np.memmap(tmp_path / "out.raw", np.float64, "w+", shape=(50, 40, 2))
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["image"] = whole
        for source in (file["image"], whole):
            mapped[:] = np.nan
            same = predict_tiled(convolutions, Watched(source), 20, RADIUS, output=mapped)
            assert same is mapped
            np.testing.assert_allclose(mapped, convolutions(whole[None])[0], rtol=1e-12)
    assert max(read) == 20 * 20


def test_batches_hold_tiles_of_one_shape() -> None:
    shapes: list[tuple[int, ...]] = []

    def network(batch: np.ndarray) -> np.ndarray:
        shapes.append(batch.shape)
        return batch

    whole = image(41, 60)
    np.testing.assert_array_equal(predict_tiled(network, whole, 16, 2, 4), whole)
    assert {s[1:] for s in shapes} == {(16, 16, 2)}
    assert [s[0] for s in shapes] == [4, 4, 4, 4, 4]  # 4 x 5 tiles
    shapes.clear()
    predict_tiled(network, whole, 16, 2, 100, align=4)
    assert {s[1:3] for s in shapes} == {(16, 16), (13, 16)}


def test_what_cannot_be_tiled_is_told() -> None:
    with pytest.raises(ConfigError, match="tile=96 leaves nothing .* 48 .* take tile=97 or more"):
        Tiling(500, 500, 96, 48)
    with pytest.raises(ConfigError, match="take tile=24 or more"):
        Tiling(500, 500, 16, 8, align=8)
    with pytest.raises(ConfigError, match="tile=100 must be a multiple of 32"):
        Tiling(500, 500, 100, 0, align=32)
    with pytest.raises(ConfigError, match="overlap=-1"):
        Tiling(500, 500, 100, -1)
    with pytest.raises(ValueError, match=r"predict made \(1, 15, 16, 2\) of 1 tiles"):
        predict_tiled(lambda batch: batch[:, 1:], image(40, 40), 16, 0)


def blended(
    network: Network, whole: np.ndarray, tiling: Tiling, columns: slice | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The blocks put together, and how often each pixel came."""

    def read(windows: list[Window]) -> np.ndarray:
        return np.stack([whole[window] for window in windows])

    result = np.full((*whole.shape[:2], 2), np.nan, np.float32)
    times = np.zeros(whole.shape[:2], int)
    for window, block in blend_tiled(read, network, tiling, 2, 3, columns):
        result[window] = block
        times[window] += 1
    return result, times


@pytest.mark.parametrize(
    ("size", "tile", "overlap", "align"),
    [
        ((9, 7), 32, 8, 1),
        ((33, 40), 32, 8, 1),
        ((61, 100), 24, 8, 1),
        ((70, 45), 32, 8, 4),
        ((40, 16), 16, 7, 1),
    ],
)
def test_blended_tiles_are_the_whole_where_the_overlap_is_twice_the_radius(
    size: tuple[int, int], tile: int, overlap: int, align: int
) -> None:
    whole = image(*size)
    result, times = blended(convolutions, whole, Tiling(*size, tile, overlap, align))
    assert (times == 1).all()
    np.testing.assert_allclose(result, convolutions(whole[None])[0], rtol=1e-5)


def test_weights_add_up_and_leave_the_border_of_a_tile_out() -> None:
    for length in (1, 31, 32, 33, 50, 64, 100, 1001):
        total = np.zeros(length)
        for span, weights in Tiling(length, 1, 32, 6).weighted(length):
            total[span] += weights
            if span.start > 0:
                assert (weights[:3] == 0).all()
            if span.stop < length:
                assert (weights[-3:] == 0).all()
        np.testing.assert_allclose(total, 1.0, rtol=1e-6)


def test_blending_leaves_no_step_where_tiles_disagree() -> None:
    def disagreeing(batch: np.ndarray) -> np.ndarray:
        """Each tile has a level of its own."""
        level = np.sin(1000.0 * batch[:, :1, :1, :1])
        return np.broadcast_to(level, (*batch.shape[:3], 2))

    whole = image(90, 130)
    result, _ = blended(disagreeing, whole, Tiling(90, 130, 48, 16))
    steps = max(np.abs(np.diff(result[..., 0], axis=axis)).max() for axis in (0, 1))
    assert np.ptp(result) > 0.5
    # A raised cosine over 16 pixels between two levels at most 2 apart is nowhere steeper.
    assert steps < 2.0 * np.pi / 2.0 / 16.0


def test_strips_of_columns_fit_each_other() -> None:
    whole, tiling = image(50, 90), Tiling(50, 90, 24, 4)
    expected, _ = blended(strided, whole, tiling)
    for cuts in ([0, 45, 90], [0, 1, 23, 24, 70, 90]):
        for start, stop in itertools.pairwise(cuts):
            part, times = blended(strided, whole, tiling, slice(start, stop))
            assert times[:, start:stop].all() and times.sum() == 50 * (stop - start)
            np.testing.assert_array_equal(part[:, start:stop], expected[:, start:stop])


def test_reading_goes_ahead_and_its_errors_arrive() -> None:
    def read(windows: list[Window]) -> np.ndarray:
        if windows[0][0].start > 20:
            raise ConfigError("no more")
        return np.zeros((len(windows), 24, 24, 2), np.float32)

    with pytest.raises(ConfigError, match="no more"):
        list(blend_tiled(read, lambda batch: batch, Tiling(200, 200, 24, 4), 2))
    with pytest.raises(ValueError, match=r"predict made \(1, 24, 24, 1\)"):
        list(blend_tiled(read, lambda batch: batch[..., :1], Tiling(200, 200, 24, 4), 2))
