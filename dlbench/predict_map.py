"""A map of the classes in a raster of any size, for `dlbench.predict`.

RUN is the folder of a segmentation training, or a ``.keras`` file; SCENE any raster that GDAL
reads, of the network's bands. A network that has learnt from Sentinel-2 takes what it was trained
on: a SAFE product, its zip archive, the folder of one granule where a product has several tiles
(those before December 2016), an export; of a time series the folder. Whether the numbers of
an export hold +1000 is asked for where its name does not tell (``harmonized``). Tiles overlap and
are blended; what is held in memory does not grow with the raster. The map is a cloud-optimised
GeoTIFF on the scene's own grid. Of a scene that Earth Engine exported as TFRecord patches (SCENE is
its mixer file) it may be patches too, OUT.tfrecord.gz, which with the OUT-mixer.json that is put
beside them are what ``earthengine upload image --nodata_value=255`` takes.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import dlbench
from dlbench import distributed, map_request, raster_input, stopping, trained
from dlbench.class_map import ClassMap
from dlbench.command_line import note
from dlbench.config import ConfigError
from dlbench.data.dataset import ClassInfo
from dlbench.data.imagery import earth_engine
from dlbench.map_picture import draw
from dlbench.map_request import Request
from dlbench.raster_input import RasterInput
from dlbench.raster_output import RUN_TAG
from dlbench.tiling import Tiling, Window, blend_tiled
from dlbench.trained import Segmenter

if TYPE_CHECKING:
    from dlbench.prediction import Predictor

READING = ("mask_clouds", "resampling")
"""Options of a Sentinel-2 data set that a map is made with too. Not ``harmonized``: whether +1000
is in the numbers is of a file, nothing that a network has learnt."""
FAR = 4
"""Tiles of more than so many times the side of training's images are worth a note: a network learns
from borders too, which lie closer there. At six times the side SegNet-Basic fell from 89 % of right
labels to 59 %: reports/land-cover-slovenia_2-core-xeon_2026-11-28."""
MEMORY = 512 * 2**20
"""Bytes of sums at a time: wider rasters are predicted in strips of columns."""


def predict(arguments: list[str]) -> None:
    """Read, predict and write; what can be checked without TensorFlow is checked before it."""
    request = map_request.parse(arguments)
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
    # Tiles start on multiples of the stride, so that all pool the same pixels together.
    tilings = [
        Tiling(x.height, x.width, request.tile, request.overlap, segmenter.stride) for x in images
    ]
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
        for image, tiling in zip(images, tilings, strict=True):
            raster_input.note_differences(image, segmenter.facts)
            _note_window(segmenter, tiling)

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
        RUN_TAG: request.network,
        "DLBENCH_SCENE": str(image.path),
    }
    if facts is not None:
        tags["DLBENCH_TRAINED_ON"] = f"{facts.name}; {facts.licence}"
    outputs = len(classes) + 2
    strips = _strips(tiling, outputs, ranks.size)
    work = _Tiles(predictor, len(classes), tiling, tell=ranks.rank == 0)

    def read(windows: list[Window]) -> tuple[list[Window], np.ndarray, np.ndarray]:
        return windows, *image.read(windows)

    started = time.perf_counter()
    with ClassMap(paths, image, classes, tags) as maps:
        for columns in strips[ranks.rank :: ranks.size]:
            blocks = blend_tiled(read, work, tiling, outputs, request.batch, columns)
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


def _note_window(segmenter: Segmenter, tiling: Tiling) -> None:
    window, side = segmenter.window, min(tiling.tile, max(tiling.height, tiling.width))
    if window is not None and side > FAR * max(window):
        own = -(-max(window) // segmenter.stride) * segmenter.stride
        note(
            f"tiles of {side} pixels: the network was trained on images of {window[0]} x "
            f"{window[1]} and may be worse far from a border: try tile={own} overlap=0, or "
            f"tile={2 * own} overlap={own // 2}"
        )


class _Tiles:
    """Maps windows and what `RasterInput.read` gives for them to (windows, height, width,
    classes + 2) float32: probabilities, the sum of their variances, and 1 where there are data.
    """

    def __init__(self, predictor: Predictor, classes: int, tiling: Tiling, *, tell: bool) -> None:
        self._predictor, self._classes, self._tiling = predictor, classes, tiling
        self._total, self._done = len(tiling), 0
        self._tell = tell and sys.stderr.isatty()

    def __call__(self, batch: tuple[list[Window], np.ndarray, np.ndarray]) -> np.ndarray:
        windows, values, valid = batch
        result = np.zeros((*valid.shape, self._classes + 2), np.float32)
        result[..., -1] = valid
        seen = valid.any(axis=(1, 2))  # nothing is computed for what lies outside the scene
        together = [np.flatnonzero(seen)] if seen.any() else []
        if self._predictor.bayesian:
            # One by one, so that what is dropped depends on a tile's place alone, and not on the
            # strip, the rank and the batch that it comes in.
            together = [np.array([index]) for index in np.flatnonzero(seen)]
        for chosen in together:
            draw = self._tiling.number(windows[chosen[0]])
            mean, variance = self._predictor(values[chosen], draw=draw)
            result[chosen, ..., :-2] = mean.numpy()
            if variance is not None:
                result[chosen, ..., -2] = variance.numpy().sum(axis=-1)
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
    """Let SIGTERM, by which batch systems and launchers stop a job, and the end of the terminal
    clean up as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> None:
        sys.exit(128 + number)

    unheard = stopping.hear(end, (signal.SIGTERM, signal.SIGHUP))
    try:
        yield
    finally:
        unheard()
