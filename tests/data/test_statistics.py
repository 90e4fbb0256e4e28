from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import rasterio

from dlbench.data import build, statistics


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_windows_that_do_not_overlap_give_the_files_own_moments(miniature: Path) -> None:
    # 300 is 3 x 100: every pixel of the two validation tiles is read once.
    found = statistics.of(build("vaihingen", miniature, (100, 100)), "val")
    tiles = []
    for area in (11, 15):
        with rasterio.open(miniature / f"top/top_mosaic_09cm_area{area}.tif") as file:
            tiles.append(np.moveaxis(file.read(), 0, -1).reshape(-1, 3).astype(float))
    pixels = np.concatenate(tiles)
    assert (found.samples, found.pixels) == (18, len(pixels))
    np.testing.assert_allclose(found.band_mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.band_deviation, pixels.std(axis=0), rtol=1e-9)
    np.testing.assert_array_equal(found.band_minimum, pixels.min(axis=0))
    np.testing.assert_array_equal(found.band_maximum, pixels.max(axis=0))
    assert sum(found.class_pixels) == len(pixels)  # full labels have no void
    assert found.class_shares.sum() == pytest.approx(1.0)


def test_pixels_beside_a_class_are_those_of_samples_that_hold_it(miniature: Path) -> None:
    data = build("vaihingen", miniature, (100, 100))
    found = statistics.of(data, "val")
    car = 4
    holding = sum((data.read("val", i)[1] == car).any() for i in range(data.count("val")))
    assert 0 < holding < 18
    assert found.pixels_beside_class[car] == holding * 100 * 100


def test_pixels_of_each_sample(miniature: Path) -> None:
    data = build("vaihingen", miniature, (100, 100))
    for _ in range(2):
        found, pixels = statistics.counted(data, "val")
        assert pixels.shape == (18, 6)
        np.testing.assert_array_equal(pixels.sum(axis=0), found.class_pixels)
        _, target = data.read("val", 7)
        np.testing.assert_array_equal(pixels[7], np.bincount(target.ravel(), minlength=6)[:6])


def test_a_second_call_reads_nothing(miniature: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = build("vaihingen", miniature, (100, 100))
    first = statistics.of(data, "val")
    monkeypatch.setattr(type(data), "read", None)
    assert asdict(statistics.of(data, "val")) == asdict(first)


def test_another_file_or_option_is_counted_anew(miniature: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(miniature, tmp_path / "tree"))
    first = statistics.of(build("vaihingen", root, (100, 100)), "val")
    eroded = statistics.of(build("vaihingen", root, (100, 100), labels="eroded"), "val")
    assert sum(eroded.class_pixels) < sum(first.class_pixels)
    changed = root / "top/top_mosaic_09cm_area11.tif"
    shutil.copy(root / "top/top_mosaic_09cm_area15.tif", changed)
    os.utime(changed, ns=(1, 1))
    assert statistics.of(build("vaihingen", root, (100, 100)), "val") != first


def test_files_behind_links_count_too(miniature: Path, tmp_path: Path) -> None:
    """As where imagery lies on a larger disk; links back and to nowhere are no trouble."""
    root, disk = tmp_path / "root", tmp_path / "disk"
    shutil.copytree(miniature, root)
    shutil.move(root / "top", disk)
    (root / "top").symlink_to(disk)
    (disk / "back").symlink_to(root)
    (root / ".#lock").symlink_to("nobody@nowhere")
    data = build("vaihingen", root, (100, 100))
    before = statistics.fingerprint(data, "val")
    assert statistics.fingerprint(data, "val") == before
    os.utime(next(disk.glob("*.tif")), (1, 1))
    assert statistics.fingerprint(data, "val") != before


def test_a_damaged_memory_is_no_matter(miniature: Path, cache: Path) -> None:
    data = build("vaihingen", miniature, (100, 100))
    first = statistics.of(data, "val")
    for stored in (cache / "dlbench/statistics").iterdir():
        whole = stored.read_bytes()
        stored.write_bytes(whole[:40])
        assert statistics.of(data, "val") == first
        assert stored.read_bytes() == whole


def test_values_have_no_classes(granulation_tree: Path) -> None:
    found = statistics.of(build("granulation", granulation_tree, (64, 64)), "train")
    assert found.class_pixels == []
    assert len(found.band_mean) == 2


def test_what_was_counted_before_labels_changed_is_counted_anew(
    miniature: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = build("vaihingen", miniature, (100, 100))
    now = statistics.fingerprint(data, "val")
    for left_behind in (1, 2):
        monkeypatch.setattr(statistics, "VERSION", left_behind)
        assert statistics.fingerprint(data, "val") != now
