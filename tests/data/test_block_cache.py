"""Windows out of the cache are slices of what was written, decoded once, as long as they fit."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from dlbench.data import block_cache, raster
from dlbench.data.block_cache import read_window
from dlbench.data.dataset import DataError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
BLOCKS: dict[str, Any] = {"tiled": True, "blockxsize": 16, "blockysize": 32}
VALUES = np.random.default_rng(0).integers(1, 65536, (150, 170, 3), dtype=np.uint16)


@pytest.fixture(autouse=True)
def _small_cells(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(block_cache, "SIDE", 40)
    block_cache.clear()
    yield
    block_cache.clear()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was read of files."""
    made: list[tuple[Any, ...]] = []
    read = raster.read_window

    def told(*arguments: Any) -> Any:
        made.append(arguments)
        time.sleep(0.002)  # so that threads meet
        return read(*arguments)

    monkeypatch.setattr(raster, "read_window", told)
    return made


def _write(path: Path, values: np.ndarray = VALUES, **profile: Any) -> Path:
    with rasterio.open(
        path, "w", driver="GTiff", count=values.shape[2], dtype=values.dtype,
        height=values.shape[0], width=values.shape[1], **profile,
    ) as file:  # fmt: skip
        file.write(np.moveaxis(values, -1, 0))
    return path


def _windows(count: int, seed: int = 1) -> list[tuple[int, int, int, int]]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, (151, 171), (count, 2))
    starts = rng.integers(0, np.array([151, 171]) - sizes)
    return [(*start, *size) for start, size in zip(starts.tolist(), sizes.tolist(), strict=True)]


def _parity(values: np.ndarray) -> np.ndarray:
    return (values.sum(axis=-1) % 2).astype(np.uint8)


@pytest.mark.parametrize("layout", [BLOCKS, {"blockysize": 3}], ids=["tiles", "strips"])
def test_windows_are_slices_and_each_cell_is_decoded_once_for_all_threads(
    tmp_path: Path, reads: list[Any], layout: dict[str, Any]
) -> None:
    path = _write(tmp_path / "a.tif", **layout)

    def check(window: tuple[int, int, int, int]) -> None:
        row, column, height, width = window
        here = np.s_[row : row + height, column : column + width]
        values, valid = read_window(path, *window)
        assert values.flags.c_contiguous and valid is None
        np.testing.assert_array_equal(values, VALUES[here])
        values[:] = 0  # what a caller does to a window is of no other window
        chosen, _ = read_window(path, *window, (3, 1))
        np.testing.assert_array_equal(chosen, VALUES[here][..., [2, 0]])
        decoded, _ = read_window(path, *window, decode=_parity)
        np.testing.assert_array_equal(decoded, _parity(VALUES[here]))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(check, _windows(80)))
    assert len(reads) == len(set(reads))
    assert sum(height * width for _, _, _, height, width, *_ in reads) == 3 * 150 * 170


def test_masks_are_kept_too(tmp_path: Path) -> None:
    values = np.maximum(VALUES, 100)
    values[70, 90, 1] = 7
    path = _write(tmp_path / "a.tif", values, nodata=7, **BLOCKS)
    for _ in range(2):
        _, valid = read_window(path, 60, 50, 30, 60)
        assert valid is not None
        assert np.argwhere(~valid).tolist() == [[10, 40]]
        valid[:] = False  # a caller's own, as values are


def test_beyond_its_bytes_windows_come_from_the_file(
    tmp_path: Path, reads: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_cache, "MOST_BYTES", 60_000)  # of 150 * 170 * 7
    path = _write(tmp_path / "a.tif", **BLOCKS)
    for _ in range(2):
        for row, column, height, width in _windows(40):
            values, _ = read_window(path, row, column, height, width)
            np.testing.assert_array_equal(
                values, VALUES[row : row + height, column : column + width]
            )
            decoded, _ = read_window(path, row, column, height, width, decode=_parity)
            np.testing.assert_array_equal(decoded, _parity(values))
    held = [
        found.result()[0].nbytes
        for cells in block_cache._all_cells
        for found in cells.held.values()
    ]
    assert 0 < sum(held) <= 60_000
    assert len(reads) > 40


def test_a_raster_that_is_no_longer_read_makes_room(
    tmp_path: Path, reads: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_cache, "MOST_BYTES", 200_000)
    old, new = _write(tmp_path / "a.tif", **BLOCKS), _write(tmp_path / "b.tif", **BLOCKS)
    read_window(old, 0, 0, 150, 170)
    for idle_s, wanted in ((60.0, 1), (0.0, 0)):
        monkeypatch.setattr(block_cache, "IDLE_S", idle_s)
        read_window(new, 0, 0, 150, 170)
        reads.clear()
        read_window(new, 0, 0, 150, 170)
        assert len(reads) == wanted


@pytest.mark.parametrize("opened", [True, False], ids=["opened", "later"])
def test_a_file_written_anew_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: bool
) -> None:
    path = _write(tmp_path / "a.tif", **BLOCKS)
    read_window(path, 0, 0, 20, 20)
    _write(tmp_path / "new.tif", VALUES[:50] + np.uint16(1), **BLOCKS)
    os.replace(tmp_path / "new.tif", path)
    monkeypatch.setattr(block_cache, "LOOK_S", 60.0)  # not looked at yet
    np.testing.assert_array_equal(read_window(path, 0, 0, 20, 20)[0], VALUES[:20, :20])
    if opened:
        raster.describe(path)
    else:
        monkeypatch.setattr(block_cache, "LOOK_S", 0.0)
    values, _ = read_window(path, 0, 0, 20, 20)
    np.testing.assert_array_equal(values, VALUES[:20, :20] + np.uint16(1))
    with pytest.raises(DataError, match=r"leaves .*a\.tif \(50 x 170"):
        read_window(path, 40, 0, 20, 20)


def test_a_damaged_block_fails_for_every_thread_and_again(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tif", compress="deflate", **BLOCKS)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    start = threading.Barrier(3)

    def fails(_: int) -> str:
        start.wait()
        with pytest.raises(DataError) as error:
            read_window(path, 110, 130, 40, 40)
        return str(error.value)

    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            for message in pool.map(fails, range(3)):
                assert f"cannot read {path}" in message
    assert sum(cells.bytes for cells in block_cache._all_cells) == 0
    path.write_bytes(whole)
    values, _ = read_window(path, 110, 130, 40, 40)
    np.testing.assert_array_equal(values, VALUES[110:150, 130:170])
