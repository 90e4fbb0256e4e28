"""A picture of a map beside its scene, to look at and to show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlbench.data import raster
from dlbench.data.dataset import ClassInfo
from dlbench.data.facts import Facts
from dlbench.pictures import prediction_grid
from dlbench.raster_input import RasterInput

SIDE = 512
"""Pixels at most: of a larger scene the middle is drawn, in which single pixels can be seen."""


def draw(
    path: Path,
    image: RasterInput,
    classes_file: Path,
    classes: Sequence[ClassInfo],
    facts: Facts | None,
) -> None:
    """Write a PNG of the scene and of the map of it, pixel for pixel, with a legend."""
    height, width = min(image.height, SIDE), min(image.width, SIDE)
    row, column = (image.height - height) // 2, (image.width - width) // 2
    labels, _ = raster.read_window(classes_file, row, column, height, width)
    values, _ = image.read([(slice(row, row + height), slice(column, column + width))])
    shown = None if facts is None else facts.shown
    path.parent.mkdir(parents=True, exist_ok=True)
    prediction_grid([values[0]], [labels[..., 0]], None, classes, path, bands=shown, second="map")
