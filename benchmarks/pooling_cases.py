"""Inputs of the pooling benchmarks and what every implementation must give for them, in NumPy."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from benchmarks.profiles import is_full, is_smoke
from dlbench.report.records import Workload

Shape = tuple[int, int, int, int]

LARGE: Shape = (4, 360, 480, 64)
SHAPES: tuple[Shape, ...] = (
    LARGE,
    # What SegNet's five pools see of one image of 360 x 480.
    (1, 360, 480, 64),
    (1, 180, 240, 128),
    (1, 90, 120, 256),
    (1, 45, 60, 512),
    (1, 23, 30, 512),
)
DEFAULT_SHAPES: tuple[Shape, ...] = (LARGE, (1, 45, 60, 512))
"""Out of the caches and within them; the others take `--profile=full`."""
SMOKE_SHAPES: tuple[Shape, ...] = ((2, 9, 7, 64),)
PRECISIONS = ("float32", "bfloat16")
BYTES = {"float32": 4, "bfloat16": 2}


def chosen_shapes(config: Any) -> tuple[Shape, ...]:
    """Those that the command line of pytest asks for."""
    if is_smoke(config):
        return SMOKE_SHAPES
    return SHAPES if is_full(config) else DEFAULT_SHAPES


def workload(operation: str, name: str, shape: Shape, precision: str, mode: str) -> Workload:
    """What a record of one op tells of it; `pooling_table` reads the id."""
    return Workload(
        id=f"{operation}/{name}/{precision}/{'x'.join(map(str, shape))}",
        model=None,
        data=None,
        precision=precision,
        ranks=1,
        batch_per_rank=shape[0],
        shape=shape,
        mode=mode,
    )


class Arrays(NamedTuple):
    """(batch, height, width, channels) float32, but for ``indices``: places in 2 x 2 windows,
    uint8. ``values`` and ``indices`` are the pool of ``dense``, ``unpooled`` puts them back."""

    dense: np.ndarray
    values: np.ndarray
    indices: np.ndarray
    unpooled: np.ndarray


def arrays(shape: Shape, precision: str) -> Arrays:
    """Always the same; for bfloat16 every number is one that bfloat16 has."""
    dense = np.random.default_rng(0).standard_normal(shape, np.float32)
    if precision == "bfloat16":
        dense = (dense.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    batch, height, width, channels = shape
    rows, columns = -(-height // 2), -(-width // 2)
    padding = ((0, 0), (0, 2 * rows - height), (0, 2 * columns - width), (0, 0))
    split = np.pad(dense, padding, constant_values=-np.inf)
    split = split.reshape(batch, rows, 2, columns, 2, channels)
    values = split[:, :, 0, :, 0]
    indices = np.zeros(values.shape, np.uint8)
    for local in (1, 2, 3):
        candidate = split[:, :, local // 2, :, local % 2]
        indices = np.where(candidate > values, np.uint8(local), indices)
        values = np.maximum(values, candidate)
    unpooled = np.zeros_like(split)
    for local in range(4):
        unpooled[:, :, local // 2, :, local % 2] = np.where(indices == local, values, 0)
    whole = unpooled.reshape(batch, 2 * rows, 2 * columns, channels)
    return Arrays(dense, values, indices, np.ascontiguousarray(whole[:, :height, :width]))


def flat_indices(case: Arrays) -> np.ndarray:
    """``case.indices`` as PyTorch numbers them: y * width + x, int64."""
    rows, columns = case.indices.shape[1:3]
    y = 2 * np.arange(rows)[:, None, None] + case.indices // 2
    x = 2 * np.arange(columns)[:, None] + case.indices % 2
    return y.astype(np.int64) * case.dense.shape[2] + x
