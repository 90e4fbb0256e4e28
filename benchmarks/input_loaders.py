"""The loaders that `benchmarks.bench_input` times, and the limit: each gives an epoch's windows."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tensorflow as tf
from rasterio.windows import Window

from dlbench import config
from dlbench.data import block_cache, pipeline
from dlbench.data.dataset import DataSet
from dlbench.data.isprs import CLASSES

BATCH, WORKERS, SEED = 4, 2, 0
"""Small batches: the pipeline works up to five ahead, of which the last are beyond the epoch."""
STILL = config.Augmentation(flip_left_right=False)
Epoch = Iterator[tuple[Any, Any]]
"""Images and targets of batches, as tensors or arrays; none is kept, as training keeps none."""
Place = tuple[Path, Path, int, int]
"""Image and label file, row and column of a window."""


def batches(dataset: DataSet, augmentation: config.Augmentation = STILL) -> tf.data.Dataset:
    return pipeline.training_batches(
        dataset,
        batch=BATCH,
        seed=SEED,
        augmentation=augmentation,
        size=dataset.size,
        workers=WORKERS,
    )


def epoch(dataset: DataSet, later: bool = False) -> Epoch:
    """Every window once, as training receives them, nothing being decoded yet unless ``later``."""
    if not later:
        block_cache.clear()
    steps = pipeline.steps_per_epoch(dataset.count("train"), BATCH, 1)
    yield from batches(dataset).take(steps)


def drain(epoch: Epoch) -> None:
    """Take all batches, which is what is timed."""
    for _ in epoch:
        pass


def decode_blocks(tiles: Path) -> int:
    """Decode every block of the files once, in as many threads; gives the bytes."""

    def one(path: Path) -> int:
        with rasterio.open(path) as file:
            return sum(file.read(window=window).nbytes for _, window in file.block_windows(1))

    with ThreadPoolExecutor(WORKERS) as pool:
        paths = [path for path in tiles.rglob("*.tif") if "noBoundary" not in path.name]
        return sum(pool.map(one, paths))


def windows_asked(files: DataSet) -> list[Place]:
    """Where the windows of the first epoch lie, as our loader asks for them."""
    asked: list[tuple[Path, int, int]] = []
    read = block_cache.read_window

    def told(path: Path, row: int, column: int, *rest: Any, **options: Any) -> Any:
        asked.append((path, row, column))
        return read(path, row, column, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block_cache, "read_window", told)
        count = files.count("train")
        for index in pipeline.epoch_order(count, SEED, 0):
            generator = pipeline._generator(SEED, 0, int(index), pipeline._AUGMENTATION)
            files.read("train", int(index), generator)
    pairs = zip(asked[::2], asked[1::2], strict=True)
    return [(image, label, row, column) for (image, row, column), (label, _, _) in pairs]


def rasterio_epoch(places: list[Place], size: tuple[int, int]) -> Epoch:
    """The same windows as one would write it on rasterio: threads that keep their files open, a
    table of colours, batches stacked two ahead."""
    colours = np.zeros(256, np.uint8)
    for index, info in enumerate(CLASSES):
        colours[info.code] = index
    local = threading.local()

    def read(path: Path, row: int, column: int) -> np.ndarray:
        handles = local.__dict__.setdefault("handles", {})
        if path not in handles:
            handles[path] = rasterio.open(path)
        window = Window(column, row, size[1], size[0])
        return np.transpose(handles[path].read(window=window), (1, 2, 0))

    def sample(place: Place) -> tuple[np.ndarray, np.ndarray]:
        image, label, row, column = place
        bits = (read(label, row, column) > 127) @ np.array([4, 2, 1], np.uint8)
        return read(image, row, column), colours[bits]

    def stacked() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        samples = pool.map(sample, places)
        while batch := list(itertools.islice(samples, BATCH)):
            images, targets = zip(*batch, strict=True)
            yield np.stack(images), np.stack(targets)

    with ThreadPoolExecutor(WORKERS) as pool:
        yield from stacked()


def check(one: Epoch, other: Epoch) -> None:
    for batch, expected in zip(one, other, strict=True):
        for part, wanted in zip(batch, expected, strict=True):
            np.testing.assert_array_equal(part, wanted)


def touched_per_useful(places: list[Place], size: tuple[int, int]) -> float:
    """Pixels of the blocks under the windows, each time that one is touched, to their own."""
    touched = 0
    for image, _, row, column in places:
        with rasterio.open(image) as file:
            down, across = file.block_shapes[0]
        rows = (row + size[0] - 1) // down - row // down + 1
        columns = (column + size[1] - 1) // across - column // across + 1
        touched += rows * columns * down * across
    return touched / (len(places) * size[0] * size[1])
