"""Memory of the indices that SegNet's five pools keep for the decoder and the gradient.

    pytest benchmarks/bench_pooling_memory.py --benchmark-json=OUT.json

Measured as what a process of its own grows by while it keeps nothing but those indices: batch 12 of
360 x 480, as TensorFlow's own op stores them (int64), as ours does (a byte each), and packed (two
bits each). Run as a script, this file is that process.
"""

from __future__ import annotations

import ctypes
import gc
import math
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.pooling_cases import LARGE, SHAPES, workload
from benchmarks.profiles import is_smoke

FORMS = {"int64": 8.0, "uint8": 1.0, "packed": 0.25}
"""Bytes of an index."""
BATCH = 12
POOLS = [shape[1:] for shape in SHAPES if shape != LARGE]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A process a form; the smoke test has the one that needs ours most."""
    metafunc.parametrize("form", ("packed",) if is_smoke(metafunc.config) else FORMS)


def test_index_memory(
    benchmark: Any, attach_record: Callable[..., None], devices: None, form: str
) -> None:
    grown = benchmark.pedantic(growth, (form,), rounds=1)
    indices = sum(-(-height // 2) * -(-width // 2) * depth for height, width, depth in POOLS)
    assert grown == pytest.approx(BATCH * indices * FORMS[form], rel=0.02, abs=5e5)
    benchmark.extra_info["index_bytes"] = grown
    measured = workload("index-memory", form, (BATCH, *POOLS[0]), "float32", "memory")
    # No step: the time would be that of a process which loads TensorFlow.
    attach_record(measured, step_s=(), peak_bytes={"indices": grown}, judged=form != "int64")


def growth(form: str) -> int:
    """Bytes that a process with these indices alone has more than one without."""
    command = [sys.executable, __file__, form]
    # Whatever is freed goes back to the system at once, so that what stays is what is kept; with
    # oneDNN TensorFlow's allocator would hold on to it.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    own = {
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "TF_ENABLE_ONEDNN_OPTS": "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    environment = kept | own
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def main(form: str) -> None:
    import psutil
    import tensorflow as tf

    from dlbench import ops

    def pool(batch: int, shape: tuple[int, ...]) -> tf.Tensor:
        dense = tf.zeros((batch, *shape))
        if form == "int64":
            return tf.nn.max_pool_with_argmax(dense, 2, 2, "SAME", include_batch_in_index=True)[1]
        return ops.max_pool_with_indices(dense, packed=form == "packed")[1]

    def resident() -> int:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # pages that are free but still held do not count
        return psutil.Process().memory_info().rss

    for shape in POOLS:
        pool(BATCH, shape)
    before = resident()
    kept = [pool(BATCH, shape) for shape in POOLS]
    after = resident()
    assert all(math.prod(indices.shape) for indices in kept)
    print(after - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
