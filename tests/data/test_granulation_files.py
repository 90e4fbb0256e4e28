from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dlbench.data import DataError, granulation_files, miniatures, photosphere
from dlbench.data.granulation_files import make_granulation, read_texture
from dlbench.data.photosphere import scene

SIDE = 96
"""Of the scenes here, which are made in a moment."""


@pytest.fixture(autouse=True)
def _small_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(granulation_files, "SCENE", SIDE)


def _read(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    suffix = {"train": "", "val": "_validation"}[split]
    with h5py.File(folder / f"database_images{suffix}.h5") as file:
        intensity = file["intensity"][:]
    with h5py.File(folder / f"database_velocity{suffix}.h5") as file:
        velocity = file["velocity"][:]
    return intensity, velocity


def test_files_are_in_the_real_layout(tmp_path: Path) -> None:
    folder = make_granulation(tmp_path / "pairs", {"train": 5, "val": 2}, size=40, seed=7)
    for split, count in (("train", 5), ("val", 2)):
        intensity, velocity = _read(folder, split)
        assert intensity.shape == (count, 40, 40, 2)
        assert velocity.shape == (count, 40, 40, 6)
        assert intensity.dtype == velocity.dtype == np.float32
    with h5py.File(folder / "database_images.h5") as file:
        attributes = dict(file["intensity"].attrs)
        assert file["intensity"].chunks == (1, 40, 40, 2)
    assert attributes == {
        "pixel_km": 39.6,
        "cadence_s": 30.0,
        "generator": granulation_files.VERSION,
        "seed": 7,
    }
    with h5py.File(folder / "database_velocity.h5") as file:
        attributes = dict(file["velocity"].attrs)
    assert attributes["unit"] == "10 km/s"
    assert (attributes["minimum"][1], attributes["maximum"][5]) == (-0.7779094, 0.89461637)
    assert (attributes["generator"], attributes["seed"]) == (granulation_files.VERSION, 7)
    assert json.loads((folder / "manifest.json").read_text())["pairs"] == {"train": 5, "val": 2}


def test_pairs_are_tiles_with_x_first(tmp_path: Path) -> None:
    """The pair beside another in the scene, and the scene's own velocity in km/s."""
    folder = make_granulation(tmp_path / "pairs", {"train": 4, "val": 1}, size=40, seed=7)
    for split, number in (("train", 0), ("val", 1)):
        images, velocities = scene(7, number, SIDE)
        intensity, stored = _read(folder, split)
        with h5py.File(folder / "database_velocity.h5") as file:
            low, high = (file["velocity"].attrs[name] for name in ("minimum", "maximum"))
        restored = 10 * (stored * (high - low) + low)
        corners = [(0, 0), (0, 40), (40, 0), (40, 40)]
        for pair, (top, left) in enumerate(corners[: len(intensity)]):
            part = np.s_[top : top + 40, left : left + 40]
            np.testing.assert_array_equal(intensity[pair], images[part].transpose(1, 0, 2))
            wanted = velocities[part].transpose(1, 0, 2)
            np.testing.assert_allclose(restored[pair], wanted, atol=3e-6)


def test_a_longer_file_begins_with_the_shorter_one(tmp_path: Path) -> None:
    short = make_granulation(tmp_path / "short", {"train": 3, "val": 2}, size=40)
    long = make_granulation(tmp_path / "long", {"train": 6}, size=40)
    other = make_granulation(tmp_path / "other", {"train": 3}, size=40, seed=1)
    for part, first, another in zip(
        *(_read(f, "train") for f in (short, long, other)), strict=True
    ):
        np.testing.assert_array_equal(part, first[:3])
        assert not np.array_equal(part, another)
        assert len(np.unique(first[:, 0, 0, 0])) == 6
    assert not (long / "database_images_validation.h5").exists()
    assert not np.array_equal(_read(short, "val")[0], _read(short, "train")[0][:2])


def test_a_large_pair_is_a_scene_of_its_own(tmp_path: Path) -> None:
    folder = make_granulation(tmp_path / "pairs", {"train": 2}, size=60)
    intensity, _ = _read(folder, "train")
    for pair, number in ((0, 0), (1, 2)):
        wanted = scene(0, number, 60)[0].transpose(1, 0, 2)
        np.testing.assert_array_equal(intensity[pair], wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pairs": {"train": 0}}, "'train': 0"),
        ({"pairs": {"test": 1}}, "train, val"),
        ({"size": SIDE + 1}, f"allowed are 1 to {SIDE}"),
        ({"size": 0}, "size=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_what_cannot_be_made_is_said(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        make_granulation(tmp_path / "pairs", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(split: str, done: int, wanted: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_granulation(tmp_path / "pairs", {"train": 9}, size=40, progress=cut_off)
    assert not list(tmp_path.iterdir())
    (tmp_path / "pairs").mkdir()
    (tmp_path / "pairs/thesis.txt").write_text("years of work")
    monkeypatch.setattr(photosphere, "scene", None)  # Said before any scene is made.
    with pytest.raises(DataError, match="pairs is in the way"):
        make_granulation(tmp_path / "pairs", {"train": 9}, size=40)
    assert [p.name for p in tmp_path.rglob("*")] == ["pairs", "thesis.txt"]
    with pytest.raises(DataError, match="cannot be written"):
        make_granulation(tmp_path / "pairs/thesis.txt/deeper", {"train": 9}, size=40)


def _make(folder: Path) -> None:
    granulation_files.SCENE = SIDE  # A new process knows nothing of fixtures.
    make_granulation(folder, {"train": 1}, size=SIDE)


def test_two_processes_may_make_the_same_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    makers = [context.Process(target=_make, args=(tmp_path / "pairs",)) for _ in range(2)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert [maker.exitcode for maker in makers] == [0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["pairs"]
    assert _read(tmp_path / "pairs", "train")[0].shape == (1, SIDE, SIDE, 2)


def test_an_existing_miniature_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(granulation_files, "PAIRS", {"train": 1, "val": 1})
    root = miniatures.ensure("granulation", tmp_path)
    assert _read(root, "val")[0].shape == (1, 50, 50, 2)
    before = (root / "manifest.json").stat().st_mtime_ns
    assert miniatures.ensure("granulation", tmp_path) == root
    assert (root / "manifest.json").stat().st_mtime_ns == before


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "pairs"
    arguments = [str(folder), "train=2", "val=1", "size=30", "seed=4"]
    assert granulation_files.main(arguments) == 0
    assert f"{folder}: 2 training pairs" in capsys.readouterr().out
    assert _read(folder, "train")[0].shape == (2, 30, 30, 2)
    for wrong, message in (
        (arguments, "holds generated pairs already"),
        ([], "usage: python -m dlbench.data.granulation_files FOLDER"),
        ([str(folder), "pairs=3"], "usage:"),
        ([str(tmp_path / "new"), "train=many"], "train=many: allowed are whole numbers"),
        ([str(tmp_path / "new"), "texture=absent.fits"], "absent.fits"),
    ):
        assert granulation_files.main(wrong) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_progress_is_told_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    patient, eager = granulation_files._Ticker(every=60), granulation_files._Ticker(every=0)
    patient("train", 1, 9)
    assert capsys.readouterr().err == ""
    eager("train", 2, 9)
    assert capsys.readouterr().err == "'train': 2 of 9 pairs\n"


def _write_frame(path: Path, frame: np.ndarray, **header: object) -> Path:
    from astropy.io import fits

    fits.PrimaryHDU(frame, fits.Header(header)).writeto(path)
    return path


def test_a_texture_is_scaled_by_its_header(tmp_path: Path) -> None:
    """Waves of 0.4 arcsec stay 290 km long."""
    x = np.arange(160) * 0.02
    wave = np.broadcast_to(np.sin(2 * np.pi * x / 0.4), (120, 160)).astype(np.float32)
    path = _write_frame(tmp_path / "frame.fits", wave, CDELT1=0.02, CUNIT1="arcsec")
    frame = read_texture(path)
    assert frame.shape == pytest.approx((120 * 14.5 / 19.8, 160 * 14.5 / 19.8), abs=1)
    crossings = np.flatnonzero(np.diff(np.sign(frame[40])) > 0)
    assert np.diff(crossings).mean() * 19.8 == pytest.approx(290, rel=0.03)
    folder = make_granulation(tmp_path / "pairs", {"train": 1}, size=48, texture=path)
    plain = make_granulation(tmp_path / "plain", {"train": 1}, size=48)
    assert not np.array_equal(_read(folder, "train")[0], _read(plain, "train")[0])
    np.testing.assert_array_equal(_read(folder, "train")[1], _read(plain, "train")[1])


@pytest.mark.parametrize(
    ("shape", "header", "message"),
    [
        ((2, 200, 200), {"CDELT1": 0.02, "CUNIT1": "arcsec"}, "one image"),
        ((200, 200), {"CDELT1": 0.02}, "CUNIT1"),
        ((200, 200), {"CDELT1": 0.02, "CUNIT1": "deg"}, "0.0 km"),
        ((200, 200), {"CDELT1": 0.1, "CUNIT1": "arcsec"}, "72.5 km"),
        ((20, 200), {"CDELT1": 0.02, "CUNIT1": "arcsec"}, "1000 km or more"),
    ],
)
def test_a_frame_that_is_no_texture_is_named(
    tmp_path: Path, shape: tuple[int, ...], header: dict[str, object], message: str
) -> None:
    path = _write_frame(tmp_path / "frame.fits", np.zeros(shape, np.float32), **header)
    with pytest.raises(DataError, match=rf"frame\.fits.*{message}"):
        read_texture(path)


def test_a_real_frame_lends_its_texture(real_data: Path) -> None:
    frame = read_texture(real_data / "solar/dkist_photosphere.fits")
    assert frame.shape == (111, 111)
    images, velocities = scene(0, 0, 100, frame)
    plain, same = scene(0, 0, 100)
    np.testing.assert_array_equal(velocities, same)
    assert 0.8 < np.corrcoef(images.ravel(), plain.ravel())[0, 1] < 0.99
