"""What the pooling op must give, in NumPy, and inputs that try everything."""

from typing import Any

import numpy as np
import tensorflow as tf

# A dtype's values as bits: results must be equal as bits, NaN payloads and signs of zero included.
BITS = {"float32": np.uint32, "float64": np.uint64, "bfloat16": np.uint16, "float16": np.uint16}
SUBNORMAL = {"float32": 1e-39, "float64": 1e-310, "bfloat16": 1e-39, "float16": 1e-7}


def numpy_type(dtype: str) -> Any:
    return tf.as_dtype(dtype).as_numpy_dtype


def windows(dense: np.ndarray, k: int, fill: Any) -> np.ndarray:
    """(batch, height, width, channels) -> (batch, rows, columns, channels, k * k)."""
    batch, height, width, channels = dense.shape
    rows, columns = -(-height // k), -(-width // k)
    padded = np.full((batch, rows * k, columns * k, channels), fill, dense.dtype)
    padded[:, :height, :width] = dense
    split = padded.reshape(batch, rows, k, columns, k, channels).transpose(0, 1, 3, 5, 2, 4)
    return split.reshape(batch, rows, columns, channels, k * k)


def inside_window(shape: tuple[int, ...], indices: np.ndarray, k: int) -> np.ndarray:
    """Whether each index names a position of its own, clipped window."""
    position = np.minimum(indices, k * k - 1).astype(int)[..., None]
    unclipped = np.take_along_axis(windows(np.ones(shape, bool), k, False), position, -1)
    return unclipped[..., 0] & (indices < k * k)


def reference_pool(dense: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """np.argmax has the wanted order: the first maximum, and the first NaN above all."""
    with np.errstate(invalid="ignore"):  # signalling NaN
        order = windows(dense.astype(np.float64), k, -np.inf)
    indices = np.argmax(order, -1)
    values = np.take_along_axis(windows(dense, k, 0), indices[..., None], -1)[..., 0]
    return values, indices.astype(np.uint8)


def reference_unpool(
    values: np.ndarray, indices: np.ndarray, shape: tuple[int, ...], k: int
) -> np.ndarray:
    batch, rows, columns, channels = values.shape
    split = np.where(np.arange(k * k) == indices[..., None], values[..., None], 0)
    dense = split.astype(values.dtype).reshape(batch, rows, columns, channels, k, k)
    dense = dense.transpose(0, 1, 4, 2, 5, 3).reshape(batch, rows * k, columns * k, channels)
    return dense[:, : shape[1], : shape[2]]


def reference_gather(dense: np.ndarray, indices: np.ndarray, k: int) -> np.ndarray:
    inside = inside_window(dense.shape, indices, k)
    position = np.where(inside, indices, 0).astype(int)[..., None]
    read = np.take_along_axis(windows(dense, k, 0), position, -1)[..., 0]
    return np.where(inside, read, 0).astype(dense.dtype)


def random_values(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Numbers of one of five kinds: plain, many ties, specials, any bit pattern, all one value."""
    kind = random.integers(5)
    wide = random.standard_normal(shape)
    if kind == 1:
        wide = random.integers(-2, 3, shape).astype(np.float64)
    elif kind == 2:
        tiny = SUBNORMAL[dtype]
        wide = random.choice([np.nan, np.inf, -np.inf, 0.0, -0.0, tiny, -tiny, 1.0], shape)
    elif kind == 3:
        unsigned = np.dtype(BITS[dtype])
        bits = random.bytes(int(np.prod(shape)) * unsigned.itemsize)
        return np.frombuffer(bits, unsigned).view(numpy_type(dtype)).reshape(shape)
    elif kind == 4:
        wide = np.full(shape, random.choice([np.nan, np.inf, -np.inf, -0.0, -3.0]))
    return wide.astype(numpy_type(dtype))


def assert_same_bits(ours: tf.Tensor, expected: np.ndarray, message: str = "") -> None:
    ours = ours.numpy()
    assert ours.dtype == expected.dtype and ours.shape == expected.shape, message
    bits = BITS.get(expected.dtype.name, expected.dtype)
    ours, wanted = (np.ascontiguousarray(array).view(bits) for array in (ours, expected))
    assert np.array_equal(ours, wanted), message


def reference_pack(indices: np.ndarray) -> np.ndarray:
    """(batch, rows, columns, channels) of 0 to 3 -> (batch, rows, columns, ceil(channels / 4))."""
    channels = indices.shape[-1]
    packed = np.zeros((*indices.shape[:-1], -(-channels // 4)), np.uint8)
    for channel in range(channels):
        packed[..., channel // 4] |= indices[..., channel] << 2 * (channel % 4)
    return packed
