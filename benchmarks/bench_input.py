"""Input alone: our pipeline on tiled GeoTIFFs, what bounds it, a peer, and prepared data.

    pytest benchmarks/bench_input.py --benchmark-json=OUT.json

All loaders give the same windows of one epoch, jittered, from handles and caches that are new in
every round; the files are in the page cache. A rate counts useful bytes: three bytes a pixel of
the image and three of its coloured label, of each window once. An epoch's windows are as many
pixels as the files, so its time compares with that of decoding every block once, although the
windows touch blocks several times: how often is in the report as ``touched_per_useful``. What
starting the pipeline costs is part of its time. ``--benchmark-disable`` does all this on a tile of
one second's making.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# The blocks of a round must fit, once a thread. GDAL reads it once.
os.environ.setdefault("GDAL_CACHEMAX", "512")

import numpy as np
import pytest
import rasterio
import tensorflow as tf
from rasterio.windows import Window

from benchmarks.profiles import is_smoke
from dlbench import config, data
from dlbench.data import pipeline, raster
from dlbench.data.dataset import DataSet
from dlbench.data.isprs import CLASSES
from dlbench.data.preparation import prepare
from dlbench.data.scenes import make_vaihingen
from dlbench.report.records import Workload

BATCH, WORKERS, SEED = 2, 2, 0
"""Small batches: the pipeline works up to five ahead, of which the last are beyond the epoch."""
SIZE, TILE_SIZE, TILES = (256, 256), 2048, 2
SMOKE_SIZE, SMOKE_TILE_SIZE, SMOKE_TILES = (64, 64), 256, 1
BYTES_PER_PIXEL = 6
"""Of an image and its label, as the files hold them."""
STILL = config.Augmentation(flip_left_right=False)
FRACTION_OF_LIMIT, TIMES_PEER, TIMES_FILES = 0.8, 2.0, 3.0
Epoch = list[tuple[np.ndarray, np.ndarray]]
Place = tuple[Path, Path, int, int]
"""Image and label file, row and column of a window."""


@pytest.fixture(scope="module")
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    return SMOKE_SIZE if is_smoke(request.config) else SIZE


@pytest.fixture(scope="module")
def tiles(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    side, count = (SMOKE_TILE_SIZE, SMOKE_TILES) if is_smoke(request.config) else (TILE_SIZE, TILES)
    folder = tmp_path_factory.mktemp("input") / "vaihingen"
    return make_vaihingen(folder, tiles={"train": count}, tile_size=side)


@pytest.fixture(scope="module")
def files(tiles: Path, size: tuple[int, int]) -> DataSet:
    return data.build("vaihingen", tiles, size)


@pytest.fixture(scope="module")
def prepared(files: DataSet, tiles: Path, size: tuple[int, int]) -> DataSet:
    return data.build("vaihingen", prepare(files, tiles.parent / "prepared"), size)


def batches(dataset: DataSet, augmentation: config.Augmentation = STILL) -> tf.data.Dataset:
    return pipeline.training_batches(
        dataset,
        batch=BATCH,
        seed=SEED,
        augmentation=augmentation,
        size=dataset.size,
        workers=WORKERS,
    )


def epoch(dataset: DataSet) -> Epoch:
    """Every window once, as training receives them, nothing being decoded yet."""
    steps = pipeline.steps_per_epoch(dataset.count("train"), BATCH, 1)
    found = batches(dataset).take(steps)
    return [(image.numpy(), target.numpy()) for image, target in found]


def decode_blocks(tiles: Path) -> int:
    """Decode every block of the files once, in as many threads; gives the bytes."""

    def one(path: Path) -> int:
        with rasterio.open(path) as file:
            return sum(file.read(window=window).nbytes for _, window in file.block_windows(1))

    with ThreadPoolExecutor(WORKERS) as pool:
        paths = [path for path in tiles.rglob("*.tif") if "noBoundary" not in path.name]
        return sum(pool.map(one, paths))


@pytest.fixture(scope="module")
def places(files: DataSet) -> list[Place]:
    """Where the windows of the first epoch lie, as our loader asks for them."""
    asked: list[tuple[Path, int, int]] = []
    read = raster.read_window

    def told(path: Path, row: int, column: int, *rest: Any) -> Any:
        asked.append((path, row, column))
        return read(path, row, column, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raster, "read_window", told)
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
        return list(stacked())


def check(one: Epoch, other: Epoch) -> None:
    assert len(one) == len(other)
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


def attach(
    name: str,
    benchmark: Any,
    attach_record: Callable[..., None],
    size: tuple[int, int],
    places: list[Place],
) -> None:
    if benchmark.disabled:
        return
    useful = len(places) * size[0] * size[1] * BYTES_PER_PIXEL
    median = float(np.median(benchmark.stats.stats.data))
    benchmark.extra_info |= {
        "useful_bytes": useful,
        "useful_bytes_per_s": useful / median,
        "touched_per_useful": touched_per_useful(places, size),
    }
    workload = Workload(
        id=f"input/{name}",
        model=None,
        data="vaihingen miniature",
        precision="uint8",
        ranks=1,
        batch_per_rank=BATCH,
        shape=(*size, 3),
        mode="input",
    )
    attach_record(workload, samples_per_step=len(places))


@pytest.fixture
def compare(
    benchmark: Any,
    attach_record: Callable[..., None],
    attach_ratio: Callable[..., None],
    time_in_turn: Callable[..., list[float]],
    devices: None,
    places: list[Place],
    size: tuple[int, int],
) -> Callable[..., None]:
    """``compare(record, peer, epoch_of_peer, ours, epoch_of_ours, wanted)`` times both in turn."""

    def timed(
        record: str,
        peer: str,
        of_peer: Callable[[], object],
        ours: str,
        of_ours: Callable[[], object],
        wanted: float,
    ) -> None:
        benchmark.group = "input"
        ours_s = time_in_turn(of_peer, of_ours)
        attach(record, benchmark, attach_record, size, places)
        attach_ratio(peer, ours, ours_s, wanted)

    return timed


def test_files_against_their_blocks_alone(
    compare: Callable[..., None],
    files: DataSet,
    tiles: Path,
    places: list[Place],
    size: tuple[int, int],
) -> None:
    # Equal bytes, so that times compare as rates do.
    assert decode_blocks(tiles) == len(places) * size[0] * size[1] * BYTES_PER_PIXEL
    compare(
        "blocks", "every block once", lambda: decode_blocks(tiles), "files", lambda: epoch(files),
        FRACTION_OF_LIMIT,
    )  # fmt: skip


def test_files_against_rasterio(
    compare: Callable[..., None], files: DataSet, places: list[Place], size: tuple[int, int]
) -> None:
    check(rasterio_epoch(places, size), epoch(files))
    compare(
        "rasterio", "rasterio windows", lambda: rasterio_epoch(places, size), "files",
        lambda: epoch(files), TIMES_PEER,
    )  # fmt: skip


def test_prepared_against_files(
    compare: Callable[..., None], files: DataSet, prepared: DataSet
) -> None:
    check(epoch(prepared), epoch(files))
    compare(
        "files", "files", lambda: epoch(files), "prepared", lambda: epoch(prepared), TIMES_FILES
    )
