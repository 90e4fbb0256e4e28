"""Sums of gradients over ranks in each compression: ``python sums.py FOLDER`` under horovodrun.

Rank r leaves FOLDER/sums<r>.npz with what it got, by compression, way in `PACKS` and place in
`SHAPES`, and as JSON which gradients each exchange waited for.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import tensorflow as tf

from dlbench import compression, config, distributed

SHAPES = ((1,), (64, 64), (17, 241), (3, 3, 64, 113), (1000, 999))
"""The first two travel whole; the others are no multiples of 2 and 3 ranks."""
PACKS = {"together": 2**22, "apart": 2**16}
"""Most values of a pack: all of three gradients in one, or the largest three in one each."""
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


def waits(graph: Any) -> list[list[int]]:
    """Of each exchange in ``graph`` the places of the gradients that it waits for; each is followed
    by one gathering."""
    gathers = [op for op in graph.get_operations() if op.type == "HorovodAllgather"]
    exchanges = [op for op in graph.get_operations() if op.type == "HorovodAlltoall"]
    assert len(gathers) == len(exchanges)
    found = []
    for exchange in exchanges:
        before, left = set(), [exchange]
        while left:
            op = left.pop()
            if op.name not in before:
                before.add(op.name)
                left += [*op.control_inputs, *(tensor.op for tensor in op.inputs)]
        found.append([i for i, one in enumerate(graph.inputs) if one.op.name in before])
    return found


def main(folder: Path) -> None:
    distributed.configure_devices(1)
    arrays: dict[str, Any] = {}
    for kind in get_args(compression.Compression):
        ranks = distributed.start(config.Distributed(compression=kind))
        mine = [tf.constant(gradient(ranks.rank, shape)) for shape in SHAPES]
        for way, most in PACKS.items():
            compression.PACK = most
            names = [f"{kind}/{way}/{number}" for number in range(len(SHAPES))]
            total = tf.function(partial(ranks.sum_gradients, names=names))
            summed = [tensor.numpy() for tensor in total(mine)]
            arrays |= dict(zip(names, summed, strict=True))
            graph = total.get_concrete_function(mine).graph
            arrays[f"{kind}/{way}/waits"] = json.dumps(waits(graph))
    ranks = distributed.start(config.Distributed(compression="fp16"))
    # The first sum overflows under a loss scale; the last is lost there, and not without one.
    large = np.zeros((2, 5000), np.float32)
    large[:, :3] = 2.0**15, 0.01 * 2.0**15, 2.0**-26
    large[:, SPECIAL:] = gradient(ranks.rank, (5000,))[SPECIAL:]
    for scaled, name in ((True, "scaled"), (False, "unscaled")):
        both = [tf.constant(large[0]), tf.constant(-large[1])]
        arrays[name] = np.stack(ranks.sum_gradients(both, [f"{name}/0", f"{name}/1"], scaled))
    np.savez(folder / f"sums{ranks.rank}.npz", **arrays)
    ranks.barrier()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
