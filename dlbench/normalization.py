"""Batch normalisation of a training step, and the sums around it: the compiled ops' face.

Normalisation reads its input twice and writes its output once, where TensorFlow's fused kernel for
CPUs moves the same values several times. Sums over a batch are added in an order that depends on
the shape alone, so results are the same for any number of threads and any processor.
"""

from typing import Any

import tensorflow as tf

from dlbench import ops


def normalize_batch(
    x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float, relu: bool = False
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """``(x - mean) / sqrt(variance + epsilon) * gamma + beta`` over all axes but the last, through
    a ReLU if asked for, and mean and population variance: (..., channels) in float32 or bfloat16,
    parameters (channels,) float32 -> (..., channels) in x's dtype, (channels,) float32 twice.

    The gradient is that of the values; mean and variance count as constants, as with TensorFlow's
    fused kernel. Without rows they are NaN. Ioffe & Szegedy, 2015, arXiv 1502.03167.
    """
    library = ops.load_library()
    return library.dlbench_batch_normalization(
        x=x, gamma=gamma, beta=beta, epsilon=epsilon, relu=relu
    )


def add(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """``a + b`` for tensors of one shape and dtype, as a residual connection has them; in a
    compiled op where that has a kernel."""
    if has_kernel(a):
        return ops.load_library().dlbench_add(a=a, b=b)
    return a + b


def fork(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """x twice, for its two uses; `add` sums up the gradients by them, in the place of the sum that
    TensorFlow itself would put there."""

    @tf.custom_gradient
    def forked(x: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], Any]:
        return (tf.identity(x), tf.identity(x)), add

    return forked(x)


def has_kernel(x: tf.Tensor) -> bool:
    """Whether the compiled ops can run where x is: they are for CPUs, XLA does not know them."""
    on_cpu = not tf.config.get_visible_devices("GPU")
    return on_cpu and x.dtype in (tf.float32, tf.bfloat16) and not ops.for_xla()


@tf.RegisterGradient("DlbenchAdd")
def _add_gradient(_: tf.Operation, gradient: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return gradient, gradient


@tf.RegisterGradient("DlbenchBatchNormalization")
def _gradient(op: tf.Operation, dy: tf.Tensor, *_: Any) -> tuple[tf.Tensor, ...]:
    x, gamma, beta = op.inputs
    return ops.load_library().dlbench_batch_normalization_grad(
        dy=dy,
        x=x,
        gamma=gamma,
        beta=beta,
        mean=op.outputs[1],
        variance=op.outputs[2],
        epsilon=op.get_attr("epsilon"),
        relu=op.get_attr("relu"),
    )


@tf.RegisterGradient("DlbenchBatchNormalizationGrad")
def _second_gradient(op: tf.Operation, *given: tf.Tensor) -> tuple[tf.Tensor | None, ...]:
    dy, x, gamma, beta = op.inputs[:4]
    epsilon, relu = op.get_attr("epsilon"), op.get_attr("relu")
    inputs = (dy, x, gamma)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        first = _composed_gradient(*inputs, beta, epsilon, relu)
    found = tape.gradient(first, inputs, output_gradients=list(given))
    return (*found, None, None, None)


def _composed_gradient(
    dy: tf.Tensor, x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float, relu: bool
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """What the gradient kernel computes, from TensorFlow's own ops, mean and variance included."""
    axes = list(range(len(x.shape) - 1))
    wide, own = tf.cast(x, tf.float32), tf.cast(dy, tf.float32)
    mean, variance = tf.nn.moments(wide, axes)
    inverse = tf.math.rsqrt(variance + epsilon)
    normal = (wide - mean) * inverse
    if relu:
        own = tf.where(normal * gamma + beta > 0.0, own, 0.0)
    dgamma, dbeta = tf.reduce_sum(own * normal, axes), tf.reduce_sum(own, axes)
    lost = tf.reduce_mean(own, axes) + normal * tf.reduce_mean(own * normal, axes)
    return tf.cast(gamma * inverse * (own - lost), x.dtype), dgamma, dbeta
