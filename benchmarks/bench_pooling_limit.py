"""How much is left to gain: our CPU kernels beside bare ones that move the same bytes.

    pytest benchmarks/bench_pooling_limit.py --benchmark-json=OUT.json --profile=full

The bare kernels (streaming.cc) read and write what pooling reads and writes, in its order, and
compute next to nothing; one version writes through the caches, one around them. Memory is
allocated beforehand and TensorFlow takes no part. A ratio is the fraction of the bare kernel's
speed that ours reaches; the faster of the two versions counts. It is no proof of a bound: what is
above 1 shows that memory allows more than the bare kernel takes.
"""

from __future__ import annotations

import ctypes
import math
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import pooling_cases
from benchmarks.pooling_cases import BYTES, PRECISIONS, SMOKE_SHAPES, Shape, chosen_shapes

ROOT = Path(__file__).parents[1]
OPERATIONS = ("pool", "unpool", "gather")
IMPLEMENTATIONS = ("ours", "bare", "bare_streaming")
TYPES = {"float32": 0, "bfloat16": 2}
BYTES_PER_ROUND = 128 << 20
WANTED = 0.9
ALIGNMENT = 4096


@pytest.fixture(scope="module")
def library(devices: None, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """streaming.cc, compiled for this machine; dlbench's kernels are those of its installed op."""
    from dlbench import ops

    ops.load_library()
    ctypes.CDLL(str(ops.LIBRARY), mode=ctypes.RTLD_GLOBAL)
    target = tmp_path_factory.mktemp("streaming") / "streaming.so"
    command = ["g++", "-std=c++17", "-O3", "-march=native", "-fPIC", "-shared", "-pthread"]
    source = Path(__file__).with_name("streaming.cc")
    subprocess.run([*command, f"-I{ROOT / 'ops'}", str(source), "-o", str(target)], check=True)
    return ctypes.CDLL(str(target))


def aligned(size: int) -> np.ndarray:
    memory = np.ones(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size]


def whole_windows(shape: Shape) -> Shape:
    """The bare kernels know no windows that an edge clips."""
    batch, height, width, channels = shape
    return batch, height + height % 2, width + width % 2, channels


class Passes:
    """One operation on tensors of its own, ready to be repeated."""

    def __init__(
        self,
        library: ctypes.CDLL,
        operation: str,
        shape: Shape,
        precision: str,
        packed: bool,
        threads: int,
        repeats: int,
    ) -> None:
        size, item = math.prod(shape), BYTES[precision]
        self.dense, self.values = aligned(size * item), aligned(size // 4 * item)
        self.indices = aligned(size // 4 // (4 if packed else 1))
        self.indices[:] = np.random.default_rng(0).integers(
            0, 256 if packed else 4, len(self.indices)
        )
        self._call = lambda implementation: library.dlbench_pass(
            OPERATIONS.index(operation),
            IMPLEMENTATIONS.index(implementation),
            TYPES[precision],
            (ctypes.c_int64 * 4)(*shape),
            ctypes.c_bool(packed),
            threads,
            repeats,
            *(
                array.ctypes.data_as(ctypes.c_void_p)
                for array in (self.dense, self.values, self.indices)
            ),
        )

    def __call__(self, implementation: str) -> None:
        self._call(implementation)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("packed", (False, True), ids=("bytes", "packed"))
    metafunc.parametrize("operation", OPERATIONS)
    metafunc.parametrize("precision", PRECISIONS)
    metafunc.parametrize(
        "shape",
        [whole_windows(shape) for shape in chosen_shapes(metafunc.config)],
        ids=lambda shape: "x".join(map(str, shape)),
    )
    metafunc.parametrize("bare", IMPLEMENTATIONS[1:])


def test_limit(
    benchmark: Any,
    time_in_turn: Callable[..., list[float]],
    attach_record: Callable[..., None],
    attach_ratio: Callable[..., None],
    library: ctypes.CDLL,
    compute_threads: int,
    operation: str,
    shape: Shape,
    precision: str,
    packed: bool,
    bare: str,
) -> None:
    smoke = shape in map(whole_windows, SMOKE_SHAPES)
    repeats = 1 if smoke else -(-BYTES_PER_ROUND // (math.prod(shape) * BYTES[precision]))
    passes = Passes(
        library,
        operation,
        shape,
        precision,
        packed,
        compute_threads,
        repeats,
    )
    check(passes, operation, precision, packed)
    size, indices = "x".join(map(str, shape)), "packed" if packed else "bytes"
    benchmark.group = f"{operation}-limit/{size}/{precision}/{indices}"
    benchmark.extra_info["repeats"] = repeats
    ours_s = time_in_turn(partial(passes, bare), partial(passes, "ours"))
    workload = pooling_cases.workload(
        f"{operation}-limit", f"{bare}-{indices}", shape, precision, "forward"
    )
    attach_record(workload, samples_per_step=shape[0] * repeats, judged=False)
    title = f"{operation} {size} {precision} {indices}: {bare}"
    attach_ratio(title, "ours", ours_s, WANTED)


def check(passes: Passes, operation: str, precision: str, packed: bool) -> None:
    """That each implementation writes all that the operation writes, as bytes differ afterwards."""
    outputs = {
        "pool": (passes.values, passes.indices),
        "unpool": (passes.dense,),
        "gather": (passes.values,),
    }[operation]
    before = passes.indices.copy()
    for implementation in IMPLEMENTATIONS:
        for array in outputs:
            array[:] = 0x5A
        passes(implementation)
        for array in outputs:
            assert not np.any(array == 0x5A), f"{implementation} leaves bytes of its output"
        passes.dense[:], passes.values[:], passes.indices[:] = 1, 1, before
