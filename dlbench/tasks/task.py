"""What training, evaluation and the report ask of a task."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import tensorflow as tf

from dlbench.config import Training
from dlbench.data.dataset import DataSet
from dlbench.distributed import SingleProcess
from dlbench.metrics import Score
from dlbench.runs import RunFolder


class Loss(Protocol):
    """A loss as a sum over what counts: sums add over ranks, means do not."""

    def count(self, target: tf.Tensor) -> tf.Tensor:
        """How much of ``target`` counts, a float32 scalar."""

    def void(self, target: tf.Tensor) -> tf.Tensor:
        """A target like ``target`` in which nothing counts."""

    def summed(self, prediction: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """The loss summed over what counts, a float32 scalar."""


class Evaluation(Protocol):
    """What a network scored on one split."""

    samples: int

    def scores(self) -> dict[str, float]:
        """The scalars that are followed over epochs."""

    def quality(self) -> dict[str, Any]:
        """Everything, ready for JSON."""

    def table(self) -> str:
        """Everything, to be read in a terminal."""


class Scorer(Protocol):
    """Sums of one evaluation, chunk by chunk of the split."""

    def update(
        self, chunk: int, prediction: tf.Tensor, target: np.ndarray, native: np.ndarray
    ) -> None:
        """Add what `prediction.Predictor` gave for a chunk; ``native`` is the target unresized."""

    def result(self, ranks: SingleProcess) -> Evaluation:
        """The scores over all ranks, the same on each to the last bit."""


class Task(abc.ABC):
    """What is learnt from a data set."""

    score: ClassVar[Score]
    """What the best epoch is chosen by."""

    def __init__(self, dataset: DataSet) -> None:
        self.dataset = dataset

    @abc.abstractmethod
    def activation(self, output: tf.Tensor) -> tf.Tensor:
        """What is predicted, of a network's output in float32."""

    @abc.abstractmethod
    def loss(self, settings: Training) -> Loss:
        """The training loss; whatever it has to know is read from the data set once."""

    @abc.abstractmethod
    def scorer(self, split: str, samples: int, chunks: int) -> Scorer:
        """Empty sums for a split of ``samples`` in ``chunks``."""

    @abc.abstractmethod
    def write(self, evaluation: Any, folder: RunFolder) -> None:
        """Write what an evaluation has beyond the record: tables and figures."""

    @abc.abstractmethod
    def draw(
        self,
        images: Sequence[np.ndarray],
        targets: Sequence[np.ndarray],
        predictions: Sequence[np.ndarray],
        variances: Sequence[np.ndarray] | None,
        path: Path,
    ) -> None:
        """Write a PNG of some samples beside what was predicted for them."""
