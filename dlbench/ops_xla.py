"""The three pooling ops made of TensorFlow's own, for XLA, which has no kernel for the compiled op.

XLA fuses each into one loop. Values are compared and moved as integers, so the results equal the
compiled op's bit for bit, whatever a backend does with NaN and subnormal numbers. `dlbench.ops`
chooses between the two and packs indices; here an index is one byte.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# Values as integers of the same width, and infinity's bits.
_BITS = {
    tf.float32: (tf.int32, 0x7F80_0000),
    tf.float64: (tf.int64, 0x7FF0 << 48),
    tf.bfloat16: (tf.int16, 0x7F80),
    tf.float16: (tf.int16, 0x7C00),
}

Size = Any  # (height, width): two ints, or an int32 tensor of shape (2,)


def max_pool(dense: tf.Tensor, pool_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """See `dlbench.ops.max_pool_with_indices`."""

    @tf.custom_gradient
    def pool(dense: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], Callable[..., tf.Tensor]]:
        integer, infinity = _BITS[dense.dtype]
        lowest = infinity - (1 << (8 * integer.size - 1))  # -infinity: never above a value
        best, *others = _positions(tf.bitcast(dense, integer), pool_size, lowest)
        best_key, indices = _order(best, infinity), tf.zeros_like(best, tf.uint8)
        for local, candidate in enumerate(others, start=1):
            key = _order(candidate, infinity)
            above = key > best_key
            best = tf.where(above, candidate, best)
            best_key = tf.where(above, key, best_key)
            indices = tf.where(above, tf.constant(local, tf.uint8), indices)

        def gradient(values: tf.Tensor, _: Any) -> tf.Tensor:
            return max_unpool(values, indices, tf.shape(dense)[1:3], pool_size)

        return (tf.bitcast(best, dense.dtype), indices), gradient

    return pool(dense)


def max_unpool(
    values: tf.Tensor, indices: tf.Tensor, output_size: Size, pool_size: int
) -> tf.Tensor:
    """See `dlbench.ops.max_unpool`; a wrong `output_size` is refused while XLA compiles."""

    @tf.custom_gradient
    def unpool(values: tf.Tensor) -> tuple[tf.Tensor, Callable[..., tf.Tensor]]:
        height, width = tf.unstack(tf.convert_to_tensor(output_size), num=2)
        bits = tf.bitcast(values, _BITS[values.dtype][0])
        batch, rows, columns, channels = tf.unstack(tf.shape(bits), num=4)
        pooled = (batch, -(-height // pool_size), -(-width // pool_size), channels)
        bits = _of_shape(bits, pooled)
        own = _of_shape(indices, pooled)
        local = tf.range(pool_size)[:, None, None, None] * pool_size
        local = tf.cast(local + tf.range(pool_size)[:, None], tf.int32)
        placed = tf.where(
            tf.cast(own, tf.int32)[:, :, None, :, None] == local,
            bits[:, :, None, :, None],
            tf.zeros((), bits.dtype),
        )
        whole = tf.reshape(placed, (batch, rows * pool_size, columns * pool_size, channels))
        dense = tf.slice(whole, (0, 0, 0, 0), tf.stack((batch, height, width, channels)))
        static = tf.get_static_value(tf.convert_to_tensor(output_size))
        size = (None, None) if static is None else static.tolist()
        dense.set_shape((values.shape[0], *size, values.shape[3]))

        def gradient(dense: tf.Tensor) -> tf.Tensor:
            return max_gather(dense, indices, pool_size)

        return tf.bitcast(dense, values.dtype), gradient

    return unpool(values)


def max_gather(dense: tf.Tensor, indices: tf.Tensor, pool_size: int) -> tf.Tensor:
    """See `dlbench.ops.max_gather`."""

    @tf.custom_gradient
    def gather(dense: tf.Tensor) -> tuple[tf.Tensor, Callable[..., tf.Tensor]]:
        positions = _positions(tf.bitcast(dense, _BITS[dense.dtype][0]), pool_size, 0)
        value = tf.zeros_like(positions[0])
        own = _of_shape(indices, tf.shape(value))
        for local, candidate in enumerate(positions):
            value = tf.where(own == tf.constant(local, tf.uint8), candidate, value)

        def gradient(values: tf.Tensor) -> tf.Tensor:
            return max_unpool(values, indices, tf.shape(dense)[1:3], pool_size)

        return tf.bitcast(value, dense.dtype), gradient

    return gather(dense)


def _of_shape(tensor: tf.Tensor, shape: Any) -> tf.Tensor:
    """The tensor, which must have this shape: XLA has no assertions, but it refuses to compile what
    cannot be broadcast, and what grew by that cannot be reshaped back."""
    return tf.reshape(tf.broadcast_to(tensor, shape), tf.shape(tensor))


def _order(bits: tf.Tensor, infinity: int) -> tf.Tensor:
    """Integers that order values as the compiled op does: -0 equals +0, NaN is above all."""
    limits = bits.dtype
    magnitude = tf.bitwise.bitwise_and(bits, tf.constant(limits.max, limits))
    signed = tf.where(bits < 0, -magnitude, magnitude)
    nan = magnitude > tf.constant(infinity, limits)
    return tf.where(nan, tf.constant(limits.max, limits), signed)


def _positions(bits: tf.Tensor, pool_size: int, fill: int) -> list[tf.Tensor]:
    """What stands at each position of every window, in the order of indices: pool_size ** 2 tensors
    (batch, rows, columns, channels); beyond the edge stands `fill`."""
    batch, height, width, channels = tf.unstack(tf.shape(bits), num=4)
    rows, columns = -(-height // pool_size), -(-width // pool_size)
    edges = [[0, 0], [0, rows * pool_size - height], [0, columns * pool_size - width], [0, 0]]
    whole = tf.pad(bits, edges, constant_values=tf.constant(fill, bits.dtype))
    windows = tf.reshape(whole, (batch, rows, pool_size, columns, pool_size, channels))
    pooled = (
        bits.shape[0],
        *(None if n is None else -(-n // pool_size) for n in bits.shape[1:3]),
        bits.shape[3],
    )
    return [
        tf.ensure_shape(windows[:, :, dy, :, dx], pooled)
        for dy in range(pool_size)
        for dx in range(pool_size)
    ]
