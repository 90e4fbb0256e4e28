from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from dlbench import raster_input
from dlbench.data import DataError, build
from dlbench.data.facts import facts
from dlbench.data.imagery import earth_engine, tfrecord
from dlbench.data.imagery.earth_engine import as_geotiff, mixers, read_mixer, write_patches
from dlbench.data.imagery.sentinel2 import open_sentinel2
from dlbench.data.labelled_sentinel2 import images
from dlbench.data.miniatures import land_cover
from dlbench.data.miniatures.earth_engine import write_tfrecord_export

ROOT = Path(__file__).parents[3]
NAME = "S2_20210711"
BANDS = ("B2", "B3", "B4", "B8", "B10", "QA60")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def geotiff(tmp_path: Path) -> Path:
    """48 x 60 pixels of digital numbers with a cloud, as exported in that form."""
    values = np.random.default_rng(0).integers(1, 9000, (len(BANDS), 48, 60)).astype(np.float32)
    values[-1] = 0
    values[-1, 10:20, 30:50] = 1024
    values[1, 40, 7] = 0
    path = tmp_path / "exported" / f"{NAME}.tif"
    path.parent.mkdir()
    with rasterio.open(
        path, "w", width=60, height=48, count=len(BANDS), dtype="float32", crs="EPSG:32633",
        transform=rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000),
    ) as file:  # fmt: skip
        file.write(values)
        file.descriptions = BANDS
    return path


def patches_of(geotiff: Path, tmp_path: Path, **options: Any) -> Path:
    """Its patches in a folder of their own; the mixer's path."""
    folder = tmp_path / "patches"
    folder.mkdir()
    copied = Path(shutil.copy(geotiff, folder))
    mixer = write_tfrecord_export(copied, **{"patch": (24, 20), **options})
    copied.unlink()
    return mixer


@pytest.mark.parametrize(("files", "kernel"), [(1, 0), (3, 0), (2, 8), (2, 5)])
def test_patches_are_the_image_that_was_exported(
    geotiff: Path, tmp_path: Path, files: int, kernel: int
) -> None:
    mixer = patches_of(geotiff, tmp_path, files=files, kernel=kernel)
    path = as_geotiff(read_mixer(mixer))
    assert path.name == geotiff.name
    with rasterio.open(path) as found, rasterio.open(geotiff) as expected:
        assert (found.crs, found.transform) == (expected.crs, expected.transform)
        assert found.descriptions == BANDS
        np.testing.assert_array_equal(found.read(), expected.read())


def test_patches_lie_row_by_row(geotiff: Path, tmp_path: Path) -> None:
    mixer = read_mixer(patches_of(geotiff, tmp_path, files=1))
    with rasterio.open(geotiff) as file:
        truth = file.read(1)
    second, fourth = [list(tfrecord.read(mixer.parts()[0]))[i]["B2"] for i in (1, 3)]
    np.testing.assert_array_equal(second.reshape(24, 20), truth[:24, 20:40])
    np.testing.assert_array_equal(fourth.reshape(24, 20), truth[24:, :20])


def test_a_scene_reads_as_its_geotiff_does(geotiff: Path, tmp_path: Path) -> None:
    mixer = patches_of(geotiff, tmp_path)
    (expected,) = open_sentinel2(geotiff)
    for place in (mixer, mixer.parent, mixer.with_name(f"{NAME}-00001.tfrecord.gz")):
        (scene,) = open_sentinel2(place)
        assert (scene.name, scene.grid) == (NAME, expected.grid)
        for one, other in zip(scene.read(3, 5, 40, 50), expected.read(3, 5, 40, 50), strict=True):
            np.testing.assert_array_equal(one, other)
    assert not scene.read(10, 30, 10, 20)[1].any(), "the cloud of its QA60"
    image = raster_input.opened(mixer, "B8,B2", 2, None)
    assert (image.path, image.mixer) == (mixer, read_mixer(mixer))
    values, _ = image.read([(slice(0, 48), slice(0, 60))])
    with rasterio.open(geotiff) as file:
        np.testing.assert_array_equal(values[0, ..., 1], file.read(1))


def test_a_laid_out_export_is_kept_until_it_changes(geotiff: Path, tmp_path: Path) -> None:
    mixer = read_mixer(patches_of(geotiff, tmp_path, files=1))
    path = as_geotiff(mixer)
    stamp = path.stat().st_mtime_ns
    assert as_geotiff(mixer).stat().st_mtime_ns == stamp
    (part,) = mixer.parts()
    with part.open("wb") as file, tfrecord.Writer(file, compressed=True) as writer:
        for _ in range(6):
            writer.write({"B2": np.full(480, 7, np.float32)})
    with rasterio.open(as_geotiff(mixer)) as file:
        assert (file.count, file.read().min()) == (1, 7)


