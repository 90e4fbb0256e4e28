"""Class probabilities, and the statistics of Monte-Carlo samples."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlbench import models
from dlbench.layers import MonteCarloDropout
from dlbench.prediction import Predictor

IMAGE = np.random.default_rng(0).integers(0, 255, (2, 20, 28, 3), np.uint8)


def network(name: str, precision: str = "float32") -> keras.Model:
    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(0)
    net = models.build(name, (None, None, 3), 4, width=0.1)
    keras.config.set_dtype_policy("float32")
    return net


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def test_a_plain_network_is_run_once() -> None:
    net = network("segnet_basic")
    mean, variance = Predictor(net, tf.nn.softmax, samples=8)(IMAGE)
    assert variance is None
    assert (mean.shape, mean.dtype.name) == ((2, 20, 28, 4), "float32")
    expected = softmax(net(IMAGE).numpy())
    np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_mean_and_variance_are_those_of_the_samples(precision: str) -> None:
    net, count = network("segnet_basic_bayesian", precision), 5
    mean, variance = Predictor(net, tf.nn.softmax, samples=count, seed=3)(IMAGE, draw=2)
    assert variance is not None
    assert mean.dtype.name == variance.dtype.name == "float32"

    # Each pass of a layer moves its seed on by one: these are the same draws, one at a time.
    dropouts = [layer for layer in net.layers if isinstance(layer, MonteCarloDropout)]
    assert len(dropouts) == 4
    for number, layer in enumerate(dropouts):
        layer.monte_carlo = True
        layer.seed_generator.state.assign([3 + number * 2**31, 2 * count])
    samples = [softmax(net(IMAGE, training=False).numpy().astype(np.float32)) for _ in range(count)]
    for layer in dropouts:
        layer.monte_carlo = False
    assert np.ptp(samples, axis=0).max() > 0.1, "the samples differ"
    # bfloat16 rounds a graph's fused operations elsewhere than single ones.
    tolerance = 1e-5 if precision == "float32" else 0.05
    np.testing.assert_allclose(mean, np.mean(samples, axis=0), atol=tolerance)
    np.testing.assert_allclose(variance, np.var(samples, axis=0), atol=tolerance)
    np.testing.assert_allclose(mean.numpy().sum(-1), 1.0, atol=1e-5)
    assert (variance.numpy() >= 0).all()


def test_layers_of_one_shape_drop_other_values() -> None:
    """Both halves of this network drop from the same ones."""
    inputs = keras.Input((None, None, 1))
    halves = [MonteCarloDropout(0.5)(inputs) for _ in range(2)]
    net = keras.Model(inputs, keras.layers.Concatenate()(halves))
    found, _ = Predictor(net, tf.identity)(np.ones((1, 32, 32, 1), np.float32))
    assert 0.3 < float(tf.reduce_mean(tf.cast(found[..., 0] != found[..., 1], tf.float32))) < 0.7


def test_draws_are_repeatable_and_differ() -> None:
    net = network("segnet_bayesian")
    predictor = Predictor(net, tf.nn.softmax, samples=3)
    first, again, other = (predictor(IMAGE, draw=d)[0].numpy() for d in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(Predictor(net, tf.nn.softmax, samples=3)(IMAGE, draw=1)[0], first)
    assert (
        Predictor(net, tf.nn.softmax, samples=3, seed=9)(IMAGE, draw=1)[0].numpy() != first
    ).any()


def test_prediction_leaves_the_network_as_it_was() -> None:
    net = network("segnet_basic_bayesian")
    before = [np.asarray(v) for v in net.variables]
    plain = net(IMAGE, training=False).numpy()
    Predictor(net, tf.nn.softmax, samples=3)(IMAGE, draw=7)
    for variable, value in zip(net.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value, err_msg=variable.path)
    np.testing.assert_array_equal(net(IMAGE, training=False), plain)


def test_new_weights_are_seen() -> None:
    net = network("segnet_basic")
    predictor = Predictor(net, tf.nn.softmax)
    before = predictor(IMAGE)[0].numpy()
    net.get_layer("classifier").bias.assign([0.0, 0.0, 0.0, 50.0])
    predictor.update()
    after = predictor(IMAGE)[0].numpy()
    assert (before.argmax(-1) != 3).any()
    assert (after.argmax(-1) == 3).all()


@pytest.mark.parametrize("name", ["segnet", "segnet_basic"])
def test_frozen_weights_predict_the_same_at_any_size(name: str) -> None:
    net = network(name)
    frozen = Predictor(net, tf.nn.softmax, frozen=True)
    for image in (IMAGE, IMAGE[:1, :17, :23], IMAGE.astype(np.float32)):
        mean, variance = frozen(image)
        assert variance is None
        expected, _ = Predictor(net, tf.nn.softmax)(image)
        np.testing.assert_allclose(mean, expected, rtol=1e-5, atol=1e-6)


def test_frozen_weights_are_taken_again_by_update() -> None:
    net = network("segnet_basic")
    frozen = Predictor(net, tf.nn.softmax, frozen=True)
    before, _ = frozen(IMAGE)
    bias = net.get_layer("classifier").bias
    bias.assign(bias + np.array([5.0, 0.0, 0.0, 0.0], np.float32))
    np.testing.assert_array_equal(frozen(IMAGE)[0], before)
    frozen.update()
    assert frozen(IMAGE)[0].numpy()[..., 0].mean() > before.numpy()[..., 0].mean() + 0.1


def test_a_bayesian_network_still_draws_when_it_is_to_be_frozen() -> None:
    predictor = Predictor(network("segnet_basic_bayesian"), tf.nn.softmax, samples=4, frozen=True)
    _, variance = predictor(IMAGE)
    assert variance is not None
    assert variance.numpy().max() > 0.0
