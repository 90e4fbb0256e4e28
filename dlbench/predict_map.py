"""A map of the classes in a raster of any size, for `dlbench.predict`.

RUN is the folder of a segmentation training, or a ``.keras`` file; SCENE any raster that GDAL
reads, of the network's bands. A network that has learnt from Sentinel-2 takes what it was trained
on: a SAFE product, its zip archive, an export; of a time series the folder. Tiles overlap and are
blended; what is held in memory does not grow with the raster. The map is a cloud-optimised GeoTIFF
on the scene's own grid. Of a scene that Earth Engine exported as TFRecord patches (SCENE is its
mixer file) it may be patches too, OUT.tfrecord.gz, which with the OUT-mixer.json that is put beside
them are what ``earthengine upload image --nodata_value=255`` takes.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import dlbench
from dlbench import command_line, distributed, raster_input, trained
from dlbench.class_map import ClassMap
from dlbench.command_line import note
from dlbench.config import ConfigError
from dlbench.data.dataset import ClassInfo
from dlbench.data.imagery import earth_engine
from dlbench.map_picture import draw
from dlbench.raster_input import RasterInput
from dlbench.raster_output import mixer_beside
from dlbench.tiling import Tiling, blend_tiled
from dlbench.trained import Segmenter

if TYPE_CHECKING:
    from dlbench.prediction import Predictor

USAGE = (
    "usage: python -m dlbench.predict RUN SCENE [SCENE ...] [OUT.tif|OUT.tfrecord.gz|FOLDER] "
    "[checkpoint=best|last] [bands=1,2,3] [tile=512] [overlap=64] [batch=4] [samples=8] "
    "[probabilities=OUT.tif|FOLDER] [uncertainty=OUT.tif|FOLDER] [picture=OUT.png] "
    "[overwrite=false]; of Sentinel-2 [dates=20220421,...] [harmonized=true|false]; of it and "
    "Landsat [mask_clouds=true|false]"
)
SUFFIXES = (".tif", ".tiff")
SENTINEL2 = ("dates", "harmonized", "mask_clouds")
READING = ("harmonized", "mask_clouds", "resampling")
"""Options of a Sentinel-2 data set that a map is made with too."""
ALIGN = 32
"""Tiles start on multiples of this, SegNet's stride, so that all pool the same pixels together."""
MEMORY = 512 * 2**20
"""Bytes of sums at a time: wider rasters are predicted in strips of columns."""


@dataclass(frozen=True)
class Request:
    """The command line."""

    run: Path
    scenes: tuple[Path, ...]
    picture: Path | None
    outputs: dict[str, tuple[Path, ...]]
    """For each scene its ``classes`` and, where wanted, ``probabilities`` and ``uncertainty``."""
    checkpoint: str
    bands: str | None
    tile: int
    overlap: int
    batch: int
    samples: int | None
    reading: dict[str, Any]
    """What is told of satellites' scenes, in place of what was told in training."""

    @property
    def network(self) -> str:
        kind = "" if self.run.suffix == ".keras" else f", checkpoint {self.checkpoint}"
        return f"{self.run}{kind}"


