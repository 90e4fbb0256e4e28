"""The Keras layers: symbolic shapes, saving, mixed precision, and agreement with references."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlbench import distributed, layers
from dlbench.sync_normalization import sync_batch_normalization


@pytest.fixture(params=["float32", "mixed_bfloat16", "mixed_float16"])
def policy(request: pytest.FixtureRequest) -> Any:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield keras.config.dtype_policy()
    keras.config.set_dtype_policy(before)


def image(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def autoencoder(size: tuple[int | None, int | None]) -> keras.Model:
    """One of every layer: two pools, two unpools, packed indices at the first."""
    inputs = x = keras.Input((*size, 3))
    x = layers.LocalResponseNormalization()(x)
    stack = []
    for filters in (4, 6):
        x = keras.layers.Conv2D(filters, 3, padding="same")(x)
        x = layers.BatchNormalization()(x)
        shape = x.shape[1:3] if None not in size else layers.SpatialSize()(x)
        packed = filters == 4
        x, indices = layers.MaxPoolWithIndices(packed=packed)(x)
        stack.append((indices, shape, packed))
    x = layers.MonteCarloDropout(monte_carlo=False)(x)
    for filters in (4, 2):
        indices, shape, packed = stack.pop()
        x = layers.MaxUnpool(packed=packed)([x, indices, shape])
        x = keras.layers.Conv2D(filters, 3, padding="same")(x)
    return keras.Model(inputs, keras.layers.Activation("softmax", dtype="float32")(x))


@pytest.mark.parametrize("size", [(None, None), (45, 37)])
def test_fit_save_reload_predict(
    size: tuple[int | None, int | None], policy: keras.DTypePolicy, tmp_path: Path
) -> None:
    model = autoencoder(size)
    model.compile("sgd", "sparse_categorical_crossentropy")
    x, y = image(5, 45, 37, 3), np.zeros((5, 45, 37), np.uint8)
    before = [weight.numpy() for weight in model.weights]
    model.fit(x, y, batch_size=2, verbose=0)  # batches of 2, 2 and 1
    assert all(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))
    assert all(weight.dtype == "float32" for weight in model.weights)
    predicted = model.predict(x, batch_size=3, verbose=0)
    assert predicted.shape == (5, 45, 37, 2)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(again.predict(x, batch_size=3, verbose=0), predicted)
    if size == (None, None):
        assert again.predict(image(1, 46, 35, 3), verbose=0).shape == (1, 46, 35, 2)


def test_symbolic_shapes_and_dtypes(policy: keras.DTypePolicy) -> None:
    for size, pooled in (((45, 37), (23, 19)), ((None, 37), (None, 19))):
        x = keras.Input((*size, 8))
        values, indices = layers.MaxPoolWithIndices()(x)
        assert values.shape == indices.shape == (None, *pooled, 8)
        assert (values.dtype, indices.dtype) == (policy.compute_dtype, "uint8")
        any_size = layers.SpatialSize()(x)
        assert (any_size.shape, any_size.dtype) == ((2,), "int32")
        dense = layers.MaxUnpool()([values, indices, any_size])
        assert (dense.shape, dense.dtype) == ((None, None, None, 8), policy.compute_dtype)
    x = keras.Input((45, 37, 9))
    assert layers.MaxPoolWithIndices(packed=True)(x)[1].shape == (None, 23, 19, 3)
    x = keras.Input((45, 37, 8))
    values, indices = layers.MaxPoolWithIndices(3)(x)
    assert values.shape == (None, 15, 13, 8)
    dense = layers.MaxUnpool(3)([values, indices, (45, 37)])
    assert dense.shape == (None, 45, 37, 8)


def test_run_time_dtypes(policy: keras.DTypePolicy) -> None:
    x = tf.constant(image(2, 5, 7, 3))
    values, indices = layers.MaxPoolWithIndices()(x)
    size = layers.SpatialSize()(x)
    assert (values.dtype, indices.dtype, size.dtype) == (policy.compute_dtype, tf.uint8, tf.int32)
    for given in (size, (5, 7), [5, 7]):
        assert layers.MaxUnpool()([values, indices, given]).dtype == policy.compute_dtype
    normalised = layers.BatchNormalization()(values, training=True)
    assert normalised.dtype == policy.compute_dtype
    assert layers.LocalResponseNormalization()(x).dtype == policy.compute_dtype


def test_odd_sizes_come_back() -> None:
    x = image(1, 45, 45, 4)
    values, indices = layers.MaxPoolWithIndices()(x)
    assert values.shape == (1, 23, 23, 4)
    dense = layers.MaxUnpool()([values, indices, layers.SpatialSize()(x)]).numpy()
    assert dense.shape == x.shape
    assert np.array_equal(dense, np.where(dense, x, 0))
    assert np.count_nonzero(dense) == values.shape.num_elements()


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="from 2 to 16, got 1"):
        layers.MaxPoolWithIndices(1)
    with pytest.raises(ValueError, match="pool_size 2 alone, got 3"):
        layers.MaxUnpool(3, packed=True)
    values, indices = layers.MaxPoolWithIndices()(keras.Input((45, 45, 4)))
    with pytest.raises(ValueError, match=r"size \(46, 47\) does not fit"):
        layers.MaxUnpool()([values, indices, (46, 47)])
    with pytest.raises(ValueError, match=r"give SpatialSize\(\)\(x\)"):
        layers.MaxUnpool()([values, indices, (None, 45)])
    with pytest.raises(ValueError, match="odd number of channels, got 4"):
        layers.LocalResponseNormalization(4)
    with pytest.raises(ValueError, match="with channels known"):
        layers.BatchNormalization()(keras.Input((5, 7, None)))


def train_and_infer(layer: keras.layers.Layer, x: tf.Tensor) -> dict[str, np.ndarray]:
    layer.build(x.shape)
    layer.gamma.assign(tf.linspace(0.5, 2.0, x.shape[-1]))
    layer.beta.assign(tf.linspace(-1.0, 1.0, x.shape[-1]))
    weights = tf.constant(image(*x.shape, seed=9), x.dtype)
    result: dict[str, Any] = {}
    for training in (True, False):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            loss = tf.reduce_sum(tf.cast(weights * y, tf.float64))
        parameters = [layer.gamma.value, layer.beta.value]
        dx, dgamma, dbeta = tape.gradient(loss, [x, *parameters])
        result |= {f"y {training}": y, f"dx {training}": dx}
        result |= {f"dgamma {training}": dgamma, f"dbeta {training}": dbeta}
    result |= {"mean": layer.moving_mean, "variance": layer.moving_variance}
    return {name: keras.ops.convert_to_numpy(tensor) for name, tensor in result.items()}


SYNC = sync_batch_normalization(distributed.SingleProcess())


def test_a_step_in_which_no_rank_counts_leaves_synchronised_statistics() -> None:
    """And follows them: normalised by nothing, values would grow from layer to layer."""
    ranks = distributed.SingleProcess()
    layer = sync_batch_normalization(ranks)(momentum=0.5)
    x = tf.constant(image(3, 5, 7, 4) * 3 + 1)
    layer(x, training=True)
    before = [layer.moving_mean.numpy(), layer.moving_variance.numpy()]
    assert np.abs(before[0]).min() > 0.1
    with ranks.taking_part(0.0), tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    np.testing.assert_array_equal([layer.moving_mean, layer.moving_variance], before)
    np.testing.assert_array_equal(y, layer(x, training=False))
    expected = tf.ones_like(x) / tf.sqrt(before[1] + layer.epsilon)
    np.testing.assert_allclose(tape.gradient(y, x), expected, rtol=1e-6)


@pytest.mark.parametrize("own", [layers.BatchNormalization, SYNC], ids=["local", "sync"])
@pytest.mark.parametrize("shape", [(3, 5, 7, 4), (1, 1, 2, 4)])
def test_batch_normalization_equals_keras(own: type[Any], shape: tuple[int, ...]) -> None:
    x = tf.constant(image(*shape) * 3 + 1)
    ours = train_and_infer(own(momentum=0.9), x)
    keras_layer = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    theirs = train_and_infer(keras_layer, x)
    for name, expected in theirs.items():
        np.testing.assert_allclose(ours[name], expected, rtol=2e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize(
    ("own", "dtype"),
    [
        (layers.BatchNormalization, "bfloat16"),
        (layers.BatchNormalization, "float16"),
        (layers.BatchNormalization, "float64"),
        (SYNC, "bfloat16"),
        (SYNC, "float16"),
    ],
)
def test_batch_normalization_in_other_dtypes(own: type[Any], dtype: str) -> None:
    x = image(3, 5, 7, 4)
    wide = train_and_infer(layers.BatchNormalization(), tf.cast(tf.constant(x, dtype), tf.float32))
    found = train_and_infer(own(), tf.constant(x, dtype))
    rtol = {"bfloat16": 2e-2, "float16": 2e-3, "float64": 1e-5}[dtype]
    assert found["y True"].dtype == found["y False"].dtype == tf.as_dtype(dtype).as_numpy_dtype
    for name, expected in wide.items():
        scale = float(np.max(np.abs(expected)))
        difference = np.abs(found[name].astype(np.float64) - expected)
        assert difference.max() <= rtol * scale, name
    assert found["mean"].dtype == np.float32


@pytest.mark.parametrize(
    ("own", "dtype"),
    [
        (layers.BatchNormalization, "float32"),
        (layers.BatchNormalization, "bfloat16"),
        (layers.BatchNormalization, "float16"),
        (layers.BatchNormalization, "float64"),
        (SYNC, "float32"),
        (SYNC, "bfloat16"),
    ],
)
def test_a_relu_in_batch_normalization_is_that_after_it(own: type[Any], dtype: str) -> None:
    x = tf.constant(image(3, 5, 7, 4) * 3 + 1, dtype)

    class Parted(own):
        def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
            return tf.nn.relu(super().call(inputs, training))

    found, expected = train_and_infer(own(activation="relu"), x), train_and_infer(Parted(), x)
    assert np.mean(expected["y True"] == 0) > 0.1
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_batch_normalization_knows_one_activation() -> None:
    with pytest.raises(ValueError, match="activation must be None or 'relu', got 'elu'"):
        layers.BatchNormalization(activation="elu")
    config = layers.BatchNormalization(activation="relu").get_config()
    assert layers.BatchNormalization.from_config(config).activation == "relu"


def test_batch_normalization_weights_and_frozen() -> None:
    layer = layers.BatchNormalization()
    x = tf.constant(image(2, 3, 3, 5))
    layer(x)
    sizes = [
        sum(w.shape[0] for w in group)
        for group in (layer.trainable_weights, layer.non_trainable_weights)
    ]
    assert sizes == [10, 10]
    layer.trainable = False
    assert np.array_equal(layer(x, training=True), layer(x, training=False))
    assert not np.any(layer.moving_mean)


def test_batch_without_samples_leaves_statistics() -> None:
    layer = layers.BatchNormalization()
    assert layer(tf.zeros((0, 3, 3, 5)), training=True).shape == (0, 3, 3, 5)
    assert not np.any(layer.moving_mean)
    assert np.all(layer.moving_variance == 1)


def test_local_response_normalization_equals_caffe() -> None:
    x = image(2, 3, 3, 9) * 50
    squares = np.pad(x.astype(np.float64) ** 2, [(0, 0)] * 3 + [(2, 2)])
    total = sum(squares[..., shift : shift + 9] for shift in range(5))
    expected = x / (1 + 1e-4 / 5 * total) ** 0.75
    np.testing.assert_allclose(layers.LocalResponseNormalization()(x), expected, rtol=1e-5)


def test_monte_carlo_dropout_stays_on() -> None:
    x = np.ones((1, 8, 8, 64), np.float32)
    layer = layers.MonteCarloDropout(0.5, seed=1)
    assert np.array_equal(layer(x, training=False), x)
    assert 0.4 < np.mean(layer(x, training=True) == 0) < 0.6
    layer.monte_carlo = True
    first, second = layer(x, training=False).numpy(), layer(x).numpy()
    assert 0.4 < np.mean(first == 0) < 0.6
    assert np.any(first != second)
    assert layers.MonteCarloDropout.from_config(layer.get_config()).monte_carlo


def test_saved_model_reloads_in_another_process(tmp_path: Path) -> None:
    model = autoencoder((None, None))
    x = image(1, 9, 7, 3)
    expected = model.predict(x, verbose=0)
    model.export(tmp_path / "exported", verbose=False)
    np.save(tmp_path / "x.npy", x)
    code = f"""
