"""Sentinel-2 data sets from their configuration to a run, and to maps of products as they come."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from dlbench.data.miniatures import aafc, cdl, land_cover, lucas, parcels, plantations, sentinel2
from dlbench.report import records

ROOT = Path(__file__).parents[1]
MAKERS = {
    "land_cover": land_cover.make,
    "plantations": plantations.make,
    "sentinel2_aafc": aafc.make,
    "sentinel2_cdl": cdl.make,
    "sentinel2_lucas": lucas.make,
}
SIZE = 180
SMALL = [
    "data.root=data", "data.size=[32,32]", "model.options.width=0.05", "training.epochs=2",
    "training.evaluate_every=2", "name=run",
]  # fmt: skip


def configuration(name: str) -> str:
    return str(ROOT / f"configs/segnet_{name}.yaml")


@pytest.mark.slow
def test_a_map_of_products_as_in_training(tmp_path: Path, launch: Callable[..., Any]) -> None:
    MAKERS["sentinel2_cdl"](tmp_path / "data", size=SIZE)
    quick = ["training.epochs=1", "training.evaluate_every=1", "training.batch=16"]
    ended = launch(
        ["-m", "dlbench.train", configuration("sentinel2_cdl"), *SMALL, *quick], tmp_path
    )
    assert ended.status == 0, ended.output
    (record,) = records.read_many([tmp_path / "runs/run/record.json"])
    assert record.workload.shape == (32, 32, 12), "three dates of four bands"

    command = ["-m", "dlbench.predict", "runs/run"]
    ended = launch([*command, "data/imagery", "map.tif"], tmp_path)
    assert ended.status == 0, ended.output
    hidden = np.zeros((SIZE, SIZE), bool)
    for number in range(3):
        shares = sentinel2.block_means(sentinel2.clouds(0, number, SIZE), 6)
        hidden |= shares.repeat(6, axis=0).repeat(6, axis=1) > 0
    grid = parcels.grid(SIZE, parcels.IOWA)
    with rasterio.open(tmp_path / "map.tif") as file:
        assert (file.crs, file.transform, file.shape) == (grid.crs, grid.transform, (SIZE, SIZE))
        found = file.read(1)
    np.testing.assert_array_equal(found == 255, hidden)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MAKERS))
def test_two_ranks_train_on_each(name: str, tmp_path: Path, launch: Callable[..., Any]) -> None:
    MAKERS[name](tmp_path / "data", size=SIZE)
    train = ["-m", "dlbench.train", configuration(name), *SMALL]
    ended = launch(train, tmp_path, ranks=2)
    assert ended.status == 0, ended.output
    (record,) = records.read_many([tmp_path / "runs/run/record.json"])
    assert record.workload.data == name
    assert len(record.ranks) == 2
    scores: Any = record.quality["training_size"]
    assert scores["pixels"] > 0
    scenes = tmp_path / "data/imagery"
    if name == "plantations":  # learns from single dates
        scenes = next(scenes.iterdir())
    mapped = ["-m", "dlbench.predict", "runs/run", str(scenes), "map.tif"]
    if name == "sentinel2_aafc":  # of S2_HARMONIZED, whose name must not be needed
        shutil.move(scenes, tmp_path / "elsewhere")
        mapped[3] = "elsewhere"
        mapped.append("harmonized=true")
    ended = launch(mapped, tmp_path)
    assert ended.status == 0, ended.output
    with rasterio.open(tmp_path / "map.tif") as file:
        assert file.shape == (SIZE, SIZE)
        assert (file.read(1) != 255).mean() > 0.7
