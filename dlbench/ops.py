"""Max pooling that stores where each maximum stood, and its inverse: the compiled op's face.

An index is the position inside its window, `dy * pool_size + dx`, as uint8. Windows do not
overlap (stride = pool_size), start at the top left and are clipped at the bottom and right edge.
The three ops are each other's gradients, so every order of gradient exists.

With `packed`, for pool_size 2, indices take two bits, as SegNet's paper proposes, four to a byte
along the channels: (batch, rows, columns, ceil(channels / 4)), where channel 4 j + i is in bits 2 i
and 2 i + 1 of byte j. Results are the same.

Inside `tf.function(jit_compile=True)` the same results come from TensorFlow's own ops, which XLA
fuses; elsewhere from the compiled op, and nothing else takes its place.
"""

import ctypes
import functools
import json
import os
import re
from pathlib import Path
from typing import Any

import tensorflow as tf

# TensorFlow has no public way to ask whether the code being traced is for XLA.
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from dlbench import ops_xla
from dlbench.errors import UserError

LIBRARY = Path(__file__).with_name("_pooling.so")
"""All compiled ops, those of `dlbench.normalization` and `dlbench.convolution` too; named, as `ISA`
is, after the first."""
REBUILD = "pip install --no-build-isolation --no-deps -e ."
ISA = "DLBENCH_POOLING_ISA"
"""A variable: the instruction set of all compiled ops; empty: the best of the processor."""

Size = Any  # (height, width): two ints, or an int32 tensor of shape (2,)


class LibraryError(UserError, ImportError):
    """The compiled ops are missing, or are for something else than what runs."""