def predict(arguments: list[str]) -> None:
    """Read, predict and write; what can be checked without TensorFlow is checked before it."""
    request = _parse(arguments)
    segmenter = trained.segmentation_network(request.run, request.checkpoint)
    told = segmenter.options or {}
    learnt = {k: v for k, v in told.items() if k in (*READING, "clouds")}
    reading = learnt | {"dates": None} | request.reading
    images = [
        raster_input.opened(path, request.bands, segmenter.bands, segmenter.facts, reading)
        for path in request.scenes
    ]
    for path, image in zip(request.outputs["classes"], images, strict=True):
        if path.name.endswith(earth_engine.SUFFIXES) and image.mixer is None:
            raise ConfigError(
                f"{path} would be patches, but {image.path} is no mixer file of an Earth Engine "
                "export that says how they lie; give OUT.tif"
            )
    tilings = [Tiling(x.height, x.width, request.tile, request.overlap, ALIGN) for x in images]
    network = segmenter.build()
    ranks = distributed.start(segmenter.distributed)
    if ranks.rank == 0:
        if segmenter.facts is None:
            note(f"{request.run} has no dataset.json: its classes are known by number alone")
        elif segmenter.options is None and any(image.satellite for image in images):
            note(
                f"{request.run} has no config.yaml beside it, so clouds are left out and bands "
                "resampled as by default; copy that of its run, or give the run's folder"
            )
        for image in images:
            raster_input.note_differences(image, segmenter.facts)

    import tensorflow as tf

    from dlbench.prediction import Predictor

    samples = request.samples or segmenter.samples
    predictor = Predictor(network, tf.nn.softmax, samples=samples, seed=segmenter.seed)
    if "uncertainty" in request.outputs and not predictor.bayesian:
        raise ConfigError(
            f"uncertainty={request.outputs['uncertainty'][0]}: {request.network} is no Bayesian "
            "network, and those alone tell it; leave the option out"
        )
    with _ended_in_order():
        for number, (image, tiling) in enumerate(zip(images, tilings, strict=True)):
            paths = {kind: places[number] for kind, places in request.outputs.items()}
            _map(request, segmenter, predictor, image, tiling, paths, ranks)


def _map(
    request: Request,
    segmenter: Segmenter,
    predictor: Predictor,
    image: RasterInput,
    tiling: Tiling,
    paths: dict[str, Path],
    ranks: distributed.SingleProcess,
) -> None:
    """The maps of one scene."""
    classes, facts = _classes(segmenter), segmenter.facts
    tags = {
        "TIFFTAG_SOFTWARE": f"dlbench {dlbench.__version__}",
        "DLBENCH_RUN": request.network,
        "DLBENCH_SCENE": str(image.path),
    }
    if facts is not None:
        tags["DLBENCH_TRAINED_ON"] = f"{facts.name}; {facts.licence}"
    outputs = len(classes) + 2
    strips = _strips(tiling, outputs, ranks.size)
    work = _Tiles(predictor, len(classes), len(tiling), tell=ranks.rank == 0)
    started = time.perf_counter()
    with ClassMap(paths, image, classes, tags) as maps:
        for columns in strips[ranks.rank :: ranks.size]:
            blocks = blend_tiled(image.read, work, tiling, outputs, request.batch, columns)
            with closing(blocks):
                for window, block in blocks:
                    maps.write(window, block)
        work.end_line()
        predicted = time.perf_counter() - started
        maps.finish(ranks, strips)
    if request.picture is not None and ranks.rank == 0:
        draw(request.picture, image, paths["classes"], classes, facts)
    if ranks.rank:
        return
    total = image.height * image.width
    print(
        f"{image.path}: {image.height} x {image.width} pixels, {len(tiling)} tiles; "
        f"{time.perf_counter() - started:.1f} s, predicting {total / predicted:,.0f} pixels/s"
    )
    for one, pixels in zip(classes, maps.pixels, strict=True):
        print(f"{one.name:<24} {pixels:12,d} pixels {100.0 * pixels / total:6.2f} %")
    print(f"{'no data':<24} {total - maps.pixels.sum():12,d} pixels")
    for path in (*paths.values(), *([request.picture] if request.picture else [])):
        print(f"wrote {path}", flush=True)


