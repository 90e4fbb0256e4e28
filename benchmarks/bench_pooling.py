"""Pooling with stored indices against its peers, on the input of SegNet's first pool.

    pytest benchmarks/bench_pooling.py --benchmark-json=OUT.json

Peers run in alternation with ours, all on TensorFlow's one pool of threads; a ratio is the median
over pairs, as machines are noisy. The copy bounds what memory allows: it reads and writes the
dense tensor once.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from dlbench import ops
from dlbench.report.records import Workload

BATCH, HEIGHT, WIDTH, CHANNELS = SHAPE = (4, 360, 480, 64)
ROUNDS, WARMUP_ROUNDS = 15, 3
WANTED = {"tensorflow_max_pool_with_argmax": 8.0, "tensorflow_scatter_nd": 15.0}
"""How many times as long as ours these peers are to take, at least; missing it is no failure."""


class Case(NamedTuple):
    """One input and what every implementation must give for it; indices in both conventions."""

    dense: tf.Tensor
    values: tf.Tensor
    indices: tf.Tensor
    argmax: tf.Tensor
    unpooled: tf.Tensor


@pytest.fixture(scope="module")
def case(devices: None) -> Case:
    """From NumPy, not from any of the implementations that are measured."""
    dense = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
    split = dense.reshape(BATCH, HEIGHT // 2, 2, WIDTH // 2, 2, CHANNELS)
    indices = np.zeros(split[:, :, 0, :, 0].shape, np.uint8)
    values = split[:, :, 0, :, 0]
    for local in (1, 2, 3):
        candidate = split[:, :, local // 2, :, local % 2]
        indices = np.where(candidate > values, np.uint8(local), indices)
        values = np.maximum(values, candidate)
    unpooled = np.zeros_like(split)
    for local in range(4):
        unpooled[:, :, local // 2, :, local % 2] = np.where(indices == local, values, 0)
    argmax = ops.indices_to_tensorflow(indices, (HEIGHT, WIDTH), include_batch_in_index=True)
    arrays = dense, values, indices, argmax, unpooled.reshape(SHAPE)
    return Case(*(tf.constant(array) for array in arrays))


def ours_pool(case: Case) -> tuple[tf.Tensor, tf.Tensor]:
    return ops.max_pool_with_indices(case.dense)


def tensorflow_max_pool_with_argmax(case: Case) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.nn.max_pool_with_argmax(case.dense, 2, 2, "SAME", include_batch_in_index=True)


def tensorflow_max_pool2d(case: Case) -> tuple[tf.Tensor]:
    return (tf.nn.max_pool2d(case.dense, 2, 2, "SAME"),)


def tensorflow_copy(case: Case) -> tuple[tf.Tensor]:
    """Negation: an identity would share the buffer."""
    return (tf.raw_ops.Neg(x=case.dense),)


def ours_unpool(case: Case) -> tuple[tf.Tensor]:
    return (ops.max_unpool(case.values, case.indices, (HEIGHT, WIDTH)),)


def tensorflow_scatter_nd(case: Case) -> tuple[tf.Tensor]:
    places = tf.reshape(case.argmax, (-1, 1))
    size = tf.constant([np.prod(SHAPE)], tf.int64)
    return (tf.reshape(tf.scatter_nd(places, tf.reshape(case.values, (-1,)), size), SHAPE),)


def tensorflow_max_pool_grad_with_argmax(case: Case) -> tuple[tf.Tensor]:
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


def ours_gather(case: Case) -> tuple[tf.Tensor]:
    return (ops.max_gather(case.dense, case.indices),)


def tensorflow_gather(case: Case) -> tuple[tf.Tensor]:
    return (tf.gather(tf.reshape(case.dense, (-1,)), case.argmax),)


def complete(run: Callable[[Case], object], case: Case) -> None:
    run(case)
    tf.test.experimental.sync_devices()


@pytest.fixture
def measure(
    benchmark: Any,
    attach_record: Callable[..., None],
    attach_ratio: Callable[..., None],
    case: Case,
) -> Callable[..., None]:
    """Checks the outputs of ``run``, then times it, a peer in alternation with ``ours``."""

    def measure(
        group: str,
        run: Callable[[Case], tuple[tf.Tensor, ...]],
        expected: tuple[tf.Tensor, ...],
        ours: Callable[[Case], object],
    ) -> None:
        for found, wanted in zip(run(case), expected, strict=False):
            assert np.array_equal(found, wanted), run.__name__
        ours_s = []

        def time_ours() -> None:
            start = time.perf_counter()
            complete(ours, case)
            ours_s.append(time.perf_counter() - start)

        is_peer = run is not ours
        benchmark.group = group
        benchmark.pedantic(
            complete,
            (run, case),
            setup=time_ours if is_peer else None,  # runs before each round, outside its time
            rounds=ROUNDS,
            warmup_rounds=WARMUP_ROUNDS,
        )
        workload = Workload(
            id=f"{group}/{run.__name__}/float32",
            model=None,
            data=None,
            precision="float32",
            ranks=1,
            batch_per_rank=BATCH,
            shape=SHAPE,
            mode="forward",
        )
        attach_record(workload, samples_per_step=BATCH)
        if is_peer:
            attach_ratio(
                run.__name__, ours.__name__, ours_s[WARMUP_ROUNDS:], WANTED.get(run.__name__)
            )

    return measure


def named(run: Callable[[Case], object]) -> str:
    return run.__name__


@pytest.mark.parametrize(
    "run", [ours_pool, tensorflow_max_pool_with_argmax, tensorflow_max_pool2d], ids=named
)
def test_pool(measure: Callable[..., None], case: Case, run: Callable[[Case], Any]) -> None:
    indices = case.indices if run is ours_pool else case.argmax
    measure("pool", run, (case.values, indices), ours_pool)


@pytest.mark.parametrize(
    "run", [ours_unpool, tensorflow_scatter_nd, tensorflow_max_pool_grad_with_argmax], ids=named
)
def test_unpool(measure: Callable[..., None], case: Case, run: Callable[[Case], Any]) -> None:
    measure("unpool", run, (case.unpooled,), ours_unpool)


@pytest.mark.parametrize("run", [ours_gather, tensorflow_gather], ids=named)
def test_gather(measure: Callable[..., None], case: Case, run: Callable[[Case], Any]) -> None:
    measure("gather", run, (case.values,), ours_gather)


def test_copy(measure: Callable[..., None], case: Case) -> None:
    measure("copy", tensorflow_copy, (-case.dense,), ours_pool)
