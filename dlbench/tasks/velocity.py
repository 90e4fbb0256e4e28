"""Velocities: mean squared error, RMSE and correlation per component, pictures with arrows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from dlbench import velocity_pictures
from dlbench.config import ConfigError, Training
from dlbench.distributed import SingleProcess
from dlbench.metrics import Moments, Score, known
from dlbench.runs import RunFolder
from dlbench.tasks.task import Task


class SquaredError:
    """Squared error of values (batch, height, width, outputs); a pixel with a NaN in its target is
    void: it neither trains nor counts."""

    def count(self, target: tf.Tensor) -> tf.Tensor:
        outputs = tf.cast(tf.shape(target)[-1], tf.float32)
        return outputs * tf.math.count_nonzero(_known(target), dtype=tf.float32)

    def void(self, target: tf.Tensor) -> tf.Tensor:
        return tf.fill(tf.shape(target), tf.constant(np.nan, target.dtype))

    def summed(self, prediction: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        known = _known(target)[..., None]
        # The target is replaced before it is used: the gradient of 0 * NaN would be NaN.
        error = tf.cast(prediction, tf.float32) - tf.where(known, target, 0.0)
        return tf.reduce_sum(tf.where(known, tf.square(error), 0.0))


def _known(target: tf.Tensor) -> tf.Tensor:
    return tf.reduce_all(tf.math.is_finite(target), axis=-1)


@dataclass
class VelocityEvaluation:
    """What a network scored on one split, in km/s."""

    split: str
    samples: int
    names: tuple[str, ...]
    moments: Moments

    @property
    def rmse(self) -> float:
        """Root mean square error over all components."""
        return float(np.sqrt(np.mean(np.square(self.moments.rmse))))

    def scores(self) -> dict[str, float]:
        return {
            "val_loss": self.rmse**2,
            "val_rmse": self.rmse,
            "val_r": float(np.mean(self.moments.correlation)),
        }

    def quality(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "samples": self.samples,
            "loss": known(self.rmse**2),
            "rmse": known(self.rmse),
            "unit": "km/s",
            "components": self.moments.summary(self.names),
        }

    def table(self) -> str:
        moments = self.moments
        width = max(map(len, self.names))
        lines = [f"{'km/s':<{width}}      RMSE    spread  of spread         r"]
        for name, rmse, spread, r in zip(
            self.names, moments.rmse, moments.spread, moments.correlation, strict=True
        ):
            lines.append(f"{name:<{width}}{rmse:10.3f}{spread:10.3f}{rmse / spread:11.3f}{r:10.4f}")
        lines.append(
            f"RMSE over all {self.rmse:.3f} km/s; the spread of the truth is what its mean, "
            "predicted everywhere, would miss it by"
        )
        return "\n".join(lines)


class VelocityScorer:
    """Summed moments of one evaluation; each chunk's are one rank's, so that their sum does not
    depend on the number of ranks."""

    def __init__(self, split: str, samples: int, chunks: int, names: tuple[str, ...]) -> None:
        self._split, self._samples, self._names = split, samples, names
        self._sums = np.zeros((chunks, 6, len(names)))

    def update(
        self, chunk: int, prediction: tf.Tensor, target: np.ndarray, native: np.ndarray
    ) -> None:
        moments = Moments(len(self._names))
        moments.update(target, prediction.numpy(), valid=np.isfinite(target).all(axis=-1))
        self._sums[chunk] = moments.sums

    def result(self, ranks: SingleProcess) -> VelocityEvaluation:
        moments = Moments(len(self._names))
        moments.sums = ranks.sum(tf.constant(self._sums), "moments").numpy().sum(axis=0)
        return VelocityEvaluation(self._split, self._samples, self._names, moments)


class Velocity(Task):
    """Horizontal velocities at each pixel, as DeepVel gives them."""

    score = Score("val_rmse", "validation RMSE, km/s", higher=False)

    def activation(self, output: tf.Tensor) -> tf.Tensor:
        return output

    def loss(self, settings: Training) -> SquaredError:
        if settings.class_weights.mode != "none":
            raise ConfigError(
                f"training.class_weights.mode is {settings.class_weights.mode}, but "
                f"{self.dataset.name} has no classes; set it to none"
            )
        return SquaredError()

    def scorer(self, split: str, samples: int, chunks: int) -> VelocityScorer:
        return VelocityScorer(split, samples, chunks, self.dataset.outputs)

    def write(self, evaluation: VelocityEvaluation, folder: RunFolder) -> None:
        """The record has all of it."""

    def draw(
        self,
        images: Sequence[np.ndarray],
        targets: Sequence[np.ndarray],
        predictions: Sequence[np.ndarray],
        variances: Sequence[np.ndarray] | None,
        path: Path,
    ) -> None:
        assert self.dataset.ground_sampling_distance is not None
        velocity_pictures.velocity_figure(
            images,
            targets,
            predictions,
            path,
            names=[f"sample {number}" for number in range(1, len(images) + 1)],
            pixel_km=self.dataset.ground_sampling_distance / 1000.0,
        )
