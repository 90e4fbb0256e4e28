"""The training step: Keras `fit` with exact sums over ranks.

The loss of a step is the weighted cross-entropy summed over all valid pixels of all ranks, divided
by the count of those pixels; so N ranks with batch b follow one rank with batch N*b.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dlbench.config import ClassWeights, ConfigError
from dlbench.data.dataset import IGNORE, DataSet
from dlbench.distributed import SingleProcess


def summed_cross_entropy(
    logits: tf.Tensor, target: tf.Tensor, class_weights: tf.Tensor
) -> tf.Tensor:
    """Weighted cross-entropy summed over valid pixels, a float32 scalar.

    ``logits`` (batch, height, width, classes), ``target`` (batch, height, width) uint8 with 255 =
    ignore. The caller divides by the count of valid pixels, as SegNet does, not by their weights.
    """
    valid = target != IGNORE
    index = tf.cast(tf.where(valid, target, 0), tf.int32)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(index, tf.cast(logits, tf.float32))
    weight = tf.where(valid, tf.gather(class_weights, index), 0.0)
    return tf.reduce_sum(loss * weight)


def count_valid(target: tf.Tensor) -> tf.Tensor:
    """Number of pixels that are not ignored, a float32 scalar."""
    return tf.math.count_nonzero(target != IGNORE, dtype=tf.float32)


def class_weights(dataset: DataSet, settings: ClassWeights) -> np.ndarray:
    """The loss's weight of each class, as configured; counting reads the training labels once."""
    classes = len(dataset.classes)
    if settings.mode == "median_frequency":
        return median_frequency_weights(*_count_pixels(dataset), settings.maximum)
    if settings.mode == "none":
        return np.ones(classes)
    if len(settings.values) != classes:
        raise ConfigError(
            f"training.class_weights.values has {len(settings.values)} weights, "
            f"{dataset.name} has {classes} classes"
        )
    return np.minimum(settings.values, settings.maximum or np.inf)


def _count_pixels(dataset: DataSet) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.zeros(len(dataset.classes))
    of_images = np.zeros_like(pixels)
    for index in range(dataset.count("train")):
        _, target = dataset.read("train", index)
        counts = np.bincount(target[target != IGNORE], minlength=len(pixels))
        pixels += counts
        of_images += np.where(counts > 0, target.size, 0)
    return pixels, of_images


def median_frequency_weights(
    pixels: np.ndarray, pixels_of_images_with_class: np.ndarray, maximum: float | None
) -> np.ndarray:
    """Median-frequency class weights (Eigen & Fergus, ICCV 2015).

    ``pixels`` counts each class; ``pixels_of_images_with_class`` all pixels, void ones too, of the
    images that hold it. A class never seen weighs 0.
    """
    seen = pixels > 0
    frequency = np.where(seen, pixels / np.maximum(pixels_of_images_with_class, 1), np.nan)
    weights = np.where(seen, np.nanmedian(frequency) / frequency, 0.0)
    return np.minimum(weights, maximum) if maximum is not None else weights


def draw_own_dropout(network: keras.Model, rank: int) -> None:
    """Give ``rank`` dropout masks of its own: the ranks' seeds are equal, like all they start with.

    Rank 0 keeps its seeds, which are what a checkpoint holds.
    """
    for layer in network.layers:
        if isinstance(layer, keras.layers.Dropout):
            seed = layer.seed_generator.state
            seed.assign(seed + np.array([rank, 0], dtype=seed.dtype))


class Trainer(keras.Model):
    """Wraps a network for `fit` under Horovod.

    Gradients are summed over ranks before the optimiser sees them, outside any data-dependent
    branch: an inf on one rank becomes an inf on all, and all skip that step together.
    """

    def __init__(
        self,
        network: keras.Model,
        ranks: SingleProcess,
        class_weights: np.ndarray,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(name="trainer")
        self.network = network
        self._ranks = ranks
        self._class_weights = tf.constant(class_weights, tf.float32)
        # L2 of kernels alone: biases and batch-norm parameters stay free.
        self._decayed = {v.path for v in network.trainable_variables if v.path.endswith("kernel")}
        self._weight_decay = weight_decay
        self._loss = keras.metrics.Mean(name="loss")

    @property
    def metrics(self) -> list[Any]:
        return [self._loss]

    def call(self, image: Any, training: bool = False) -> Any:
        return self.network(image, training=training)

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, Any]:
        image, target = data
        variables = self.network.trainable_variables
        # Depends on the labels alone, so this reduction runs beside the forward pass.
        valid = count_valid(target)
        total = tf.maximum(self._ranks.sum(valid, "valid_pixels"), 1.0)
        # A rank that the remainder left without a sample must not sway synchronised batch-norm.
        part = tf.cast(valid > 0.0, tf.float32)
        with self._ranks.taking_part(part), tf.GradientTape() as tape:
            logits = self.network(image, training=True)
            local = summed_cross_entropy(logits, target, self._class_weights)
            share = self.optimizer.scale_loss(local / total)
        gradients = tape.gradient(share, variables)
        gradients = [
            self._ranks.sum_gradient(gradient, f"gradient/{variable.path}")
            for gradient, variable in zip(gradients, variables, strict=True)
        ]
        with tf.name_scope("optimizer"):  # by which a profile knows its ops
            self.optimizer.apply(self._with_decay(gradients, variables), variables)
        loss = self._ranks.sum(local, "loss") / total
        self._loss.update_state(loss, sample_weight=total)
        return {"loss": self._loss.result()}

    def _with_decay(self, gradients: list[Any], variables: list[Any]) -> list[Any]:
        if not self._weight_decay:
            return gradients
        return [
            gradient
            + self.optimizer.scale_loss(self._weight_decay * tf.convert_to_tensor(variable))
            if variable.path in self._decayed
            else gradient
            for gradient, variable in zip(gradients, variables, strict=True)
        ]

    def average_statistics(self) -> None:
        """Give all ranks the mean of their batch-norm statistics (they differ under local BN)."""
        for variable in self.network.non_trainable_variables:
            if variable.dtype == "float32" and self._ranks.size > 1:
                total = self._ranks.sum(variable.value, f"statistics/{variable.path}")
                variable.assign(total / self._ranks.size)
