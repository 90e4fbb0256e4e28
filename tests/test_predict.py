"""The file of velocities is the network's answer to the whole image, where the image was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image

from dlbench import checkpoint, config, distributed, models, predict
from dlbench.runs import RunFolder

OUTPUTS = 6


@pytest.fixture(scope="module")
def network() -> Iterator[keras.Model]:
    """Of one block: it sees four pixels to each side."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(3)
    net = models.build("deepvel", (None, None, 2), OUTPUTS, blocks=1, filters=4)
    generator = np.random.default_rng(3)
    for variable in net.variables:  # biases and statistics that are neither zero nor one
        noise = generator.uniform(0.05, 0.3, variable.shape)
        variable.assign(np.asarray(variable) + noise)
    yield net
    keras.utils.clear_session()


@pytest.fixture(scope="module")
def run(network: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "müller")
    experiment = config.validate(
        {"model": {"name": "deepvel", "options": {"blocks": 1, "filters": 4}}}, "the test"
    )
    folder.write_text(folder.config, experiment.to_yaml())
    arrays = checkpoint.collect(checkpoint.variables_of(network))
    checkpoint.save(folder.checkpoint("best"), arrays, {})
    arrays = {name: 2 * array for name, array in arrays.items()}
    checkpoint.save(folder.checkpoint("last"), arrays, {})
    return folder.path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Threads are set before TensorFlow's first operation, which other tests did long ago.
    monkeypatch.setattr(distributed, "configure_devices", lambda threads: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scene(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(800, 1300, shape).astype(np.float32)


def whole(network: keras.Model, cube: np.ndarray) -> np.ndarray:
    """What the network makes of each pair, its frames divided by the median of all."""
    cube = cube / np.nanmedian(cube.astype(np.float64))
    pairs = np.stack([cube[:-1], cube[1:]], axis=-1).astype(np.float32)
    return network(pairs, training=False).numpy()


def close(found: np.ndarray, expected: np.ndarray) -> None:
    size = np.nanstd(expected)
    assert size > 0.01
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1.0, float(size)))


@pytest.mark.parametrize(("size", "border"), [((61, 47), 0), ((20, 70), 3), ((9, 8), 3)])
def test_tiles_give_what_the_whole_image_gives(
    run: Path, network: keras.Model, size: tuple[int, int], border: int
) -> None:
    cube = scene(3, *size) * np.linspace(1.0, 1.5, 3, dtype=np.float32)[:, None, None]
    fits.PrimaryHDU(cube).writeto("a.fits")
    arguments = [str(run), "a.fits", "tile=24", "overlap=4", "batch=3", f"border={border}"]
    assert predict.main(arguments) == 0
    height, width = size
    expected = whole(network, cube)[:, border : height - border, border : width - border]
    with fits.open("a_velocity.fits") as file:
        file.verify("exception")
        assert file[0].data.shape == (2, height - 2 * border, width - 2 * border, OUTPUTS)
        close(file[0].data, expected)
        header = file[0].header
    assert header["BUNIT"] == "km/s"
    assert header["DLRUN"].endswith("m?ller")
    assert header["COMP5"] == "vx tau=0.01"
    assert "checkpoint best" in str(header["HISTORY"]).replace("\n", "")


