"""Adam in one pass: Keras' own results, and its state."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from dlbench.optimizers import Adam, AdamW

PAIRS = [(Adam, keras.optimizers.Adam), (AdamW, keras.optimizers.AdamW)]
STEPS = 30


def train(optimizer: keras.optimizers.Optimizer, dtype: str) -> list[np.ndarray]:
    """Weights and the optimiser's variables after steps along gradients of every size."""
    rng = np.random.default_rng(0)
    shapes = [(3, 3, 5, 7), (7,), ()]
    weights = [keras.Variable(rng.normal(size=shape), dtype=dtype) for shape in shapes]
    optimizer.build(weights)

    @tf.function
    def apply(gradients: list[tf.Tensor]) -> None:
        optimizer.apply(gradients, weights)

    for _ in range(STEPS):
        scales = 10.0 ** rng.uniform(-8, 2, 3)
        gradients = [s * rng.normal(size=shape) for s, shape in zip(scales, shapes, strict=True)]
        apply([tf.constant(gradient, dtype) for gradient in gradients])
    return [np.asarray(one) for one in (*weights, *optimizer.variables)]


@pytest.mark.parametrize(("own", "keras_own"), PAIRS)
def test_steps_are_those_of_keras(own: Any, keras_own: Any) -> None:
    rate = keras.optimizers.schedules.CosineDecay(0.1, STEPS)
    options = {"beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-4, "global_clipnorm": 5.0}
    found, expected = (train(kind(rate, **options), "float32") for kind in (own, keras_own))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_steps_are_those_of_the_paper() -> None:
    """In float64, where Keras rounds the decay rates to float32."""
    weight = keras.Variable(np.array([1.0, -2.0]), dtype="float64")
    optimizer = Adam(0.125, beta_1=0.8, beta_2=0.95, epsilon=1e-4)
    optimizer.build([weight])
    expected, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    for step in range(1, 20):
        gradient = np.array([np.sin(step), 10.0**-step])
        optimizer.apply([tf.constant(gradient)], [weight])
        m, v = 0.8 * m + 0.2 * gradient, 0.95 * v + 0.05 * gradient**2
        rate = 0.125 * np.sqrt(1 - 0.95**step) / (1 - 0.8**step)
        expected = expected - rate * m / (np.sqrt(v) + 1e-4)
    np.testing.assert_allclose(weight, expected, rtol=1e-12)


def test_a_bias_does_not_decay() -> None:
    weights = [keras.Variable(np.ones(3), name=name) for name in ("kernel", "bias")]
    optimizer = AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.build(weights)
    optimizer.apply([tf.zeros(3), tf.zeros(3)], weights)
    np.testing.assert_allclose(weights[0], 0.95, rtol=1e-6)
    np.testing.assert_array_equal(weights[1], 1.0)


@pytest.mark.parametrize(("own", "keras_own"), PAIRS)
def test_the_state_has_the_names_that_checkpoints_know(own: Any, keras_own: Any) -> None:
    def names(kind: Any) -> list[tuple[str, Any]]:
        optimizer = kind()
        optimizer.build([keras.Variable(np.ones(3), name="kernel")])
        return [(variable.path, variable.shape) for variable in optimizer.variables]

    assert [shape for _, shape in names(own)] == [shape for _, shape in names(keras_own)]
    assert [name.partition("/")[2] for name, _ in names(own)] == [
        name.partition("/")[2] for name, _ in names(keras_own)
    ]


def test_it_is_saved_and_loaded() -> None:
    config = keras.optimizers.serialize(Adam(0.25, beta_1=0.7))
    again = keras.optimizers.deserialize(config)
    assert type(again) is Adam
    assert (float(again.learning_rate.numpy()), again.beta_1) == (0.25, 0.7)


def test_loss_scaling_leaves_the_weights_where_a_gradient_overflows() -> None:
    weight = keras.Variable(np.ones(3))
    optimizer = keras.optimizers.LossScaleOptimizer(Adam(0.1))
    optimizer.build([weight])
    optimizer.apply([tf.constant([1.0, np.inf, 1.0])], [weight])
    np.testing.assert_array_equal(weight, 1.0)
    optimizer.apply([optimizer.scale_loss(tf.ones(3))], [weight])
    np.testing.assert_allclose(weight, 0.9, rtol=1e-5)
