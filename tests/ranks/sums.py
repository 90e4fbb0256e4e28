"""Sums of gradients over ranks in each compression: ``python sums.py FOLDER`` under horovodrun.

Rank r leaves FOLDER/sums<r>.npz with what it got, by compression and place in `SHAPES`.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import tensorflow as tf

from dlbench import config, distributed

SHAPES = ((1,), (64, 64), (17, 241), (3, 3, 64, 113), (1000, 999))
"""The first two travel whole; the others are no multiples of 2 and 3 ranks."""
WIDE = (-40.0, 4.0)
"""Powers of two between which gradients lie."""
SPECIAL = 12


def gradient(rank: int, shape: tuple[int, ...]) -> np.ndarray:
    """Of any sign and size; then what is no number, and what half precision cannot hold."""
    generator = np.random.default_rng([rank, *shape])
    values = generator.choice([-1.0, 1.0], shape) * 2.0 ** generator.uniform(*WIDE, shape)
    flat = values.astype(np.float32).reshape(-1)
    if flat.size > SPECIAL:
        flat[:SPECIAL] = 0.0
        flat[rank] = np.inf
        flat[3 + rank] = np.nan
        flat[6] = np.inf if rank else -np.inf
        flat[7] = 1e30 * (rank + 1)
        flat[8] = -1e30 / (rank + 1)
        flat[9] = 3e-39 * (rank + 1)
        flat[10] = -0.0
        flat[11] = 1.0 + rank * 2.0**-7
    return flat.reshape(shape)


def main(folder: Path) -> None:
    distributed.configure_devices(1)
    arrays = {}
    for compression in get_args(distributed.Compression):
        ranks = distributed.start(config.Distributed(compression=compression))
        for number, shape in enumerate(SHAPES):
            mine = gradient(ranks.rank, shape)
            name = f"{compression}/{number}"
            total = tf.function(partial(ranks.sum_gradient, name=name))
            arrays[name] = total(tf.constant(mine)).numpy()
    # As under a loss scale: the first sum overflows, the second does not.
    large = np.zeros((5000,), np.float32)
    large[:2] = 2.0**15, 0.01 * 2.0**15
    ranks = distributed.start(config.Distributed(compression="fp16"))
    arrays["scaled"] = ranks.sum_gradient(tf.constant(large), "scaled", scaled=True).numpy()
    np.savez(folder / f"sums{ranks.rank}.npz", **arrays)
    ranks.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
