"""Pooling with stored indices against its peers, at the sizes of SegNet's five pools.

    pytest benchmarks/bench_pooling.py --benchmark-json=OUT.json --profile=full --compute-threads=1

Each peer runs in alternation with ours; a ratio is the median over pairs, as machines are noisy.
TensorFlow's ops run inside a graph, one after the other, so what is timed is the op, not Python.
The copy bounds what memory allows: it reads and writes the dense tensor once. PyTorch takes part
where it is installed (the extra `peers`): with the allocator as it comes, and tuned to keep what
is freed, which is the fairer peer, as TensorFlow with oneDNN keeps it too. (Without oneDNN, under
TF_ENABLE_ONEDNN_OPTS=0, it does not, and every large output costs the clearing of new pages.)
The table of a report: python -m benchmarks.pooling_table OUT.json
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import pooling_cases
from benchmarks.pooling_cases import BYTES, LARGE, PRECISIONS, SMOKE_SHAPES, Shape, chosen_shapes
from benchmarks.pooling_torch import ABSENT, ALLOCATORS, IDLE_S, TorchPeer, installed
from benchmarks.profiles import is_smoke
from dlbench import ops

BYTES_PER_ROUND = 128 << 20
"""A round repeats an operation until it has passed so much of the dense tensor: long enough for
what calling a graph takes, 0.1 ms, not to matter."""
SLOWER = 8
"""An operation that takes many times as long is repeated less often."""
Outputs = tuple[tf.Tensor, ...]


class Case(NamedTuple):
    """One input and what every implementation must give for it; indices in every convention."""

    dense: tf.Tensor
    values: tf.Tensor
    indices: tf.Tensor
    packed: tf.Tensor
    argmax: tf.Tensor
    unpooled: tf.Tensor

    @property
    def size(self) -> tuple[int, int]:
        return self.dense.shape[1:3]


def make_case(shape: Shape, precision: str) -> Case:
    """From NumPy, not from any of the implementations that are measured."""
    arrays = pooling_cases.arrays(shape, precision)
    indices = tf.constant(arrays.indices)
    dense, values, unpooled = (
        tf.cast(array, precision) for array in (arrays.dense, arrays.values, arrays.unpooled)
    )
    argmax = ops.indices_to_tensorflow(indices, shape[1:3], include_batch_in_index=True)
    return Case(dense, values, indices, ops.pack_indices(indices), argmax, unpooled)


def ours_pool(case: Case) -> Outputs:
    return ops.max_pool_with_indices(case.dense)


def ours_pool_packed(case: Case) -> Outputs:
    return ops.max_pool_with_indices(case.dense, packed=True)


def xla_pool(case: Case) -> Outputs:
    """The same results from TensorFlow's own ops, fused by XLA: see dlbench/ops_xla.py."""
    return tf.function(ours_pool, jit_compile=True)(case)


def tensorflow_max_pool_with_argmax(case: Case) -> Outputs:
    return tf.nn.max_pool_with_argmax(case.dense, 2, 2, "SAME", include_batch_in_index=True)


def tensorflow_max_pool2d(case: Case) -> Outputs:
    """Without indices."""
    return (tf.nn.max_pool2d(case.dense, 2, 2, "SAME"),)


def ours_unpool(case: Case) -> Outputs:
    return (ops.max_unpool(case.values, case.indices, case.size),)


def ours_unpool_packed(case: Case) -> Outputs:
    return (ops.max_unpool(case.values, case.packed, case.size, packed=True),)


def xla_unpool(case: Case) -> Outputs:
    return tf.function(ours_unpool, jit_compile=True)(case)


def tensorflow_scatter_nd(case: Case) -> Outputs:
    places = tf.reshape(case.argmax, (-1, 1))
    size = tf.size(case.dense, tf.int64)[None]
    return (
        tf.reshape(tf.scatter_nd(places, tf.reshape(case.values, (-1,)), size), case.dense.shape),
    )


def tensorflow_max_pool_grad_with_argmax(case: Case) -> Outputs:
    """A gradient kernel used as an unpool, which no public function offers."""
    unpooled = tf.raw_ops.MaxPoolGradWithArgmax(
        input=case.dense,
        grad=case.values,
        argmax=case.argmax,
        ksize=[1, 2, 2, 1],
        strides=[1, 2, 2, 1],
        padding="SAME",
        include_batch_in_index=True,
    )
    return (unpooled,)


