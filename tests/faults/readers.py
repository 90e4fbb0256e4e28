"""Every reader with a small tree in its layout, and what must hold of what it reads."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from unittest import mock

import h5py
import numpy as np
import pyogrio
from affine import Affine
from astropy.io import fits
from PIL import Image
from rasterio.crs import CRS

from dlbench import checkpoint, config, distributed, fits_header, frames, raster_input, trained
from dlbench.data import IGNORE, DataSet
from dlbench.data.burned_area import BurnedArea
from dlbench.data.camvid import CamVid
from dlbench.data.granulation import Granulation
from dlbench.data.grid import Grid, Imagery, Labels
from dlbench.data.imagery.sentinel2 import open_sentinel2
from dlbench.data.labels.aafc import ACI
from dlbench.data.labels.annual_layer import AnnualLayer
from dlbench.data.labels.cdl import CDL
from dlbench.data.labels.coded_raster import CodedRaster
from dlbench.data.labels.lucas import classes, lucas
from dlbench.data.labels.plantations import CLASSES, plantations
from dlbench.data.miniatures import (
    aafc,
    burned_area,
    cdl,
    potsdam,
    sentinel2,
)
from dlbench.data.miniatures import (
    plantations as plantation_files,
)
from dlbench.data.miniatures.lucas import write_points, write_polygons
from dlbench.data.potsdam import Potsdam
from dlbench.data.scenes import make_vaihingen
from dlbench.data.vaihingen import Vaihingen
from dlbench.runs import RunFolder

SAMPLES = 4
"""Read of a split, at most."""
DAY = date(2022, 6, 10)
GRID = Grid(CRS.from_epsg(32632), Affine(10, 0, 700_000, 0, -10, 500_000), 48, 60)
"""In Cameroon; labels of other countries lie in the same way."""
IN_IOWA = Grid(CRS.from_epsg(32615), Affine(10, 0, 440_000, 0, -10, 4_650_000), 48, 60)
IN_SPAIN = Grid(CRS.from_epsg(32630), Affine(10, 0, 400_000, 0, -10, 4_500_000), 48, 60)
PARCELS = np.kron(np.arange(1, 21).reshape(4, 5), np.ones((12, 12), int))


def check_dataset(data: DataSet) -> None:
    """Samples hold the contract of `DataSet`."""
    assert data.splits
    for split in data.splits:
        for index in range(min(data.count(split), SAMPLES)):
            image, target = data.read(split, index)
            assert image.dtype == data.dtype
            assert image.ndim == 3
            assert image.shape[2] == len(data.bands)
            assert image.shape[:2] == target.shape[:2]
            if data.size is not None and data.name != "camvid":
                assert image.shape[:2] == tuple(data.size)
            if data.classes:
                assert target.shape == image.shape[:2]
                check_classes(target, len(data.classes))
                assert np.isfinite(image[target != IGNORE]).all()
            else:
                assert target.dtype == np.float32
                assert target.shape[2] == len(data.outputs)
                assert np.isfinite(image).all()
            assert data.sample_name(split, index)


def check_classes(target: np.ndarray, count: int) -> None:
    assert target.dtype == np.uint8
    assert ((target < count) | (target == IGNORE)).all()


def check_imagery(scene: Imagery) -> None:
    height, width = min(scene.grid.height, 64), min(scene.grid.width, 64)
    image, valid = scene.read(0, 0, height, width)
    assert image.dtype == scene.dtype
    assert image.shape == (height, width, len(scene.bands))
    assert valid.dtype == bool
    assert valid.shape == (height, width)
    assert np.isfinite(image[valid]).all()


def check_labels(labels: Labels, grid: Grid, count: int) -> None:
    target = labels.read(grid)
    assert target.shape == (grid.height, grid.width)
    check_classes(target, count)


def make_camvid(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (folder / split).mkdir(parents=True)
        (folder / f"{split}annot").mkdir()
        lines = []
        for number in range(2):
            picture = rng.integers(0, 256, (12, 16, 3), np.uint8)
            Image.fromarray(picture).save(folder / split / f"{number}.png")
            label = rng.integers(0, 12, (12, 16), np.uint8)
            Image.fromarray(label).save(folder / f"{split}annot" / f"{number}.png")
            lines.append(f"/CamVid/{split}/{number}.png /CamVid/{split}annot/{number}.png\n")
        (folder / f"{split}.txt").write_text("".join(lines))


def make_granulation_h5(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for suffix in ("", "_validation"):
        for name, outputs in (("intensity", 2), ("velocity", 6)):
            with h5py.File(folder / f"{name}{suffix}.h5", "w") as file:
                values = rng.uniform(size=(2, 9, 9, outputs)).astype(np.float32)
                file.create_dataset(name, data=values, compression="gzip")
                file[name].attrs.update(pixel_km=39.6, cadence_s=30.0)
                if name == "velocity":
                    file[name].attrs.update(minimum=np.full(6, -1.0), maximum=np.ones(6))


def make_granulation_npz(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, split in (("a", "train"), ("a_validation", "validation")):
        pairs = {"input": rng.uniform(size=(2, 9, 9, 2)), "output": rng.uniform(size=(2, 9, 9, 6))}
        arrays: dict[str, Any] = {f"{k}_{split}": v.astype(np.float32) for k, v in pairs.items()}
        np.savez(folder / f"{name}.npz", **arrays)


def _sentinel2(folder: Path) -> Path:
    return sentinel2.make(folder / "all", size=60, dates=[DAY])


def make_sentinel2_export(folder: Path) -> None:
    _sentinel2(folder)
    (folder / "all/export").rename(folder / "export")
    shutil.rmtree(folder / "all")


def make_safe(folder: Path) -> None:
    _sentinel2(folder)
    (folder / "all/SAFE").rename(folder / "SAFE")
    shutil.rmtree(folder / "all")


def make_safe_zip(folder: Path) -> None:
    make_safe(folder)
    with zipfile.ZipFile(folder / "product.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted((folder / "SAFE").rglob("*")):
            archive.write(file, file.relative_to(folder / "SAFE"))
    shutil.rmtree(folder / "SAFE")


def read_sentinel2(place: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        for scene in open_sentinel2(folder / place, ("B02", "B05", "B8A"), harmonized=True):
            check_imagery(scene)

    return read


def make_annual(write: Callable[..., Path], codes: tuple[int, ...]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        write(folder, np.array(codes, np.uint8)[PARCELS % len(codes)], IN_IOWA, 2023)

    return make


def read_annual(product: AnnualLayer) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        legend = product.legend(years=(2023,))
        labels = CodedRaster(product.find(folder, 2023)[2023], legend)
        labels.require_overlap(IN_IOWA, folder / "image.tif")
        check_labels(labels, IN_IOWA, len(legend.classes))

    return read


def make_lucas_points(folder: Path) -> None:
    folder.mkdir()
    write_points(folder, IN_SPAIN, (PARCELS % 3).astype(np.uint8), ("B11", "E20", "A22"), spacing=6)


def make_lucas_polygons(folder: Path) -> None:
    folder.mkdir()
    drawn = (PARCELS % 3).astype(np.uint8)
    write_polygons(folder, IN_SPAIN, PARCELS, drawn, ("B11", "E20", "A22"), spacing=12)


def read_lucas(**options: Any) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        labels = lucas(folder, 2018, level=2, **options)
        labels.require_overlap(IN_SPAIN, folder / "image.tif")
        check_labels(labels, IN_SPAIN, len(classes(2)))

    return read


def make_plantations(driver: str, suffix: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        folder.mkdir()
        types, species = (PARCELS % 5).astype(np.uint8), (PARCELS % 12).astype(np.uint8)
        file = plantation_files.write_gfw(folder, GRID, PARCELS, types, species)
        if suffix != ".shp":
            meta, _, shapes, values = pyogrio.raw.read(file)
            pyogrio.raw.write(
                folder / f"plantations{suffix}", shapes, values, meta["fields"],
                crs=meta["crs"], geometry_type="MultiPolygon", driver=driver, promote_to_multi=True,
            )  # fmt: skip
            for part in folder.glob(f"{file.stem}.*"):
                part.unlink()

    return make


def make_sdpt(folder: Path) -> None:
    folder.mkdir()
    file = plantation_files.write_sdpt(folder, GRID, PARCELS, (PARCELS % 12).astype(np.uint8))
    for place in file.iterdir():
        # Indices and the like, which GDAL does without: damage to them is none.
        if not place.name.endswith((".gdbtable", ".gdbtablx")):
            place.unlink()


def read_plantations(name: str, **options: Any) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        labels = plantations(folder / name, **options)
        labels.require_overlap(GRID, folder / "image.tif")
        check_labels(labels, GRID, len(CLASSES[options.get("by", "type")]))

    return read


def make_frames_fits(folder: Path) -> None:
    folder.mkdir()
    cube = np.random.default_rng(0).uniform(0.5, 1.5, (3, 7, 10)).astype(np.float32)
    header = fits.Header({"CTYPE1": "SOLARX", "CUNIT1": "arcsec", "CDELT1": 0.06, "CADENCE": 30.0})
    fits.PrimaryHDU(cube, header).writeto(folder / "plain.fits")
    hdu = fits.CompImageHDU((100 * cube).astype(np.int16), header, compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(folder / "tiles.fits")


def make_frames_h5(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, shape in (("frames", (3, 7, 10)), ("intensity", (2, 7, 10, 2))):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset(name, data=rng.uniform(0.5, 1.5, shape), compression="gzip")
            file[name].attrs.update(pixel_km=39.6, cadence_s=30.0)


def read_frames(*names: str) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        for name in names:
            with frames.opened(str(folder / name)) as sequence:
                sequence.median()
                for number, pair in enumerate(sequence.read_pairs()):
                    assert pair.dtype == np.float32
                    assert pair.shape == (*sequence.shape, 2)
                    if number > 3:
                        break
                shape = (len(sequence.pairs), *sequence.shape, 2)
                fits_header.velocity_header(sequence.header, shape)

    return read


FACTS = {
    "name": "valley", "task": "segmentation", "bands": ["B4", "B8"], "dtype": "uint8",
    "value_range": [0, 255], "units": "digital number", "outputs": ["a", "b", "c"],
    "classes": [{"name": n, "color": [0, 0, i], "code": i} for i, n in enumerate("abc")],
    "ground_sampling_distance": 10.0, "cadence_s": None, "licence": "CC0", "source": "here",
}  # fmt: skip


def make_run(model: str, layer: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        run = RunFolder(folder)
        run.write_text(run.config, config.validate({"model": {"name": model}}, "").to_yaml())
        if layer == "classifier":
            run.write_json(run.dataset, FACTS)
        rng = np.random.default_rng(0)
        shapes = {
            "first/kernel": (3, 3, 2, 4),
            f"{layer}/kernel": (1, 1, 4, 3),
            f"{layer}/bias": (3,),
        }
        arrays = {f"model/{n}": rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
        checkpoint.save(run.checkpoint("best"), arrays, {"epoch": 1})

    return make


def read_run(opened: Callable[..., Any]) -> Callable[[Path], None]:
    def read(folder: Path) -> None:
        config.load([str(folder / "config.yaml")])
        trained.task(folder)
        opened(folder)

    return read


def make_keras(folder: Path) -> None:
    folder.mkdir()
    import keras

    image = keras.Input((None, None, 2))
    scores = keras.layers.Conv2D(3, 1)(keras.layers.Rescaling(1 / 50)(image))
    keras.Model(image, scores, name="segnet_basic").save(folder / "model.keras")


def read_keras(folder: Path) -> None:
    # Threads are set before TensorFlow's first operation, but here one process reads many files.
    with mock.patch.object(distributed, "configure_devices"):
        _read_keras(folder / "model.keras")


def _read_keras(file: Path) -> None:
    if trained.task(file) == "segmentation":
        segmenter = trained.segmentation_network(file)
        assert isinstance(segmenter.bands, int)
        assert isinstance(segmenter.outputs, int)
    else:
        trained.velocity_network(file)[0]()


def make_raster(folder: Path) -> None:
    import rasterio

    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 256, (3, 40, 50), np.uint8)
    with rasterio.open(
        folder / "scene.tif", "w", driver="GTiff", height=40, width=50, count=3, dtype="uint8",
        crs=GRID.crs, transform=GRID.transform, tiled=True, blockxsize=16, blockysize=16,
        compress="deflate", nodata=0,
    ) as file:  # fmt: skip
        file.write(values)


def read_raster(folder: Path) -> None:
    image = raster_input.opened(folder / "scene.tif", None, 3, None)
    height, width = min(image.height, 32), min(image.width, 32)
    values, valid = image.read([(slice(0, height), slice(0, width))])
    assert values.dtype == image.dtype
    assert values.shape == (1, height, width, 3)
    assert valid.shape == (1, height, width)
    assert np.isfinite(values).all()
    raster_input.note_differences(image, None)


def read_potsdam(folder: Path) -> None:
    for height in ("dsm", "ndsm"):
        check_dataset(Potsdam(folder, (32, 32), height=height))


@dataclass(frozen=True)
class Reader:
    """``make`` writes a tree to a new folder, ``read`` reads all of it and checks it."""

    make: Callable[[Path], Any]
    read: Callable[[Path], None]
    cases: int = 100
    """Of the slow test."""


READERS: dict[str, Reader] = {
    "vaihingen": Reader(
        lambda folder: make_vaihingen(folder, tiles={"train": 1, "val": 1}, tile_size=64),
        lambda folder: check_dataset(Vaihingen(folder, (32, 32))),
    ),
    "potsdam": Reader(
        lambda folder: potsdam.make(folder, tiles=("2_10", "2_11"), tile_size=64),
        read_potsdam,
    ),
    "camvid": Reader(make_camvid, lambda folder: check_dataset(CamVid(folder))),
    "granulation_hdf5": Reader(
        make_granulation_h5, lambda folder: check_dataset(Granulation(folder)), 150
    ),
    "granulation_npz": Reader(
        make_granulation_npz, lambda folder: check_dataset(Granulation(folder, (5, 7))), 150
    ),
    "sentinel2_export": Reader(make_sentinel2_export, read_sentinel2("export")),
    "sentinel2_safe": Reader(make_safe, read_sentinel2("SAFE"), 150),
    "sentinel2_zip": Reader(make_safe_zip, read_sentinel2("product.zip"), 150),
    "cdl": Reader(make_annual(cdl.write_labels, (1, 5, 36, 141, 0)), read_annual(CDL)),
    "aafc": Reader(make_annual(aafc.write_labels, (20, 110, 133, 146, 0)), read_annual(ACI)),
    "lucas_points": Reader(make_lucas_points, read_lucas(radius=20.0)),
    "lucas_polygons": Reader(make_lucas_polygons, read_lucas(geometry="polygons"), 150),
    "plantations_shp": Reader(
        make_plantations("ESRI Shapefile", ".shp"),
        read_plantations("Tree_plantations.shp", by="type", minimum_percent=50.0), 150,
    ),
    "plantations_gpkg": Reader(
        make_plantations("GPKG", ".gpkg"), read_plantations("plantations.gpkg", by="species")
    ),
    "plantations_geojson": Reader(
        make_plantations("GeoJSON", ".geojson"),
        read_plantations("plantations.geojson", by="type", minimum_percent=50.0),
    ),
    "plantations_gdb": Reader(make_sdpt, read_plantations("sdpt_v2.gdb", by="species"), 60),
    "burned_area": Reader(
        lambda folder: burned_area.make(folder, scene_size=64),
        lambda folder: check_dataset(BurnedArea(folder, (32, 32))),
        120,
    ),
    "frames_fits": Reader(make_frames_fits, read_frames("plain.fits", "tiles.fits"), 120),
    "frames_hdf5": Reader(make_frames_h5, read_frames("frames.h5", "intensity.h5")),
    "run_segmentation": Reader(
        make_run("segnet_basic", "classifier"), read_run(trained.segmentation_network), 150
    ),
    "run_velocity": Reader(
        make_run("deepvel", "velocity"), read_run(trained.velocity_network), 100
    ),
    "raster_input": Reader(make_raster, read_raster, 120),
    "keras": Reader(make_keras, read_keras, 60),
}  # fmt: skip
