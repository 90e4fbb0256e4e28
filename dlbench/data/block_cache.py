"""Windows of rasters whose blocks are decoded once, for all threads and epochs.

GDAL keeps decoded blocks a handle, so a thread, and windows that move touch each block several
times. Here a *cell* of a raster, some whole blocks of its file, is decoded by the first thread
that needs it and kept while there is room; beyond that, windows are read from their files. Images
that are made of bands, and labels that are warped or drawn onto their grid, are kept in cells too.
Cells are not exchanged for others: windows come in random order, so a new one is worth no more than
an old one. Pixels are the same either way.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dlbench.data import raster
from dlbench.data.dataset import DataError
from dlbench.data.grid import Grid, Labels
from dlbench.data.raster import Decode
from dlbench.data.rows import copy_rows, rows_of

MOST_BYTES = 2**30
"""Of all cells of a process."""
SIDE = 512
"""Pixels that a cell has at least along each side: GDAL decodes many blocks faster than one by one,
and few cells make a window."""
IDLE_S = 60.0
"""After so long without a window of it, a raster makes room for others."""
LOOK_S = 1.0
"""So often a file is looked at, whether it was written anew, unless a data set has been opened
since: each look lets the interpreter go to another thread."""

Window = tuple[np.ndarray, np.ndarray | None]
"""Values, and where they hold data; None: everywhere."""
Box = tuple[int, int, int, int]
"""Row, column, height and width in pixels."""
Read = Callable[[Box], Window]
_Slices = tuple[slice, slice]
_Key = tuple[int, int, Hashable]
"""Row and column of a cell among the others, and what is read there."""


class Cells:
    """The cells of one raster of ``shape`` (height, width), whole blocks of it each."""

    def __init__(self, shape: tuple[int, int], block: tuple[int, int] = (1, 1)) -> None:
        self.shape = shape
        self.cell = tuple(side * -(-SIDE // side) for side in block)
        self.held: dict[_Key, Future[Window]] = {}
        self.unreadable: set[_Key] = set()
        self.bytes = 0
        self.used = time.monotonic()
        with _lock:
            _all_cells.add(self)

    def window(
        self,
        box: Box,
        read: Read,
        pixel_bytes: int,
        what: Hashable = None,
    ) -> Window:
        """What ``read`` gives of a window on the raster, put together from cells; ``what`` is
        another for each that reads otherwise. A cell that cannot be read as a whole, and one for
        which there is no room, leaves windows to ``read`` itself. Whole cells that another cell is
        made of are not kept beside it.
        """
        if getattr(_local, "makes_cell", False) and self._is_of_whole_cells(box):
            return read(box)
        self.used = time.monotonic()
        row, column, height, width = box
        down, across = self.cell
        values: np.ndarray | None = None
        valid: np.ndarray | None = None
        for r in range(row // down, (row + height - 1) // down + 1):
            for c in range(column // across, (column + width - 1) // across + 1):
                try:
                    cell = self._cell((r, c, what), read, pixel_bytes)
                except DataError:
                    cell = None
                if cell is None:
                    return read(box)
                part, known = cell
                if values is None:
                    values = np.empty((height, width, *part.shape[2:]), part.dtype)
                below, right = r * down - row, c * across - column  # of the window's corner
                down_to, across_to = below + part.shape[0], right + part.shape[1]
                here = slice(max(below, 0), down_to), slice(max(right, 0), across_to)
                there = slice(max(-below, 0), height - below), slice(max(-right, 0), width - right)
                _copy(part, there, values, here)
                if known is not None:
                    if valid is None:
                        valid = np.ones((height, width), bool)
                    _copy(known, there, valid, here)
        assert values is not None
        return values, valid

    def forget(self) -> None:
        """Under `_lock`."""
        self.held.clear()
        self.unreadable.clear()
        self.bytes = 0

    def _is_of_whole_cells(self, box: Box) -> bool:
        return all(
            start % cell == 0 and ((start + length) % cell == 0 or start + length == side)
            for start, length, cell, side in zip(
                box[:2], box[2:], self.cell, self.shape, strict=True
            )
        )

    def _cell(self, key: _Key, read: Read, pixel_bytes: int) -> Window | None:
        """A cell, read before, now, or by another thread just now; None: there is no room, or it
        could not be read before."""
        found = self.held.get(key)
        if found is not None:
            return found.result()
        if key in self.unreadable:
            return None
        top, left = key[0] * self.cell[0], key[1] * self.cell[1]
        height = min(self.cell[0], self.shape[0] - top)  # the border may cut it
        width = min(self.cell[1], self.shape[1] - left)
        size = height * width * pixel_bytes
        with _lock:
            found = self.held.get(key)
            mine = found is None
            if found is None:
                if not _has_room(size):
                    return None
                found = self.held[key] = Future()
                self.bytes += size
        if mine:
            outer, _local.makes_cell = getattr(_local, "makes_cell", False), True
            try:
                values, valid = read((top, left, height, width))
                known = None if valid is None else np.ascontiguousarray(valid)
                found.set_result((np.ascontiguousarray(values), known))
            except BaseException as error:
                with _lock:
                    if self.held.get(key) is found:
                        del self.held[key]
                        self.bytes -= size
                        if isinstance(error, DataError):
                            self.unreadable.add(key)
                found.set_exception(error)
                raise
            finally:
                _local.makes_cell = outer
        return found.result()


def _copy(part: np.ndarray, there: _Slices, whole: np.ndarray, here: _Slices) -> None:
    """``whole[here] = part[there]``; slices of rows and columns."""
    pixel = math.prod(part.shape[2:])  # values of one
    from_columns = slice(there[1].start * pixel, there[1].stop * pixel)
    to_columns = slice(here[1].start * pixel, here[1].stop * pixel)
    copy_rows(rows_of(part)[there[0], from_columns], rows_of(whole)[here[0], to_columns])


@dataclass
class _File:
    """A file as it was when it was opened."""

    signature: raster.Signature
    bands: int
    value_bytes: int
    cells: Cells
    looked_at: float
    headers_read: int
    """`raster.headers_read` as it was then."""


_all_cells: weakref.WeakSet[Cells] = weakref.WeakSet()
_files: dict[Path, _File] = {}
_of_labels: weakref.WeakKeyDictionary[Labels, dict[Grid, Cells]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()
_local = threading.local()


def read_window(
    path: Path,
    row: int,
    column: int,
    height: int,
    width: int,
    indexes: Sequence[int] | None = None,
    decode: Decode | None = None,
) -> Window:
    """As `raster.read_window`, but None for a mask that is true everywhere; ``decode`` is the same
    object for all windows of a file."""
    file = _file(path)
    raster.require_window(path, file.cells.shape, row, column, height, width)
    chosen = None if indexes is None else tuple(indexes)
    bands = file.bands if chosen is None else len(chosen)

    def read(box: Box) -> Window:
        values, valid = raster.read_window(path, *box, chosen, decode)
        return values, None if valid.all() else valid

    return file.cells.window(
        (row, column, height, width),
        read,
        1 + (bands * file.value_bytes if decode is None else 1),
        (chosen, decode),
    )


def cells_of(labels: Labels, grid: Grid) -> Cells:
    """The cells of ``labels`` on a grid, the same for all images there."""
    with _lock:
        found = _of_labels.setdefault(labels, {})
    return found.get(grid) or found.setdefault(grid, Cells((grid.height, grid.width)))


def clear() -> None:
    """Forget all cells."""
    with _lock:
        for cells in _all_cells:
            cells.forget()


def _file(path: Path) -> _File:
    """The cells of a file; one that was written anew has none yet."""
    file, now, headers_read = _files.get(path), time.monotonic(), raster.headers_read
    if file is not None and file.headers_read == headers_read and now - file.looked_at < LOOK_S:
        return file
    signature = raster.signature(path)
    if file is not None and file.signature == signature:
        file.looked_at, file.headers_read = now, headers_read
    else:
        dataset, _ = raster.kept_open(path)
        cells = Cells(dataset.shape, dataset.block_shapes[0])
        value_bytes = np.dtype(dataset.dtypes[0]).itemsize
        opened = _File(signature, dataset.count, value_bytes, cells, now, headers_read)
        with _lock:
            file = _files.get(path)
            if file is None or file.signature != signature:
                file = _files[path] = opened
    return file


def _has_room(size: int) -> bool:
    """Whether ``size`` bytes more may be kept. Under `_lock`."""
    holders = sorted((cells for cells in _all_cells if cells.bytes), key=lambda one: one.used)
    held = sum(cells.bytes for cells in holders)
    for oldest in holders:
        if held + size <= MOST_BYTES or time.monotonic() - oldest.used < IDLE_S:
            break
        held -= oldest.bytes
        oldest.forget()
    return held + size <= MOST_BYTES
