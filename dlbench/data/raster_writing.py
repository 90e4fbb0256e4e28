"""Rasters that are written: GDAL says nothing of a disk that is full as it closes a file, so what
is there is read once more before it counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError  # what closing and copying raise, no RasterioError
from rasterio.errors import RasterioError

from dlbench.errors import UserError


class Written:
    """What went into a raster, each pixel at most once; of the others ``nodata`` is expected."""

    def __init__(self) -> None:
        self._values, self._sum = 0, 0

    def add(self, values: np.ndarray) -> None:
        """Of the raster's dtype and any shape."""
        self._values += values.size
        self._sum += _bits(values)

    def require_in(self, path: Path) -> None:
        """Put a closed file on the disk for good; raise `OSError` unless it holds these values."""
        with path.open("rb") as content:
            os.fsync(content.fileno())
        with rasterio.open(path) as file:
            missing = file.count * file.height * file.width - self._values
            expected = self._sum
            if missing:
                expected += missing * _bits(np.full(1, file.nodata, file.dtypes[0]))
            found = sum(_bits(file.read(window=block)) for _, block in file.block_windows(1))
        if (found - expected) % 2**64:
            raise OSError("what was written cannot be read again; the disk may be full")


def _bits(values: np.ndarray) -> int:
    """The sum of the values' bits as whole numbers, whatever their order, modulo 2**64."""
    whole = np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")
    return int(whole.sum(dtype=np.uint64))


@contextmanager
def writing(path: Path, remedy: str = "make room, or choose another folder") -> Iterator[None]:
    """Raise `UserError` where the block cannot write what becomes ``path``."""
    try:
        yield
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise UserError(f"cannot write {path}: {error.__cause__ or error}; {remedy}") from error
