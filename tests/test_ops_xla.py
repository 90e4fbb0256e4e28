"""The ops under XLA: the compiled op's results bit for bit, gradients, Keras' jit_compile."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from pooling_reference import BITS, assert_same_bits, random_values

from dlbench import layers, ops

# Shapes change little, since XLA compiles anew for each.
SHAPES = ((2, 6, 8, 5, 2), (1, 7, 5, 64, 2), (2, 1, 9, 3, 2), (1, 7, 10, 4, 3), (1, 20, 17, 2, 16))
INPUTS_PER_SHAPE = 40


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", BITS)
def test_equals_the_compiled_op(dtype: str, packed: bool) -> None:
    random = np.random.default_rng(list(BITS).index(dtype))
    for *shape, k in SHAPES:
        if packed and k != 2:
            continue

        @tf.function(jit_compile=True)
        def all_three(
            dense: tf.Tensor, indices: tf.Tensor, k: int = k
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
            values, own = ops.max_pool_with_indices(dense, k, packed)
            unpooled = ops.max_unpool(values, indices, tf.shape(dense)[1:3], k, packed)
            return values, own, unpooled, ops.max_gather(dense, indices, k, packed)

        for number in range(INPUTS_PER_SHAPE):
            dense = random_values(random, tuple(shape), dtype)
            values, own = ops.max_pool_with_indices(dense, k, packed)
            indices = random.integers(0, 256, own.shape).astype(np.uint8)
            if number % 2:
                indices = own.numpy()
            expected = (
                values,
                own,
                ops.max_unpool(values, indices, dense.shape[1:3], k, packed),
                ops.max_gather(dense, indices, k, packed),
            )
            for found, wanted in zip(all_three(dense, indices), expected, strict=True):
                assert_same_bits(found, wanted.numpy(), f"{shape}, k {k}, input {number}")


@pytest.mark.parametrize("packed", [False, True])
def test_gradients_equal_those_of_the_compiled_op(packed: bool) -> None:
    x = tf.constant(np.random.default_rng(1).standard_normal((2, 7, 5, 6)).astype(np.float32))

    def gradients(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                values, indices = ops.max_pool_with_indices(x**2, packed=packed)
                dense = ops.max_unpool(values**2, indices, tf.shape(x)[1:3], packed=packed)
                y = tf.reduce_sum(dense**2)
            first = inner.gradient(y, x)
        return first, outer.gradient(first, x)

    expected = tf.function(gradients)(x)
    for found, wanted in zip(tf.function(gradients, jit_compile=True)(x), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5)

    # The tape outside of the compiled function.
    pool = tf.function(lambda x: ops.max_pool_with_indices(x, packed=packed)[0], jit_compile=True)
    for function in (lambda x: x, tf.function):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(function(pool)(x))
        ours = tape.gradient(y, x).numpy()
        values, indices = ops.max_pool_with_indices(x)
        assert np.array_equal(ours, ops.max_unpool(tf.ones_like(values), indices, (7, 5)))


def test_only_code_for_xla_takes_the_composite() -> None:
    x = tf.TensorSpec((None, None, None, 3))

    def kinds(**options: bool) -> set[str]:
        pool = tf.function(lambda x: ops.max_pool_with_indices(x)[0], **options)
        return {op.type for op in pool.get_concrete_function(x).graph.get_operations()}

    assert "DlbenchMaxPool" in kinds()
    assert "DlbenchMaxPool" not in kinds(jit_compile=True)


REFUSED = (ValueError, tf.errors.InvalidArgumentError)
ANY = tf.TensorSpec((None, None, None, None))


@pytest.mark.parametrize(
    ("pooled", "size"),
    [
        *(((3, 4), size) for size in ((7, 8), (4, 8), (6, 9), (6, 6), (8, 6))),
        ((1, 4), (6, 8)),
        ((3, 1), (6, 8)),
    ],
)
def test_a_size_that_does_not_fit_is_refused(
    pooled: tuple[int, int], size: tuple[int, int]
) -> None:
    values, indices = tf.zeros((1, *pooled, 2)), tf.zeros((1, *pooled, 2), tf.uint8)
    unpool = tf.function(lambda: ops.max_unpool(values, indices, size), jit_compile=True)
    with pytest.raises(REFUSED):
        unpool()

    @tf.function(jit_compile=True, input_signature=[ANY, ANY])  # known only when XLA compiles
    def by_example(values: tf.Tensor, example: tf.Tensor) -> tf.Tensor:
        return ops.max_unpool(values, indices, tf.shape(example)[1:3])

    with pytest.raises(REFUSED):
        by_example(values, tf.zeros((1, *size, 2)))
    right = [2 * length for length in pooled]
    assert by_example(values, tf.zeros((1, *right, 2))).shape == (1, *right, 2)


@pytest.mark.parametrize("packed", [False, True])
def test_indices_of_the_other_kind_are_refused(packed: bool) -> None:
    """Broadcasting must not make them fit."""
    x = tf.zeros((1, 6, 8, 3))
    values, other = ops.max_pool_with_indices(x, packed=not packed)

    @tf.function(jit_compile=True, input_signature=[ANY])
    def unpool(values: tf.Tensor) -> tf.Tensor:
        return ops.max_unpool(values, other, (6, 8), packed=packed)

    @tf.function(jit_compile=True, input_signature=[ANY])
    def gather(dense: tf.Tensor) -> tf.Tensor:
        return ops.max_gather(dense, other, packed=packed)

    with pytest.raises(REFUSED):
        unpool(values)
    with pytest.raises(REFUSED):
        gather(x)


@pytest.mark.parametrize(("pool_size", "packed"), [(1, False), (17, False), (3, True)])
def test_windows_that_the_op_lacks_are_refused(pool_size: int, packed: bool) -> None:
    pool = tf.function(
        lambda x: ops.max_pool_with_indices(x, pool_size, packed)[0], jit_compile=True
    )
    with pytest.raises(ValueError, match=f"got {pool_size}"):
        pool(tf.zeros((1, 6, 8, 3)))


def test_keras_trains_under_xla() -> None:
    """Two models, one compiled by XLA, follow the same losses."""

    def model() -> keras.Model:
        keras.utils.set_random_seed(0)
        image = keras.Input((None, None, 3))
        x = keras.layers.Conv2D(8, 3, padding="same")(image)
        size = layers.SpatialSize()(x)
        x, indices = layers.MaxPoolWithIndices(packed=True)(x)
        x = layers.MaxUnpool(packed=True)([x, indices, size])
        return keras.Model(image, keras.layers.Conv2D(2, 3, padding="same")(x))

    random = np.random.default_rng(2)
    x, y = random.random((6, 9, 7, 3), np.float32), random.random((6, 9, 7, 2), np.float32)
    losses = []
    for jit_compile in (False, True):
        network = model()
        network.compile("sgd", "mse", jit_compile=jit_compile)
        assert network.jit_compile is jit_compile
        fit = network.fit(x, y, batch_size=2, epochs=3, shuffle=False, verbose=0)
        losses.append(fit.history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