def tensorflow_copy(case: Case) -> Outputs:
    """Negation: an identity would share the buffer."""
    return (tf.raw_ops.Neg(x=case.dense),)


def tensorflow_max_pool_grad(case: Case) -> Outputs:
    """The gradient of `max_pool2d`, which looks for the maximum again."""
    unpooled = tf.raw_ops.MaxPoolGrad(
        orig_input=case.dense,
        orig_output=case.values,
        grad=case.values,
        ksize=[1, 2, 2, 1],
        strides=[1, 2, 2, 1],
        padding="SAME",
    )
    return (unpooled,)


def ours_gather(case: Case) -> Outputs:
    return (ops.max_gather(case.dense, case.indices),)


def ours_gather_packed(case: Case) -> Outputs:
    return (ops.max_gather(case.dense, case.packed, packed=True),)


def xla_gather(case: Case) -> Outputs:
    return tf.function(ours_gather, jit_compile=True)(case)


def tensorflow_gather(case: Case) -> Outputs:
    return (tf.gather(tf.reshape(case.dense, (-1,)), case.argmax),)


Implementation = Callable[[Case], Outputs]
OPERATIONS: dict[str, tuple[Implementation, ...]] = {
    # Ours first: the others are timed in turn with it.
    "pool": (
        ours_pool,
        ours_pool_packed,
        xla_pool,
        tensorflow_max_pool2d,
        tensorflow_max_pool_with_argmax,
    ),
    "unpool": (
        ours_unpool,
        ours_unpool_packed,
        xla_unpool,
        tensorflow_copy,
        tensorflow_scatter_nd,
        tensorflow_max_pool_grad_with_argmax,
    ),
    # Our gradient of the pool is our unpool.
    "pool-gradient": (ours_unpool, tensorflow_max_pool_grad),
    "unpool-gradient": (ours_gather, ours_gather_packed, xla_gather, tensorflow_gather),
}
SLOW = (
    tensorflow_max_pool_with_argmax,
    tensorflow_scatter_nd,
    tensorflow_max_pool_grad,
    tensorflow_gather,
)


def expected(operation: str, run: Implementation, case: Case) -> Outputs:
    if run is tensorflow_copy:
        return (-case.dense,)
    if operation == "pool":
        packed, argmax = run is ours_pool_packed, run is tensorflow_max_pool_with_argmax
        return case.values, case.packed if packed else case.argmax if argmax else case.indices
    return (case.values,) if operation == "unpool-gradient" else (case.unpooled,)


def wanted(operation: str, peer: str, shape: Shape) -> float | None:
    """How many times as long as ours this peer is to take, at least; missing it is no failure."""
    if peer == tensorflow_copy.__name__:
        # 0.4 of a copy in memory, 0.7 in the caches.
        return 1 / 0.4 if shape == LARGE else 1 / 0.7
    large = {
        ("pool", "tensorflow_max_pool_with_argmax"): 15.0,
        ("unpool", "tensorflow_scatter_nd"): 30.0,
        **{("pool", name): 5.0 for name in ALLOCATORS},
        **{("unpool", name): 10.0 for name in ALLOCATORS},
    }
    everywhere = {
        ("pool", "tensorflow_max_pool2d"): 1.0,
        ("unpool", "xla_unpool"): 1.0,
        ("unpool", "tensorflow_max_pool_grad_with_argmax"): 1.0,
    }
    key = (operation, peer)
    return large.get(key, everywhere.get(key)) if shape == LARGE else everywhere.get(key)


