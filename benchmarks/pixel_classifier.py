"""Classifiers of single pixels, the peers of a network that sees a pixel's surroundings.

python -m benchmarks.pixel_classifier [CONFIG.yaml] [key=value ...]
python -m benchmarks.pixel_classifier RUN [RUN ...] [key=value ...]

The data set of a segmentation configuration, as `dlbench.train` takes it, or of runs, whose
networks then are rows of the table: fitted on the pixels of its training split, scored on those of
its others. The first peer says the most frequent class everywhere; the next is multinomial logistic
regression on the bands; the last has also the bands' squares and products, which bend its borders.
Their weights' penalty is the one of three that gives the val split the best accuracy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from dlbench import config, data
from dlbench.data.dataset import IGNORE, DataSet
from dlbench.errors import exit_status
from dlbench.metrics import ConfusionMatrix
from dlbench.runs import RunFolder

Classifier = Callable[[np.ndarray], np.ndarray]
"""Of values (pixels, bands) to class indices (pixels,)."""
PENALTIES = (1e-4, 1e-3, 1e-2)
MOST_PIXELS = 50_000
"""Of the training split, drawn at random where it has more."""


def logistic_regression(
    x: np.ndarray,
    y: np.ndarray,
    classes: int,
    *,
    balanced: bool = False,
    quadratic: bool = False,
    penalty: float = 1e-6,
) -> Classifier:
    """Multinomial logistic regression of ``y`` (pixels,) on ``x`` (pixels, bands).

    ``balanced`` makes each class count the same, ``quadratic`` adds squares and products of the
    bands. ``penalty`` is of the weights' squares, beside the mean log loss.
    """

    def expanded(values: np.ndarray) -> np.ndarray:
        if not quadratic:
            return values
        first, second = np.triu_indices(values.shape[1])
        return np.column_stack([values, values[:, first] * values[:, second]])

    def standard(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return values.mean(axis=0), values.std(axis=0) + 1e-12

    mean, deviation = standard(x)
    again, spread = standard(expanded((x - mean) / deviation))

    def design(values: np.ndarray) -> np.ndarray:
        features = (expanded((values - mean) / deviation) - again) / spread
        return np.column_stack([features, np.ones(len(values))])

    inputs, truth = design(x), np.eye(classes)[y]
    counts = np.bincount(y, minlength=classes)
    weights = 1 / counts[y] if balanced else np.ones(len(y))
    weights = weights / weights.sum()

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        logits = log_softmax(inputs @ flat.reshape(-1, classes), axis=1)
        gradient = inputs.T @ ((np.exp(logits) - truth) * weights[:, None])
        value = -(weights * logits[np.arange(len(y)), y]).sum() + penalty * (flat**2).sum()
        return float(value), gradient.ravel() + 2 * penalty * flat

    start = np.zeros(inputs.shape[1] * classes)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000})
    weight = found.x.reshape(-1, classes)
    return lambda values: (design(values) @ weight).argmax(axis=1)


def pixels(dataset: DataSet, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each sample the labelled pixels: values (pixels, bands) float64, classes (pixels,)."""
    for index in range(dataset.count(split)):
        image, target = dataset.read(split, index)
        known = target != IGNORE
        yield image[known].astype(np.float64), target[known].astype(np.int64)


def score(classifier: Classifier, dataset: DataSet, split: str) -> ConfusionMatrix:
    matrix = ConfusionMatrix(len(dataset.classes))
    for x, y in pixels(dataset, split):
        matrix.update(y[None], classifier(x)[None])
    return matrix


