"""SegNet and DeepVel in plain Keras on TensorFlow's own ops, as one would write them without ours.

Layers have the names that ours have, by which `load` fills them; training and prediction are the
functions that Keras's own `fit` and `predict` repeat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.twin_cases import (
    BANDS,
    BASIC_FILTERS,
    BASIC_STAGES,
    BLOCKS,
    CLASS_WEIGHTS,
    CLASSES,
    COMPONENTS,
    DECODER,
    DEEPVEL_NORM,
    ENCODER,
    FILTERS,
    FRAMES,
    IGNORE,
    LEARNING_RATE,
    RESCALE,
    SEGNET_NORM,
    Case,
    Weights,
    scaled,
)


class MaxPoolWithArgmax(keras.layers.Layer):
    """Values and int64 places of the maxima, both (batch, height / 2, width / 2, channels)."""

    def call(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.nn.max_pool_with_argmax(inputs, 2, 2, "SAME", include_batch_in_index=True)


class Unpool(keras.layers.Layer):
    """``[values, places, like]``: the values at their places in zeros of the shape of ``like``."""

    def call(self, inputs: list[tf.Tensor]) -> tf.Tensor:
        values, places, like = inputs
        shape = tf.shape(like, tf.int64)
        shape = tf.concat([shape[:3], tf.shape(values, tf.int64)[3:]], 0)
        flat = tf.scatter_nd(
            tf.reshape(places, (-1, 1)), tf.reshape(values, (-1,)), tf.reduce_prod(shape)[None]
        )
        return tf.reshape(flat, shape)

    def compute_output_shape(self, shapes: list[Any]) -> tuple[int | None, ...]:
        return (*shapes[2][:3], shapes[0][3])


class ResponseNormalization(keras.layers.Layer):
    """Caffe's local response normalisation over 5 channels, alpha 1e-4, beta 0.75."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        floats = tf.cast(inputs, tf.float32)
        return tf.nn.local_response_normalization(floats, 2, 1.0, 1e-4 / 5, 0.75)


def segnet(width: float = 1.0) -> keras.Model:
    """uint8 images (batch, height, width, 3) to logits (batch, height, width, classes)."""
    image = keras.Input((None, None, BANDS))
    scale, offset = RESCALE
    x = keras.layers.Rescaling(scale, offset, dtype="float32")(image)
    pools = []
    for stage, filters in enumerate(ENCODER, start=1):
        for number, count in enumerate(filters, start=1):
            name = f"enc{stage}_{number}"
            x = keras.layers.ReLU()(_normalized(x, scaled(count, width), name, SEGNET_NORM))
        dense = x
        x, places = MaxPoolWithArgmax()(x)
        pools.append((places, dense))
    for stage, filters in zip(range(len(DECODER), 0, -1), DECODER, strict=True):
        x = Unpool()([x, *pools.pop()])
        for number, count in zip(range(len(filters), 0, -1), filters, strict=True):
            name = f"dec{stage}_{number}"
            x = keras.layers.ReLU()(_normalized(x, scaled(count, width), name, SEGNET_NORM))
    logits = keras.layers.Conv2D(CLASSES, 3, padding="same", name="classifier")(x)
    return keras.Model(image, logits)


def segnet_basic(width: float = 1.0, outputs: int = CLASSES) -> keras.Model:
    """Images (batch, height, width, 3) from 0 to 255 to logits (batch, height, width, outputs)."""
    image = keras.Input((None, None, BANDS))
    x = ResponseNormalization(dtype="float32")(image)
    filters = scaled(BASIC_FILTERS, width)
    pools = []
    for stage in range(1, BASIC_STAGES + 1):
        x = keras.layers.ReLU()(_normalized(x, filters, f"enc{stage}", SEGNET_NORM, kernel=7))
        dense = x
        x, places = MaxPoolWithArgmax()(x)
        pools.append((places, dense))
    for stage in range(BASIC_STAGES, 0, -1):
        x = Unpool()([x, *pools.pop()])
        x = _normalized(x, filters, f"dec{stage}", SEGNET_NORM, kernel=7)
    return keras.Model(image, keras.layers.Conv2D(outputs, 1, name="classifier")(x))


