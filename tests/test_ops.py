"""The compiled op against a NumPy reference, bit for bit; gradients, shapes, errors, loading."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from pooling_reference import (
    BITS,
    assert_same_bits,
    numpy_type,
    random_values,
    reference_gather,
    reference_pack,
    reference_pool,
    reference_unpool,
)

from dlbench import ops
from dlbench.errors import UserError

ISAS = ("avx512", "avx2", "portable")
CASES_PER_DTYPE = 2_600  # 10,400 in all


@pytest.fixture
def use_isa() -> Any:
    """Switches the instruction set for one test; skips where the processor lacks it."""
    before = ops.build_info()["isa"]

    def use(name: str) -> None:
        try:
            ops.use_isa(name)
        except ValueError as error:
            pytest.skip(str(error))

    yield use
    ops.use_isa(before)


def available_isas() -> list[str]:
    before, available = ops.build_info()["isa"], []
    for name in ISAS:
        try:
            ops.use_isa(name)
        except ValueError:
            continue
        available.append(name)
    ops.use_isa(before)
    return available


def check_case(
    dense: np.ndarray, indices: np.ndarray, k: int, message: str, packed: bool = False
) -> None:
    """All three kernels on one input; `indices` are foreign ones for unpool and gather."""
    stored = reference_pack if packed else np.asarray
    values, positions = ops.max_pool_with_indices(dense, k, packed)
    expected, expected_positions = reference_pool(dense, k)
    assert_same_bits(values, expected, message)
    assert_same_bits(positions, stored(expected_positions), message)
    unpooled = ops.max_unpool(expected, stored(indices), dense.shape[1:3], k, packed)
    assert_same_bits(unpooled, reference_unpool(expected, indices, dense.shape, k), message)
    gathered = ops.max_gather(dense, stored(indices), k, packed)
    assert_same_bits(gathered, reference_gather(dense, indices, k), message)


@pytest.mark.parametrize("dtype", BITS)
def test_equals_numpy_on_random_cases(dtype: str, use_isa: Callable[[str], None]) -> None:
    random = np.random.default_rng(list(BITS).index(dtype))
    isas = available_isas()
    for number in range(CASES_PER_DTYPE):
        use_isa(isas[number % len(isas)])
        k = int(random.choice([2, 2, 2, 3, *range(4, 17)]))
        batch, height, width = random.integers((0, 0, 0), (4, 2 * k + 4, 2 * k + 4))
        # Up to more than two vectors of every kind, and every tail.
        channels = int(random.choice([0, 1, 3, 4, 8, 16, 17, 31, 32, 33, 64, 65, 70]))
        if min(batch, height, width, channels) == 0 and number % 8:
            batch, height, width, channels = 1, max(height, 1), max(width, 1), max(channels, 1)
        dense = random_values(random, (batch, height, width, channels), dtype)
        pooled = (batch, -(-height // k), -(-width // k), channels)
        own = random.integers(0, k * k, pooled)
        indices = np.where(random.random(pooled) < 0.1, random.integers(0, 256, pooled), own)
        message = f"case {number}: {dense.shape}, k {k}, {isas[number % len(isas)]}"
        check_case(dense, indices.astype(np.uint8), k, message)
        if k == 2:
            check_case(dense, own.astype(np.uint8), k, f"{message}, packed", packed=True)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", BITS)
def test_large_tensors_split_over_threads(
    dtype: str, isa: str, use_isa: Callable[[str], None]
) -> None:
    """Large enough for several threads and, in the wider types, for stores around the caches (the
    fuzz target has every type make them)."""
    use_isa(isa)
    random = np.random.default_rng(1)
    dense = random.integers(-9, 9, (3, 161, 163, 64)).astype(numpy_type(dtype))
    indices = reference_pool(dense, 2)[1]
    check_case(dense, indices, 2, isa)
    check_case(dense, indices, 2, f"{isa}, packed", packed=True)


def test_unpool_puts_back_what_pool_took() -> None:
    dense = np.random.default_rng(2).standard_normal((2, 45, 37, 5)).astype(np.float32)
    values, indices = ops.max_pool_with_indices(dense)
    unpooled = ops.max_unpool(values, indices, (45, 37))
    assert np.array_equal(unpooled, np.where(unpooled, dense, 0))
    assert np.count_nonzero(unpooled) == 2 * 23 * 19 * 5
    assert_same_bits(ops.max_gather(unpooled, indices), values.numpy())


@pytest.mark.parametrize("channels", [0, 1, 3, 4, 5, 70])
def test_indices_pack_and_unpack(channels: int) -> None:
    indices = np.random.default_rng(4).integers(0, 4, (2, 3, 5, channels)).astype(np.uint8)
    packed = ops.pack_indices(indices)
    assert_same_bits(packed, reference_pack(indices))
    assert_same_bits(ops.unpack_indices(packed, channels), indices)


@pytest.mark.parametrize("index", [4, 5, 255])
def test_hostile_indices_are_harmless(index: int) -> None:
    values = np.ones((1, 3, 3, 40), np.float32)
    indices = np.full(values.shape, index, np.uint8)
    assert not np.any(ops.max_unpool(values, indices, (5, 5)))
    assert not np.any(ops.max_gather(np.ones((1, 5, 5, 40), np.float32), indices))


def distinct(shape: tuple[int, ...]) -> tf.Tensor:
    """No two values closer than finite differences reach."""
    values = np.random.default_rng(3).permutation(int(np.prod(shape))) / 10.0
    return tf.constant(values.reshape(shape), tf.float64)


def assert_gradient(function: Callable[[tf.Tensor], tf.Tensor], at: tf.Tensor) -> None:
    (ours,), (numeric,) = tf.test.compute_gradient(function, [at], delta=1e-3)
    np.testing.assert_allclose(ours, numeric, atol=1e-9)
    assert np.any(ours)


@pytest.mark.parametrize(("k", "packed"), [(2, False), (3, False), (2, True)])
def test_gradients_of_every_order(k: int, packed: bool) -> None:
    x = distinct((2, 5, 4, 3))
    values, indices = ops.max_pool_with_indices(x, k, packed)

    def pool(dense: tf.Tensor) -> tf.Tensor:
        return ops.max_pool_with_indices(dense, k, packed)[0]

    def unpool(pooled: tf.Tensor) -> tf.Tensor:
        return ops.max_unpool(pooled, indices, (5, 4), k, packed)

    def gather(dense: tf.Tensor) -> tf.Tensor:
        return ops.max_gather(dense, indices, k, packed)

    def square(function: Callable[[tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda at: function(at) ** 2

    def gradient(
        function: Callable[[tf.Tensor], tf.Tensor], at: tf.Tensor
    ) -> Callable[[tf.Tensor], tf.Tensor]:
        def product(upstream: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                tape.watch(at)
                result = function(at)
            return tape.gradient(result, at, upstream)

        return product

    for function, at in ((pool, x), (unpool, values), (gather, x)):
        assert_gradient(function, at)
        assert_gradient(square(function), at)
        upstream = distinct(function(at).shape)
        assert_gradient(gradient(function, at), upstream)
        assert_gradient(gradient(gradient(function, at), upstream), at)


def test_gradient_under_tf_function_with_unknown_size() -> None:
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3))])
    def gradient(x: tf.Tensor) -> tf.Tensor:
        return tf.gradients(ops.max_pool_with_indices(x)[0], x)[0]

    x = tf.cast(distinct((1, 3, 5, 3)), tf.float32)
    values, indices = reference_pool(x.numpy(), 2)
    ones = reference_unpool(np.ones_like(values), indices, x.shape, 2)
    assert_same_bits(gradient(x), ones)


@pytest.mark.parametrize(
    ("shape", "size", "pooled", "dense"),
    [
        ((None, None, None, 7), None, [None, None, None, 7], [None, None, None, 7]),
        ((None, 45, None, 7), None, [None, 23, None, 7], [None, None, None, 7]),
        ((2, 45, 37, None), (45, 37), [2, 23, 19, None], [2, 45, 37, None]),
        ((None, None, None, None), (45, 37), [None] * 4, [None, 45, 37, None]),
    ],
)
def test_shape_functions(shape: Any, size: Any, pooled: list[Any], dense: list[Any]) -> None:
    found = {}

    @tf.function
    def trace(x: tf.Tensor, any_size: tf.Tensor) -> None:
        values, indices = ops.max_pool_with_indices(x)
        found["pooled"] = [values.shape.as_list(), indices.shape.as_list()]
        found["dense"] = ops.max_unpool(values, indices, size or any_size).shape.as_list()
        found["gathered"] = ops.max_gather(x, indices).shape.as_list()
        values, packed = ops.max_pool_with_indices(x, packed=True)
        found["packed"] = packed.shape.as_list()
        ops.max_unpool(values, packed, size or any_size, packed=True)

    trace.get_concrete_function(tf.TensorSpec(shape), tf.TensorSpec((2,), tf.int32))
    packed = [*pooled[:3], pooled[3] and -(-pooled[3] // 4)]
    assert found == {"pooled": [pooled] * 2, "dense": dense, "gathered": pooled, "packed": packed}


def test_wrong_arguments_are_named() -> None:
    values = tf.zeros((1, 3, 4, 2))
    indices = tf.zeros((1, 3, 4, 2), tf.uint8)
    invalid = tf.errors.InvalidArgumentError
    for size in ((7, 8), (4, 8), (6, 9), (-1, 8), (6, 6)):
        with pytest.raises(invalid, match=rf"output_size \({size[0]}, {size[1]}\) does not fit"):
            ops.max_unpool(values, indices, size)
    with pytest.raises(invalid, match=r"got a tensor of shape \[3\]"):
        ops.max_unpool(values, indices, (6, 8, 2))
    with pytest.raises(invalid, match=r"must have shape \[1,3,4,2\], got \[1,3,4,1\]"):
        ops.max_unpool(values, indices[..., :1], (6, 8))
    with pytest.raises(invalid, match=r"packed .* must have shape \[1,3,4,1\], got \[1,3,4,2\]"):
        ops.max_unpool(values, indices, (6, 8), packed=True)
    with pytest.raises(invalid, match="pool_size 2 alone, got 3"):
        ops.max_pool_with_indices(tf.zeros((1, 6, 9, 2)), 3, packed=True)
    with pytest.raises(invalid, match=r"must have shape \[1,3,5,2\], got \[1,3,4,2\]"):
        ops.max_gather(tf.zeros((1, 6, 9, 2)), indices)
    with pytest.raises(invalid, match=r"got shape \[6,8,2\]"):
        ops.max_pool_with_indices(tf.zeros((6, 8, 2)))
    for pool_size in (1, 17):
        with pytest.raises(invalid, match=f"from 2 to 16, got {pool_size}"):
            ops.max_pool_with_indices(tf.zeros((1, 6, 8, 2)), pool_size)
    with pytest.raises(ValueError, match="must be equal"):  # already while a graph is built
        tf.function(lambda: ops.max_unpool(values, indices, (7, 8)))()


@pytest.mark.parametrize("include_batch", [False, True])
@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_tensorflow_indices(size: tuple[int, int], include_batch: bool) -> None:
    x = tf.cast(distinct((3, *size, 5)), tf.float32)
    _, argmax = tf.nn.max_pool_with_argmax(x, 2, 2, "SAME", include_batch_in_index=include_batch)
    _, indices = ops.max_pool_with_indices(x)
    ours = ops.indices_to_tensorflow(indices, size, include_batch_in_index=include_batch)
    assert_same_bits(ours, argmax.numpy())
    back = ops.indices_from_tensorflow(argmax, size, include_batch_in_index=include_batch)
    assert_same_bits(back, indices.numpy())
    with pytest.raises(tf.errors.InvalidArgumentError, match="its window"):
        ops.indices_from_tensorflow(argmax[:, ::-1], size, include_batch_in_index=include_batch)


@pytest.mark.parametrize(("size", "k"), [((6, 8), 2), ((7, 5), 2), ((7, 10), 3)])
def test_torch_indices(size: tuple[int, int], k: int) -> None:
    x = distinct((2, *size, 3))
    values, indices = ops.max_pool_with_indices(x, k)
    flat = ops.indices_to_torch(indices, size, k)
    pixels = tf.reshape(x, (2, -1, 3))
    for channel in range(3):
        read = tf.gather(pixels[..., channel], flat[..., channel], axis=1, batch_dims=1)
        assert_same_bits(read, values[..., channel].numpy())
    assert_same_bits(ops.indices_from_torch(flat, size, k), indices.numpy())


@pytest.mark.parametrize(("size", "k"), [((6, 8), 2), ((7, 5), 2), ((7, 10), 3)])
def test_torch_agrees(size: tuple[int, int], k: int) -> None:
    torch = pytest.importorskip("torch")
    x = distinct((2, *size, 3))
    image = torch.from_numpy(x.numpy().transpose(0, 3, 1, 2).copy())
    _, flat = torch.nn.functional.max_pool2d(image, k, ceil_mode=True, return_indices=True)
    _, indices = ops.max_pool_with_indices(x, k)
    ours = ops.indices_to_torch(indices, size, k).numpy().transpose(0, 3, 1, 2)
    assert np.array_equal(ours, flat.numpy())


def digest() -> str:
    """Of what all three kernels give for one large input."""
    random = np.random.default_rng(5)
    dense = random.choice([np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-40, -1.0], (2, 301, 77, 64))
    dense = dense.astype(np.float32)
    values, indices = ops.max_pool_with_indices(dense)
    results = values, indices, ops.max_unpool(values, indices, (301, 77))
    gathered = ops.max_gather(dense, indices)
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in (*results, gathered))).hexdigest()


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    root = Path(ops.__file__).parents[1]
    path = os.pathsep.join((str(root), str(Path(__file__).parent)))
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(("threads", "isa"), [("1", "portable"), ("5", "")])
def test_bits_do_not_depend_on_threads_or_instruction_set(threads: str, isa: str) -> None:
    child = run_python(
        "import test_ops; print(test_ops.digest(), test_ops.ops.build_info()['isa'])",
        TF_NUM_INTRAOP_THREADS=threads,
        DLBENCH_POOLING_ISA=isa,
    )
    assert child.returncode == 0, child.stderr
    found, used = child.stdout.split()
    assert found == digest()
    assert used == (isa or ops.build_info()["isa"])


def test_unknown_instruction_set_is_refused() -> None:
    code = """
