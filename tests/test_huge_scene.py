"""A scene and a map of labels of a GABAM tile's size, 40,000 x 40,000 pixels: training samples of
them and a map of the whole take little more memory than those of a small scene."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window
from scipy.ndimage import gaussian_filter

from dlbench import checkpoint, config, models
from dlbench.data.burned_area import BurnedArea
from dlbench.data.facts import facts
from dlbench.runs import RunFolder

SIDE, SMALL = 40_000, 1024
PATCHES, PATCH = 40, 1024
"""The imagery is sparse: 2.6 % of the scene hold data."""
CORNER, PIXEL = (-80.0, 10.0), 0.00025
MOST = 1.5e9
"""Bytes beyond what a small scene takes."""
NAMES = {"huge": "llanos-2015", "small": "corner-2015"}


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The data set with the huge scene, and one with a small scene at its corner; both with the
    huge map of labels."""
    root = tmp_path_factory.mktemp("huge")
    rng = np.random.default_rng(7)
    burned = (gaussian_filter(rng.normal(size=(4000, 4000)), 40, mode="wrap") > 0.01).astype("u1")
    label = root / "N10W080.TIF"
    with rasterio.open(label, "w", **_profile(SIDE, 1)) as file:
        for top in range(0, SIDE, 500):
            rows = np.arange(top, top + 500) % len(burned)
            strip = np.tile(burned[rows], (1, SIDE // burned.shape[1]))
            file.write(strip, 1, window=Window(0, top, SIDE, 500))
    found = {}
    for kind, side in (("huge", SIDE), ("small", SMALL)):
        found[kind] = root / kind
        (found[kind] / "imagery").mkdir(parents=True)
        (found[kind] / "gabam/2015").mkdir(parents=True)
        (found[kind] / "gabam/2015" / label.name).hardlink_to(label)
        corners = [(0, 0), *rng.integers(0, side - PATCH + 1, (PATCHES - 1, 2)).tolist()]
        with rasterio.open(
            found[kind] / "imagery" / f"{NAMES[kind]}.tif", "w",
            nodata=0, sparse_ok=True, photometric="rgb", **_profile(side, 3),
        ) as file:  # fmt: skip
            for row, column in corners if kind == "huge" else corners[:1]:
                rows = np.arange(row, row + PATCH) % len(burned)
                columns = np.arange(column, column + PATCH) % burned.shape[1]
                ground = 150 - 90 * burned[np.ix_(rows, columns)].astype(int)
                noise = rng.integers(-30, 31, (3, PATCH, PATCH))
                window = Window(column, row, PATCH, PATCH)
                file.write((ground + noise).astype(np.uint8), window=window)
    return found


def _profile(side: int, bands: int) -> dict[str, Any]:
    return {
        "driver": "GTiff", "height": side, "width": side, "count": bands, "dtype": "uint8",
        "crs": "EPSG:4326", "transform": from_origin(*CORNER, PIXEL, PIXEL), "tiled": True,
        "blockxsize": 512, "blockysize": 512, "compress": "deflate",
    }  # fmt: skip


def _peak(arguments: list[str], folder: Path) -> tuple[float, str]:
    """The most memory that ``python ARGUMENTS`` had at a time, in bytes, and its output."""
    watched = (
        "import json, resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], capture_output=True, text=True)\n"
        "peak = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
        "print(json.dumps([done.returncode, peak, done.stdout + done.stderr]))\n"
    )
    words = [sys.executable, "-c", watched, sys.executable, *arguments]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    status, peak, output = json.loads(done.stdout)
    assert status == 0, output[-3000:]
    return peak, output


@pytest.mark.soak
def test_samples_of_a_huge_scene(trees: dict[str, Path]) -> None:
    read = (
        "import sys, numpy as np\n"
        "from dlbench.data import IGNORE, build\n"
        "data = build('burned_area', sys.argv[1], (256, 256))\n"
        "rng = np.random.default_rng(1)\n"
        "count = data.count('train')\n"
        "targets = [data.read('train', int(i), rng)[1] for i in rng.integers(0, count, 3000)]\n"
        "seen = sum(int((target != IGNORE).any()) for target in targets)\n"
        "print(count, seen)\n"
    )
    peaks = {}
    for kind, tree in trees.items():
        peaks[kind], output = _peak(["-c", read, str(tree)], tree)
        count, seen = map(int, output.split())
        print(kind, f"{peaks[kind] / 2**20:.0f} MiB,", count, "windows,", seen, "of 3000 with data")
        assert seen > 0
    assert peaks["huge"] - peaks["small"] < MOST


@pytest.mark.soak
def test_a_map_of_a_huge_scene(trees: dict[str, Path], tmp_path: Path) -> None:
    folder = _untrained(tmp_path / "run", trees["small"])
    peaks = {}
    for kind, tree in trees.items():
        scene = tree / "imagery" / f"{NAMES[kind]}.tif"
        words = ["-m", "dlbench.predict", str(folder), str(scene), f"{kind}.tif"]
        peaks[kind], output = _peak(words, tmp_path)
        print(kind, f"{peaks[kind] / 2**20:.0f} MiB", output)
    assert peaks["huge"] - peaks["small"] < MOST
    with rasterio.open(tmp_path / "huge.tif") as whole, rasterio.open(scene) as small:
        assert whole.shape == (SIDE, SIDE)
        assert whole.overviews(1)
        assert whole.transform == small.transform
        known = sum(
            int((whole.read(1, window=Window(0, top, SIDE, 1000)) != 255).sum())
            for top in range(0, SIDE, 1000)
        )
    assert PATCH**2 < known <= PATCHES * PATCH**2
    with rasterio.open(trees["huge"] / "imagery" / f"{NAMES['huge']}.tif") as file:
        mask = file.read_masks(1, window=Window(0, 0, 2 * PATCH, 2 * PATCH))
    with rasterio.open(tmp_path / "huge.tif") as file:
        found = file.read(1, window=Window(0, 0, 2 * PATCH, 2 * PATCH))
    np.testing.assert_array_equal(found == 255, mask == 0)


def _untrained(path: Path, tree: Path) -> Path:
    """A run of the full SegNet in bfloat16 on the data set, which has learnt nothing."""
    folder = RunFolder(path)
    content = {
        "model": {"name": "segnet"},
        "data": {"name": "burned_area", "root": str(tree), "size": [256, 256]},
        "training": {"precision": "mixed_bfloat16"},
    }
    folder.write_text(folder.config, config.validate(content, "the test").to_yaml())
    learnt = facts(BurnedArea(tree, (256, 256)))
    folder.write_json(folder.dataset, learnt.model_dump(mode="json"))
    network = models.build("segnet", (None, None, 3), 2)
    checkpoint.save(
        folder.checkpoint("best"), checkpoint.collect(checkpoint.variables_of(network)), {}
    )
    keras.utils.clear_session()
    return path