def test_seams_are_seen_and_told_with_too_little_overlap(
    run: Path, network: keras.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    cube = scene(2, 64, 64)
    fits.PrimaryHDU(cube).writeto("a.fits")
    assert predict.main([str(run), "a.fits", "tile=24", "overlap=2"]) == 0
    assert "overlap=2: the network sees 4 pixels, seams may show" in capsys.readouterr().err
    difference = np.abs(fits.getdata("a_velocity.fits") - whole(network, cube)).max()
    assert difference > 1e-3


def test_last_and_keras_files(run: Path, network: keras.Model) -> None:
    cube = scene(2, 20, 25)
    fits.PrimaryHDU(cube).writeto("a.fits")
    assert predict.main([str(run), "a.fits", "last.fits", "checkpoint=last"]) == 0
    network.save("saved.keras")
    assert predict.main(["saved.keras", "a.fits", "out/saved.fits"]) == 0
    close(fits.getdata("out/saved.fits"), whole(network, cube))
    assert np.abs(fits.getdata("last.fits") - whole(network, cube)).max() > 0.1


def test_bad_pixels_are_nan_and_spoil_no_others(
    run: Path, network: keras.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    cube = scene(3, 40, 30)
    cube[1, 10, 12] = np.nan
    cube[2, 11:14, 20] = np.inf
    fits.PrimaryHDU(cube).writeto("a.fits")
    assert predict.main([str(run), "a.fits"]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("4 values are not finite") == 1
    found = fits.getdata("a_velocity.fits")
    bad = np.zeros((2, 40, 30), bool)
    bad[:, 10, 12] = True
    bad[1, 11:14, 20] = True
    np.testing.assert_array_equal(np.isnan(found), np.broadcast_to(bad[..., None], found.shape))
    filled = np.where(np.isfinite(cube), cube, np.median(cube[np.isfinite(cube)]))
    close(found[~bad], whole(network, filled)[~bad])
    # What is printed is of the finite ones.
    line = next(x for x in captured.out.splitlines() if x.startswith("vy tau=0.1 "))
    values = found[..., 3][~bad].astype(float)
    expected = f"{values.mean():8.3f} {np.sqrt((values**2).mean()):8.3f}"
    assert line.endswith(expected)
    assert "3 frames of 40 x 30 pixels; pairs: 2, tiles a pair: 1; " in captured.out


def test_deepvel_pairs_keep_their_layout(run: Path, network: keras.Model) -> None:
    data = scene(3, 25, 18, 2)  # (pair, nx, ny, frame)
    with h5py.File("a.h5", "w") as file:
        file["intensity"] = data
    assert predict.main([str(run), "a.h5", "border=2"]) == 0
    found = fits.getdata("a_velocity.fits")
    normalized = (data / np.median(data)).swapaxes(1, 2)
    expected = network(normalized, training=False).numpy().swapaxes(1, 2)
    assert found.shape == (3, 21, 14, OUTPUTS)
    close(found, expected[:, 2:-2, 2:-2])


def test_the_real_frame(run: Path, network: keras.Model) -> None:
    folder = os.environ.get("DLBENCH_DATA")
    if folder is None:
        pytest.skip("DLBENCH_DATA is not set: it names the folder of real samples")
    path = Path(folder) / "solar" / "dkist_photosphere.fits"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    frame, header = fits.getdata(path, header=True)
    fits.PrimaryHDU(np.roll(frame, 1, axis=1), header).writeto("shifted.fits")
    arguments = ["tile=96", "overlap=8", "border=5", "picture=a.png", "v.fits"]
    assert predict.main([str(run), f"{path},shifted.fits", *arguments]) == 0
    with fits.open("v.fits") as file:
        found, after = file[0].data, file[0].header
    cube = np.stack([frame, np.roll(frame, 1, axis=1)]).astype(np.float32)
    close(found, whole(network, cube)[:, 5:-5, 5:-5])
    assert after["WAVELNTH"] == header["WAVELNTH"]
    for key in " A":
        expected = WCS(header, key=key).celestial.all_pix2world([5, 100], [5, 250], 0)
        world = WCS(after, key=key).celestial.all_pix2world([0, 95], [0, 245], 0)
        np.testing.assert_allclose(world, expected, rtol=1e-12)
    with Image.open("a.png") as picture:
        assert min(picture.size) > 300


def test_outputs_are_not_overwritten_unasked(
    run: Path, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    fits.PrimaryHDU(scene(2, 9, 9)).writeto("a.fits")
    (here / "a_velocity.fits").write_text("mine")
    assert predict.main([str(run), "a.fits"]) == 2
    assert "a_velocity.fits exists; give another name, or overwrite=true" in capsys.readouterr().err
    assert (here / "a_velocity.fits").read_text() == "mine"
    assert predict.main([str(run), "a.fits", "overwrite=true"]) == 0
    assert fits.getdata("a_velocity.fits").shape == (1, 9, 9, OUTPUTS)
    before = sorted(here.iterdir())
    (here / "file").touch()
    assert predict.main([str(run), "a.fits", "file/v.fits"]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert sorted(here.iterdir()) == [*before, here / "file"]


def test_pixels_and_cadence_unlike_the_trained_ones_are_told(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hdu = fits.PrimaryHDU(scene(2, 9, 9))
    hdu.header.update({"CTYPE1": "HPLN-TAN", "CTYPE2": "HPLT-TAN", "CUNIT1": "arcsec"})
    hdu.header.update({"CUNIT2": "arcsec", "CDELT1": 0.1, "CDELT2": 0.1, "CADENCE": 29.5})
    hdu.writeto("a.fits")
    assert predict.main([str(run), "a.fits"]) == 0
    error = capsys.readouterr().err
    assert "pixels of 72.5 km; DeepVel is for 39.6 km" in error
    assert "cadence" not in error


def files(folder: Path, run: Path) -> None:
    """What the wrong commands name."""
    fits.PrimaryHDU(scene(2, 9, 9)).writeto(folder / "a.fits")
    (folder / "broken.keras").write_bytes(b"PK")
    three = models.build("deepvel", (None, None, 3), 2, blocks=0, filters=1)
    three.save(folder / "three.keras")
    for name, content in (
        ("segnet", {"model": {"name": "segnet"}}),
        ("half", None),
        ("none", None),
    ):
        other = RunFolder(folder / name)
        text = (run / "config.yaml").read_text()
        text = config.validate(content, name).to_yaml() if content else text
        other.write_text(other.config, text)
    best = RunFolder(folder / "half").checkpoint("best")
    best.parent.mkdir()
    best.write_bytes((run / "checkpoints" / "best.npz").read_bytes()[:2000])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: python -m dlbench.predict RUN INPUT"),
        (["RUN"], "usage: python -m dlbench.predict RUN INPUT"),
        (["RUN", "a.fits", "b.fits", "c.fits"], "usage: python"),
        (["RUN", "a.fits", "colour=red"], "unknown option colour; usage:"),
        (["RUN", "a.fits", "checkpoint=worst"], "checkpoint=worst: allowed are best and last"),
        (["RUN", "a.fits", "tile=big"], "tile=big: allowed are whole numbers from 1"),
        (["RUN", "a.fits", "border=-1"], "border=-1: allowed are whole numbers from 0"),
        (["RUN", "a.fits", "border=5"], "9 x 9 pixels; allowed are 0 to 4"),
        (["RUN", "a.fits", "tile=90"], "tile=90 leaves nothing between overlaps of 48"),
        (["RUN", "a.fits", "b.png"], "b.png does not end in .fits"),
        (["RUN", "a.fits", "picture=b.jpg"], "b.jpg does not end in .png"),
        (["RUN", "gone.fits"], "there is no file gone.fits"),
        (["RUN", "a.fits", "key=X"], "a.fits has no image HDU 'X'; it has: 0 PRIMARY (2, 9, 9)"),
        (["elsewhere", "a.fits"], "elsewhere is not a run folder"),
        (["none", "a.fits"], "there is no checkpoint none/checkpoints/best.npz"),
        (["half", "a.fits"], "half/checkpoints/best.npz is damaged"),
        (["segnet", "a.fits"], "there is no checkpoint segnet/checkpoints/best.npz"),
        (["gone.keras", "a.fits"], "there is no file gone.keras"),
        (["broken.keras", "a.fits"], "broken.keras cannot be loaded"),
        (["three.keras", "a.fits"], "three.keras maps (None, None, None, 3)"),
        (["three.keras", "a.fits", "checkpoint=best"], "checkpoint=best is for run folders"),
    ],
)
def test_wrong_commands_are_told(
    arguments: list[str],
    message: str,
    run: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files(here, run)
    before = sorted(here.iterdir())
    assert predict.main([str(run) if a == "RUN" else a for a in arguments]) == 2
    error = capsys.readouterr().err
    assert "dlbench.predict (rank 0): " in error
    assert message in error
    assert sorted(here.iterdir()) == before


def test_the_command_in_a_process_of_its_own(
    run: Path, network: keras.Model, here: Path, launch: Callable[..., Any]
) -> None:
    cube = scene(2, 30, 20)
    fits.PrimaryHDU(cube).writeto("a.fits")
    ended = launch(["-m", "dlbench.predict", str(run), "a.fits"], here)
    assert ended.status == 0, ended.output
    close(fits.getdata("a_velocity.fits"), whole(network, cube))
    # Errors come without TensorFlow.
    code = (
        "import sys; from dlbench import predict; predict.main(['a', 'a.fits', 'b.fits']); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    ended = launch(["-c", code], here)
    assert (ended.status, "not a run folder" in ended.output) == (0, True), ended.output


def test_an_axis_that_is_none_is_named(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(here / "odd")
    shutil.copytree(run, folder.path)
    experiment = folder.experiment()
    experiment.data.options = {"x_axis": ["both"]}
    folder.write_text(folder.config, experiment.to_yaml())
    assert predict.main(["odd", "a.fits"]) == 2
    assert "odd/config.yaml: data.options.x_axis is ['both']" in capsys.readouterr().err
