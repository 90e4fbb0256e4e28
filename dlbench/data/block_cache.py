"""Windows of rasters whose blocks are decoded once, for all threads and epochs.

GDAL keeps decoded blocks a handle, so a thread, and windows that move touch each block several
times. Here a *cell* of a raster, some whole blocks of its file, is decoded by the first thread
that needs it and kept while there is room; beyond that, windows are read from their files. Cells
are not exchanged for others: windows come in random order, so a new one is worth no more than an
old one. Pixels are the same either way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from dlbench.data import raster
from dlbench.data.raster import Decode

MOST_BYTES = 2**30
"""Of all cells of a process."""
SIDE = 512
"""Pixels that a cell has at least along each side: GDAL decodes many blocks faster than one by one,
and few cells make a window."""
IDLE_S = 60.0
"""After so long without a window of it, a raster makes room for others."""

_Cell = tuple[np.ndarray, np.ndarray | None]
"""Values, and where they hold data; None: everywhere."""
_Key = tuple[int, int, tuple[int, ...] | None, Decode | None]
"""Row and column of a cell among the others, its bands, what it went through."""


class _Raster:
    """The cells of one file as it was when it was opened."""

    def __init__(self, path: Path, signature: raster.Signature) -> None:
        dataset, _ = raster.kept_open(path)
        self.path, self.signature = path, signature
        self.shape: tuple[int, int] = dataset.shape
        self.cell = tuple(block * -(-SIDE // block) for block in dataset.block_shapes[0])
        self.bands: int = dataset.count
        self.value_bytes = np.dtype(dataset.dtypes[0]).itemsize
        self.cells: dict[_Key, Future[_Cell]] = {}
        self.bytes = 0
        self.used = time.monotonic()

    def box(self, key: _Key) -> tuple[int, int, int, int]:
        """Row, column, height and width in pixels of a cell; the border may cut it."""
        top, left = key[0] * self.cell[0], key[1] * self.cell[1]
        return (
            top,
            left,
            min(self.cell[0], self.shape[0] - top),
            min(self.cell[1], self.shape[1] - left),
        )


_rasters: dict[Path, _Raster] = {}
_lock = threading.Lock()


def read_window(
    path: Path,
    row: int,
    column: int,
    height: int,
    width: int,
    indexes: Sequence[int] | None = None,
    decode: Decode | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """As `raster.read_window`; ``decode`` is the same object for all windows of a file."""
    file = _raster(path)
    raster.require_window(path, file.shape, row, column, height, width)
    chosen = None if indexes is None else tuple(indexes)
    down, across = file.cell
    values: np.ndarray | None = None
    valid = np.ones((height, width), bool)
    for r in range(row // down, (row + height - 1) // down + 1):
        for c in range(column // across, (column + width - 1) // across + 1):
            cell = _cell(file, (r, c, chosen, decode))
            if cell is None:
                return raster.read_window(path, row, column, height, width, indexes, decode)
            part, known = cell
            if values is None:
                values = np.empty((height, width, *part.shape[2:]), part.dtype)
            below, right = r * down - row, c * across - column  # of the window's corner
            here = (
                slice(max(below, 0), below + part.shape[0]),
                slice(max(right, 0), right + part.shape[1]),
            )
            there = (
                slice(max(-below, 0), height - below),
                slice(max(-right, 0), width - right),
            )
            values[here] = part[there]
            if known is not None:
                valid[here] = known[there]
    assert values is not None
    return values, valid


def clear() -> None:
    """Forget all cells."""
    with _lock:
        _rasters.clear()


def _raster(path: Path) -> _Raster:
    """The cells of a file; one that was written anew has none yet."""
    signature = raster.signature(path)
    file = _rasters.get(path)
    if file is None or file.signature != signature:
        opened = _Raster(path, signature)
        with _lock:
            file = _rasters.get(path)
            if file is None or file.signature != signature:
                file = _rasters[path] = opened
    file.used = time.monotonic()
    return file


def _cell(file: _Raster, key: _Key) -> _Cell | None:
    """A cell, decoded before, now, or by another thread just now; None: there is no room."""
    found = file.cells.get(key)
    if found is not None:
        return found.result()
    _, _, indexes, decode = key
    box = file.box(key)
    bands = file.bands if indexes is None else len(indexes)
    size = box[2] * box[3] * (1 + (bands * file.value_bytes if decode is None else 1))
    with _lock:
        found = file.cells.get(key)
        mine = found is None
        if found is None:
            if not _has_room(file, size):
                return None
            found = file.cells[key] = Future()
    if mine:
        try:
            values, valid = raster.read_window(file.path, *box, indexes, decode)
            found.set_result((values, None if valid.all() else valid))
        except BaseException as error:
            with _lock:
                del file.cells[key]
                file.bytes -= size
            found.set_exception(error)
            raise
    return found.result()


def _has_room(file: _Raster, size: int) -> bool:
    """Whether ``size`` bytes more may be kept; if so they are counted. Under `_lock`."""
    while sum(other.bytes for other in _rasters.values()) + size > MOST_BYTES:
        oldest = min(_rasters.values(), key=lambda other: other.used)
        if time.monotonic() - oldest.used < IDLE_S:
            return False
        del _rasters[oldest.path]
    file.bytes += size
    return True
