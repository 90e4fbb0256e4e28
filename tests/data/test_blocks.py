from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio

from dlbench.data import raster
from dlbench.data.blocks import Block, BlockCache
from dlbench.data.dataset import DataError


def _block(size: int) -> Block:
    return np.zeros((1, size, 1), np.uint8), None


def test_blocks_used_last_are_kept_within_the_budget() -> None:
    blocks, decoded = BlockCache(100), []

    def get(key: int) -> None:
        blocks(key, lambda: decoded.append(key) or _block(40))  # type: ignore[func-returns-value]

    for key in (1, 2, 1, 3, 1, 2):
        get(key)
    # 3 pushed 2 out, as 1 had been used since.
    assert decoded == [1, 2, 3, 2]
    assert blocks.size == 80


def test_a_block_beyond_the_budget_is_given_but_not_kept() -> None:
    blocks = BlockCache(100)
    assert blocks("key", lambda: _block(400))[0].size == 400
    assert blocks.size == 0


def test_masks_count_too() -> None:
    blocks = BlockCache(100)
    blocks("key", lambda: (np.zeros((5, 5, 1), np.uint8), np.zeros((5, 5), bool)))
    assert blocks.size == 50


def test_threads_wait_for_the_one_that_decodes() -> None:
    blocks, decoded, together = BlockCache(100), [], threading.Barrier(4, timeout=10)

    def decode() -> Block:
        decoded.append(1)
        started.wait(10)
        return _block(40)

    def get() -> np.ndarray:
        together.wait()
        return blocks("key", decode)[0]

    started = threading.Event()
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(get) for _ in range(4)]
        started.set()
        found = [future.result(10) for future in futures]
    assert len(decoded) == 1
    assert all(one is found[0] for one in found)


def test_what_failed_is_tried_again() -> None:
    blocks = BlockCache(100)

    def fail() -> Block:
        raise DataError("damaged")

    with pytest.raises(DataError, match="damaged"):
        blocks("key", fail)
    assert blocks("key", lambda: _block(40))[0].size == 40


@pytest.fixture(params=[(16, 16), (128, 144), (1, 205), (7, 205)], ids=str)
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A raster in tiles or strips, and its values (height, width, bands), 0 being no data."""
    rows, columns = request.param
    values = np.random.default_rng(0).integers(0, 40, (311, 205, 3), np.uint16)
    path = tmp_path / "values.tif"
    tiles = {"tiled": True, "blockxsize": columns, "blockysize": rows}
    with rasterio.open(
        path, "w", driver="GTiff", height=311, width=205, count=3, dtype="uint16", nodata=0,
        **(tiles if columns < 205 else {"blockysize": rows}),
    ) as file:  # fmt: skip
        file.write(np.moveaxis(values, -1, 0))
    return path, values


@pytest.mark.parametrize("kept", [True, False])
def test_any_window_of_any_layout(
    layout: tuple[Path, np.ndarray], kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, values = layout
    monkeypatch.setattr(raster, "_blocks", BlockCache(2**26 if kept else 0))
    rng = np.random.default_rng(1)
    for bands in (None, [3, 1]):
        truth = values if bands is None else values[..., [b - 1 for b in bands]]
        for _ in range(12):
            row, column = int(rng.integers(310)), int(rng.integers(204))
            height, width = int(rng.integers(1, 312 - row)), int(rng.integers(1, 206 - column))
            found, valid = raster.read_window(path, row, column, height, width, bands)
            window = truth[row : row + height, column : column + width]
            np.testing.assert_array_equal(found, window)
            np.testing.assert_array_equal(valid, (window != 0).all(axis=-1))
            assert found.flags.c_contiguous
            # What is read is the reader's own.
            found[:], valid[:] = 7, False


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "values.tif"

    def write(value: int) -> None:
        path.unlink(missing_ok=True)
        with rasterio.open(
            path, "w", driver="GTiff", height=9, width=9, count=1, dtype="uint8"
        ) as file:
            file.write(np.full((1, 9, 9), value, np.uint8))

    for value in (1, 2):
        write(value)
        with ThreadPoolExecutor(1) as fresh:  # a new thread opens the file anew
            found, _ = fresh.submit(raster.read_window, path, 0, 0, 9, 9).result()
        assert (found == value).all()
