"""Batch normalisation over the batches of all ranks."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from dlbench.distributed import SingleProcess
from dlbench.layers import BatchNormalization, fused_batch_normalization


def sync_batch_normalization(ranks: SingleProcess) -> type[Any]:
    """`BatchNormalization` whose training moments are those of the batches of all ranks.

    N ranks with batch b compute what one rank with batch N*b would, gradients included: the ranks'
    sums are reduced, once in the forward pass and once in the backward pass, and the rest is left
    to TensorFlow's fused kernels. Inputs in float32, bfloat16 or half.
    """

    class SyncBatchNormalization(BatchNormalization):
        def normalize_batch(self, inputs: Any) -> tuple[Any, Any, Any]:
            part = tf.convert_to_tensor(ranks.part, tf.float32)
            moving = tf.stack(
                [tf.convert_to_tensor(one) for one in (self.moving_mean, self.moving_variance)]
            )

            @tf.custom_gradient
            def normalize(x: Any, gamma: Any, beta: Any) -> Any:
                mean, variance, count = moments(x, gamma, beta)
                statistics = (mean, variance)
                y = fused_batch_normalization(x, gamma, beta, self.epsilon, statistics)[0]

                def gradient(dy: Any, *_: Any) -> tuple[Any, Any, Any]:
                    # As if the statistics were constants ...
                    dx, dgamma, dbeta, *_ = tf.raw_ops.FusedBatchNormGradV3(
                        y_backprop=dy,
                        x=x,
                        scale=gamma,
                        reserve_space_1=mean,
                        reserve_space_2=variance,
                        reserve_space_3=mean,  # unused
                        epsilon=self.epsilon,
                        is_training=False,
                    )
                    # ... and what reaches x through them: d(mean) and d(variance), which all ranks
                    # contribute to, per normalised x.
                    sums = ranks.sum_awaited(tf.stack([dgamma, dbeta]), f"{self.name}_gradients")
                    scale = gamma * tf.math.rsqrt(variance + self.epsilon)
                    weights = tf.unstack(part * scale * tf.math.divide_no_nan(sums, count))
                    wide = tf.cast(x, tf.float32)
                    through = fused_batch_normalization(
                        wide, weights[0], weights[1], self.epsilon, statistics
                    )[0]
                    if x.dtype == tf.float32:
                        return dx - through, dgamma, dbeta
                    # Rounded once: what a second rounding takes from each pixel adds up.
                    dx = tf.cast(scale * tf.cast(dy, tf.float32) - through, x.dtype)
                    return dx, dgamma, dbeta

                return (y, mean, variance), gradient

            def moments(x: Any, gamma: Any, beta: Any) -> tuple[Any, Any, Any]:
                # float64: exact where the squares of a mean cancel.
                mean, variance = (
                    tf.cast(vector, tf.float64)
                    for vector in fused_batch_normalization(x, gamma, beta, self.epsilon)[1:]
                )
                count = tf.cast(tf.size(x) // tf.shape(x)[-1], tf.float64)
                of_a_pixel = tf.concat([mean, variance + mean**2, tf.ones_like(mean[:1])], 0)
                # A batch without pixels has moments that are NaN.
                local = tf.math.multiply_no_nan(of_a_pixel, count * tf.cast(part, tf.float64))
                total = ranks.sum_awaited(local, f"{self.name}_moments")
                mean, square = tf.split(tf.math.divide_no_nan(total[:-1], total[-1]), 2)
                found = tf.cast(tf.stack([mean, tf.maximum(square - mean**2, 0.0)]), tf.float32)
                # Where no rank's batch counts, the statistics stay, and are what y follows.
                mean, variance = tf.unstack(tf.where(total[-1] > 0.0, found, moving))
                return mean, variance, tf.cast(total[-1], tf.float32)

            y, mean, variance = normalize(
                inputs, tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
            )
            return self.activated(y), mean, variance

    return SyncBatchNormalization