def peers(dataset: DataSet) -> dict[str, Classifier]:
    """The classifiers of the module's docstring, by what they are called in a table."""
    x, y = (np.concatenate(part) for part in zip(*pixels(dataset, "train"), strict=True))
    chosen = np.random.default_rng(0).permutation(len(y))[:MOST_PIXELS]
    x, y, classes = x[chosen], y[chosen], len(dataset.classes)
    frequent = int(np.bincount(y, minlength=classes).argmax())
    name = f"{dataset.classes[frequent].name} everywhere"
    found: dict[str, Classifier] = {name: lambda values: np.full(len(values), frequent)}
    for name, quadratic in (("logistic regression", False), ("the same, quadratic", True)):
        fits = [logistic_regression(x, y, classes, quadratic=quadratic, penalty=penalty)
                for penalty in PENALTIES]  # fmt: skip
        found[name] = max(fits, key=lambda fit: score(fit, dataset, "val").global_accuracy)
    return found


def score_run(run: Path, data_root: Path | None, split: str) -> ConfusionMatrix:
    """The scores of a run's best checkpoint on a split, as `dlbench.evaluate` has them."""
    from dlbench import session
    from dlbench.evaluate import Evaluator
    from dlbench.tasks.segmentation import SegmentationEvaluation

    experiment = RunFolder(run).experiment()
    if data_root is not None:
        experiment.data.root = str(data_root)
    opened = session.start(experiment)
    session.restore(opened, RunFolder(run).checkpoint("best"))
    found = Evaluator(opened, split)()
    assert isinstance(found, SegmentationEvaluation)
    return found.confusion


def require_alike(run: Path, dataset: DataSet) -> None:
    """Raise `ConfigError` for a run that has not learnt the classes of ``dataset``, the columns of
    the table."""
    facts, columns = RunFolder(run).facts(), [one.name for one in dataset.classes]
    if facts is None:
        return
    found = [one.name for one in facts.classes]
    if (facts.name, found) != (dataset.name, columns):
        raise config.ConfigError(
            f"{run} has learnt {facts.name} ({', '.join(found)}), the table is of {dataset.name} "
            f"({', '.join(columns)}); give it a table of its own"
        )


def report(arguments: list[str]) -> None:
    runs, rest = [], []
    for argument in arguments:
        if "=" not in argument and Path(argument).is_dir():
            runs.append(Path(argument))
        else:
            rest.append(argument)
    experiment = config.load([str(RunFolder(run).config) for run in runs[:1]] + rest)
    place, root = experiment.data, experiment.data.resolved_root()
    if (task := data.kind_of(place.name).task) != "segmentation":
        raise config.ConfigError(f"{place.name} holds {task}; needed are classes")
    dataset = data.build(place.name, root, place.size, **place.options)
    for run in runs:
        require_alike(run, dataset)
    found = peers(dataset)
    for split in (name for name in dataset.splits if name != "train"):
        rows = {name: score(classifier, dataset, split) for name, classifier in found.items()}
        first = next(iter(rows.values()))
        for run in runs:
            rows[run.name] = scored = score_run(run, root, split)
            # Pictures that are resized for a network have other pixels than here.
            if not dataset.resizes and not np.array_equal(
                *(m.counts.sum(1) for m in (first, scored))
            ):
                raise config.ConfigError(
                    f"{run} was scored on other pixels of {split} ({scored.pixels:,}) than the "
                    f"classifiers ({first.pixels:,}); give it a table of its own"
                )
        pixels = first.pixels
        print(
            f"## {split}, {pixels:,} pixels\n\n| | accuracy | kappa | mean IoU of present |", end=""
        )
        print("".join(f" IoU, {one.name} |" for one in dataset.classes))
        print("|---|" + "---:|" * (3 + len(dataset.classes)))
        for name, matrix in rows.items():
            print(f"| {name} | {row(matrix)} |")
        print()


def row(matrix: ConfusionMatrix) -> str:
    """Cells of a table in Markdown."""
    iou = np.where(matrix.present, matrix.iou, np.nan)
    values = [matrix.global_accuracy, matrix.kappa, matrix.mean_over_present(iou), *iou]
    return " | ".join("-" if np.isnan(value) else f"{value:.3f}" for value in values)


def main(arguments: list[str]) -> int:
    """Print the tables and return the process's exit status: 2 for what the user can mend."""
    return exit_status("benchmarks.pixel_classifier", lambda: report(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
