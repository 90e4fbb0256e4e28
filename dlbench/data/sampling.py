"""Which samples an epoch is made of where classes are to be balanced.

As Shen, Lin and Huang have it (Relay Backpropagation for Effective Learning of Deep Convolutional
Neural Networks, ECCV 2016): first a class is drawn, each as likely, and then a sample for it. Here
a sample is drawn for a class as often as it has pixels of it.
"""

from __future__ import annotations

import numpy as np

from dlbench.data import statistics
from dlbench.data.dataset import DataError, DataSet


def probabilities(dataset: DataSet, split: str = "train") -> np.ndarray:
    """How likely each sample is to be drawn (samples,) float64, by the remembered statistics.

    Raises `DataError` for a data set of values, and where nothing has a label.
    """
    if not dataset.classes:
        raise DataError(
            f"data.sampling is balanced, but {dataset.name} has values in place of classes; set "
            "data.sampling=uniform"
        )
    _, pixels = statistics.counted(dataset, split)
    return balanced(pixels, f"the split '{split}' of {dataset.name} at {dataset.root}")


def balanced(pixels: np.ndarray, source: str) -> np.ndarray:
    """The same from the pixels of each class in each sample (samples, classes)."""
    totals = pixels.sum(axis=0)
    present = totals > 0
    if not present.any():
        raise DataError(f"{source} has no label at all, so classes cannot be balanced")
    return (pixels[:, present] / totals[present]).mean(axis=1)


def draws(likely: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """As many samples as there are, in random order: their indices, and of each how often it came
    before (samples,) int64.

    They are drawn at equal steps of the summed probabilities, so that a sample comes as often as is
    expected of it, rounded up or down (systematic sampling).
    """
    count = len(likely)
    edges = np.cumsum(likely)
    places = (generator.random() + np.arange(count)) / count * edges[-1]
    # Rounding may put the last place on the edge itself.
    last = np.flatnonzero(likely)[-1]
    chosen = np.minimum(np.searchsorted(edges, places, side="right"), last)
    order = generator.permutation(chosen)
    by_index = np.argsort(order, kind="stable")
    ordered = order[by_index]
    first = np.searchsorted(ordered, ordered)
    repeats = np.empty(count, np.int64)
    repeats[by_index] = np.arange(count) - first
    return order, repeats
