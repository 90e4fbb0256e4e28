"""Sequences come out of files as they went in, and what is no sequence is told."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.io import fits

from dlbench import frames
from dlbench.data import DataError

CUBE = np.random.default_rng(0).uniform(0.5, 1.5, (3, 7, 10)).astype(np.float32)


def whole(source: str | Path, key: str | None = None) -> np.ndarray:
    with frames.opened(str(source), key) as images:
        assert len(images.reads) == len(images.pairs) + 1
        stack = np.stack([images.read(i) for i in range(len(images.reads))])
        assert stack.dtype == np.float32
        assert stack.shape[1:] == images.shape
        for pair, first, second in zip(images.read_pairs(), stack, stack[1:], strict=False):
            np.testing.assert_array_equal(pair, np.stack([first, second], axis=-1))
        return stack


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint16", "int32", "uint8"])
@pytest.mark.parametrize("form", ["a.fits", "a.fits.gz", "tiles", "a.h5"])
def test_every_type_and_form(tmp_path: Path, dtype: str, form: str) -> None:
    data = (100 * CUBE).astype(dtype)
    path = tmp_path / ("a.fits" if form == "tiles" else form)
    if form == "a.h5":
        with h5py.File(path, "w") as file:
            file["a/deep/one"] = data
            file["time"] = np.arange(3)
    elif form == "tiles":
        method = "GZIP_1" if dtype.startswith("float") else "RICE_1"
        options = {"quantize_level": 0} if dtype.startswith("float") else {}
        hdu = fits.CompImageHDU(data, compression_type=method, **options)
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    else:
        fits.PrimaryHDU(data).writeto(path)
    np.testing.assert_array_equal(whole(path), data.astype(np.float32))


def test_scaled_integers_with_blanks(tmp_path: Path) -> None:
    hdu = fits.PrimaryHDU((100 * CUBE).astype(np.int16))
    hdu.header.update({"BSCALE": 0.5, "BZERO": 3.0, "BLANK": int(hdu.data[1, 2, 3])})
    raw = hdu.data.copy()
    hdu.writeto(tmp_path / "a.fits", output_verify="ignore")
    with fits.open(tmp_path / "a.fits", mode="update", do_not_scale_image_data=True) as file:
        file[0].data[...] = raw
    expected = np.where(raw == raw[1, 2, 3], np.nan, 0.5 * raw + 3.0)
    np.testing.assert_array_equal(whole(tmp_path / "a.fits"), expected.astype(np.float32))


def test_single_frames_in_hdus_and_files(tmp_path: Path) -> None:
    hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(frame) for frame in CUBE)]
    fits.HDUList(hdus).writeto(tmp_path / "hdus.fits")
    np.testing.assert_array_equal(whole(tmp_path / "hdus.fits"), CUBE)
    paths = [str(tmp_path / f"{i}.fits") for i in range(3)]
    for number, (path, frame) in enumerate(zip(paths, CUBE, strict=True)):
        # A frame may be a sequence of one.
        fits.PrimaryHDU(frame[None] if number == 1 else frame).writeto(path)
    np.testing.assert_array_equal(whole(",".join(paths)), CUBE)


def test_the_intensity_of_deepvel_has_x_first_and_pairs_of_its_own(tmp_path: Path) -> None:
    data = np.random.default_rng(1).random((4, 10, 7, 2)).astype(np.float32)  # (N, nx, ny, 2)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["intensity"] = data
        file["intensity"].attrs.update({"pixel_km": 39.6, "cadence_s": "half a minute"})
        file["velocity"] = np.zeros((4, 10, 7, 6), np.float32)
    with frames.opened(str(tmp_path / "a.h5")) as images:
        assert images.shape == (7, 10)
        assert images.x_first
        assert (images.pixel_km, images.cadence_s) == (39.6, None)
        pairs = list(images.read_pairs())
    assert len(pairs) == 4
    for pair, expected in zip(pairs, data, strict=True):
        np.testing.assert_array_equal(pair, expected.transpose(1, 0, 2))
    with frames.opened(str(tmp_path / "a.h5"), x_axis=1) as images:
        assert (images.shape, images.x_first) == ((10, 7), False)
        np.testing.assert_array_equal(list(images.read_pairs()), data)


def test_a_key_chooses(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["one"], file["two"], file["flat"] = CUBE, CUBE + 1, CUBE[0]
    np.testing.assert_array_equal(whole(tmp_path / "a.h5", "two"), CUBE + 1)
    with pytest.raises(DataError, match=r"2 data sets .* key=NAME; .* one \(3, 7, 10\) float32"):
        whole(tmp_path / "a.h5")
    with pytest.raises(DataError, match="'three' is not there; .*; it holds: flat"):
        whole(tmp_path / "a.h5", "three")
    with pytest.raises(DataError, match="'flat' cannot be used; needed are numbers"):
        whole(tmp_path / "a.h5", "flat")
    hdus = [fits.PrimaryHDU(), *(fits.ImageHDU(CUBE + i, name=n) for i, n in enumerate("AB"))]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    for key in ("b", "2"):
        np.testing.assert_array_equal(whole(tmp_path / "a.fits", key), CUBE + 1)
    with pytest.raises(DataError, match=r"2 sequences: 1 A \(3, 7, 10\); 2 B"):
        whole(tmp_path / "a.fits")
    with pytest.raises(DataError, match="no image HDU 'C'; it has: 1 A"):
        whole(tmp_path / "a.fits", "C")


def damaged(folder: Path) -> Iterator[tuple[str, str]]:
    """(source, part of the message)."""
    fits.PrimaryHDU(np.tile(CUBE, (1, 20, 1))).writeto(folder / "whole.fits")
    content = (folder / "whole.fits").read_bytes()
    packed = gzip.compress(content)
    hdu = fits.CompImageHDU(np.tile(CUBE, (1, 20, 1)))
    hdu.writeto(folder / "tiles.fits")
    with h5py.File(folder / "whole.h5", "w") as file:
        file["x"] = np.tile(CUBE, (1, 20, 1))
        file["words"] = "abc"
    for name, some in (
        ("data.fits", content[:9000]),
        ("header.fits", content[:1000]),
        ("empty.fits", b""),
        ("other.fits", b"hello" * 1000),
        ("short.fits.gz", packed[: len(packed) // 2]),
        ("short_tiles.fits", (folder / "tiles.fits").read_bytes()[:9000]),
        ("short.h5", (folder / "whole.h5").read_bytes()[:3000]),
    ):
        (folder / name).write_bytes(some)
        yield name, r"cannot be read .* copy it again"
    fits.PrimaryHDU(CUBE[0]).writeto(folder / "flat.fits")
    yield "flat.fits", "flat.fits holds one frame; .* two or more"
    fits.PrimaryHDU(CUBE[:1]).writeto(folder / "one.fits")
    yield "one.fits", "holds one frame"
    with h5py.File(folder / "one.h5", "w") as file:
        file["x"] = CUBE[:1]
    yield "one.h5", r"one.h5 \(x\) holds one frame"
    fits.PrimaryHDU(CUBE[None]).writeto(folder / "four.fits")
    yield "four.fits", r"no sequence of images; its image HDUs: 0 PRIMARY \(1, 3, 7, 10\)"
    fits.PrimaryHDU().writeto(folder / "none.fits")
    yield "none.fits", "its image HDUs: none"
    fits.PrimaryHDU(CUBE[0, :3]).writeto(folder / "small.fits")
    yield "flat.fits,small.fits", "small.fits has 3 x 10 pixels, .*flat.fits 7 x 10 pixels"
    yield "flat.fits,whole.fits", "whole.fits holds 3 frames; of several files each holds one"
    yield "flat.fits,gone.fits", "there is no file .*gone.fits"
    with h5py.File(folder / "words.h5", "w") as file:
        file["words"] = "abc"
    yield "words.h5", "0 data sets"


def test_what_is_no_sequence_is_told(tmp_path: Path) -> None:
    for names, message in damaged(tmp_path):
        source = ",".join(str(tmp_path / name) for name in names.split(","))
        with pytest.raises(DataError, match=message):
            whole(source)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1000, 1001])
def test_the_median_is_exact(count: int) -> None:
    generator = np.random.default_rng(count)
    values = generator.standard_normal(count) * 10.0 ** generator.integers(-30, 30, count)
    values = np.concatenate([values, values[: count // 3], np.zeros(count // 5)])
    values = generator.permutation(values).astype(np.float32)
    noted = np.append(values, np.array([np.nan, np.inf, -np.inf], np.float32))
    found = frames.streamed_median(lambda: iter([noted[:2], noted[2:2], noted[2:]]))
    assert found == (np.median(values.astype(np.float64)), len(values))


def test_what_has_no_median_is_told() -> None:
    for fill, message in ((np.nan, "its 0 finite values is nan"), (-1.0, "42 finite values is -1")):
        frame = np.full((3, 7), fill)
        images = frames.Frames("a.fits", [lambda f=frame: f] * 2, (3, 7), [(0, 1)])  # type: ignore[misc]
        with pytest.raises(DataError, match=f"a.fits: the median of .*{message}"):
            images.median()


def test_velocities_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "v.fits"
    header = fits.Header([("SIMPLE", True), ("BITPIX", -32), ("NAXIS", 4)])
    for axis, length in enumerate((6, 5, 4, 3), start=1):
        header[f"NAXIS{axis}"] = length
    planes = np.random.default_rng(0).standard_normal((3, 4, 5, 6)).astype(np.float32)
    frames.write_velocity(path, header, planes)
    assert path.stat().st_size % 2880 == 0
    with fits.open(path) as file:
        file.verify("exception")
        np.testing.assert_array_equal(file[0].data, planes)

    def broken() -> Iterator[np.ndarray]:
        yield planes[0]
        raise KeyboardInterrupt

    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        frames.write_velocity(path, header, broken())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["v.fits"]
