"""Learning-rate schedules: linear warm-up, then constant, cosine or steps."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from dlbench.config import Optimizer
from dlbench.optimizers import Adam, AdamW


class WarmUpSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate at a step: the configured shape, in a warm-up of n steps times 1/n, 2/n, ... 1.

    Scaling by the number of ranks (with its warm-up) follows Goyal et al., arXiv 1706.02677.
    """

    ahead = 0
    """Steps by which the optimiser's count is short of the place in the training, which is measured
    in steps of so many ranks as there are now: others made the steps before. To be set before the
    first step."""

    def __init__(self, config: Optimizer, *, steps_per_epoch: int, epochs: int, ranks: int) -> None:
        self._config = config
        self._steps_per_epoch = steps_per_epoch
        self._ranks = ranks
        self._peak = config.learning_rate * (ranks if config.scale_by_ranks else 1)
        self._warmup = config.warmup_epochs * steps_per_epoch
        self._total = epochs * steps_per_epoch

    def __call__(self, step: Any) -> tf.Tensor:
        step = tf.cast(step + self.ahead, tf.float32)
        warm = (step + 1.0) / max(self._warmup, 1.0)
        return self._peak * tf.minimum(warm, 1.0) * self._shape(step)

    def _shape(self, step: tf.Tensor) -> tf.Tensor:
        if self._config.schedule == "cosine":
            done = (step - self._warmup) / max(self._total - self._warmup, 1.0)
            return 0.5 * (1.0 + tf.cos(3.14159265 * tf.clip_by_value(done, 0.0, 1.0)))
        if self._config.schedule == "step":
            at = [epoch * self._steps_per_epoch for epoch in self._config.step_epochs]
            passed = tf.add_n([tf.cast(step >= boundary, tf.float32) for boundary in at])
            return tf.pow(self._config.step_factor, passed)
        return tf.ones_like(step)

    def get_config(self) -> dict[str, Any]:
        return {
            "config": self._config.model_dump(),
            "steps_per_epoch": self._steps_per_epoch,
            "epochs": self._total // self._steps_per_epoch,
            "ranks": self._ranks,
        }


def schedule_of(optimizer: keras.optimizers.Optimizer) -> WarmUpSchedule:
    """That of an optimiser which `build_optimizer` made."""
    # Keras tells the rate at the present step, and the schedule by no public name.
    return getattr(optimizer, "inner_optimizer", optimizer)._learning_rate


def build_optimizer(
    config: Optimizer, *, steps_per_epoch: int, epochs: int, ranks: int, precision: str
) -> keras.optimizers.Optimizer:
    """The configured Keras optimiser; under mixed_float16 wrapped for dynamic loss scaling."""
    rate = WarmUpSchedule(config, steps_per_epoch=steps_per_epoch, epochs=epochs, ranks=ranks)
    clip: dict[str, Any] = {"global_clipnorm": config.clip_norm}
    optimizer: keras.optimizers.Optimizer
    if config.name == "sgd":
        optimizer = keras.optimizers.SGD(rate, momentum=config.momentum, **clip)
    elif config.name == "adam":
        optimizer = Adam(rate, **clip)
    else:
        optimizer = AdamW(rate, weight_decay=config.weight_decay, **clip)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