import tensorflow as tf
from dlbench import ops
for call in (ops.build_info, lambda: ops.max_pool_with_indices(tf.zeros((1, 2, 2, 1)))):
    try:
        call()
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        print(error)
"""
    child = run_python(code, DLBENCH_POOLING_ISA="sse9")
    assert child.stdout.count("unknown instruction set; known are avx512") == 2, child
    with pytest.raises(ValueError, match="'sse9': unknown instruction set"):
        ops.use_isa("sse9")


def test_library_for_another_tensorflow_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "_pooling.so"
    running = tf.version.VERSION
    content, count = re.subn(rb'("tensorflow": ")[^"]*"', rb'\g<1>1.2.3"', ops.LIBRARY.read_bytes())
    assert count == 1
    other.write_bytes(content)
    with pytest.raises(ImportError) as error:
        ops.check_build(other)
    assert "TensorFlow 1.2.3" in str(error.value)
    assert f"TensorFlow {running}" in str(error.value)
    assert ops.REBUILD in str(error.value)


def test_missing_or_foreign_library_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "LIBRARY", tmp_path / "_pooling.so")
    with pytest.raises(ImportError, match=r"_pooling.so is missing; build it with: pip install"):
        ops.load_library.__wrapped__()
    ops.LIBRARY.write_bytes(b"something else")
    with pytest.raises(ImportError, match="does not hold dlbench's ops"):
        ops.load_library.__wrapped__()


def test_a_library_for_another_processor_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where hosts of two kinds share a checkout."""
    content = bytearray(ops.LIBRARY.read_bytes())
    assert content[:4] == b"\x7fELF"
    content[18:20] = b"\xf3\x00"  # the machine: RISC-V
    monkeypatch.setattr(ops, "LIBRARY", tmp_path / "_pooling.so")
    ops.LIBRARY.write_bytes(content)
    with pytest.raises(ops.LibraryError, match="cannot be loaded .*; rebuild them with: pip inst"):
        ops.load_library.__wrapped__()


def test_what_is_wrong_with_the_ops_is_the_users_to_mend() -> None:
    """For `exit_status` a line and no other start, for `import` an ImportError."""
    assert issubclass(ops.LibraryError, UserError)
    assert issubclass(ops.LibraryError, ImportError)


def test_nothing_is_loaded_on_import() -> None:
    child = run_python("from dlbench import ops; print(ops.load_library.cache_info().currsize)")
    assert child.stdout.strip() == "0", child.stderr