def deepvel(blocks: int = BLOCKS, filters: int = FILTERS) -> keras.Model:
    """float32 images (batch, height, width, 2) to velocities (batch, height, width, 6)."""
    image = keras.Input((None, None, FRAMES))
    convolution = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name="conv1")
    first = x = convolution(image)
    for block in range(1, blocks + 1):
        y = keras.layers.ReLU()(_normalized(x, filters, f"block{block}_1", DEEPVEL_NORM))
        x = keras.layers.Add()([x, _normalized(y, filters, f"block{block}_2", DEEPVEL_NORM)])
    x = keras.layers.Add()([first, _normalized(x, filters, "conv2", DEEPVEL_NORM)])
    velocity = keras.layers.Conv2D(COMPONENTS, 1, dtype="float32", name="velocity")
    return keras.Model(image, velocity(x))


def _normalized(
    x: Any, filters: int, name: str, settings: dict[str, float], kernel: int = 3
) -> Any:
    x = keras.layers.Conv2D(filters, kernel, padding="same", name=f"{name}_conv")(x)
    return keras.layers.BatchNormalization(**settings, name=f"{name}_bn")(x)


def build(network: str, options: dict[str, Any], weights: Weights) -> keras.Model:
    """The twin of `dlbench.models.build` with these weights, under the dtype policy in force."""
    builders: dict[str, Callable[..., keras.Model]] = {"segnet": segnet, "deepvel": deepvel}
    twin = builders[network](**options)
    load(twin, weights)
    return twin


def load(network: keras.Model, weights: Weights) -> None:
    """Fill every variable of ``network`` by its path."""
    variables = {variable.path: variable for variable in network.variables}
    assert variables.keys() == weights.keys(), variables.keys() ^ weights.keys()
    for path, variable in variables.items():
        variable.assign(weights[path])


def weighted_cross_entropy(target: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Summed over valid pixels, divided by their number."""
    valid = target != IGNORE
    index = tf.where(valid, tf.cast(target, tf.int32), 0)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(index, logits)
    weight = tf.where(valid, tf.gather(tf.constant(CLASS_WEIGHTS), index), 0.0)
    return tf.reduce_sum(loss * weight) / tf.math.count_nonzero(valid, dtype=tf.float32)


LOSSES: dict[str, Any] = {"segnet": weighted_cross_entropy, "deepvel": "mean_squared_error"}


def training_step(
    case: Case,
    weights: Weights,
    image: np.ndarray,
    target: np.ndarray,
    optimizer: keras.optimizers.Optimizer | None = None,
) -> tuple[keras.Model, Callable[[], float]]:
    """The network, and the step of `fit` on this batch, which returns its loss."""
    network = build(case.network, case.options, weights)
    network.compile(optimizer or keras.optimizers.Adam(LEARNING_RATE), LOSSES[case.network])
    network.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors((image, target)).repeat())

    def step() -> float:
        network.reset_metrics()  # otherwise the loss is the mean of all steps so far
        return float(network.train_function(batches)["loss"])

    return network, step


def inference(case: Case, weights: Weights, image: np.ndarray) -> Callable[[], np.ndarray]:
    """Class probabilities, or velocities, (batch, height, width, channels) float32."""
    network = build(case.network, case.options, weights)
    if case.network == "segnet":
        softmax = keras.layers.Softmax(dtype="float32")
        network = keras.Model(network.input, softmax(network.output))
    network.compile()
    network.make_predict_function()
    batches = [(tf.constant(image),)]  # as `predict` hands them over
    return lambda: network.predict_function(batches).numpy()
