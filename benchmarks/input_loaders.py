"""The loaders that `benchmarks.bench_input` times, and the limit: each gives an epoch's windows."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from dlbench import config
from dlbench.data import block_cache, isprs, pipeline, raster
from dlbench.data.batches import Batches
from dlbench.data.dataset import DataSet
from dlbench.data.isprs import CLASSES
from dlbench.training import shared

BATCH, WORKERS, SEED = 4, 2, 0
"""Small batches: the pipeline begins some ahead, of which the last are beyond the epoch."""
STILL = config.Augmentation(flip_left_right=False)
Epoch = Iterator[tuple[Any, ...]]
"""Images and targets of batches, as tensors or arrays; none is kept, as training keeps none."""
Place = tuple[Path, Path, int, int]
"""Image and label file, row and column of a window."""


def batches(dataset: DataSet, augmentation: config.Augmentation = STILL) -> Batches:
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
    for batch in itertools.islice(batches(dataset), steps):
        yield tuple(map(shared, batch))


def drain(epoch: Epoch) -> None:
    """Take all batches, which is what is timed."""
    for _ in epoch:
        pass


def decode_blocks(tiles: Path) -> int:
    """Decode every block of the files once, in as many threads; gives the bytes."""

    def one(path: Path) -> int:
        with rasterio.open(path) as file:
            return sum(file.read(window=window).nbytes for _, window in file.block_windows(1))

    return _over_files(one, tiles)


def decode_cells(tiles: Path) -> int:
    """The same by our reader in its cells, labels to classes, nothing being kept: what a first
    epoch cannot be faster than."""

    def one(path: Path) -> int:
        decode = None if path.parent.name == "top" else isprs._indices
        header = raster.describe(path)
        down, across = block_cache.Cells((header.height, header.width), header.block).cell
        rows, columns = range(0, header.height, down), range(0, header.width, across)
        return sum(
            raster.read_window(
                path, row, column, min(down, header.height - row),
                min(across, header.width - column), decode=decode,
            )[1].size
            for row, column in itertools.product(rows, columns)
        )  # fmt: skip

    return _over_files(one, tiles)


def _over_files(one: Callable[[Path], int], tiles: Path) -> int:
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


class RasterioLoader:
    """The same windows as one would write it on rasterio: threads that keep their files open, and
    GDAL's cache of blocks with them; a table of colours, batches stacked two ahead."""

    def __init__(self, places: list[Place], size: tuple[int, int]) -> None:
        self._places, self._size = places, size
        self._colours = np.zeros(256, np.uint8)
        for index, info in enumerate(CLASSES):
            self._colours[info.code] = index
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(WORKERS)

    def epoch(self) -> Epoch:
        samples = self._pool.map(self._sample, self._places)
        while batch := list(itertools.islice(samples, BATCH)):
            images, targets = zip(*batch, strict=True)
            yield np.stack(images), np.stack(targets)

    def _sample(self, place: Place) -> tuple[np.ndarray, np.ndarray]:
        image, label, row, column = place
        bits = (self._read(label, row, column) > 127) @ np.array([4, 2, 1], np.uint8)
        return self._read(image, row, column), self._colours[bits]

    def _read(self, path: Path, row: int, column: int) -> np.ndarray:
        handles = self._local.__dict__.setdefault("handles", {})
        if path not in handles:
            handles[path] = rasterio.open(path)
        window = Window(column, row, self._size[1], self._size[0])
        return np.transpose(handles[path].read(window=window), (1, 2, 0))

    def close(self) -> None:
        self._pool.shutdown()  # the handles go with their threads


def rasterio_epoch(places: list[Place], size: tuple[int, int]) -> Epoch:
    """The first epoch of a `RasterioLoader`."""
    with closing(RasterioLoader(places, size)) as loader:
        yield from loader.epoch()


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