def repeats_for(shape: Shape, precision: str, run: Implementation | None = None) -> int:
    """How often a round repeats ``run``."""
    count = -(-BYTES_PER_ROUND // (math.prod(shape) * BYTES[precision]))
    if shape in SMOKE_SHAPES:
        return 1
    return max(1, count // SLOWER) if run in SLOW else count


def repeated(run: Implementation, case: Case, repeats: int) -> Callable[[], None]:
    """One after the other in a graph; the last result is what is waited for."""
    # Tensors of their own that share memory: XLA, too, would run equal calls once.
    cases = [Case(*map(tf.identity, case)) for _ in range(repeats)]

    @tf.function(autograph=False)
    def chain() -> Outputs:
        outputs: Outputs = ()
        for one in cases:
            with tf.control_dependencies(outputs):
                outputs = run(one)
        return outputs

    call = chain.get_concrete_function()  # a tf.function would look for it at each call

    def complete() -> None:
        call()
        tf.test.experimental.sync_devices()

    return complete


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # A case of PyTorch's is a process; the smoke test has one an operation.
    few = is_smoke(metafunc.config) and "torch_peer" in metafunc.fixturenames
    cases = [
        pytest.param((shape, precision), id=f"{'x'.join(map(str, shape))}-{precision}")
        for shape in chosen_shapes(metafunc.config)
        for precision in (PRECISIONS[:1] if few else PRECISIONS)
    ]
    pairs = [
        pytest.param(operation, run, id=f"{operation}-{run.__name__}")
        for operation, all_runs in OPERATIONS.items()
        for run in all_runs
        if (operation, run) != ("pool-gradient", ours_unpool)
    ]
    metafunc.parametrize("case", cases, indirect=True, scope="module")
    if "run" in metafunc.fixturenames:
        metafunc.parametrize(("operation", "run"), pairs)
    else:
        metafunc.parametrize("operation", OPERATIONS)
        allocators = ("torch_tuned",) if few else ALLOCATORS
        metafunc.parametrize("torch_peer", allocators, indirect=True)


@pytest.fixture(scope="module")
def each_op_runs(devices: None) -> Iterator[None]:
    """Graphs as written: optimised, they would keep one of several equal operations."""
    options = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    before = options.get("disable_meta_optimizer", False)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": before})


@pytest.fixture(scope="module")
def case(each_op_runs: None, request: pytest.FixtureRequest) -> Case:
    return make_case(*request.param)


@pytest.fixture
def measure(
    benchmark: Any,
    time_in_turn: Callable[..., list[float]],
    attach_record: Callable[..., None],
    attach_ratio: Callable[..., None],
    case: Case,
    operation: str,
) -> Callable[..., None]:
    """Times ``run``, which repeats what ``name`` tells so many times, a peer in turn with ours."""
    shape: Shape = tuple(case.dense.shape)
    precision = case.dense.dtype.name
    size = "x".join(map(str, shape))
    ours = OPERATIONS[operation][0]

    def measure(name: str, run: Callable[[], Any], repeats: int, idle_s: float = 0.0) -> None:
        is_peer = name != ours.__name__
        ours_repeats = repeats_for(shape, precision)
        ours_run = repeated(ours, case, ours_repeats) if is_peer else None
        benchmark.group = f"{operation}/{size}/{precision}"
        benchmark.extra_info["repeats"] = repeats
        ours_s = time_in_turn(run, ours_run, idle_s)
        workload = pooling_cases.workload(operation, name, shape, precision, "forward")
        is_ours = name.startswith("ours")
        attach_record(workload, samples_per_step=shape[0] * repeats, judged=is_ours)
        if is_peer:
            attach_ratio(
                f"{operation} {size} {precision}: {name}",
                ours.__name__,
                # In the unit of what is timed: so many operations.
                [seconds / ours_repeats * repeats for seconds in ours_s],
                wanted(operation, name, shape) if precision == "float32" else None,
            )

    return measure


def test_tensorflow(
    measure: Callable[..., None], case: Case, operation: str, run: Implementation
) -> None:
    for found, right in zip(run(case), expected(operation, run, case), strict=False):
        assert np.array_equal(found, right), run.__name__
    repeats = repeats_for(tuple(case.dense.shape), case.dense.dtype.name, run)
    measure(run.__name__, repeated(run, case, repeats), repeats)


@pytest.fixture
def torch_peer(
    case: Case, operation: str, compute_threads: int, request: pytest.FixtureRequest
) -> Iterator[TorchPeer]:
    if not installed():
        pytest.skip(ABSENT)
    shape, precision = tuple(case.dense.shape), case.dense.dtype.name
    peer = TorchPeer(request.param, operation, shape, precision, compute_threads)
    try:
        yield peer
    finally:
        peer.close()


def test_torch(
    benchmark: Any, measure: Callable[..., None], case: Case, torch_peer: TorchPeer
) -> None:
    benchmark.extra_info["torch"] = torch_peer.description
    repeats = repeats_for(tuple(case.dense.shape), case.dense.dtype.name)
    measure(torch_peer.name, lambda: torch_peer(repeats), repeats, IDLE_S)
