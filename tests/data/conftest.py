"""Small trees in the real layouts."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from street_scenes import Pair, write_split

from dlbench.data.miniatures import aafc, cdl, land_cover, lucas, plantations
from dlbench.data.scenes import make_vaihingen


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated scenes of 300 x 300 pixels, which windows of 128 do not divide. Read only."""
    folder = tmp_path_factory.mktemp("scenes") / "vaihingen"
    return make_vaihingen(folder, seed=3, tiles={"train": 2, "val": 2, "test": 1}, tile_size=300)


@pytest.fixture(scope="session")
def landscapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the miniature of each Sentinel-2 data set, of 120 x 120 pixels. Read only."""
    folder = tmp_path_factory.mktemp("landscapes")
    for module, name in (
        (aafc, "sentinel2_aafc"), (cdl, "sentinel2_cdl"), (lucas, "sentinel2_lucas"),
        (land_cover, "land_cover"), (plantations, "plantations"),
    ):  # fmt: skip
        module.make(folder / name, size=120)
    return folder


@pytest.fixture
def camvid_tree(tmp_path: Path) -> Path:
    """Five training and two validation pairs of 12 x 16 pixels, listed as in the real tree."""
    root = tmp_path / "CamVid"
    rng = np.random.default_rng(0)

    def pair(_: int) -> Pair:
        return rng.integers(0, 256, (12, 16, 3), np.uint8), rng.integers(0, 12, (12, 16), np.uint8)

    for split, count in (("train", 5), ("val", 2)):
        write_split(root, split, map(pair, range(count)), "frame_{}.png", "/SegNet/CamVid")
    return root


@pytest.fixture(scope="session")
def granulation_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training and one validation pair of 64 x 64 pixels with noise in them. Read only."""
    root = tmp_path_factory.mktemp("granulation")
    rng = np.random.default_rng(0)
    for suffix, count in (("", 2), ("_validation", 1)):
        for name, outputs in (("intensity", 2), ("velocity", 6)):
            with h5py.File(root / f"{name}{suffix}.h5", "w") as file:
                file[name] = rng.uniform(size=(count, 64, 64, outputs)).astype(np.float32)
    return root


@pytest.fixture
def real_data() -> Path:
    folder = os.environ.get("DLBENCH_DATA")
    if not folder:
        pytest.skip("DLBENCH_DATA is not set: it names the folder of real samples")
    return Path(folder)
