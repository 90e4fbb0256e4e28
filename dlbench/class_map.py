"""The files of a class map: classes, and where wanted their probabilities and uncertainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from dlbench.data.dataset import IGNORE, ClassInfo
from dlbench.data.imagery import earth_engine
from dlbench.distributed import SingleProcess
from dlbench.raster_input import RasterInput
from dlbench.raster_output import Layer, publish, scratch_folder
from dlbench.tiling import Window

PROBABILITY_STEP = 1.0 / 250.0
"""Probabilities are stored as whole multiples of this, which the file's scale tells."""


class ClassMap:
    """Maps on the grid of ``image``, one layer a row of ``paths``: ``classes`` (uint8 indices with
    their colours), ``probabilities`` (uint8, a band a class), ``uncertainty`` (float32).

    A context: what is unfinished at its end is removed.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        image: RasterInput,
        classes: Sequence[ClassInfo],
        tags: Mapping[str, str],
    ) -> None:
        self.pixels = np.zeros(len(classes), np.int64)
        """How many a class has; of all ranks once `finish` is done."""
        self._paths, self._image, self._classes, self._tags = paths, image, classes, tags
        self._layers: dict[str, Layer] = {}
        self._stack = ExitStack()

    def __enter__(self) -> ClassMap:
        with ExitStack() as stack:
            for kind, path in self._paths.items():
                folder = stack.enter_context(scratch_folder(path))
                self._layers[kind] = layer = self._layer(kind, path, folder)
                stack.callback(layer.dataset.close)
                layer.dataset.update_tags(**self._tags)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def write(self, window: Window, block: np.ndarray) -> None:
        """Put down a block (rows, columns, classes + 2): probabilities, uncertainty, and 1 where
        the image holds data, else 0.
        """
        probability, variance = block[..., :-2], block[..., -2:-1]
        # A diverged network's NaN is no class.
        known = (block[..., -1] > 0.5) & np.isfinite(probability[..., 0])
        if not known.any():
            return  # what is never written is no-data
        index = np.where(known, probability.argmax(axis=-1), IGNORE).astype(np.uint8)
        self.pixels += np.bincount(index[known], minlength=len(self.pixels))
        unknown = ~known[..., None]
        self._layers["classes"].write(window, index[..., None])
        if layer := self._layers.get("probabilities"):
            steps = np.where(unknown, IGNORE, np.rint(probability / PROBABILITY_STEP))
            layer.write(window, steps.astype(np.uint8))
        if layer := self._layers.get("uncertainty"):
            layer.write(window, np.where(unknown, np.float32(np.nan), variance))

    def finish(self, ranks: SingleProcess, strips: Sequence[slice]) -> None:
        """Put the ranks' strips of columns together and name the files; strip i is of rank i
        modulo their number. Every rank has to come here.
        """
        if ranks.rank > 0:
            for layer in self._layers.values():
                layer.close()
        works = {kind: str(layer.work.resolve()) for kind, layer in self._layers.items()}
        found = ranks.gather({"works": works, "pixels": self.pixels.tolist()})
        self.pixels = np.sum([one["pixels"] for one in found], axis=0)
        if ranks.rank == 0:
            for number, columns in enumerate(strips):
                if other := number % ranks.size:
                    for kind, layer in self._layers.items():
                        layer.take(Path(found[other]["works"][kind]), columns)
            publish(list(self._layers.values()))
        ranks.barrier()  # until then the others keep their parts

    def _layer(self, kind: str, path: Path, folder: Path) -> Layer:
        image, names = self._image, [one.name for one in self._classes]
        grid: dict[str, Any] = {
            "height": image.height,
            "width": image.width,
            "crs": image.crs,
            "transform": image.transform,
        }
        if kind == "uncertainty":
            layer = Layer(
                path, folder, "average", count=1, dtype="float32", nodata=float("nan"), **grid
            )
            layer.dataset.set_band_description(1, "variance of the class probabilities")
            return layer
        if kind == "probabilities":
            layer = Layer(
                path, folder, "average", count=len(names), dtype="uint8", nodata=IGNORE, **grid
            )
            layer.dataset.scales = [PROBABILITY_STEP] * len(names)
            for band, name in enumerate(names, start=1):
                layer.dataset.set_band_description(band, name)
            return layer
        mixer = image.mixer if path.name.endswith(earth_engine.SUFFIXES) else None
        layer = Layer(path, folder, "mode", mixer, count=1, dtype="uint8", nodata=IGNORE, **grid)
        layer.dataset.set_band_description(1, "class")
        colours = {index: (*one.color, 255) for index, one in enumerate(self._classes)}
        layer.dataset.write_colormap(1, {**colours, IGNORE: (0, 0, 0, 0)})
        layer.dataset.update_tags(1, **{f"CLASS_{i}": name for i, name in enumerate(names)})
        return layer