LAYER = """
import resource, signal, sys
from pathlib import Path
from dlbench.data.imagery.earth_engine import as_geotiff, read_mixer
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
as_geotiff(read_mixer(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("part", [0.0, 0.5, 0.97, 0.9999])
def test_a_full_disk_leaves_no_export_that_is_not_whole(
    part: float, geotiff: Path, tmp_path: Path
) -> None:
    """Nor is one found there when there is room again."""
    mixer = patches_of(geotiff, tmp_path)
    whole = as_geotiff(read_mixer(mixer))
    limit = int(whole.stat().st_size * part)
    shutil.rmtree(whole.parent)
    command = [sys.executable, "-c", LAYER, str(mixer), str(limit)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    told = f"UserError: cannot write {whole}"
    assert told in ended.stderr
    assert "XDG_CACHE_HOME name a folder elsewhere" in ended.stderr
    assert not list(whole.parent.parent.iterdir())
    with rasterio.open(as_geotiff(read_mixer(mixer))) as found, rasterio.open(geotiff) as expected:
        np.testing.assert_array_equal(found.read(), expected.read())


def test_bands_of_other_kinds(tmp_path: Path) -> None:
    affine = {"doubleMatrix": [10, 0, 5, 0, -10, 9]}
    content = {"projection": {"crs": "EPSG:32633", "affine": affine},
               "patchDimensions": [3, 2], "patchesPerRow": 1, "totalPatches": 1}  # fmt: skip
    (tmp_path / "amixer.json").write_text(json.dumps(content))
    tf = pytest.importorskip("tensorflow")
    example = tf.train.Example()
    example.features.feature["byte"].bytes_list.value.append(bytes(range(6)))
    example.features.feature["long"].int64_list.value.extend([-1, 2, 3, 4, 5, 70_000])
    with tf.io.TFRecordWriter(str(tmp_path / "a00000.TFRecord")) as writer:
        writer.write(example.SerializeToString())
    (mixer,) = mixers([tmp_path / "amixer.json"])
    with rasterio.open(as_geotiff(mixer)) as file:
        assert file.dtypes == ("int32", "int32")
        np.testing.assert_array_equal(file.read(1), np.arange(6).reshape(2, 3))
        np.testing.assert_array_equal(file.read(2), [[-1, 2, 3], [4, 5, 70_000]])


def test_maps_go_back_as_patches_in_the_same_order(geotiff: Path, tmp_path: Path) -> None:
    mixer = read_mixer(patches_of(geotiff, tmp_path))
    classes = np.random.default_rng(1).integers(0, 256, (48, 60), np.uint8)
    path = tmp_path / "map.tif"
    with rasterio.open(path, "w", width=60, height=48, count=1, dtype="uint8") as file:
        file.write(classes, 1)
        file.set_band_description(1, "class")
    with (tmp_path / "map.tfrecord.gz").open("wb") as out:
        write_patches(out, True, path, mixer)
    found = [example["class"] for example in tfrecord.read(tmp_path / "map.tfrecord.gz")]
    assert {values.dtype for values in found} == {np.dtype(np.int64)}
    for patch, (row, column) in zip(found, np.ndindex(2, 3), strict=True):
        part = classes[24 * row : 24 * row + 24, 20 * column : 20 * column + 20]
        np.testing.assert_array_equal(patch.reshape(24, 20), part)


CHANGES: dict[str, Any] = {
    "no JSON": ("{", "is no mixer file"),
    "no object": ("[1]", "is no mixer file"),
    "no number": ({"totalPatches": "six"}, "is no mixer file"),
    "no CRS": ({"projection": {"affine": {"doubleMatrix": [1] * 6}}}, "is no mixer file"),
    "no patches in a row": ({"patchesPerRow": 0}, "is no mixer file"),
    "an open row": ({"totalPatches": 5}, "makes no rectangle"),
    "other rows": ({"totalPatches": 9}, "tells of 9 patches, but .* hold 6 of them"),
    "fewer rows": ({"totalPatches": 3}, "tells of 3 patches, but .* hold more"),
    "other patches": ({"patchDimensions": [20, 25]}, "has 480 values, but .* of 25 x 20"),
    "huge patches": ({"patchDimensions": [10**9, 10**9]}, "it is damaged"),
    "rotated": ({"projection": {"crs": "EPSG:4326",
                                "affine": {"doubleMatrix": [1, 2, 3, 4, -5, 6]}}}, "not north-up"),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_mixers_that_do_not_fit(geotiff: Path, tmp_path: Path, change: str) -> None:
    mixer = patches_of(geotiff, tmp_path)
    given, reason = CHANGES[change]
    text = given if isinstance(given, str) else json.dumps(json.loads(mixer.read_text()) | given)
    mixer.write_text(text)
    with pytest.raises(DataError, match=rf"{NAME}.*{reason}"):
        open_sentinel2(mixer)
    assert not list(tmp_path.glob("cache/dlbench/earth_engine/*/*"))


def test_files_that_are_missing(geotiff: Path, tmp_path: Path) -> None:
    mixer = patches_of(geotiff, tmp_path, files=2)
    second = mixer.with_name(f"{NAME}-00001.tfrecord.gz")
    content = second.read_bytes()
    second.write_bytes(content[:-50])
    with pytest.raises(DataError, match=r"00001\.tfrecord\.gz: record \d is damaged or cut off"):
        open_sentinel2(mixer)
    second.unlink()
    with pytest.raises(DataError, match="hold 3 of them; fetch all files"):
        open_sentinel2(mixer)
    mixer.unlink()
    with pytest.raises(DataError, match="00000.*has no mixer file beside it"):
        open_sentinel2(mixer.parent)
    with pytest.raises(DataError, match="does not exist"):
        raster_input.opened(mixer, None, 4, None)


@pytest.mark.parametrize("kind", ["numbers", "patches", "squares", "csv"])
def test_tables_are_told_from_images(tmp_path: Path, kind: str) -> None:
    """Each is refused with what it is and what to export instead."""
    size = {"numbers": 1, "patches": 25, "squares": 25}.get(kind, 0)
    path = tmp_path / "imagery" / ("training.csv" if kind == "csv" else "training.tfrecord.gz")
    path.parent.mkdir()
    if kind == "csv":
        path.write_text("system:index,B2,B3,label,.geo\n0,431,640,3,{}\n")
        message = r"training\.csv is a table; tables have no place on a map.*export the image"
    else:
        with path.open("wb") as file, tfrecord.Writer(file, compressed=True) as writer:
            for _ in range(3):
                bands = {band: np.arange(size, dtype=np.float32) for band in ("B2", "B3")}
                count = size if kind == "squares" else 1
                writer.write({**bands, "label": np.ones(count, np.float32)})
        message = rf"is a table of features \(B2 \({size}\), B3 \({size}\), label \(1\) values in"
    if kind == "squares":
        message = "has no mixer file beside it.*tables of neighbourhoods have none"
    for attempt in (
        lambda: open_sentinel2(path),
        lambda: open_sentinel2(path.parent),
        lambda: images(path.parent),
        lambda: raster_input.opened(path, None, 2, None),
    ):
        with pytest.raises(DataError, match=message):
            attempt()


def test_the_miniature_trains_as_its_other_form_does(tmp_path: Path) -> None:
    classes = {name: [code] for name, (code, _) in land_cover.CODES.items()}
    one, two = (
        build("land_cover", land_cover.make(tmp_path / form, size=60, form=form), (12, 12),
              classes=classes, dates="all")
        for form in land_cover.FORMS
    )  # fmt: skip
    assert not list((tmp_path / "tfrecord/imagery").glob("*.tif"))
    assert one.count("train") == two.count("train") > 5
    for index in range(5):
        for a, b in zip(one.read("train", index), two.read("train", index), strict=True):
            np.testing.assert_array_equal(a, b)
    learnt = facts(build("land_cover", tmp_path / "geotiff", (12, 12), classes=classes))
    scene = tmp_path / "tfrecord/imagery/S2_HARMONIZED_20170421-mixer.json"
    image = raster_input.opened(scene, None, 4, learnt)
    assert (image.names, image.mixer) == (learnt.bands, read_mixer(scene))
    with pytest.raises(DataError, match="form is 'zarr', allowed: geotiff, tfrecord"):
        land_cover.make(tmp_path / "other", form="zarr")


def test_names() -> None:
    for name in ("a-mixer.json", "a_00000.tfrecord.gz", "mixer.json", "a.TFRecord"):
        assert earth_engine.is_export(Path(name))
    for name in ("a.json", "a.tif", "a.gz"):
        assert not earth_engine.is_export(Path(name))


def test_a_table_beside_images_is_not_what_is_wrong(tmp_path: Path) -> None:
    """Told is what images need: bands without names are what keeps these from being read."""
    profile = {"width": 8, "height": 8, "count": 4, "dtype": "uint16", "crs": "EPSG:32633",
               "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)}  # fmt: skip
    with rasterio.open(tmp_path / "scene.tif", "w", "GTiff", **profile) as file:
        file.write(np.ones((4, 8, 8), np.uint16))
    (tmp_path / "index.csv").write_text("scene,date\nscene.tif,2021-05-04\n")
    with pytest.raises(DataError, match=r"holds no Sentinel-2 scene.*described as B1 \.\. B12"):
        open_sentinel2(tmp_path)