def max_pool_with_indices(
    x: tf.Tensor, pool_size: int = 2, packed: bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Maximum of each window and its place in it: (batch, height, width, channels) ->
    (batch, ceil(height / k), ceil(width / k), channels), twice: values in x's dtype (float32,
    float64, bfloat16, half), indices uint8.

    The first maximum wins, the first NaN wins over all, -0 equals +0. As in SegNet
    (Badrinarayanan et al., 2017, arXiv 1511.00561, section 3).
    """
    if for_xla():
        check_windows(pool_size, packed)
        values, indices = ops_xla.max_pool(tf.convert_to_tensor(x), pool_size)
        return values, pack_indices(indices) if packed else indices
    return load_library().dlbench_max_pool(dense=x, pool_size=pool_size, packed=packed)


def max_unpool(
    values: tf.Tensor,
    indices: tf.Tensor,
    output_size: Size,
    pool_size: int = 2,
    packed: bool = False,
) -> tf.Tensor:
    """Places each value where its maximum stood, zeros elsewhere: (batch, rows, columns, channels)
    -> (batch, height, width, channels).

    `output_size` is the (height, width) of the pool's input; anything whose
    ceil(size / pool_size) is not (rows, columns) raises InvalidArgumentError. A value whose index
    lies outside its window is dropped.
    """
    if for_xla():
        check_windows(pool_size, packed)
        values = tf.convert_to_tensor(values)
        if packed:
            indices = unpack_indices(indices, tf.shape(values)[3])
        return ops_xla.max_unpool(values, indices, output_size, pool_size)
    return load_library().dlbench_max_unpool(
        values=values, indices=indices, output_size=output_size, pool_size=pool_size, packed=packed
    )


def max_gather(
    dense: tf.Tensor, indices: tf.Tensor, pool_size: int = 2, packed: bool = False
) -> tf.Tensor:
    """Reads a dense tensor at stored indices: (batch, height, width, channels) and
    (batch, rows, columns, channels) -> (batch, rows, columns, channels); an index outside its
    window gives zero."""
    if for_xla():
        check_windows(pool_size, packed)
        dense = tf.convert_to_tensor(dense)
        if packed:
            indices = unpack_indices(indices, tf.shape(dense)[3])
        return ops_xla.max_gather(dense, indices, pool_size)
    return load_library().dlbench_max_gather(
        dense=dense, indices=indices, pool_size=pool_size, packed=packed
    )


def pack_indices(indices: tf.Tensor) -> tf.Tensor:
    """Indices of 2 x 2 windows from one byte each to two bits each: uint8
    (batch, rows, columns, channels) -> (batch, rows, columns, ceil(channels / 4))."""
    batch, rows, columns, channels = tf.unstack(tf.shape(indices), num=4)
    count = -(-channels // 4)
    filled = tf.pad(indices, [[0, 0]] * 3 + [[0, count * 4 - channels]])
    four = tf.cast(tf.reshape(filled, (batch, rows, columns, count, 4)), tf.int32)
    packed = tf.cast(tf.reduce_sum(four * [1, 4, 16, 64], -1), tf.uint8)
    known = indices.shape[3]
    return tf.ensure_shape(packed, (*indices.shape[:3], None if known is None else -(-known // 4)))


def unpack_indices(packed: tf.Tensor, channels: int | tf.Tensor) -> tf.Tensor:
    """The inverse of `pack_indices`, for so many channels; InvalidArgumentError if the packed bytes
    are not as many as those channels need."""
    batch, rows, columns, _ = tf.unstack(tf.shape(packed), num=4)
    count = -(-channels // 4)
    four = tf.cast(packed, tf.int32)[..., None] // [1, 4, 16, 64] % 4
    indices = tf.cast(tf.reshape(four, (batch, rows, columns, 4 * count)), tf.uint8)
    return indices[..., :channels]


@functools.cache
def load_library() -> Any:
    """Loads the compiled ops, once, and gives them; calling an op does it too.
    `tf.saved_model.load` needs it before it can read a model that holds one. `LibraryError` if
    the library is missing or was built for another TensorFlow or processor."""
    check_build(LIBRARY)
    try:
        return tf.load_op_library(str(LIBRARY))
    except tf.errors.NotFoundError as error:  # what the linker says
        raise LibraryError(
            f"dlbench's ops cannot be loaded ({error.message}); rebuild them with: {REBUILD}"
        ) from error


def build_info() -> dict[str, Any]:
    """What the compiled ops were built for and with, and the instruction set in use."""
    return {**read_build(LIBRARY), "isa": isa()}


def isa() -> str:
    """The instruction set that all compiled ops use: "avx512", "avx2" (with FMA) or "portable".
    `LibraryError` as from `load_library`, UserError if the variable asks for one that is not to be
    had."""
    load_library()
    error = ctypes.c_char_p()
    name = _c_library().dlbench_pooling_isa(ctypes.byref(error))
    if name is None:
        raise UserError(f"{ISA}, for all compiled ops: {_isa_error(os.environ[ISA], error)}")
    return name.decode()


@functools.cache
def max_kernel_length() -> int:
    """The most rows or columns of a kernel whose gradient the compiled op has."""
    load_library()
    return ctypes.c_int64.in_dll(_c_library(), "dlbench_max_kernel_length").value


def use_isa(name: str) -> None:
    """Switches all compiled ops of this process to another instruction set, "avx512", "avx2" or
    "portable"; ValueError if it is unknown or this processor lacks it. The variable `ISA` does the
    same from the start."""
    load_library()
    error = ctypes.c_char_p()
    if not _c_library().dlbench_pooling_use_isa(name.encode(), ctypes.byref(error)):
        raise ValueError(_isa_error(name, error))


def read_build(library: Path) -> dict[str, Any]:
    """The build record inside a compiled library, read without loading it."""
    if not library.exists():
        raise LibraryError(
            f"dlbench's ops (pooling, normalisation, convolution) are not compiled: {library} is "
            f"missing; build it with: {REBUILD}"
        )
    record = re.search(rb"dlbench-pooling-build:(\{[^\0]*\})\0", library.read_bytes())
    if record is None:
        raise LibraryError(f"{library} does not hold dlbench's ops; rebuild it with: {REBUILD}")
    return json.loads(record[1])


def check_build(library: Path) -> None:
    """`LibraryError` unless the library was built for the TensorFlow that runs."""
    build = read_build(library)
    built = (build["tensorflow"], build["cxx11_abi"])
    running = (tf.version.VERSION, int(tf.sysconfig.CXX11_ABI_FLAG))
    if built != running:
        raise LibraryError(
            f"{library} was built for TensorFlow {built[0]} (C++11 ABI {built[1]}), but "
            f"TensorFlow {running[0]} (C++11 ABI {running[1]}) is running; rebuild it with: "
            f"{REBUILD}"
        )


@functools.cache
def _c_library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(LIBRARY))
    library.dlbench_pooling_isa.restype = ctypes.c_char_p
    library.dlbench_pooling_use_isa.restype = ctypes.c_bool
    return library


def check_windows(pool_size: int, packed: bool) -> None:
    """ValueError unless the ops have windows of this size, with such indices."""
    if not 2 <= pool_size <= 16:
        raise ValueError(f"pool_size must be from 2 to 16, got {pool_size}")
    if packed and pool_size != 2:
        raise ValueError(
            f"packed indices have two bits, enough for pool_size 2 alone, got {pool_size}"
        )


def for_xla() -> bool:
    """Whether what is being traced is for XLA."""
    return not tf.executing_eagerly() and GraphOrParentsInXlaContext(
        tf.compat.v1.get_default_graph()
    )


def _isa_error(name: str, error: ctypes.c_char_p) -> str:
    return f"instruction set {name!r}: {(error.value or b'').decode()}"


def _spatial_size(x: tf.Tensor) -> Size:
    height, width = x.shape[1:3]
    return tf.shape(x)[1:3] if height is None or width is None else (height, width)


def _attributes(op: tf.Operation) -> dict[str, Any]:
    return {name: op.get_attr(name) for name in ("pool_size", "packed")}


@tf.RegisterGradient("DlbenchMaxPool")
def _max_pool_gradient(op: tf.Operation, values: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    size = _spatial_size(op.inputs[0])
    return max_unpool(values, op.outputs[1], size, **_attributes(op))


@tf.RegisterGradient("DlbenchMaxUnpool")
def _max_unpool_gradient(op: tf.Operation, dense: tf.Tensor) -> tuple[tf.Tensor, None, None]:
    return max_gather(dense, op.inputs[1], **_attributes(op)), None, None


@tf.RegisterGradient("DlbenchMaxGather")
def _max_gather_gradient(op: tf.Operation, values: tf.Tensor) -> tuple[tf.Tensor, None]:
    size = _spatial_size(op.inputs[0])
    return max_unpool(values, op.inputs[1], size, **_attributes(op)), None


def _rows_and_columns(indices: tf.Tensor, pool_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Row and column in the dense image of every index: int64, as `indices` in shape."""
    local = tf.cast(indices, tf.int64)
    shape = tf.shape(indices, tf.int64)
    row = tf.range(shape[1])[:, None, None] * pool_size + local // pool_size
    column = tf.range(shape[2])[:, None] * pool_size + local % pool_size
    return row, column


