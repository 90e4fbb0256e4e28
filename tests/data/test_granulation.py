"""The granulation reader, on pairs whose values tell where they came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dlbench.data import DataError, build
from dlbench.data.granulation import VELOCITY_MAXIMUM, VELOCITY_MINIMUM, component_names

NX, NY = 9, 7


def pairs(count: int, seed: int, outputs: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, nx, ny, 2) and velocities (count, nx, ny, outputs) in km/s."""
    rng = np.random.default_rng(seed)
    images = rng.normal(1.0, 0.1, (count, NX, NY, 2)).astype(np.float32)
    return images, rng.normal(0.0, 1.5, (count, NX, NY, outputs))


def stored(velocity: np.ndarray) -> np.ndarray:
    return (velocity / 10.0 - VELOCITY_MINIMUM) / (VELOCITY_MAXIMUM - VELOCITY_MINIMUM)


def write_hdf5(root: Path, suffix: str, images: Any, velocity: Any, **attributes: Any) -> None:
    root.mkdir(exist_ok=True)
    with h5py.File(root / f"database_images{suffix}.h5", "w") as file:
        file["intensity"] = images
    with h5py.File(root / f"database_velocity{suffix}.h5", "w") as file:
        file["velocity"] = velocity
        file["velocity"].attrs.update(attributes)


@pytest.fixture
def hdf5(tmp_path: Path) -> Path:
    root = tmp_path / "pairs"
    for suffix, count in (("", 5), ("_validation", 3)):
        images, velocity = pairs(count, seed=count)
        write_hdf5(root, suffix, images, stored(velocity))
    return root


def test_rows_are_y_and_velocities_are_in_km_per_s(hdf5: Path) -> None:
    data = build("granulation", hdf5)
    assert data.outputs[:3] == ("vx tau=1", "vy tau=1", "vx tau=0.1")
    for split, count in (("train", 5), ("val", 3)):
        images, velocity = pairs(count, seed=count)
        assert data.count(split) == count
        for index in range(count):
            image, target = data.read(split, index)
            assert (image.dtype, target.dtype) == (np.float32, np.float32)
            np.testing.assert_array_equal(image, images[index].transpose(1, 0, 2))
            np.testing.assert_allclose(
                target, velocity[index].transpose(1, 0, 2), rtol=1e-6, atol=1e-6
            )


def test_the_axis_of_x_and_the_unit_can_be_told(tmp_path: Path) -> None:
    images, velocity = pairs(4, seed=1, outputs=2)
    write_hdf5(tmp_path, "", images, velocity)
    data = build("granulation", tmp_path, None, x_axis=1, normalized=False, held_out=1)
    image, target = data.read("train", 2)
    assert data.outputs == ("vx", "vy")
    np.testing.assert_array_equal(image, images[2])
    np.testing.assert_array_equal(target, velocity[2].astype(np.float32))


