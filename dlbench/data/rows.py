"""Copies that NumPy makes without handing the interpreter to another thread.

It does that in every copy of more than 500 elements, and has to wait for it again. On two cores
such waiting, for copies, masks and draws, doubled the time of a later epoch
(`benchmarks.bench_input`). So a row is one element here; arrays of more than 500 rows still give
other threads their turn.
"""

from __future__ import annotations

import numpy as np


def rows_of(array: np.ndarray) -> np.ndarray:
    """The memory of an array (height, ...), which is of one piece, as (height, values of a row)."""
    return array.reshape(len(array), -1)


def copy_rows(source: np.ndarray, to: np.ndarray) -> None:
    """``to[:] = source``: both (height, values of a row), the values of a row side by side."""
    assert source.dtype == to.dtype
    row = np.dtype((np.void, source.shape[1] * source.itemsize))
    to.view(row)[:] = source.view(row)