def indices_to_tensorflow(
    indices: tf.Tensor,
    input_size: Size,
    pool_size: int = 2,
    include_batch_in_index: bool = False,
) -> tf.Tensor:
    """Our indices as `tf.nn.max_pool_with_argmax` numbers them, int64
    `((b * height + y) * width + x) * channels + c`, b = 0 unless included; `input_size` is the
    (height, width) of the pool's input."""
    height, width = (tf.cast(length, tf.int64) for length in tf.unstack(input_size, num=2))
    shape = tf.shape(indices, tf.int64)
    row, column = _rows_and_columns(indices, pool_size)
    image = tf.range(shape[0])[:, None, None, None] * (1 if include_batch_in_index else 0)
    return ((image * height + row) * width + column) * shape[3] + tf.range(shape[3])


def indices_from_tensorflow(
    argmax: tf.Tensor,
    input_size: Size,
    pool_size: int = 2,
    include_batch_in_index: bool = False,
) -> tf.Tensor:
    """Our uint8 indices from those of `tf.nn.max_pool_with_argmax`, whose windows are ours for
    padding "SAME" at pool_size 2 and for "VALID" where pool_size divides the size;
    InvalidArgumentError if an index lies outside its window."""
    width = tf.cast(tf.unstack(input_size, num=2)[1], tf.int64)
    height = tf.cast(tf.unstack(input_size, num=2)[0], tf.int64)
    shape = tf.shape(argmax, tf.int64)
    pixel = argmax // shape[3]
    if include_batch_in_index:
        pixel -= tf.range(shape[0])[:, None, None, None] * height * width
    return _local(pixel // width, pixel % width, pool_size)


def indices_to_torch(indices: tf.Tensor, input_size: Size, pool_size: int = 2) -> tf.Tensor:
    """Our indices as `torch.nn.functional.max_pool2d(return_indices=True, ceil_mode=True)` numbers
    them, int64 `y * width + x`, still (batch, rows, columns, channels): PyTorch's own layout is
    `tf.transpose(result, (0, 3, 1, 2))`."""
    width = tf.cast(tf.unstack(input_size, num=2)[1], tf.int64)
    row, column = _rows_and_columns(indices, pool_size)
    return row * width + column


def indices_from_torch(indices: tf.Tensor, input_size: Size, pool_size: int = 2) -> tf.Tensor:
    """Our uint8 indices from PyTorch's, given channels last: transpose PyTorch's by (0, 2, 3, 1)
    first; InvalidArgumentError if an index lies outside its window."""
    width = tf.cast(tf.unstack(input_size, num=2)[1], tf.int64)
    return _local(indices // width, indices % width, pool_size)


def _local(row: tf.Tensor, column: tf.Tensor, pool_size: int) -> tf.Tensor:
    shape = tf.shape(row, tf.int64)
    dy = row - tf.range(shape[1])[:, None, None] * pool_size
    dx = column - tf.range(shape[2])[:, None] * pool_size
    for offset in (dy, dx):
        tf.debugging.assert_non_negative(offset, "index above or left of its window")
        tf.debugging.assert_less(
            offset, tf.constant(pool_size, tf.int64), "index below or right of its window"
        )
    return tf.cast(dy * pool_size + dx, tf.uint8)
