"""Segmentation: weighted cross-entropy, confusion matrices, pictures of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from dlbench import pictures
from dlbench.config import ClassWeights, ConfigError, Training
from dlbench.data import statistics
from dlbench.data.dataset import IGNORE, DataSet
from dlbench.distributed import SingleProcess
from dlbench.metrics import ConfusionMatrix, Score, known
from dlbench.runs import RunFolder
from dlbench.tasks.task import Task


class CrossEntropy:
    """Weighted cross-entropy of logits (batch, height, width, classes) and a target (batch, height,
    width) uint8 with 255 = ignore.

    Valid pixels count, not their weights, as SegNet has it.
    """

    def __init__(self, class_weights: np.ndarray) -> None:
        self._weights = tf.constant(class_weights, tf.float32)

    def count(self, target: tf.Tensor) -> tf.Tensor:
        return tf.math.count_nonzero(target != IGNORE, dtype=tf.float32)

    def void(self, target: tf.Tensor) -> tf.Tensor:
        return tf.fill(tf.shape(target), tf.constant(IGNORE, target.dtype))

    def summed(self, prediction: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        valid = target != IGNORE
        index = tf.cast(tf.where(valid, target, 0), tf.int32)
        logits = tf.cast(prediction, tf.float32)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(index, logits)
        weight = tf.where(valid, tf.gather(self._weights, index), 0.0)
        return tf.reduce_sum(loss * weight)


@dataclass
class SegmentationEvaluation:
    """What a network scored on one split."""

    split: str
    samples: int
    class_names: tuple[str, ...]
    loss: float
    """Unweighted cross-entropy per valid pixel."""
    not_finite: int
    """Valid pixels whose probabilities are no numbers; then neither is the loss."""
    confusion: ConfusionMatrix
    native: ConfusionMatrix
    """The same with the predictions resized to the labels' native size."""
    leave_out: tuple[str, ...] = ()
    """Names of the classes that headline means are without: no score that epochs are chosen by."""

    @property
    def resized(self) -> bool:
        """Whether the labels' native size is another than the predictions'."""
        return not np.array_equal(self.confusion.counts, self.native.counts)

    def scores(self) -> dict[str, float]:
        matrix = self.confusion
        return {
            "val_loss": self.loss,
            "val_miou": matrix.mean_over_all(matrix.iou),
            "val_global_accuracy": matrix.global_accuracy,
            "val_class_accuracy": matrix.mean_over_all(matrix.class_accuracy),
        }

    def quality(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "samples": self.samples,
            "loss": known(self.loss),
            **({"not_finite_pixels": self.not_finite} if self.not_finite else {}),
            "training_size": self._summary(self.confusion),
            "native_size": self._summary(self.native) if self.resized else None,
        }

    def _summary(self, matrix: ConfusionMatrix) -> dict[str, Any]:
        return matrix.summary(self.class_names, self.leave_out)

    def table(self) -> str:
        lines = [self.confusion.table(self.class_names)]
        if self.resized:
            lines += ["predictions resized to the labels' native size:"]
            lines += [self.native.table(self.class_names)]
        if self.not_finite:
            lines += [
                f"{self.not_finite:,} of {self.confusion.pixels:,} pixels have probabilities that "
                f"are no numbers: they count as '{self.class_names[0]}', and there is no loss"
            ]
        return "\n".join(lines)


