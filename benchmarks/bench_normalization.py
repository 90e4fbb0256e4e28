"""Batch normalisation of a training step, and its gradient, against TensorFlow's fused kernels.

    pytest benchmarks/bench_normalization.py --benchmark-json=OUT.json

Both run in turn on the same tensors, in a graph of one op; calling it takes 0.1 ms. Their outputs
are checked against NumPy's in float64 first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.pooling_cases import PRECISIONS, Shape, workload
from benchmarks.profiles import is_full, is_smoke
from dlbench import normalization, ops

SHAPES: tuple[Shape, ...] = ((2, 180, 240, 64), (2, 90, 120, 128))
FULL_SHAPES: tuple[Shape, ...] = (*SHAPES, (2, 360, 480, 64), (2, 45, 60, 256))
SMOKE_SHAPES: tuple[Shape, ...] = ((2, 9, 7, 64),)
EPSILON = 1e-3
TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2}
"""Of values around 1, and of a gradient's sums relative to their size."""
Outputs = tuple[tf.Tensor, ...]


class Case(NamedTuple):
    """``x`` and ``dy`` (batch, height, width, channels), parameters (channels,), and the truth."""

    x: tf.Tensor
    dy: tf.Tensor
    gamma: tf.Tensor
    beta: tf.Tensor
    forward: tuple[np.ndarray, ...]
    gradient: tuple[np.ndarray, ...]


def make_case(shape: Shape, precision: str) -> Case:
    generator = np.random.default_rng(0)
    x = tf.cast(generator.normal(0.5, 2.0, shape).astype(np.float32), precision)
    dy = tf.cast(generator.normal(size=shape).astype(np.float32), precision)
    gamma, beta = generator.uniform(0.5, 1.5, (2, shape[-1])).astype(np.float32)
    wide, given = (tf.cast(part, tf.float64).numpy() for part in (x, dy))
    axes = (0, 1, 2)
    mean, variance = wide.mean(axes), wide.var(axes)
    inverse = 1.0 / np.sqrt(variance + EPSILON)
    normal = (wide - mean) * inverse
    forward = (normal * gamma + beta, mean, variance)
    dgamma, dbeta = (given * normal).sum(axes), given.sum(axes)
    count = wide.size // shape[-1]
    dx = gamma * inverse * (given - dbeta / count - normal * dgamma / count)
    tensors = (x, dy, tf.constant(gamma), tf.constant(beta))
    return Case(*tensors, forward, (dx, dgamma, dbeta))


def ours_forward(case: Case) -> Outputs:
    return normalization.normalize_batch(case.x, case.gamma, case.beta, EPSILON)


def ours_gradient(case: Case, mean: tf.Tensor, variance: tf.Tensor, _: tf.Tensor) -> Outputs:
    return ops.load_library().dlbench_batch_normalization_grad(
        dy=case.dy,
        x=case.x,
        gamma=case.gamma,
        beta=case.beta,
        mean=mean,
        variance=variance,
        epsilon=EPSILON,
    )


def tensorflow_forward(case: Case) -> Outputs:
    found = _fused(case)
    # Its third output is the unbiased variance; the reserved ones are what the gradient takes.
    return found[0], found[3], found[4]


def tensorflow_gradient(case: Case, *reserved: tf.Tensor) -> Outputs:
    found = tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=case.dy,
        x=case.x,
        scale=case.gamma,
        reserve_space_1=reserved[0],
        reserve_space_2=reserved[1],
        reserve_space_3=reserved[2],
        epsilon=EPSILON,
        is_training=True,
    )
    return found[:3]


def _fused(case: Case) -> Any:
    return tf.raw_ops.FusedBatchNormV3(
        x=case.x,
        scale=case.gamma,
        offset=case.beta,
        mean=tf.constant([], tf.float32),
        variance=tf.constant([], tf.float32),
        epsilon=EPSILON,
        is_training=True,
    )


OPERATIONS: dict[str, tuple[Callable[..., Outputs], ...]] = {
    "batch-norm": (ours_forward, tensorflow_forward),
    "batch-norm-gradient": (ours_gradient, tensorflow_gradient),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    config = metafunc.config
    chosen = SMOKE_SHAPES if is_smoke(config) else FULL_SHAPES if is_full(config) else SHAPES
    metafunc.parametrize("peer", (False, True), ids=("ours", "tensorflow"))
    metafunc.parametrize("operation", OPERATIONS)
    metafunc.parametrize("precision", PRECISIONS)
    metafunc.parametrize("shape", chosen, ids=lambda shape: "x".join(map(str, shape)))


def test_normalization(
    benchmark: Any,
    time_in_turn: Callable[..., list[float]],
    attach_record: Callable[..., None],
    attach_ratio: Callable[..., None],
    devices: None,
    operation: str,
    shape: Shape,
    precision: str,
    peer: bool,
) -> None:
    case = make_case(shape, precision)
    if not normalization.has_kernel(case.x):
        pytest.skip("the compiled op is for CPUs; here TensorFlow's kernel is what runs")
    reserved = _fused(case)[3:6] if operation == "batch-norm-gradient" else ()
    runs = [graph(run, case, reserved) for run in OPERATIONS[operation]]
    truth = case.gradient if reserved else case.forward
    for run in runs:
        for found, right in zip(run(), truth, strict=True):
            scale = max(1.0, float(np.abs(right).max()))
            values = tf.cast(found, tf.float64).numpy()
            np.testing.assert_allclose(values, right, atol=scale * TOLERANCE[precision])
    names = [run.__name__.removesuffix("_gradient") for run in OPERATIONS[operation]]
    ours_name, name = names[0].removesuffix("_forward"), names[peer].removesuffix("_forward")
    size = "x".join(map(str, shape))
    benchmark.group = f"{operation}/{size}/{precision}"
    ours_s = time_in_turn(completed(runs[peer]), completed(runs[0]) if peer else None)
    mode = "backward" if reserved else "forward"
    measured = workload(operation, name, shape, precision, mode)
    attach_record(measured, samples_per_step=shape[0], judged=not peer)
    if peer:
        attach_ratio(f"{operation} {size} {precision}: {name}", ours_name, ours_s)


def graph(
    run: Callable[..., Outputs], case: Case, reserved: tuple[tf.Tensor, ...]
) -> Callable[[], Outputs]:
    inputs = (case.x, case.dy, case.gamma, case.beta, *reserved)

    @tf.function(autograph=False)
    def call(tensors: Outputs) -> Outputs:
        return run(
            case._replace(**dict(zip(Case._fields, tensors[:4], strict=False))), *tensors[4:]
        )

    # The tensors are arguments: of constants TensorFlow would compute the result once and for all.
    return lambda: call(inputs)


def completed(run: Callable[[], Outputs]) -> Callable[[], None]:
    def complete() -> None:
        run()
        tf.test.experimental.sync_devices()

    return complete