import numpy as np
import tensorflow as tf
from dlbench import ops
ops.load_library()
model = tf.saved_model.load({str(tmp_path / "exported")!r})
np.save({str(tmp_path / "y.npy")!r}, model.serve(np.load({str(tmp_path / "x.npy")!r})))
"""
    root = Path(layers.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=root
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5, atol=1e-6)


def test_a_residual_connection(policy: keras.DTypePolicy, tmp_path: Path) -> None:
    """Read, saved and trained as one of Keras' own; in prediction nothing but an addition."""
    inputs = keras.Input((None, None, 4))
    shortcut, x = layers.Fork()(inputs)
    residual = keras.Model(inputs, layers.Add()([shortcut, layers.Conv2D(4, 1)(x)]))
    plain = keras.Model(inputs, keras.layers.Add()([inputs, layers.Conv2D(4, 1)(inputs)]))
    plain.set_weights(residual.get_weights())
    residual.save(tmp_path / "residual.keras")
    again = keras.models.load_model(tmp_path / "residual.keras")
    x = image(2, 5, 7, 4)
    for training in (False, True):
        expected = plain(x, training=training)
        for network in (residual, again):
            found = network(x, training=training)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
    assert residual.output.shape == plain.output.shape
    graph = tf.function(residual).get_concrete_function(tf.TensorSpec((2, 5, 7, 4))).graph
    kinds = {operation.type for operation in graph.get_operations()}
    assert not kinds & {"IdentityN", "DlbenchAdd"}


def test_what_is_added_has_one_shape() -> None:
    one = keras.Input((None, None, 4))
    for others in ([keras.Input((None, None, 1))], [one, one]):
        with pytest.raises(ValueError, match="two tensors of one shape"):
            layers.Add()([one, *others])


def test_a_batch_that_overflows_leaves_the_moving_statistics() -> None:
    """Its step is skipped under loss scaling, which statistics of infinity would outlast."""
    layer = layers.BatchNormalization()
    x = image(2, 5, 7, 4)
    layer(x, training=True)
    before = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    layer(np.where(x > 2.0, np.inf, x), training=True)
    for found, right in zip((layer.moving_mean, layer.moving_variance), before, strict=True):
        np.testing.assert_array_equal(found, right)
    layer(x + 1.0, training=True)
    assert (layer.moving_mean.numpy() != before[0]).all()
