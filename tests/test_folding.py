"""Batch normalisation folded into convolutions: the same results from fewer operations."""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlbench import models
from dlbench.distributed import SingleProcess
from dlbench.folding import Folded
from dlbench.layers import BatchNormalization
from dlbench.sync_normalization import sync_batch_normalization

NETWORKS: dict[str, dict[str, Any]] = {
    "segnet": {"width": 0.125},
    "segnet_basic": {"width": 0.125},
    "segnet_bayesian": {"width": 0.125},
    "deepvel": {"blocks": 3, "filters": 8},
}


def build(name: str, precision: str = "float32", **options: Any) -> keras.Model:
    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(0)
    network = models.build(name, (None, None, 3), 4, **NETWORKS[name], **options)
    keras.config.set_dtype_policy("float32")
    unsettle(network, seed=0)
    return network


def unsettle(network: keras.Model, seed: int) -> None:
    """Give biases, factors and moving statistics the values of a network that has learnt."""
    rng = np.random.default_rng(seed)
    for layer in network.layers:
        if isinstance(layer, BatchNormalization):
            layer.gamma.assign(rng.choice([-1.0, 1.0, 1.0], layer.gamma.shape) + rng.normal(0, 0.2))
            layer.beta.assign(rng.normal(0, 0.5, layer.beta.shape))
            layer.moving_mean.assign(rng.normal(0, 0.5, layer.beta.shape))
            layer.moving_variance.assign(rng.uniform(0.2, 3.0, layer.beta.shape))
        elif isinstance(layer, keras.layers.Conv2D) and layer.use_bias:
            layer.bias.assign(rng.normal(0, 0.5, layer.bias.shape))


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 2, shape).astype(np.float32)


def operations(network: keras.Model) -> Counter[str]:
    traced = tf.function(lambda x: network(x, training=False))
    spec = tf.TensorSpec((None, *network.input_shape[1:]), tf.float32)
    graph = traced.get_concrete_function(spec).graph
    return Counter(operation.type for operation in graph.get_operations())


def assert_same(found: Any, expected: Any, tolerance: float) -> None:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert np.ptp(expected) > 0.1, "an output that says something"
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_results_are_those_of_the_network(name: str) -> None:
    network = build(name)
    before = [np.asarray(variable) for variable in network.variables]
    x = image(2, 21, 26, 3)
    assert_same(Folded(network).network(x, training=False), network(x, training=False), 1e-5)
    for variable, value in zip(network.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value, err_msg=variable.path)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_batch_norm_and_no_copy_is_left(name: str) -> None:
    network = build(name)
    before, after = operations(network), operations(Folded(network).network)
    norms = sum(isinstance(layer, BatchNormalization) for layer in network.layers)
    assert before["FusedBatchNormV3"] == norms > 0
    assert not [kind for kind in after if "BatchNorm" in kind]
    assert after["Conv2D"] == after["BiasAdd"] == before["Conv2D"]
    assert after["Relu"] == before["Relu"]
    assert after["Identity"] == before["Identity"]


def test_the_formula_by_hand() -> None:
    """One pixel, one channel, epsilon large: (2 x + 1 - 3) * 4 / sqrt(5 + 4) + 7, exactly."""
    x = keras.Input((1, 1, 1))
    convolution = keras.layers.Conv2D(1, 1)
    norm = BatchNormalization(epsilon=4.0)
    network = keras.Model(x, norm(convolution(x)))
    convolution.set_weights([np.full((1, 1, 1, 1), 2.0), np.array([1.0])])
    norm.set_weights([np.array([value]) for value in (4.0, 7.0, 3.0, 5.0)])
    (folded,) = (x for x in Folded(network).network.layers if type(x) is keras.layers.Conv2D)
    np.testing.assert_allclose(folded.kernel, [[[[8 / 3]]]], rtol=1e-6)
    np.testing.assert_allclose(folded.bias, [7 - 8 / 3], rtol=1e-6)


def test_update_takes_new_weights_without_a_new_trace() -> None:
    network, traces = build("segnet_basic"), 0
    folded = Folded(network)

    @tf.function
    def predict(x: tf.Tensor) -> tf.Tensor:
        nonlocal traces
        traces += 1
        return folded.network(x, training=False)

    x = tf.constant(image(1, 16, 16, 3))
    old = predict(x).numpy()
    unsettle(network, seed=5)
    for layer in ("enc1_conv", "classifier"):  # folded, and as it was
        kernel = network.get_layer(layer).kernel
        kernel.assign(-1.5 * kernel)
    np.testing.assert_array_equal(predict(x), old)
    folded.update()
    new = network(x, training=False).numpy()
    assert np.abs(new - old).max() > 0.1
    assert_same(predict(x), new, 1e-5)
    assert traces == 1


