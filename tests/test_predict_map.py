"""A map is the network's answer for each pixel, on the pixels of the scene, whole or not there."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from dlbench import checkpoint, config, distributed, models, predict, predict_map
from dlbench.data.dataset import ClassInfo
from dlbench.data.facts import Facts
from dlbench.data.miniatures import land_cover
from dlbench.data.miniatures.sentinel2 import DATES, product_name
from dlbench.runs import RunFolder

CLASSES = (ClassInfo("water", (0, 0, 255), 4), ClassInfo("wood", (0, 99, 0), 7),
           ClassInfo("town", (200, 0, 0), 9))  # fmt: skip
GRID = Affine(10, 0.5, 500_000, -0.5, -10, 5_000_000)
NORTH_UP = Affine(10, 0, 500_000, 0, -10, 5_000_000)
KERNEL = np.array([[3.02, -1.01, 0.47], [-1.97, 2.03, 0.0]], np.float32)
BIAS = np.array([0.0, -0.5031, 0.2017], np.float32)


def facts(**changes: Any) -> Facts:
    known = {
        "name": "valley", "task": "segmentation", "bands": ("B4", "B8"), "dtype": "uint8",
        "value_range": (0, 255), "units": "digital number", "classes": CLASSES,
        "outputs": [c.name for c in CLASSES], "ground_sampling_distance": 10.0, "cadence_s": None,
        "licence": "CC0", "source": "here",
    }  # fmt: skip
    return Facts.model_validate(known | changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of SegNet-Basic, Bayesian, with six filters; its model.keras sees one pixel alone."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "valley")
    options: dict[str, Any] = {"width": 0.1}
    content = {"model": {"name": "segnet_basic_bayesian", "options": options}}
    experiment = config.validate({**content, "monte_carlo_samples": 2}, "the test")
    folder.write_text(folder.config, experiment.to_yaml())
    folder.write_json(folder.dataset, facts().model_dump(mode="json"))
    keras.utils.clear_session()
    keras.utils.set_random_seed(1)
    network = models.build("segnet_basic_bayesian", (None, None, 2), 3, **options)
    checkpoint.save(
        folder.checkpoint("best"), checkpoint.collect(checkpoint.variables_of(network)), {}
    )
    image = keras.Input((None, None, 2))
    scores = keras.layers.Conv2D(3, 1)(keras.layers.Rescaling(1 / 50, -1.0)(image))
    pixelwise = keras.Model(image, scores, name="segnet_basic")
    pixelwise.layers[-1].set_weights([KERNEL[None, None], BIAS])
    pixelwise.save(folder.model)
    yield folder.path
    keras.utils.clear_session()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Threads are set before TensorFlow's first operation, which other tests did long ago.
    monkeypatch.setattr(distributed, "configure_devices", lambda threads: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str, values: np.ndarray, **profile: Any) -> np.ndarray:
    """A GeoTIFF of values (height, width, bands)."""
    height, width, count = values.shape
    grid = {"crs": "EPSG:32633", "transform": GRID, "dtype": values.dtype}
    names = profile.pop("names", ("B4", "B8"))
    with rasterio.open(path, "w", "GTiff", width, height, count, **(grid | profile)) as file:
        file.write(np.moveaxis(values, -1, 0))
        for band, name in enumerate(names, start=1):
            file.set_band_description(band, name)
    return values


def scene(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 101, (height, width, 2), np.uint8)


def probability(values: np.ndarray) -> np.ndarray:
    """What `pixelwise` gives, in NumPy."""
    scores = np.exp((values / 50.0 - 1.0) @ KERNEL + BIAS)
    return scores / scores.sum(axis=-1, keepdims=True)


def test_each_pixel_has_its_class_on_the_scenes_grid(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = write("a.tif", scene(600, 700))
    arguments = ["tile=256", "overlap=32", "probabilities=out/p.tif", "a.tif", "out/map.tif"]
    assert predict.main([str(run / "model.keras"), *arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    expected = probability(values)
    ranks = np.sort(expected, axis=-1)
    clear = ranks[..., 2] - ranks[..., 1] > 1e-4
    with rasterio.open("out/map.tif") as file, rasterio.open("a.tif") as source:
        found = file.read(1)
        assert (file.crs, file.transform, file.shape) == (source.crs, GRID, source.shape)
        assert (file.count, file.dtypes, file.nodata) == (1, ("uint8",), 255)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.profile["tiled"] and file.profile["compress"] == "deflate"
        assert file.overviews(1) == [2]
        assert file.colormap(1)[1] == (0, 99, 0, 255)
        assert file.colormap(1)[255] == (0, 0, 0, 0)
        assert file.tags(1)["CLASS_2"] == "town"
        assert file.tags()["DLBENCH_TRAINED_ON"] == "valley; CC0"
    with rasterio.open("out/map.tif", overview_level=0) as file:
        assert set(np.unique(file.read(1))) <= {0, 1, 2}
    np.testing.assert_array_equal(found[clear], expected.argmax(axis=-1)[clear])
    for index, one in enumerate(CLASSES):
        line = next(x for x in captured.out.splitlines() if x.startswith(one.name))
        assert f"{(found == index).sum():,} pixels" in line
    with rasterio.open("out/p.tif") as file:
        assert file.descriptions == ("water", "wood", "town")
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        stored = np.moveaxis(file.read(), 0, -1) * np.array(file.scales)
    np.testing.assert_allclose(stored, expected, atol=0.00201)
    assert sorted(os.listdir("out")) == ["map.tif", "p.tif"]


def test_a_picture_of_the_middle(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = write("a.tif", scene(200, 900))
    network = str(run / "model.keras")
    assert predict.main([network, "a.tif", "m.tif", "picture=out/m.png"]) == 0
    assert "wrote out/m.png" in capsys.readouterr().out
    shown = np.asarray(Image.open("out/m.png").convert("RGB"))
    expected = probability(values).argmax(axis=-1)[:, 194:706]
    for index, one in enumerate(CLASSES):
        # As much of the picture's half as of the map's middle, legend and antialiasing aside.
        there = (shown == one.color).all(axis=-1)[:, shown.shape[1] // 2 :].mean()
        share = (expected == index).mean()
        assert 0.5 * share < there / (shown != 255).any(axis=-1).mean() < 1.2 * share
    assert predict.main([network, "a.tif", "a.tif", "maps", "picture=b.png"]) == 2
    assert "picture=b.png is drawn of one map" in capsys.readouterr().err
    assert predict.main([network, "a.tif", "b.tif", "picture=b.tif"]) == 2
    assert "b.tif does not end in .png" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["nodata", "nan", "mask"])
def test_what_is_missing_has_no_class_and_spoils_no_other(run: Path, kind: str) -> None:
    values = scene(150, 190).astype(np.float32 if kind == "nan" else np.uint8)
    holes = np.zeros((150, 190), bool)
    holes[:100, :80] = holes[130, 150:] = True
    profile: dict[str, Any] = {}
    if kind == "mask":
        values = np.concatenate([values, np.where(holes, 0, 255)[..., None]], axis=-1)
        profile = {"photometric": "RGB", "alpha": "unspecified"}
    else:
        values[holes, 1] = np.nan if kind == "nan" else 200
        profile = {"nodata": None if kind == "nan" else 200}
    write("a.tif", values.astype(np.float32 if kind == "nan" else np.uint8), **profile)
    if kind == "mask":
        with rasterio.open("a.tif", "r+") as file:
            colours = rasterio.enums.ColorInterp
            file.colorinterp = [colours.gray, colours.undefined, colours.alpha]
    arguments = ["a.tif", "m.tif", "tile=64", "overlap=8", "probabilities=p.tif"]
    assert predict.main([str(run / "model.keras"), *arguments]) == 0
    with rasterio.open("m.tif") as file, rasterio.open("p.tif") as likely:
        found = file.read(1)
        np.testing.assert_array_equal((likely.read() == 255).all(axis=0), holes)
    np.testing.assert_array_equal(found == 255, holes)
    expected = probability(values[..., :2].astype(np.float32)).argmax(axis=-1)
    assert (found == expected)[~holes].mean() > 0.999


def test_a_run_folder_with_uncertainty_and_chosen_bands(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = scene(90, 70)
    three = np.concatenate([values[..., 1:], values[..., :1] // 2, values[..., :1]], axis=-1)
    write("a.tif", three, names=("B8", "B1", "B4"))
    write("b.tif", values, names=())
    assert predict.main([str(run), "a.tif", "a", "bands=B4,B8", "uncertainty=a"]) == 0
    assert predict.main([str(run), "a.tif", "b", "bands=3,1"]) == 0
    assert capsys.readouterr().err == ""
    assert predict.main([str(run), "a.tif", "b.tif", "c"]) == 2
    assert "a.tif: 3 bands (1 B8, 2 B1, 3 B4), but the network takes 2 (B4, B8)" in (
        error := capsys.readouterr().err
    )
    assert "bands=B4,B8" in error
    assert predict.main([str(run), "b.tif", "b.tif", "c"]) == 2
    assert "two maps would be written to c/b_classes.tif" in capsys.readouterr().err
    maps = []
    for path in ("a/a_classes.tif", "b/a_classes.tif"):
        with rasterio.open(path) as file:
            maps.append(file.read(1))
    np.testing.assert_array_equal(*maps)
    with rasterio.open("a/a_uncertainty.tif") as file:
        variance = file.read(1)
    assert variance.dtype == np.float32 and variance.min() >= 0 and 1e-6 < variance.mean() < 0.5


def test_draws_are_those_of_a_tiles_place(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Bayesian map does not depend on strips of columns, batches, or what lies beside it."""
    values = write("a.tif", scene(150, 300))
    values[:, 100:] = 200
    write("part.tif", values, nodata=200)
    common = [str(run), "tile=64", "overlap=8"]

    def maps(scene: str, *options: str) -> tuple[np.ndarray, np.ndarray]:
        files = ["m.tif", "uncertainty=u.tif", "probabilities=p.tif", "overwrite=true"]
        assert predict.main([*common, scene, *files, *options]) == 0
        with rasterio.open("p.tif") as likely, rasterio.open("u.tif") as uncertain:
            return likely.read(), uncertain.read()

    expected = maps("a.tif")
    batches = maps("a.tif", "batch=3")
    monkeypatch.setattr(predict_map, "MEMORY", 2**17)
    for found in (batches, maps("a.tif"), maps("a.tif", "batch=1")):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)
    part = maps("part.tif")[1][0, :, :20]  # only tiles of columns that both have
    np.testing.assert_array_equal(part, expected[1][0, :, :20])


