"""Input alone: our pipeline on tiled GeoTIFFs, what bounds it, a peer, and prepared data.

    pytest benchmarks/bench_input.py --benchmark-json=OUT.json

All loaders give the same windows of one epoch, jittered, from handles and caches that are new in
every round; the files are in the page cache. A rate counts useful bytes: three bytes a pixel of
the image and three of its coloured label, of each window once. An epoch's windows are as many
pixels as the files, so its time compares with that of decoding every block once, although the
windows touch blocks several times: how often is in the report as ``touched_per_useful``. What
starting the pipeline costs is part of its time. A first epoch decodes, a later one finds what was
decoded in memory, as far as it fits. ``--benchmark-disable`` does all this on a tile of
one second's making.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

# The blocks of a round must fit, once a thread. GDAL reads it once.
os.environ.setdefault("GDAL_CACHEMAX", "512")

import numpy as np
import pytest

from benchmarks.input_loaders import (
    BATCH,
    Place,
    RasterioLoader,
    check,
    decode_blocks,
    decode_cells,
    drain,
    epoch,
    rasterio_epoch,
    touched_per_useful,
    windows_asked,
)
from benchmarks.profiles import is_smoke
from dlbench import data
from dlbench.data.dataset import DataSet
from dlbench.data.preparation import prepare
from dlbench.data.scenes import make_vaihingen
from dlbench.data.vaihingen import AREAS
from dlbench.report.records import Workload

SIZE, TILE_SIZE, TILES = (256, 256), 2048, 8
SMOKE_SIZE, SMOKE_TILE_SIZE, SMOKE_TILES = (64, 64), 256, 2
DRAWN = 2
"""Tiles; the others are copies of these, so that an epoch is long beside its start."""
BYTES_PER_PIXEL = 6
"""Of an image and its label, as the files hold them."""
FRACTION_OF_LIMIT, TIMES_PEER, TIMES_FILES = 0.8, 2.0, 3.0


@pytest.fixture(scope="module")
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    return SMOKE_SIZE if is_smoke(request.config) else SIZE


@pytest.fixture(scope="module")
def tiles(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    side, count = (SMOKE_TILE_SIZE, SMOKE_TILES) if is_smoke(request.config) else (TILE_SIZE, TILES)
    folder = tmp_path_factory.mktemp("input") / "vaihingen"
    make_vaihingen(folder, tiles={"train": DRAWN}, tile_size=side)
    areas = AREAS["train"]
    for number in range(DRAWN, count):
        for path in list(folder.rglob(f"*_area{areas[number % DRAWN]}[._]*")):
            name = path.name.replace(f"area{areas[number % DRAWN]}", f"area{areas[number]}")
            shutil.copy(path, path.with_name(name))
    return folder


@pytest.fixture(scope="module")
def files(tiles: Path, size: tuple[int, int]) -> DataSet:
    return data.build("vaihingen", tiles, size)


@pytest.fixture(scope="module")
def prepared(files: DataSet, tiles: Path, size: tuple[int, int]) -> DataSet:
    return data.build("vaihingen", prepare(files, tiles.parent / "prepared"), size)


@pytest.fixture(scope="module")
def places(files: DataSet) -> list[Place]:
    return windows_asked(files)


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
    attach_record(workload, samples_per_step=len(places), judged=name == "files")


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
        wanted: float | None,
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
        "blocks", "every block once", lambda: decode_blocks(tiles), "files",
        lambda: drain(epoch(files)), FRACTION_OF_LIMIT,
    )  # fmt: skip


def test_a_later_epoch_against_blocks_alone(
    compare: Callable[..., None], files: DataSet, tiles: Path
) -> None:
    check(epoch(files), epoch(files, later=True))
    compare(
        "blocks, beside a later epoch", "every block once", lambda: decode_blocks(tiles),
        "files, a later epoch",
        lambda: drain(epoch(files, later=True)), FRACTION_OF_LIMIT,
    )  # fmt: skip


def test_files_against_rasterio(
    compare: Callable[..., None], files: DataSet, places: list[Place], size: tuple[int, int]
) -> None:
    check(rasterio_epoch(places, size), epoch(files))
    compare(
        "rasterio", "rasterio windows", lambda: drain(rasterio_epoch(places, size)), "files",
        lambda: drain(epoch(files)), TIMES_PEER,
    )  # fmt: skip


def test_cells_alone_against_rasterio(
    compare: Callable[..., None], tiles: Path, places: list[Place], size: tuple[int, int]
) -> None:
    """How far a first epoch could be ahead if windows and batches took no time."""
    assert decode_cells(tiles) == 2 * len(places) * size[0] * size[1]
    compare(
        "rasterio, beside cells", "rasterio windows", lambda: drain(rasterio_epoch(places, size)),
        "our cells alone", lambda: decode_cells(tiles), None,
    )  # fmt: skip


def test_a_later_epoch_against_rasterios(
    compare: Callable[..., None], files: DataSet, places: list[Place], size: tuple[int, int]
) -> None:
    with closing(RasterioLoader(places, size)) as loader:
        check(loader.epoch(), epoch(files))
        compare(
            "rasterio, a later epoch", "rasterio windows, a later epoch",
            lambda: drain(loader.epoch()), "files, a later epoch",
            lambda: drain(epoch(files, later=True)), TIMES_PEER,
        )  # fmt: skip


def test_prepared_against_files(
    compare: Callable[..., None], files: DataSet, prepared: DataSet
) -> None:
    check(epoch(prepared), epoch(files))
    compare(
        "files",
        "files",
        lambda: drain(epoch(files)),
        "prepared",
        lambda: drain(epoch(prepared)),
        TIMES_FILES,
    )
