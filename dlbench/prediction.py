"""From images to class probabilities, with Monte-Carlo samples for Bayesian networks."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from dlbench.layers import MonteCarloDropout


class Predictor:
    """Class probabilities of a segmentation network.

    A network with `MonteCarloDropout` layers is Bayesian: its dropout stays on, the prediction is
    the mean softmax over ``samples`` passes and the uncertainty their variance (Kendall et al.,
    arXiv 1511.02680). Other networks are run once and have no variance.
    """

    def __init__(self, network: keras.Model, samples: int, seed: int = 0) -> None:
        self._dropouts = [x for x in network.layers if isinstance(x, MonteCarloDropout)]
        self._network = network
        self._samples = samples if self._dropouts else 1
        self._seed = seed
        self._function = tf.function(self._predict, reduce_retracing=True)

    def __call__(self, image: Any, draw: int = 0) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Mean and variance of the class probabilities, (batch, height, width, classes) float32.

        ``draw`` numbers the batch: the same number draws the same dropout masks, on any rank.
        """
        states = [layer.seed_generator.state for layer in self._dropouts]
        kept = [tf.convert_to_tensor(state) for state in states]
        for layer, state in zip(self._dropouts, states, strict=True):
            layer.monte_carlo = True
            state.assign([self._seed, draw * self._samples])
        try:
            mean, variance = self._function(image)
        finally:
            for layer, state, value in zip(self._dropouts, states, kept, strict=True):
                layer.monte_carlo = False
                state.assign(value)
        return mean, variance if self._dropouts else None

    def _predict(self, image: Any) -> tuple[tf.Tensor, tf.Tensor]:
        first = self._softmax(image)
        mean, squares = first, tf.zeros_like(first)
        for count in range(2, self._samples + 1):  # Welford: stable where E[x^2] - E[x]^2 is not
            sample = self._softmax(image)
            change = sample - mean
            mean += change / count
            squares += change * (sample - mean)
        return mean, squares / self._samples

    def _softmax(self, image: Any) -> tf.Tensor:
        return tf.nn.softmax(tf.cast(self._network(image, training=False), tf.float32))