def test_a_file_can_bring_its_own_range(tmp_path: Path) -> None:
    images, velocity = pairs(2, seed=1, outputs=2)
    low, high = np.array([-0.5, -0.25]), np.array([0.5, 0.75])
    scaled = (velocity / 10.0 - low) / (high - low)
    write_hdf5(tmp_path, "", images, scaled, minimum=low, maximum=high)
    # The twin's is its own.
    scaled = (velocity / 10.0 - 2 * low) / (2 * high - 2 * low)
    write_hdf5(tmp_path, "_validation", images, scaled, minimum=2 * low, maximum=2 * high)
    data = build("granulation", tmp_path)
    for split in ("train", "val"):
        _, target = data.read(split, 1)
        np.testing.assert_allclose(target, velocity[1].transpose(1, 0, 2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("twin", ["validation", "train"])
def test_npz(tmp_path: Path, twin: str) -> None:
    images, velocity = pairs(4, seed=1)
    np.savez(tmp_path / "deepvelu.npz", input_train=images, output_train=stored(velocity))
    arrays: Any = {f"input_{twin}": images[:2], f"output_{twin}": stored(velocity[:2])}
    np.savez(tmp_path / "deepvelu_validation.npz", **arrays)
    data = build("granulation", tmp_path)
    assert (data.count("train"), data.count("val")) == (4, 2)
    image, target = data.read("val", 1)
    np.testing.assert_array_equal(image, images[1].transpose(1, 0, 2))
    np.testing.assert_allclose(target, velocity[1].transpose(1, 0, 2), rtol=1e-6, atol=1e-6)


def test_pairs_are_held_out_where_there_is_no_twin(tmp_path: Path) -> None:
    images, velocity = pairs(5, seed=1)
    write_hdf5(tmp_path, "", images, stored(velocity))
    with pytest.raises(DataError, match=r"no validation pairs; .* data\.options\.held_out=NUMBER"):
        build("granulation", tmp_path).count("val")
    data = build("granulation", tmp_path, None, held_out=2)
    assert (data.count("train"), data.count("val")) == (3, 2)
    image, _ = data.read("val", 0)
    np.testing.assert_array_equal(image, images[3].transpose(1, 0, 2))
    with pytest.raises(IndexError):
        data.read("train", 3)


def test_smaller_windows(hdf5: Path) -> None:
    """Image and velocities from one place: the middle, or anywhere where there is jitter."""
    whole = build("granulation", hdf5)
    data = build("granulation", hdf5, (4, 5))
    assert data.jitters
    assert not build("granulation", hdf5, (NY, NX)).jitters
    image, target = whole.read("train", 1)
    middle, velocity = data.read("train", 1)
    np.testing.assert_array_equal(middle, image[1:5, 2:7])
    np.testing.assert_array_equal(velocity, target[1:5, 2:7])
    places = set()
    for seed in range(60):
        window, velocity = data.read("train", 1, np.random.default_rng(seed))
        top, left = np.argwhere(image[..., 0] == window[0, 0, 0])[0]
        np.testing.assert_array_equal(window, image[top : top + 4, left : left + 5])
        np.testing.assert_array_equal(velocity, target[top : top + 4, left : left + 5])
        places.add((int(top), int(left)))
    assert places == {(top, left) for top in range(4) for left in range(5)}


def test_wrong_options_are_told(hdf5: Path) -> None:
    with pytest.raises(DataError, match=r"data\.size is \[8, 8\], but the patches .* 7 x 9 pixels"):
        build("granulation", hdf5, (8, 8))
    with pytest.raises(DataError, match="x_axis is 2; allowed are 0 and 1"):
        build("granulation", hdf5, None, x_axis=2)
    with pytest.raises(DataError, match="normalized is 'false', allowed: true or false"):
        build("granulation", hdf5, None, normalized="false")
    with pytest.raises(DataError, match="held_out is 2.5, allowed: whole number"):
        build("granulation", hdf5, None, held_out=2.5)
    with pytest.raises(DataError, match="holds validation pairs of its own"):
        build("granulation", hdf5, None, held_out=1)
    for name in ("database_images_validation.h5", "database_velocity_validation.h5"):
        (hdf5 / name).unlink()
    with pytest.raises(DataError, match="held_out is 5; .* has 5 pairs, so allowed are 1 to 4"):
        build("granulation", hdf5, None, held_out=5)


def test_damaged_folders_are_told(tmp_path: Path) -> None:
    images, velocity = pairs(2, seed=1)

    def folder(name: str, images: Any, velocity: Any) -> Path:
        write_hdf5(tmp_path / name, "", images, velocity)
        return tmp_path / name

    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="empty holds no training pairs; needed are"):
        build("granulation", empty)
    with pytest.raises(DataError, match=r"images of shape \(2, 9, 7, 1\); needed are \(N, nx, ny"):
        build("granulation", folder("one", images[..., :1], velocity))
    with pytest.raises(DataError, match="must be of the same pairs and pixels"):
        build("granulation", folder("fewer", images, velocity[:1]))
    with pytest.raises(DataError, match="3 velocities a pixel|velocities of shape"):
        build("granulation", folder("odd", images, velocity[..., :3]))
    with pytest.raises(DataError, match=r"has 4 velocities a pixel, normalised by minima of shape"):
        build("granulation", folder("four", images, velocity[..., :4]))

    alone = folder("alone", images, velocity)
    (alone / "database_velocity.h5").unlink()
    with pytest.raises(DataError, match=r"0 of database_images\.h5 hold a data set 'velocity'"):
        build("granulation", alone)
    cut = folder("cut", images, velocity)
    content = (cut / "database_images.h5").read_bytes()
    (cut / "database_images.h5").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"database_images\.h5 cannot be read as HDF5"):
        build("granulation", cut)
    both = folder("both", images, velocity)
    np.savez(both / "pairs.npz", input_train=images, output_train=velocity)
    with pytest.raises(DataError, match="holds both HDF5 and npz files"):
        build("granulation", both)

    broken = images.copy()
    broken[1, 3, 4, 0] = np.nan
    data = build("granulation", folder("nan", broken, velocity))
    data.read("train", 0)
    with pytest.raises(DataError, match=r"images\.h5, pair 1 has intensities that are not"):
        data.read("train", 1)

    archive = tmp_path / "archive"
    archive.mkdir()
    np.savez(archive / "pairs.npz", images=images)
    with pytest.raises(DataError, match=r"pairs\.npz holds images; needed are input_train and"):
        build("granulation", archive)
    (archive / "pairs.npz").write_bytes((archive / "pairs.npz").read_bytes()[:200])
    with pytest.raises(DataError, match=r"pairs\.npz cannot be read as npz"):
        build("granulation", archive)


def test_without_a_root_it_is_generated_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("dlbench.data.granulation_files.PAIRS", {"train": 3, "val": 1})
    monkeypatch.setattr("dlbench.data.granulation_files.SCENE", 100)
    data = build("granulation", None)
    assert tmp_path in data.root.parents
    assert data.count("train") == 3
    image, target = data.read("val", 0)
    assert (image.shape, target.shape) == ((50, 50, 2), (50, 50, 6))
    assert np.median(image) == pytest.approx(1.0, abs=0.1)
    assert 0.5 < target[..., :2].std() < 3.0


def test_component_names() -> None:
    assert component_names(6)[-1] == "vy tau=0.01"
    assert component_names(2) == ("vx", "vy")
    assert component_names(4) == ("vx 1", "vy 1", "vx 2", "vy 2")
