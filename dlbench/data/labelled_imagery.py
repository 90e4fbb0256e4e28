"""Scenes of georeferenced imagery with labels of the ground, which come on grids of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dlbench.data import raster
from dlbench.data.block_cache import Box, Cells, Window, cells_of
from dlbench.data.dataset import IGNORE, Sample
from dlbench.data.grid import Imagery, Labels

LARGEST_CELL = 2**26
"""In bytes: making a cell takes several times as much, so an image with larger ones, of many bands
or in huge blocks, is made window by window, of blocks that are kept."""


@dataclass(frozen=True)
class LabelledImagery:
    """A scene of imagery, with labels that are brought onto its grid; both are kept in cells, of
    this object alone, which does not notice when their files are written anew."""

    imagery: Imagery
    labels: Labels

    @cached_property
    def _image_cells(self) -> Cells | None:
        cells = Cells((self.height, self.width), self.imagery.block)
        small = math.prod(cells.cell) * self._bytes_of_pixel <= LARGEST_CELL
        return cells if small else None

    @property
    def _bytes_of_pixel(self) -> int:
        """With one for the mask."""
        return len(self.imagery.bands) * self.imagery.dtype.itemsize + 1

    @cached_property  # a CRS takes long to look up in a dict
    def _label_cells(self) -> Cells:
        return cells_of(self.labels, self.imagery.grid)

    @property
    def file(self) -> Path:
        return self.imagery.file

    @property
    def name(self) -> str:
        return self.imagery.name

    @property
    def height(self) -> int:
        return self.imagery.grid.height

    @property
    def width(self) -> int:
        return self.imagery.grid.width

    def read(self, row: int, column: int, height: int, width: int) -> Sample:
        def read(box: Box) -> Window:
            values, usable = self.imagery.read(*box)
            return values, None if usable.all() else usable

        box = row, column, height, width
        raster.require_window(self.file, (self.height, self.width), *box)
        cells = self._image_cells
        image, valid = cells.window(box, read, self._bytes_of_pixel) if cells else read(box)
        target = self.target(*box)
        if valid is not None:
            target[~valid] = IGNORE
        return image, target

    def target(self, row: int, column: int, height: int, width: int) -> np.ndarray:
        """The labels of a window, whether its pixels can be used or not."""

        def read(box: Box) -> Window:
            return self.labels.read(self.imagery.grid.window(*box)), None

        return self._label_cells.window((row, column, height, width), read, 1)[0]
