"""What mutated inputs have found, each by itself: refused at once, by an error that names it."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.io import fits

from dlbench import checkpoint, config, fits_header, frames, trained
from dlbench.data import DataError
from dlbench.data.granulation import Granulation
from dlbench.data.imagery.sentinel2 import open_sentinel2
from dlbench.data.labels.lucas import lucas
from dlbench.data.labels.polygons import layer_names


def _pairs(folder: Path, **changes: np.ndarray) -> Path:
    arrays = {"intensity": np.ones((2, 4, 4, 2)), "velocity": np.ones((2, 4, 4, 6))} | changes
    for name, array in arrays.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file[name] = array
    return folder


@pytest.mark.parametrize("kind", ["S4", "c8", "?", [("a", "f4")]])
def test_pairs_are_of_numbers(tmp_path: Path, kind: str) -> None:
    folder = _pairs(tmp_path, velocity=np.zeros((2, 4, 4, 6), kind))
    with pytest.raises(DataError, match=r"velocity.h5 holds values of type .*; needed are"):
        Granulation(folder)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("pixel_km", "wide", "attribute pixel_km wide; needed is one number above 0"),
        ("cadence_s", np.nan, "attribute cadence_s nan; needed is one number above 0"),
        ("minimum", "text", "has minima of <U4"),
        ("maximum", np.full(6, np.inf), "minimum < maximum"),
    ],
)
def test_attributes_are_numbers(tmp_path: Path, name: str, value: object, told: str) -> None:
    _pairs(tmp_path)
    with h5py.File(tmp_path / "velocity.h5", "r+") as file:
        file["velocity"].attrs[name] = value
    with pytest.raises(DataError, match=told):
        Granulation(tmp_path)


def test_hdf5_stores_what_it_declares(tmp_path: Path) -> None:
    _pairs(tmp_path)
    for name in ("intensity", "velocity"):
        with h5py.File(tmp_path / f"{name}.h5", "r+") as file:
            shape = (2**40, *file[name].shape[1:])
            del file[name]
            file.create_dataset(name, shape, "f4", chunks=(1, 4, 4, 1))
    with pytest.raises(DataError, match=r"intensity.h5 .* declares .* but stores 0"):
        Granulation(tmp_path)
    with (
        pytest.raises(DataError, match=r"intensity.h5 .* but stores 0"),
        frames.opened(str(tmp_path / "intensity.h5")),
    ):
        pass


def test_highly_compressible_pairs_are_read(tmp_path: Path) -> None:
    _pairs(tmp_path)
    for name, outputs in (("intensity", 2), ("velocity", 6)):
        with h5py.File(tmp_path / f"{name}.h5", "r+") as file:
            del file[name]
            data = np.ones((8, 256, 256, outputs), np.float32)
            file.create_dataset(
                name, data=data, chunks=data.shape, compression="gzip", compression_opts=9
            )
            assert file[name].id.get_storage_size() < data.nbytes / 500
    assert Granulation(tmp_path).count("train") == 8


def test_npz_holds_what_it_says(tmp_path: Path) -> None:
    arrays = {"input_train": np.ones((2, 4, 4, 2)), "output_train": np.ones((2, 4, 4, 6))}
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    told = b"(2, 4, 4, 2), }".ljust(30)
    assert told in members["input_train.npy"]
    huge = members["input_train.npy"].replace(told, b"(9999999999, 4, 4, 2), }".ljust(30))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name, data in (members | {"input_train.npy": huge}).items():
            archive.writestr(name, data)
    with pytest.raises(DataError, match=r"a.npz cannot be read .*9999999999.*, but holds"):
        Granulation(tmp_path)


def test_a_fits_header_of_billions_of_axes_is_refused_at_once(tmp_path: Path) -> None:
    for number, name in enumerate(("first.fits", "second.fits")):
        file = tmp_path / name
        hdus = [fits.PrimaryHDU(np.ones((2, 3, 4), ">f4")), fits.ImageHDU(np.ones((3, 4)))]
        fits.HDUList(hdus).writeto(file)
        data = bytearray(file.read_bytes())
        place = -1
        for _ in range(number + 1):
            place = data.index(b"NAXIS   =", place + 1)
        data[place + 10 : place + 30] = b"2147483647".rjust(20)
        file.write_bytes(data)
        started = time.process_time()
        with pytest.raises(DataError, match="NAXIS is 2147483647"), frames.opened(str(file)):
            pass
        assert time.process_time() - started < 5.0


def test_a_fits_axis_of_negative_length_is_refused_at_once(tmp_path: Path) -> None:
    fits.PrimaryHDU(np.ones((2, 3, 4), ">f4")).writeto(tmp_path / "a.fits")
    data = (tmp_path / "a.fits").read_bytes()
    wrong = data.replace(b"NAXIS2  =                    3", b"NAXIS2  =                  -32")
    assert wrong != data
    (tmp_path / "a.fits").write_bytes(wrong)
    with (
        pytest.raises(DataError, match=r"a.fits .*negative"),
        frames.opened(str(tmp_path / "a.fits")),
    ):
        pass


def test_an_infinite_card_is_left_out_of_velocities() -> None:
    text = "SIMPLE  =                    T".ljust(80) + "BIG     =                1E999".ljust(80)
    images = fits.Header.fromstring(text)
    header, _ = fits_header.velocity_header(images, (1, 3, 4, 2))
    assert "BIG" not in header


def test_whole_fits_files_have_their_axes(tmp_path: Path) -> None:
    hdus = [fits.PrimaryHDU(), fits.CompImageHDU(np.ones((4, 6, 8), np.int16)), fits.ImageHDU()]
    for name in ("a.fits", "a.fits.gz"):
        fits.HDUList(hdus).writeto(tmp_path / name)
        fits_header.require_axes(str(tmp_path / name))


@pytest.mark.parametrize(
    "text", ["name: 2024-99-99", f"seed: {'9' * 5000}", f"x: {'[' * 3000}{']' * 3000}"]
)
def test_yaml_that_its_parser_fails_at(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(config.ConfigError, match="a.yaml is not valid YAML"):
        config.read_yaml(tmp_path / "a.yaml")


def test_aliases_of_aliases_are_quoted_briefly(tmp_path: Path) -> None:
    lines = ["l0: &l0 [x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
    (tmp_path / "a.yaml").write_text("\n".join([*lines, "seed: *l11"]))
    with pytest.raises(config.ConfigError, match="a.yaml") as told:
        config.load([str(tmp_path / "a.yaml")])
    assert len(str(told.value)) < 4000


def test_a_checkpoints_facts_are_a_mapping(tmp_path: Path) -> None:
    members = {checkpoint.META: np.frombuffer(b"[1]", np.uint8)}
    np.savez(tmp_path / "last.npz", **members)  # type: ignore[arg-type]
    with pytest.raises(checkpoint.CheckpointError, match="last.npz is damaged"):
        checkpoint.load(tmp_path / "last.npz")


def test_a_survey_of_no_points(tmp_path: Path) -> None:
    (tmp_path / "EU_2018_20200213.CSV").write_text("POINT_ID,TH_LAT,TH_LONG,OBS_TYPE,LC1\n")
    with pytest.raises(DataError, match="has no usable point: of 0"):
        lucas(tmp_path)


def test_parts_of_a_shapefile_are_files(tmp_path: Path) -> None:
    for suffix in (".shp", ".shx", ".prj"):
        (tmp_path / f"a{suffix}").write_bytes(bytes(100))
    (tmp_path / "a.dbf").mkdir()
    with pytest.raises(DataError, match=r"a.shp lacks .dbf \(attributes\)"):
        layer_names(tmp_path / "a.shp")


@pytest.mark.parametrize("link", [h5py.SoftLink("/intensity"), h5py.ExternalLink("gone.h5", "/x")])
def test_data_sets_are_no_broken_links(tmp_path: Path, link: object) -> None:
    _pairs(tmp_path)
    with h5py.File(tmp_path / "intensity.h5", "r+") as file:
        del file["intensity"]
        file["intensity"] = link
    with pytest.raises(DataError, match="intensity.h5"):
        Granulation(tmp_path)


def test_a_wrong_option_of_a_run_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model: {name: deepvel, options: {width: 1}}")
    with pytest.raises(config.ConfigError, match=r"config.yaml: model.options of 'deepvel'"):
        trained.task(tmp_path)


def test_a_link_to_itself_is_no_scene(tmp_path: Path) -> None:
    (tmp_path / "scene.tif").symlink_to("scene.tif")
    with pytest.raises(DataError, match="scene.tif does not exist"):
        open_sentinel2(tmp_path, ["B02"], harmonized=True)
