from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import rasterio

from benchmarks.pixel_classifier import logistic_regression
from dlbench.data import DataError, build, miniatures, scenes
from dlbench.data.suburb import scene
from dlbench.data.vaihingen import AREAS

CLASSES = 6


@pytest.fixture(scope="module")
def default_scenes() -> dict[str, list]:
    return {
        split: [scene(0, area, scenes.TILE_SIZE) for area in AREAS[split][: scenes.TILES[split]]]
        for split in ("train", "val")
    }


def test_scenes_follow_from_the_seed() -> None:
    image, label = scene(1, 11, 200)
    again, _ = scene(1, 11, 200)
    np.testing.assert_array_equal(image, again)
    assert image.shape == (200, 200, 3)
    assert label.shape == (200, 200)
    assert image.dtype == label.dtype == np.uint8
    for seed, area in ((2, 11), (1, 15)):
        assert (scene(seed, area, 200)[0] != image).mean() > 0.5


def test_classes_are_imbalanced_but_all_there(default_scenes: dict[str, list]) -> None:
    labels = np.stack([label for _, label in default_scenes["train"]])
    shares = np.bincount(labels.ravel(), minlength=CLASSES) / labels.size
    impervious, building, grass, tree, car, clutter = shares
    assert min(impervious, grass) > 0.2
    assert min(building, tree) > 0.08
    assert 0.01 < car < 0.04
    assert 0.01 < clutter < 0.06


def test_files_are_in_the_real_layout(miniature: Path) -> None:
    for area in (1, 3, 11, 15, 2):
        name = f"top_mosaic_09cm_area{area}"
        paths = [
            miniature / "top" / f"{name}.tif",
            miniature / "gts_for_participants" / f"{name}.tif",
            miniature / "gts_for_participants" / f"{name}_noBoundary.tif",
        ]
        for path in paths:
            with rasterio.open(path) as file:
                assert (file.count, file.dtypes[0], file.shape) == (3, "uint8", (300, 300))
                assert file.crs.to_epsg() == 32632
    manifest = json.loads((miniature / "manifest.json").read_text())
    assert manifest["generator"] == scenes.VERSION
    assert not [p for p in miniature.parent.iterdir() if p != miniature]


def _make(folder: Path) -> None:
    scenes.make_vaihingen(folder, tiles={"train": 1}, tile_size=128)


def test_two_processes_may_make_the_same_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    makers = [context.Process(target=_make, args=(tmp_path / "scenes",)) for _ in range(2)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert [maker.exitcode for maker in makers] == [0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["scenes"]
    assert build("vaihingen", tmp_path / "scenes", (64, 64)).count("train") == 4


def test_an_existing_miniature_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "TILES", {"train": 1})
    monkeypatch.setattr(scenes, "TILE_SIZE", 128)
    root = miniatures.ensure("vaihingen", tmp_path)
    before = (root / "manifest.json").stat().st_mtime_ns
    assert miniatures.ensure("vaihingen", tmp_path) == root
    assert (root / "manifest.json").stat().st_mtime_ns == before
    monkeypatch.setattr(scenes, "VERSION", scenes.VERSION + 1)
    assert miniatures.ensure("vaihingen", tmp_path) != root


def test_foreign_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes/thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="scenes is in the way"):
        _make(tmp_path / "scenes")
    assert (tmp_path / "scenes/thesis.txt").read_text() == "years of work"
    assert [p.name for p in tmp_path.iterdir()] == ["scenes"]


@pytest.mark.parametrize("balanced", [False, True])
def test_the_colour_of_a_pixel_does_not_give_its_class(
    default_scenes: dict[str, list], balanced: bool
) -> None:
    """Multinomial logistic regression on the bands stays at mIoU <= 0.5 on the val scenes."""
    x, y = _pixels(default_scenes["train"], 2000)
    predict = logistic_regression(x, y, CLASSES, balanced=balanced)
    x_val, y_val = _pixels(default_scenes["val"], 50_000)
    confusion = np.bincount(y_val * CLASSES + predict(x_val), minlength=CLASSES**2)
    confusion = confusion.reshape(CLASSES, CLASSES)
    hits = np.diag(confusion)
    score = float((hits / (confusion.sum(axis=0) + confusion.sum(axis=1) - hits)).mean())
    assert 0.2 < score <= 0.5, f"mIoU {score:.3f}"


def _pixels(tiles: list, count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    picks = [rng.choice(label.size, count, replace=False) for _, label in tiles]
    x = [image.reshape(-1, 3)[p] for (image, _), p in zip(tiles, picks, strict=True)]
    y = [label.ravel()[p] for (_, label), p in zip(tiles, picks, strict=True)]
    return np.concatenate(x) / 255, np.concatenate(y).astype(int)
