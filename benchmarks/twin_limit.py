"""The convolutions of a network alone: the time below which no step of it can come here.

Each convolution runs on what reaches it in the network, in training with both of its gradients, as
our layers compute them; nothing comes between. They do not wait for each other, as in a network
they must, so the limit is a little lower than what can be reached.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks import twin_keras
from benchmarks.twin_cases import CHANNELS, Case, Weights
from dlbench import models
from dlbench.convolution import convolution


def training_step(
    case: Case, weights: Weights, image: np.ndarray, target: np.ndarray
) -> tuple[keras.Model, Callable[[], float]]:
    """The network, and all its convolutions forward and backward; gives 0, there is no loss."""
    network, layers, inputs = _convolutions(case, weights, image)

    @tf.function
    def step() -> list[tf.Tensor]:
        found = []
        for number, (layer, x) in enumerate(zip(layers, inputs, strict=True)):
            kernel = tf.cast(tf.convert_to_tensor(layer.kernel), x.dtype)
            with tf.GradientTape() as tape:
                tape.watch([x, kernel])
                y = convolution(x, kernel)
            # The image needs no gradient.
            wanted = [kernel] if number == 0 else [kernel, x]
            found += tape.gradient(y, wanted, output_gradients=y)
        return [gradient[0, 0, 0, 0] for gradient in found]

    return network, lambda: 0.0 * float(step()[-1])


def inference(case: Case, weights: Weights, image: np.ndarray) -> Callable[[], float]:
    """All convolutions forward; gives 0, there is no prediction."""
    _, layers, inputs = _convolutions(case, weights, image)
    # As prediction has them: cast once.
    kernels = [tf.Variable(tf.cast(layer.kernel.value, layer.compute_dtype)) for layer in layers]

    @tf.function
    def step() -> list[tf.Tensor]:
        return [
            tf.nn.conv2d(x, kernel, 1, "SAME")[0, 0, 0, 0]
            for kernel, x in zip(kernels, inputs, strict=True)
        ]

    return lambda: 0.0 * float(step()[-1])


def _convolutions(
    case: Case, weights: Weights, image: np.ndarray
) -> tuple[keras.Model, list[Any], list[tf.Tensor]]:
    channels, outputs = CHANNELS[case.network]
    network = models.build(case.network, (None, None, channels), outputs, **case.options)
    twin_keras.load(network, weights)
    layers = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]
    probe = keras.Model(network.input, [layer.input for layer in layers])
    inputs = [
        tf.cast(x, layer.compute_dtype)
        for layer, x in zip(layers, probe(tf.constant(image), training=True), strict=True)
    ]
    return network, layers, inputs
