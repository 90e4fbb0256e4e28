"""From images to predictions, with Monte-Carlo samples for Bayesian networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

# What the exporters of TensorFlow Lite and TensorRT freeze graphs by; it has no public name.
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from dlbench.folding import Folded
from dlbench.layers import MonteCarloDropout


class Predictor:
    """A network's output after ``activation``: class probabilities by `tf.nn.softmax`.

    A network with `MonteCarloDropout` layers is Bayesian: its dropout stays on, the prediction is
    the mean over ``samples`` passes and the uncertainty their variance (Kendall et al., arXiv
    1511.02680). Other networks are run once and have no variance. What runs is a `Folded` copy:
    call `update` when the network's weights have changed.

    ``frozen`` makes constants of the weights, which libraries lay out for their kernels once. That
    takes seconds and, meanwhile, some 16 times the memory of the weights; it pays for many images
    so small that reading the weights counts. A Bayesian network is not frozen.
    """

    def __init__(
        self,
        network: keras.Model,
        activation: Callable[[tf.Tensor], tf.Tensor],
        *,
        samples: int = 1,
        seed: int = 0,
        frozen: bool = False,
    ) -> None:
        self._folded = Folded(network)
        self._network = self._folded.network
        self._activation = activation
        self._dropouts = [x for x in self._network.layers if isinstance(x, MonteCarloDropout)]
        for layer in self._dropouts:
            layer.monte_carlo = True
        self._samples = samples if self._dropouts else 1
        self._seed = seed
        self._function = tf.function(self._predict, reduce_retracing=True)
        self._frozen = frozen and not self._dropouts
        self._constant: dict[tf.DType, Callable[..., list[tf.Tensor]]] = {}

    @property
    def bayesian(self) -> bool:
        """Whether predictions have a variance."""
        return bool(self._dropouts)

    def update(self) -> None:
        """Predict with the weights that the network has now."""
        self._folded.update()
        self._constant.clear()

    def __call__(self, image: Any, draw: int = 0) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Mean and variance of the prediction, (batch, height, width, outputs) float32.

        ``draw`` numbers the batch: the same number draws the same dropout masks, on any rank.
        """
        if self._frozen:
            return self._with_constants(tf.convert_to_tensor(image))[0], None
        for number, layer in enumerate(self._dropouts):
            # Seeds of their own, below 2^31 apart: layers of one shape would draw one mask.
            seed = self._seed + number * 2**31
            layer.seed_generator.state.assign([seed, draw * self._samples])
        mean, variance = self._function(image)
        return mean, variance if self._dropouts else None

    def _with_constants(self, image: tf.Tensor) -> list[tf.Tensor]:
        if image.dtype not in self._constant:
            any_size = tf.TensorSpec((None, None, None, image.shape[-1]), image.dtype)
            traced = tf.function(self._pass).get_concrete_function(any_size)
            self._constant[image.dtype] = convert_variables_to_constants_v2(traced)
        return self._constant[image.dtype](image)

    def _predict(self, image: Any) -> tuple[tf.Tensor, tf.Tensor]:
        first = self._pass(image)
        mean, squares = first, tf.zeros_like(first)
        for count in range(2, self._samples + 1):  # Welford: stable where E[x^2] - E[x]^2 is not
            sample = self._pass(image)
            change = sample - mean
            mean += change / count
            squares += change * (sample - mean)
        return mean, squares / self._samples

    def _pass(self, image: Any) -> tf.Tensor:
        return self._activation(tf.cast(self._network(image, training=False), tf.float32))