class _Tiles:
    """Maps what `RasterInput.read` gives to (windows, height, width, classes + 2) float32:
    probabilities, the sum of their variances, and 1 where there are data.
    """

    def __init__(self, predictor: Predictor, classes: int, total: int, *, tell: bool) -> None:
        self._predictor, self._classes = predictor, classes
        self._total, self._done = total, 0
        self._tell = tell and sys.stderr.isatty()

    def __call__(self, batch: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        values, valid = batch
        result = np.zeros((*valid.shape, self._classes + 2), np.float32)
        result[..., -1] = valid
        seen = valid.any(axis=(1, 2))  # nothing is computed for what lies outside the scene
        if seen.any():
            mean, variance = self._predictor(values[seen], draw=self._done)
            result[seen, ..., :-2] = mean.numpy()
            if variance is not None:
                result[seen, ..., -2] = variance.numpy().sum(axis=-1)
        self._done += len(valid)
        if self._tell:
            text = f"\rtile {self._done} of about {self._total}"
            print(text, end="", file=sys.stderr, flush=True)
        return result

    def end_line(self) -> None:
        if self._tell:
            print(file=sys.stderr)


def _classes(segmenter: Segmenter) -> tuple[ClassInfo, ...]:
    """The classes as trained, or else numbers in shades of grey."""
    if segmenter.facts is not None:
        return segmenter.facts.classes
    count = segmenter.outputs
    greys = np.linspace(40, 230, count).round().astype(int).tolist()
    return tuple(ClassInfo(f"class {i}", (grey,) * 3, i) for i, grey in enumerate(greys))


def _strips(tiling: Tiling, outputs: int, ranks: int) -> list[slice]:
    """Strips of columns whose sums fit into `MEMORY`; with several ranks, as many for each."""
    widest = max(1, MEMORY // (4 * outputs * min(tiling.tile, tiling.height)))
    count = ranks * -(-tiling.width // (widest * ranks))
    ends = [tiling.width * (i + 1) // count for i in range(count)]
    return [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let SIGTERM, by which batch systems and launchers stop a job, clean up as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parse(arguments: list[str]) -> Request:
    line = command_line.parse(
        arguments,
        USAGE,
        {"tile": 512, "overlap": 64, "batch": 4, "samples": 0},
        {"checkpoint", "bands", "probabilities", "uncertainty", "picture", "overwrite", *SENTINEL2},
    )
    run, *places = map(Path, line.places)
    line.refuse_checkpoint_of_file(run)
    scenes = places[:-1] or places
    where = {"classes": places[-1] if len(places) > 1 else Path()}
    for kind in ("probabilities", "uncertainty"):
        if kind in line.options:
            where[kind] = Path(line.options[kind])
    outputs = {kind: _outputs(kind, place, scenes) for kind, place in where.items()}
    for kind, paths in outputs.items():
        for path in paths:
            patches = earth_engine.SUFFIXES if kind == "classes" else ()
            line.require_new(path, SUFFIXES + patches, USAGE)
            if path.name.endswith(patches):
                line.require_new(mixer_beside(path), (".json",), USAGE)
    picture = Path(line.options["picture"]) if "picture" in line.options else None
    if picture is not None:
        line.require_new(picture, (".png",), USAGE)
        if len(scenes) > 1 or not outputs["classes"][0].name.endswith(SUFFIXES):
            raise ConfigError(
                f"picture={picture} is drawn of one map, a .tif; here are {len(scenes)} scenes and "
                f"{outputs['classes'][0]}: leave it out"
            )
    every = [path for paths in outputs.values() for path in paths]
    for path in every:
        if every.count(path) > 1:
            raise ConfigError(f"two maps would be written to {path}; give them other names")
        if any(path.exists() and scene.exists() and path.samefile(scene) for scene in scenes):
            raise ConfigError(f"{path} is read, so it cannot be written; give another name")
    return Request(
        run=run,
        scenes=tuple(scenes),
        picture=picture,
        outputs=outputs,
        checkpoint=line.options.get("checkpoint", "best"),
        bands=line.options.get("bands"),
        tile=line.numbers["tile"],
        overlap=line.numbers["overlap"],
        batch=line.numbers["batch"],
        samples=line.numbers["samples"] or None,
        reading=_reading(line.options),
    )


def _reading(options: dict[str, str]) -> dict[str, Any]:
    reading: dict[str, Any] = {
        name: options[name] == "true" for name in SENTINEL2 if name != "dates" and name in options
    }
    if "dates" in options:
        reading["dates"] = options["dates"].split(",")
    return reading


def _outputs(kind: str, place: Path, scenes: list[Path]) -> tuple[Path, ...]:
    """The file of each scene: ``place`` itself, or SCENE_kind.tif in a folder of this name."""
    if place.suffix and not place.is_dir():
        if len(scenes) > 1:
            raise ConfigError(
                f"{len(scenes)} scenes cannot go into one file, {place}; give a folder"
            )
        return (place,)
    return tuple(place / f"{scene.stem}_{kind}.tif" for scene in scenes)
