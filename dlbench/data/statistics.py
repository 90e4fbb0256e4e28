"""What a split holds, counted once and remembered: pixels of each class, of all samples and of
each; moments of each band."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dlbench.checkpoint import write_atomically
from dlbench.data.dataset import IGNORE, DataSet
from dlbench.data.folders import files_below

VERSION = 4
"""Raised whenever the same files and options would give other numbers, whatever the reason: a
default that means something else, labels of another year, pixels that become void."""


@dataclass(frozen=True)
class Statistics:
    """Sums over every pixel of the samples of one split, read without jitter.

    Windows of a training split overlap at the borders of their scenes; those pixels count twice, as
    they do in training.
    """

    samples: int
    pixels: int
    """All of them, void ones too."""
    class_pixels: list[int]
    """Of each class; empty where targets are values."""
    pixels_beside_class: list[int]
    """All pixels of the samples that hold the class."""
    band_minimum: list[float]
    band_maximum: list[float]
    band_mean: list[float]
    band_deviation: list[float]

    @property
    def class_shares(self) -> np.ndarray:
        """Share of each class among the pixels that have one."""
        counts = np.array(self.class_pixels, np.float64)
        return counts / max(counts.sum(), 1.0)


def of(dataset: DataSet, split: str, workers: int = 2) -> Statistics:
    """The statistics of a split, as `counted` has them."""
    return counted(dataset, split, workers)[0]


def counted(dataset: DataSet, split: str, workers: int = 2) -> tuple[Statistics, np.ndarray]:
    """Statistics, and the pixels of each class in each sample (samples, classes) int64.

    ``split`` is read once, in threads, and the sums remembered in the user's cache folder. They are
    counted anew when a file of the data set has another size or time, or when its options differ.
    Raises `DataError` for what cannot be read.
    """
    from dlbench.data.scenes import default_folder

    dataset.require_split(split)
    path = default_folder() / "statistics" / f"{fingerprint(dataset, split)}.json"
    table = path.with_suffix(".npy")
    try:
        return Statistics(**json.loads(path.read_text())), np.load(table)
    except (OSError, ValueError, TypeError, EOFError):
        pass  # Not counted yet, or not whole.
    found, pixels = count(dataset, split, workers)
    write_atomically(table, lambda file: np.save(file, pixels))
    write_atomically(path, lambda file: file.write(json.dumps(asdict(found)).encode()))
    return found, pixels


def count(dataset: DataSet, split: str, workers: int = 2) -> tuple[Statistics, np.ndarray]:
    """The same without the cache folder."""
    samples = dataset.count(split)
    classes, bands = len(dataset.classes), len(dataset.bands)

    def one(index: int) -> tuple[np.ndarray, ...]:
        image, target = dataset.read(split, index)
        values = image.reshape(-1, bands).astype(np.float64)
        counts = np.bincount(target[target != IGNORE], minlength=classes) if classes else _NONE
        return (
            counts,
            np.where(counts > 0, target.size, 0),
            np.array([len(values)]),
            values.min(axis=0),
            values.max(axis=0),
            values.mean(axis=0),
            values.var(axis=0),
        )

    with ThreadPoolExecutor(workers, thread_name_prefix="dlbench-statistics") as pool:
        parts = list(pool.map(one, range(samples)))
    counts, beside, sizes, minima, maxima, means, variances = (
        np.stack(column) for column in zip(*parts, strict=True)
    )
    # Each sample's moments about its own mean: sums of squares of large values would cancel.
    share = sizes / sizes.sum()
    mean = (share * means).sum(axis=0)
    variance = (share * (variances + (means - mean) ** 2)).sum(axis=0)
    found = Statistics(
        samples,
        int(sizes.sum()),
        _listed(counts.sum(axis=0)),
        _listed(beside.sum(axis=0)),
        _listed(minima.min(axis=0)),
        _listed(maxima.max(axis=0)),
        _listed(mean),
        _listed(np.sqrt(variance)),
    )
    return found, counts


_NONE = np.zeros(0, np.int64)


def _listed(values: np.ndarray) -> list[Any]:
    listed: list[Any] = values.tolist()
    return listed


def fingerprint(dataset: DataSet, split: str) -> str:
    """Differs whenever the data set's options or a size or time of its files do."""
    content = {
        "version": VERSION,
        "data": [dataset.name, str(dataset.root.resolve()), dataset.size, dataset.options, split],
        "files": sorted(
            (str(file.relative_to(dataset.root)), stat.st_size, stat.st_mtime_ns)
            for file, stat in files_below(dataset.root)
        ),
    }
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:32]
