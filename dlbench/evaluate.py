"""Score a network on a split: ``python -m dlbench.evaluate RUN [checkpoint=best] [split=val]``.

Under ``horovodrun -np N`` the ranks share the work; the numbers are the same bit for bit.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dlbench import config, data, distributed
from dlbench.errors import exit_status
from dlbench.metrics import ConfusionMatrix
from dlbench.runs import RunFolder

if TYPE_CHECKING:
    import keras


@dataclass
class Evaluation:
    """What a network scored on one split."""

    split: str
    samples: int
    loss: float
    """Unweighted cross-entropy per valid pixel."""
    confusion: ConfusionMatrix
    native: ConfusionMatrix
    """The same with the predictions resized to the labels' native size."""

    @property
    def resized(self) -> bool:
        """Whether the labels' native size is another than the predictions'."""
        return not np.array_equal(self.confusion.counts, self.native.counts)

    def scores(self) -> dict[str, float]:
        """The scalars that are followed over epochs."""
        matrix = self.confusion
        return {
            "val_loss": self.loss,
            "val_miou": matrix.mean_over_all(matrix.iou),
            "val_global_accuracy": matrix.global_accuracy,
            "val_class_accuracy": matrix.mean_over_all(matrix.class_accuracy),
        }

    def quality(self, class_names: list[str]) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "split": self.split,
            "samples": self.samples,
            "loss": self.loss,
            "training_size": self.confusion.summary(class_names),
            "native_size": self.native.summary(class_names) if self.resized else None,
        }


class Evaluator:
    """Scores a network on a split, each sample counted once, on all ranks together.

    The batches are the same for any number of ranks, counts are integers and each batch's loss is
    added in the order of batches, so the result does not depend on the number of ranks. Build it
    once and call it after every epoch: it keeps the compiled prediction and the decoded samples.
    """

    def __init__(
        self,
        network: keras.Model,
        dataset: data.DataSet,
        split: str,
        experiment: config.Experiment,
        ranks: distributed.SingleProcess,
    ) -> None:
        from dlbench.data import pipeline
        from dlbench.prediction import Predictor

        self._split = split
        self._classes = len(dataset.classes)
        self._count = dataset.count(split)
        self._batch = experiment.training.evaluation_batch
        self._ranks = ranks
        self._predictor = Predictor(network, experiment.monte_carlo_samples, experiment.seed)
        self._batches = pipeline.evaluation_batches(
            dataset,
            split,
            batch=self._batch,
            ranks=ranks.size,
            rank=ranks.rank,
            size=experiment.data.size,
            cache=experiment.data.cache,
            workers=experiment.data.workers,
        )

    def __call__(self) -> Evaluation:
        """Score the network as it is now."""
        import tensorflow as tf

        confusion, native_confusion = ConfusionMatrix(self._classes), ConfusionMatrix(self._classes)
        losses = np.zeros((-(-self._count // self._batch), 2))
        for image, target, native, index in self._batches:
            chunk = int(index[0]) // self._batch
            probability, _ = self._predictor(image, draw=chunk)
            confusion.update(target.numpy(), _labels(probability))
            resized = tf.image.resize(probability, native.shape[1:3])
            native_confusion.update(native.numpy(), _labels(resized))
            losses[chunk] = _log_loss(probability.numpy(), target.numpy())
        for matrix, name in ((confusion, "confusion"), (native_confusion, "native_confusion")):
            matrix.counts = self._ranks.sum(tf.constant(matrix.counts), name).numpy()
        # Each chunk is one rank's: adding zeros is exact, and so the order of the sum is fixed.
        losses = self._ranks.sum(tf.constant(losses), "evaluation_losses").numpy()
        total, pixels = losses.sum(axis=0)
        return Evaluation(
            split=self._split,
            samples=self._count,
            loss=float(total / max(pixels, 1.0)),
            confusion=confusion,
            native=native_confusion,
        )


def _labels(probability: Any) -> np.ndarray:
    return np.argmax(probability.numpy(), axis=-1).astype(np.uint8)


def _log_loss(probability: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    valid = target != data.IGNORE
    chosen = np.take_along_axis(probability[valid], target[valid][:, None], axis=-1)
    return float(-np.log(np.maximum(chosen, 1e-30), dtype=np.float64).sum()), float(valid.sum())


def main(arguments: list[str]) -> int:
    """Print the scores of a run's checkpoint and return the process's exit status."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    return exit_status("dlbench.evaluate", lambda: _evaluate_run(arguments))


def _evaluate_run(arguments: list[str]) -> None:
    folder, kind, split, root = _parse(arguments)
    experiment = folder.experiment()
    if root is not None:
        experiment.data.root = root
    from dlbench import session as sessions

    session = sessions.start(experiment)
    sessions.restore(session, folder.checkpoint(kind))
    evaluator = Evaluator(session.network, session.dataset, split, experiment, session.ranks)
    result = evaluator()
    if session.ranks.rank == 0:
        names = session.class_names
        print(f"{folder.path}: checkpoint '{kind}' on {result.samples} samples of '{split}'")
        print(result.confusion.table(names))
        if result.resized:
            print("predictions resized to the labels' native size:")
            print(result.native.table(names))


def _parse(arguments: list[str]) -> tuple[RunFolder, str, str, str | None]:
    usage = "usage: python -m dlbench.evaluate RUN [checkpoint=best|last] [split=val] [root=FOLDER]"
    folders = [a for a in arguments if "=" not in a]
    options = dict(a.split("=", 1) for a in arguments if "=" in a)
    if len(folders) != 1 or not options.keys() <= {"checkpoint", "split", "root"}:
        raise config.ConfigError(usage)
    kind = options.get("checkpoint", "best")
    if kind not in ("best", "last"):
        raise config.ConfigError(f"checkpoint={kind}: allowed are best and last; {usage}")
    return RunFolder(Path(folders[0])), kind, options.get("split", "val"), options.get("root")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