class SegmentationScorer:
    """Confusion matrices and the log loss of one evaluation.

    Counts are integers and each chunk's loss is one rank's: adding the others' zeros is exact, and
    the order of the sum is that of the chunks, for any number of ranks.
    """

    def __init__(
        self,
        split: str,
        samples: int,
        chunks: int,
        class_names: tuple[str, ...],
        leave_out: tuple[str, ...] = (),
    ) -> None:
        self._split, self._samples = split, samples
        self._names, self._leave_out = class_names, leave_out
        self._confusion = ConfusionMatrix(len(class_names))
        self._native = ConfusionMatrix(len(class_names))
        self._losses = np.zeros((chunks, 3))

    def update(
        self, chunk: int, prediction: tf.Tensor, target: np.ndarray, native: np.ndarray
    ) -> None:
        self._confusion.update(target, _labels(prediction))
        resized = tf.image.resize(prediction, native.shape[1:3])
        self._native.update(native, _labels(resized))
        self._losses[chunk] = _log_loss(prediction.numpy(), target)

    def result(self, ranks: SingleProcess) -> SegmentationEvaluation:
        for matrix, name in ((self._confusion, "confusion"), (self._native, "native_confusion")):
            matrix.counts = ranks.sum(tf.constant(matrix.counts), name).numpy()
        losses = ranks.sum(tf.constant(self._losses), "evaluation_losses").numpy()
        total, pixels, not_finite = losses.sum(axis=0)
        return SegmentationEvaluation(
            split=self._split,
            samples=self._samples,
            class_names=self._names,
            loss=float(total / max(pixels, 1.0)),
            not_finite=int(not_finite),
            confusion=self._confusion,
            native=self._native,
            leave_out=self._leave_out,
        )


class Segmentation(Task):
    """One class a pixel."""

    score = Score("val_miou", "validation mean IoU", higher=True, limit=1.0)

    def activation(self, output: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(output)

    def loss(self, settings: Training) -> CrossEntropy:
        return CrossEntropy(class_weights(self.dataset, settings.class_weights))

    def scorer(self, split: str, samples: int, chunks: int) -> SegmentationScorer:
        dataset = self.dataset
        names, leave_out = dataset.outputs, dataset.headline_leaves_out
        return SegmentationScorer(split, samples, chunks, names, leave_out)

    def write(self, evaluation: SegmentationEvaluation, folder: RunFolder) -> None:
        names = list(evaluation.class_names)
        folder.write_confusion(evaluation.confusion.counts, names)
        pictures.confusion_figure(evaluation.confusion, names, folder.picture("confusion"))

    def draw(
        self,
        images: Sequence[np.ndarray],
        targets: Sequence[np.ndarray],
        predictions: Sequence[np.ndarray],
        variances: Sequence[np.ndarray] | None,
        path: Path,
    ) -> None:
        pictures.prediction_grid(
            images,
            targets,
            [np.argmax(mean, axis=-1).astype(np.uint8) for mean in predictions],
            self.dataset.classes,
            path,
            bands=self.dataset.shown,
            value_range=self.dataset.value_range,
            uncertainties=variances and [variance.sum(axis=-1) for variance in variances],
        )


def class_weights(dataset: DataSet, settings: ClassWeights) -> np.ndarray:
    """The loss's weight of each class, as configured; counting reads the training labels once."""
    classes = len(dataset.classes)
    if settings.mode == "median_frequency":
        found = statistics.of(dataset, "train")
        return median_frequency_weights(
            np.array(found.class_pixels), np.array(found.pixels_beside_class), settings.maximum
        )
    if settings.mode == "none":
        return np.ones(classes)
    if len(settings.values) != classes:
        raise ConfigError(
            f"training.class_weights.values has {len(settings.values)} weights, "
            f"{dataset.name} has {classes} classes"
        )
    return np.minimum(settings.values, settings.maximum or np.inf)


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


def _labels(probability: tf.Tensor) -> np.ndarray:
    return np.argmax(probability.numpy(), axis=-1).astype(np.uint8)


def _log_loss(probability: np.ndarray, target: np.ndarray) -> tuple[float, float, float]:
    """Summed over valid pixels, how many those are, and how many of them have none."""
    valid = target != IGNORE
    chosen = np.take_along_axis(probability[valid], target[valid][:, None], axis=-1)
    loss = float(-np.log(np.maximum(chosen, 1e-30), dtype=np.float64).sum())
    return loss, float(valid.sum()), float(np.count_nonzero(~np.isfinite(chosen)))