def test_unlike_the_training_is_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = scene(40, 40).astype(np.uint16)
    write("a.tif", values, names=("B8", "B4"), transform=Affine.scale(30, -30))
    write("b.tif", values, names=(), crs=None)
    assert predict.main([str(run / "model.keras"), "a.tif", "b.tif", "maps"]) == 0
    error = capsys.readouterr().err
    assert "a.tif: bands B8, B4; the network was trained on B4, B8" in error
    assert "values of uint16; the network was trained on uint8 (digital number, 0 to 255)" in error
    assert "a.tif: pixels of 30 m; the network was trained on 10 m" in error
    assert "b.tif has no CRS" in error
    with rasterio.open("maps/b_classes.tif") as file:
        assert (file.crs, file.transform) == (None, GRID)
    older = Path("older.keras")
    older.write_bytes((run / "model.keras").read_bytes())
    assert predict.main([str(older), "b.tif", "grey.tif"]) == 0
    assert "older.keras has no dataset.json" in capsys.readouterr().err
    with rasterio.open("grey.tif") as file:
        assert file.tags(1)["CLASS_1"] == "class 1"
        assert [file.colormap(1)[i][:3] for i in range(3)] == [(40,) * 3, (135,) * 3, (230,) * 3]


def test_memory_does_not_grow_with_the_raster(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = {"width": 5_000, "height": 4_000, "count": 2, "dtype": "uint8", "nodata": 0}
    profile |= {"tiled": True, "compress": "deflate", "sparse_ok": True, "transform": GRID}
    corner = scene(64, 64) + 1
    with rasterio.open("a.tif", "w", "GTiff", **profile) as file:
        window = rasterio.windows.Window(4_936, 3_936, 64, 64)
        file.write(np.moveaxis(corner, -1, 0), window=window)
    monkeypatch.setattr(predict_map, "MEMORY", 2**22)
    write("b.tif", corner)
    assert predict.main([str(run / "model.keras"), "b.tif", "warm.tif"]) == 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with rasterio.Env(GDAL_CACHEMAX=32):
        assert predict.main([str(run / "model.keras"), "a.tif", "m.tif", "batch=1"]) == 0
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 150e6  # the sums of all pixels would be 400 MB
    with rasterio.open("m.tif") as file:
        found = file.read(1, window=window)
        assert file.read(1, window=rasterio.windows.Window(0, 3_000, 4_936, 500)).min() == 255
    assert (found == probability(corner).argmax(axis=-1)).mean() > 0.999


def test_what_ends_early_leaves_nothing(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("a.tif", scene(300, 300), blockysize=8)
    write("cut.tif", np.zeros((300, 300, 2), np.uint8), sparse_ok=True)  # the header comes first
    with rasterio.open("cut.tif", "r+") as file:
        file.write(np.moveaxis(scene(300, 300), -1, 0))
    whole = Path("cut.tif").read_bytes()
    Path("cut.tif").write_bytes(whole[: len(whole) // 2])
    Path("map.tif").write_text("mine")
    before = sorted(here.iterdir())
    network, size = str(run / "model.keras"), ["tile=64", "overlap=8"]
    assert predict.main([network, "cut.tif", "out.tif", *size]) == 2
    assert "cannot read cut.tif" in capsys.readouterr().err
    assert sorted(here.iterdir()) == before

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(predict_map.ClassMap, "write", interrupted)
    assert predict.main([network, "a.tif", "map.tif", "overwrite=true", *size]) == 130
    assert capsys.readouterr().err.endswith("interrupted\n")
    assert sorted(here.iterdir()) == before
    assert Path("map.tif").read_text() == "mine"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_is_told_to_end_leaves_nothing(
    number: signal.Signals, run: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a batch system, or as its terminal is closed."""
    write("a.tif", scene(300, 300))
    before = sorted(here.iterdir())
    monkeypatch.setattr(predict_map.ClassMap, "write", lambda *_: signal.raise_signal(number))

    def unheard(*_: object) -> None:
        pytest.fail("nobody has heard it")

    before_all = signal.signal(number, unheard)  # pytest may run under nohup, which ignores SIGHUP
    try:
        with pytest.raises(SystemExit) as ended:
            predict.main([str(run / "model.keras"), "a.tif", "map.tif"])
        assert signal.getsignal(number) == unheard
    finally:
        signal.signal(number, before_all)
    assert ended.value.code == 128 + number
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.tif", "m.tif", "border=3"], "unknown option border; usage: python -m dlbench.predict"),
        (["a.tif", "m.tif", "tile=100"], "tile=100 must be a multiple of 16"),
        (["a.tif", "m.tif", "samples=0"], "samples=0: allowed are whole numbers from 1"),
        (["a.tif", "m.png"], "m.png does not end in .tif or .tiff"),
        (["a.tif", "text.tif"], "text.tif exists; give another name"),
        (
            ["a.tif", "a.tif", "overwrite=true"],
            "a.tif comes last, where maps go, but it is imagery",
        ),
        (
            ["a.tif", "probabilities=a.tif", "overwrite=true"],
            "a.tif is read, so it cannot be written",
        ),
        (
            ["photo.png", "m.tif", "picture=photo.png", "overwrite=true"],
            "photo.png is read, so it cannot be written",
        ),
        (
            ["a-mixer.json", "a.tfrecord.gz", "overwrite=true"],
            "a-mixer.json is read, so it cannot be written",
        ),
        (["a.tif", "b.tif", "m.tif"], "2 scenes cannot go into one file, m.tif; give a folder"),
        (["gone.tif", "m.tif"], "gone.tif does not exist"),
        (["text.tif", "m.tif"], "text.tif is no readable raster"),
        (["a.tif", "m.tif", "bands=1"], "a.tif: 1 bands (1 B4), but the network takes 2 (B4, B8)"),
        (["a.tif", "m.tif", "bands=B4,B9"], "no band 'B9'; its bands: 1 B4, 2 B8"),
        (["complex.tif", "m.tif"], "complex.tif has values of complex64"),
        (["a.tif", "m.tif", "checkpoint=last"], "there is no checkpoint"),
    ],
)
def test_wrong_commands_are_told(
    arguments: list[str],
    message: str,
    run: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write("a.tif", scene(9, 9))
    write("complex.tif", scene(9, 9).astype(np.complex64))
    for name in ("text.tif", "photo.png", "a-mixer.json"):
        Path(name).write_text("text")
    before = sorted(here.iterdir())
    assert predict.main([str(run), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert sorted(here.iterdir()) == before


def test_imagery_in_the_place_of_maps_is_neither_passed_over_nor_written_over(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A list of scenes without a folder at its end, such as imagery/*.SAFE."""
    network = str(run / "model.keras")
    product = product_name(DATES[0])
    for folder, name in (
        (f"old/{product}", "MTD_MSIL1C.xml"), (f"products/{product}", "MTD_MSIL1C.xml"),
        ("LC08", "LC08_L2SP_007056_20150310_20200909_02_T1_SR_B2.TIF"), ("tile", "T33_B02.jp2"),
        ("patches", "a-00000.tfrecord.gz"), ("zips", "S2A_MSIL1C_20220421.zip"),
        ("other", "notes.zip"),
    ):  # fmt: skip
        Path(folder).mkdir(parents=True)
        (Path(folder) / name).touch()
    for name in ("a.tif", "b.tif", "exports/c.tif"):
        Path(name).parent.mkdir(exist_ok=True)
        write(name, scene(20, 20), transform=NORTH_UP)
    Path("b.zip").touch()
    before = sorted(here.rglob("*")), Path("b.tif").read_bytes()
    for last in (f"old/{product}", "products", "LC08", "tile", "patches", "zips", "exports",
                 "b.tif", "exports/c.tif", "b.zip", "patches/a-00000.tfrecord.gz"):  # fmt: skip
        for overwrite in ([], ["overwrite=true"]):
            assert predict.main([network, "a.tif", last, *overwrite]) == 2
            assert f"{last} comes last, where maps go, but it is imagery" in capsys.readouterr().err
    assert (sorted(here.rglob("*")), Path("b.tif").read_bytes()) == before
    # Maps may be replaced, and lie beside what they are of, or beside other things.
    for places in (["a.tif", "m.tif"], ["b.tif", "m.tif"], ["b.tif", "other"], ["a.tif", "."],
                   ["b.tif", "other"], ["exports/c.tif", "exports"]):  # fmt: skip
        assert predict.main([network, *places, "overwrite=true", "probabilities=p"]) == 0
    assert sorted(os.listdir("exports")) == ["c.tif", "c_classes.tif"]
    assert sorted(os.listdir("other")) == ["b_classes.tif", "notes.zip"]


def test_uncertainty_is_of_bayesian_networks(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write("a.tif", scene(9, 9))
    assert predict.main([str(run / "model.keras"), "a.tif", "m.tif", "uncertainty=u.tif"]) == 2
    assert "is no Bayesian network" in capsys.readouterr().err


def test_facts_of_another_run_are_refused(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write("a.tif", scene(9, 9))
    (here / "model.keras").write_bytes((run / "model.keras").read_bytes())
    folder = RunFolder(here)
    folder.write_json(folder.dataset, facts(classes=CLASSES[:2]).model_dump(mode="json"))
    assert predict.main(["model.keras", "a.tif", "m.tif"]) == 2
    assert "tells of 2 bands and 2 classes, but model.keras has 2 and 3" in capsys.readouterr().err
    folder.dataset.write_text("{}")
    assert predict.main(["model.keras", "a.tif", "m.tif"]) == 2
    assert "dataset.json is damaged (name: Field required)" in capsys.readouterr().err


def test_a_network_beside_its_run_reads_as_in_training(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Clouds that training has kept have classes, whether the run or its .keras file is named."""
    scenes = land_cover.make(here / "land_cover", size=60) / "imagery"
    scene = str(sorted(scenes.iterdir())[0])
    folder = RunFolder(here / "run")
    options = {"mask_clouds": False}
    model = {"name": "segnet_basic_bayesian", "options": {"width": 0.1}}
    experiment = config.validate(
        {"model": model, "data": {"name": "land_cover", "size": [12, 12], "options": options}},
        "the test",
    )
    folder.write_text(folder.config, experiment.to_yaml())
    told = facts(bands=("B04", "B08"), dtype="uint16", read_as="sentinel2")
    folder.write_json(folder.dataset, told.model_dump(mode="json"))
    folder.checkpoint("best").parent.mkdir()
    shutil.copy(RunFolder(run).checkpoint("best"), folder.checkpoint("best"))
    shutil.copy(RunFolder(run).model, folder.model)
    for network, name in ((folder.path, "a.tif"), (folder.model, "b.tif")):
        assert predict.main([str(network), scene, name]) == 0
        with rasterio.open(name) as file:
            assert file.read(1).max() < 255
    told_of_both = capsys.readouterr().err
    assert "config.yaml" not in told_of_both
    assert (
        told_of_both.count("tiles of 60 pixels: the network was trained on images of 12 x 12") == 2
    )
    assert "try tile=16 overlap=0, or tile=32 overlap=8" in told_of_both
    # Four times the side, as the default tile is of the default size of images, is not far.
    assert predict.main([str(folder.model), scene, "d.tif", "tile=48", "overlap=0"]) == 0
    assert "tiles of" not in capsys.readouterr().err
    folder.config.unlink()
    assert predict.main([str(folder.model), scene, "c.tif"]) == 0
    assert "model.keras has no config.yaml beside it" in capsys.readouterr().err
    with rasterio.open("c.tif") as file:
        assert file.read(1).max() == 255


def test_whether_1000_was_added_is_told_of_each_file_anew(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What held for the files of training says nothing of others."""
    folder = RunFolder(here / "run")
    options = {"harmonized": True, "bands": ["B04", "B08"]}
    model = {"name": "segnet_basic_bayesian", "options": {"width": 0.1}}
    data = {"name": "land_cover", "size": [60, 60], "options": options}
    folder.write_text(
        folder.config, config.validate({"model": model, "data": data}, "the test").to_yaml()
    )
    told = facts(bands=("B04", "B08"), dtype="uint16", read_as="sentinel2")
    folder.write_json(folder.dataset, told.model_dump(mode="json"))
    shutil.copy(RunFolder(run).model, folder.model)
    values = scene(60, 60).astype(np.uint16) + np.uint16(1)
    write("S2_20230401.tif", values, transform=NORTH_UP)
    write("S2_20230501.tif", values + np.uint16(1000), transform=NORTH_UP)
    assert predict.main([str(folder.model), "S2_20230401.tif", "m.tif"]) == 2
    error = capsys.readouterr().err
    assert "S2_20230401.tif does not tell whether its digital numbers hold the +1000" in error
    for name, harmonized in (("S2_20230401.tif", "true"), ("S2_20230501.tif", "false")):
        arguments = [name, f"{harmonized}.tif", f"harmonized={harmonized}"]
        assert predict.main([str(folder.model), *arguments]) == 0
    with rasterio.open("true.tif") as one, rasterio.open("false.tif") as other:
        found = one.read(1)
        np.testing.assert_array_equal(found, other.read(1))
    assert (found == probability(values).argmax(axis=-1)).mean() > 0.999


def test_a_real_scene(run: Path) -> None:
    data = os.environ.get("DLBENCH_DATA")
    if data is None:
        pytest.skip("DLBENCH_DATA is not set: it names the folder of real samples")
    path = Path(data) / "sentinel2_slovenia" / "S2_L1C_20150711.tif"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    assert predict.main([str(run), str(path), "bands=B4,B8", "tile=64", "overlap=16"]) == 0
    with rasterio.open(path) as source, rasterio.open(f"{path.stem}_classes.tif") as file:
        assert (file.crs, file.transform) == (source.crs, source.transform)
        missing = (source.read([4, 8]) == 0).any(axis=0)
        np.testing.assert_array_equal(file.read(1) == 255, missing)


@pytest.mark.slow
@pytest.mark.parametrize("bayesian", [False, True])
def test_ranks_share_a_scene(
    run: Path, here: Path, launch: Callable[..., Any], bayesian: bool
) -> None:
    write("a.tif", scene(200, 300))
    network = str(run if bayesian else run / "model.keras")
    command = ["-m", "dlbench.predict", network, "a.tif", "tile=64", "overlap=16"]
    for ranks in (1, 2):
        ended = launch([*command, f"m{ranks}.tif", f"probabilities=p{ranks}.tif"], here, ranks)
        assert ended.status == 0, ended.output
        assert ended.output.count("wrote m") == 1
    for kind in "mp":
        with rasterio.open(f"{kind}1.tif") as one, rasterio.open(f"{kind}2.tif") as two:
            np.testing.assert_array_equal(one.read(), two.read())
    assert not [path.name for path in here.iterdir() if path.name.startswith(".")]
