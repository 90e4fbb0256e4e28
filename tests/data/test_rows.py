"""Rows that are copied as one element each hold what NumPy's own copies do."""

from __future__ import annotations

import numpy as np
import pytest

from dlbench.data.rows import copy_rows, rows_of


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, bool])
@pytest.mark.parametrize("bands", [1, 3, 13])
def test_rows_are_copied_as_numpy_does(dtype: type, bands: int) -> None:
    rng = np.random.default_rng(0)
    source: np.ndarray = rng.integers(0, 2 if dtype is bool else 255, (20, 30, bands)).astype(dtype)
    if dtype is np.float32:
        source[3, 4] = np.nan
    whole: np.ndarray = np.zeros((15, 12, bands), dtype)
    copy_rows(rows_of(source)[2:9, 5 * bands : 11 * bands], rows_of(whole)[4:11, : 6 * bands])
    wanted: np.ndarray = np.zeros((15, 12, bands), dtype)
    wanted[4:11, :6] = source[2:9, 5:11]
    np.testing.assert_array_equal(whole, wanted)


def test_values_that_do_not_lie_side_by_side_are_refused() -> None:
    turned = np.zeros((8, 6), np.uint8).T
    with pytest.raises(ValueError, match="contiguous"):
        copy_rows(turned, np.zeros((6, 8), np.uint8))