def test_bfloat16_is_stored_and_right_within_its_rounding() -> None:
    exact, network = build("segnet_basic"), build("segnet_basic", "mixed_bfloat16")
    folded = Folded(network).network
    kinds = {layer.name: layer.dtype_policy.name for layer in folded.layers if layer.weights}
    assert kinds.pop("classifier") == "mixed_bfloat16"
    assert set(kinds.values()) == {"bfloat16"}
    # A kernel and a bias less to cast in each of them.
    assert operations(folded)["Cast"] == operations(network)["Cast"] - 2 * len(kinds)

    x = image(2, 16, 24, 3)
    expected = exact(x, training=False).numpy()
    found = np.asarray(folded(x, training=False), np.float32)
    # A rounded value can move a maximum to its neighbour: the mean tells, not the largest.
    assert 0 < np.abs(found - expected).mean() / np.abs(expected).mean() < 0.02


def test_synchronised_batch_norm_folds_too() -> None:
    network = build("segnet_basic", normalization=sync_batch_normalization(SingleProcess()))
    folded, x = Folded(network).network, image(1, 16, 16, 3)
    assert not operations(folded)["FusedBatchNormV3"]
    assert_same(folded(x, training=False), network(x, training=False), 1e-5)


def convolution(filters: int = 4, **options: Any) -> keras.layers.Conv2D:
    return keras.layers.Conv2D(filters, 3, padding="same", **options)


def two_users_of_a_convolution(x: Any) -> Any:
    y = convolution()(x)
    return BatchNormalization()(y) + y


def a_convolution_that_is_an_output(x: Any) -> Any:
    y = convolution()(x)
    return [BatchNormalization()(y), y]


def batch_norm_after_a_relu(x: Any) -> Any:
    return BatchNormalization()(keras.layers.ReLU()(convolution()(x)))


def batch_norm_after_an_activation(x: Any) -> Any:
    return BatchNormalization()(convolution(activation="relu")(x))


def a_convolution_that_runs_twice(x: Any) -> Any:
    shared = convolution(3)
    return BatchNormalization()(shared(shared(x)))


def a_batch_norm_that_runs_twice(x: Any) -> Any:
    shared = BatchNormalization()
    return shared(convolution(3)(shared(x)))


@pytest.mark.parametrize(
    "layers",
    [
        two_users_of_a_convolution,
        a_convolution_that_is_an_output,
        batch_norm_after_a_relu,
        batch_norm_after_an_activation,
        a_convolution_that_runs_twice,
        a_batch_norm_that_runs_twice,
    ],
)
def test_what_cannot_be_folded_stays(layers: Any) -> None:
    x = keras.Input((None, None, 3))
    network = keras.Model(x, layers(x))
    unsettle(network, seed=2)
    folded = Folded(network).network
    assert operations(folded) == operations(network)
    images = image(1, 8, 9, 3)
    for found, expected in zip(
        keras.tree.flatten(folded(images)), keras.tree.flatten(network(images)), strict=True
    ):
        assert_same(found, expected, 1e-6)


def two_users_of_a_batch_norm(x: Any) -> Any:
    y = BatchNormalization()(convolution()(x))
    return keras.layers.ReLU()(y) - y


def another_relu(x: Any) -> Any:
    return keras.layers.ReLU(negative_slope=0.3)(BatchNormalization()(convolution()(x)))


def no_bias(x: Any) -> Any:
    return BatchNormalization()(convolution(use_bias=False, strides=2)(x))


def one_relu_for_two(x: Any) -> Any:
    relu = keras.layers.ReLU()
    y = relu(BatchNormalization()(convolution()(x)))
    return relu(BatchNormalization()(convolution()(y)))


@pytest.mark.parametrize(
    "layers", [two_users_of_a_batch_norm, another_relu, no_bias, one_relu_for_two]
)
def test_what_comes_after_stays_where_it_must(layers: Any) -> None:
    x = keras.Input((None, None, 3))
    network = keras.Model(x, layers(x))
    unsettle(network, seed=3)
    folded, images = Folded(network).network, image(1, 8, 9, 3)
    assert not operations(folded)["FusedBatchNormV3"]
    assert_same(folded(images), network(images), 1e-5)
