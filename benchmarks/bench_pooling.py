"""Pooling with stored indices against its peers, on the input of SegNet's first pool.

    pytest benchmarks/bench_pooling.py --benchmark-json=OUT.json

All peers run on TensorFlow's one pool of threads (TF_NUM_INTRAOP_THREADS, else all cores). The
copy bounds what memory allows: it reads and writes the dense tensor once.
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from dlbench import ops

BATCH, HEIGHT, WIDTH, CHANNELS = SHAPE = (4, 360, 480, 64)
ROUNDS, WARMUP_ROUNDS = 15, 3


class Case(NamedTuple):
    """One input and what every implementation must give for it; indices in both conventions."""

    dense: tf.Tensor
    values: tf.Tensor
    indices: tf.Tensor
    argmax: tf.Tensor
    unpooled: tf.Tensor


@pytest.fixture(scope="module")
def case() -> Case:
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


def measure(
    benchmark: Any,
    group: str,
    run: Callable[[Case], tuple[tf.Tensor, ...]],
    case: Case,
    expected: tuple[tf.Tensor, ...],
) -> None:
    """Checks the outputs, then times fixed rounds that end when the device has finished."""
    for found, wanted in zip(run(case), expected, strict=False):
        assert np.array_equal(found, wanted), run.__name__

    def complete() -> None:
        run(case)
        tf.test.experimental.sync_devices()

    benchmark.group = group
    benchmark.extra_info.update(
        implementation=run.__name__,
        shape=SHAPE,
        dtype="float32",
        threads=int(os.environ.get("TF_NUM_INTRAOP_THREADS") or os.cpu_count() or 1),
        tensorflow=tf.version.VERSION,
        isa=ops.build_info()["isa"],
    )
    benchmark.pedantic(complete, rounds=ROUNDS, warmup_rounds=WARMUP_ROUNDS)


@pytest.mark.parametrize(
    "run",
    [ours_pool, tensorflow_max_pool_with_argmax, tensorflow_max_pool2d],
    ids=lambda run: run.__name__,
)
def test_pool(benchmark: Any, case: Case, run: Callable[[Case], Any]) -> None:
    indices = case.indices if run is ours_pool else case.argmax
    measure(benchmark, "pool", run, case, (case.values, indices))


@pytest.mark.parametrize(
    "run",
    [ours_unpool, tensorflow_scatter_nd, tensorflow_max_pool_grad_with_argmax],
    ids=lambda run: run.__name__,
)
def test_unpool(benchmark: Any, case: Case, run: Callable[[Case], Any]) -> None:
    measure(benchmark, "unpool", run, case, (case.unpooled,))


@pytest.mark.parametrize("run", [ours_gather, tensorflow_gather], ids=lambda run: run.__name__)
def test_gather(benchmark: Any, case: Case, run: Callable[[Case], Any]) -> None:
    measure(benchmark, "gather", run, case, (case.values,))


def test_copy(benchmark: Any, case: Case) -> None:
    measure(benchmark, "copy", tensorflow_copy, case, (-case.dense,))
