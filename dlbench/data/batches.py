"""Samples into batches, by threads: arrays of one length that tensors can share."""

from __future__ import annotations

import ctypes
import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from dlbench.data.dataset import DataError
from dlbench.data.rows import copy_rows, rows_of

Batch = tuple[np.ndarray, ...]
"""Arrays of one length, for whoever takes them to keep; aligned, so that tensors share them."""

ALIGNMENT = 64
"""Bytes: of the widest vectors that TensorFlow is built for."""
_AHEAD = 2
"""Batches that are begun beside those that are being read."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""As malloc.h has them."""


@dataclass(frozen=True)
class Batches:
    """Batches whose samples ``work`` makes of the lists that ``jobs`` gives: a batch is one
    thread's, and comes in order. Each iteration begins anew, with ``workers`` threads of its own.
    """

    jobs: Callable[[], Iterable[list[Any]]]
    work: Callable[[Any], Batch]
    workers: int
    kinds: tuple[np.dtype[Any], ...]
    """Of the arrays of a batch, whatever a reader gives."""
    source: str
    """What an error calls the samples."""

    def __iter__(self) -> Iterator[Batch]:
        _keep_freed_memory()
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="dlbench-data")
        pending: deque[Future[Batch]] = deque()
        try:
            for listed in self.jobs():
                pending.append(pool.submit(self._batch, listed))
                if len(pending) >= self.workers + _AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _batch(self, jobs: list[Any]) -> Batch:
        columns: Batch = ()
        for place, job in enumerate(jobs):
            sample = self.work(job)
            columns = columns or tuple(
                _aligned((len(jobs), *part.shape), kind)
                for part, kind in zip(sample, self.kinds, strict=True)
            )
            for number, (column, part) in enumerate(zip(columns, sample, strict=True)):
                if part.shape != column.shape[1:]:
                    remedy = (
                        "data.size=[height, width]" if number < 2 else "training.evaluation_batch=1"
                    )
                    raise DataError(
                        f"samples of {self.source} differ in size ({column.shape[1:]} and "
                        f"{part.shape}), so they make no batch; set {remedy}"
                    )
                _copy(part, column[place, ...])
        return columns


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An empty array that TensorFlow takes over as it is; any other it copies."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _keep_freed_memory() -> None:
    """Have glibc's malloc keep up to 64 MB a thread of what is freed: TensorFlow has it give blocks
    of 128 KB back to the system at once, and fresh pages take longer to come than to be filled."""
    if sys.platform == "linux" and hasattr(process := ctypes.CDLL(None), "mallopt"):
        process.mallopt(_M_MMAP_THRESHOLD, 2**25)
        process.mallopt(_M_TRIM_THRESHOLD, 2**26)


def _copy(part: np.ndarray, place: np.ndarray) -> None:
    if part.ndim > 1 and part.flags.c_contiguous and part.dtype == place.dtype:
        copy_rows(rows_of(part), rows_of(place))
        return
    if part.ndim < 3 or part.strides[1:] == place.strides[1:]:
        place[...] = part
        return
    # Turned or flipped: NumPy's innermost loop would run over the few bands of each pixel.
    for band in range(part.shape[2]):
        place[..., band] = part[..., band]
