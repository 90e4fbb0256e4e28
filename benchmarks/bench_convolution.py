"""The gradient of a convolution by its kernel: the compiled op against TensorFlow's (oneDNN's).

    pytest benchmarks/bench_convolution.py --benchmark-json=OUT.json

Both run in turn on the same tensors, in a graph of one op; the results are checked against NumPy's
in float64 first. On processors where TensorFlow's is the faster one, training takes that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.pooling_cases import Shape, workload
from benchmarks.profiles import is_full, is_smoke
from dlbench import convolution

ROWS = COLUMNS = 3
SHAPES: tuple[Shape, ...] = ((1, 90, 120, 64),)
FULL_SHAPES: tuple[Shape, ...] = (*SHAPES, (1, 180, 240, 64), (1, 45, 60, 256))
SMOKE_SHAPES: tuple[Shape, ...] = ((1, 9, 7, 16),)
"""(batch, height, width, inputs); as many outputs."""


def ours(inputs: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    return convolution.kernel_gradient(inputs, outputs, ROWS, COLUMNS)


def tensorflow(inputs: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.Conv2DBackpropFilter(
        input=inputs,
        filter_sizes=[ROWS, COLUMNS, inputs.shape[-1], outputs.shape[-1]],
        out_backprop=outputs,
        strides=[1, 1, 1, 1],
        padding="SAME",
    )


def truth(inputs: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    """(rows, columns, inputs, outputs) float64: a product of matrices a place of the kernel."""
    _, height, width, channels = inputs.shape
    around = ((0, 0), (ROWS // 2, ROWS // 2), (COLUMNS // 2, COLUMNS // 2), (0, 0))
    padded = np.pad(inputs.astype(np.float64), around)
    flat = outputs.astype(np.float64).reshape(-1, outputs.shape[-1])
    found = np.empty((ROWS, COLUMNS, channels, flat.shape[1]))
    for row, column in np.ndindex(ROWS, COLUMNS):
        shifted = padded[:, row : row + height, column : column + width]
        found[row, column] = shifted.reshape(-1, channels).T @ flat
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    config = metafunc.config
    chosen = SMOKE_SHAPES if is_smoke(config) else FULL_SHAPES if is_full(config) else SHAPES
    metafunc.parametrize("run", (ours, tensorflow), ids=lambda run: run.__name__)
    metafunc.parametrize("shape", chosen, ids=lambda shape: "x".join(map(str, shape)))


def test_kernel_gradient(
    benchmark: Any,
    time_in_turn: Callable[..., list[float]],
    attach_record: Callable[..., None],
    attach_ratio: Callable[..., None],
    devices: None,
    shape: Shape,
    run: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
) -> None:
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("the compiled op is for CPUs; here TensorFlow's kernel is what runs")
    generator = np.random.default_rng(0)
    inputs, outputs = generator.normal(size=(2, *shape)).astype(np.float32)
    right = truth(inputs, outputs)
    tensors = tf.constant(inputs), tf.constant(outputs)

    def completed(function: Callable[..., tf.Tensor]) -> Callable[[], tf.Tensor]:
        graph = tf.function(function, autograph=False)

        def call() -> tf.Tensor:
            found = graph(*tensors)
            tf.test.experimental.sync_devices()
            return found

        return call

    peer = run is not ours
    for function in (ours, run):
        found = completed(function)().numpy()
        np.testing.assert_allclose(found, right, atol=1e-5 * float(np.abs(right).max()))
    size = "x".join(map(str, shape))
    benchmark.group = f"kernel-gradient/{size}"
    ours_s = time_in_turn(completed(run), completed(ours) if peer else None)
    measured = workload("kernel-gradient", run.__name__, shape, "float32", "backward")
    attach_record(measured, samples_per_step=shape[0], judged=not peer)
    if peer:
        attach_ratio(f"kernel-gradient {size}: {run.__name__}", ours.__name__, ours_s)
