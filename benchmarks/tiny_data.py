"""A set of a few seconds' making for every data set of the table, in its real layout."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dlbench.data.granulation import INTENSITY, VELOCITY
from dlbench.data.granulation_files import IMAGE_FILES, VELOCITY_FILES
from dlbench.data.miniatures import MINIATURES
from dlbench.data.scenes import make_vaihingen

SIDE = 240
"""Pixels of a scene; windows are smaller."""
PAIRS, PAIR_SIZE = 32, 50
"""Of granulation; pictures are as many."""
OPTIONS: dict[str, dict[str, Any]] = {
    "land_cover": {
        "classes": {"cultivated": [1], "forest": [2], "grass": [3], "vines": [4], "built": [8]}
    },
    "sentinel2_cdl": {"mapping": "belgiu_csillik_2018"},
    "sentinel2_lucas": {"level": 2},
}
"""What a data set must be told."""


def make(name: str, folder: Path, seed: int = 0) -> Path:
    """The set ``name`` in ``folder``, made if it is absent."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        MAKERS.get(name, _landscape(name))(folder, seed)
    return folder


def _vaihingen(folder: Path, seed: int) -> None:
    make_vaihingen(folder, seed, tiles={"train": 1, "val": 1}, tile_size=SIDE)


def _potsdam(folder: Path, seed: int) -> None:
    from dlbench.data.miniatures import potsdam

    potsdam.make(folder, seed, tiles=["2_10", "2_11", "3_13"], tile_size=SIDE)


def _burned_area(folder: Path, seed: int) -> None:
    from dlbench.data.miniatures import burned_area

    burned_area.make(folder, seed, scene_size=SIDE)


def _granulation(folder: Path, seed: int) -> None:
    """Noise as well: to draw granules takes long."""
    import h5py

    folder.mkdir()
    generator = np.random.default_rng(seed)
    for split, count in (("train", PAIRS), ("val", 4)):
        shape = (count, PAIR_SIZE, PAIR_SIZE)
        for path, name, values in (
            (IMAGE_FILES[split], INTENSITY, generator.normal(1.0, 0.1, (*shape, 2))),
            (VELOCITY_FILES[split], VELOCITY, generator.uniform(size=(*shape, 6))),
        ):
            with h5py.File(folder / path, "w") as file:
                file[name] = values.astype(np.float32)


def _camvid(folder: Path, seed: int) -> None:
    from dlbench.data.miniatures import camvid

    camvid.make(folder, seed, pictures={"train": PAIRS, "val": 4}, size=(96, 128))


def _landscape(name: str) -> Callable[[Path, int], None]:
    """The miniatures of Sentinel-2 sets, which are small as they come."""

    def make_one(folder: Path, seed: int) -> None:
        module, function = MINIATURES[name]
        getattr(importlib.import_module(module), function)(folder, seed=seed, size=SIDE)

    return make_one


MAKERS: dict[str, Callable[[Path, int], None]] = {
    "burned_area": _burned_area,
    "camvid": _camvid,
    "granulation": _granulation,
    "potsdam": _potsdam,
    "vaihingen": _vaihingen,
}
