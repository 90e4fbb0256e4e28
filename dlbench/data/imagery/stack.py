"""Time series: scenes of several dates on one grid as one image."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlbench.data.dataset import DataError
from dlbench.data.grid import Grid, Imagery

_DATE = re.compile(r"(?<!\d)(19[89]\d|20\d\d)[-_]?([01]\d)[-_]?([0-3]\d)(?!\d)")


def dates_in(name: str) -> list[str]:
    """The dates in a name, as YYYYMMDD: of T32TNM_20170226T102458 or togo_2019-02-06.

    >>> dates_in("togo_2019-02-06_2020-02-01")
    ['20190206', '20200201']
    """
    return ["".join(match) for match in _DATE.findall(name)]


# Up to the date of acquisition, which that of processing follows.
_PRODUCT = re.compile(
    r"S2[A-Z]_MSIL\w\w_\d{8}(?=T)"  # Sentinel-2
    r"|L[COTEM]\d\d_L\w{3}_\d{6}_\d{8}(?=_)"  # Landsat
    r"|(?<!\d)\d{8}(?=T\d{6}_\d{8}T\d{6}_T\d\d[A-Z]{3})"  # Earth Engine's index of Sentinel-2
)


def days_of(name: str) -> list[str]:
    """The days on which what a name tells of may have been taken, as YYYYMMDD: of a product's name
    that of acquisition alone, else all of its dates.

    >>> days_of("LC08_L2SP_044033_20180901_20200828_02_T1")
    ['20180901']
    """
    product = _PRODUCT.search(name)
    return dates_in(product[0] if product else name)


def acquired(name: str) -> str | None:
    """The last of `days_of`; None where there is no date."""
    return max(days_of(name), default=None)


@dataclass
class Stack:
    """Bands of all ``scenes`` as one `Imagery`, usable where all of them are."""

    scenes: tuple[Imagery, ...]
    file: Path
    name: str
    grid: Grid
    bands: tuple[str, ...]
    """DATE/BAND, or SCENE/BAND where dates are unknown or alike."""
    dtype: np.dtype[Any]
    block: tuple[int, int]

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        read = [scene.read(row, column, height, width) for scene in self.scenes]
        image = np.concatenate([values for values, _ in read], axis=-1)
        return image, np.logical_and.reduce([valid for _, valid in read])


def stack(scenes: Sequence[Imagery]) -> Stack:
    """Stack ``scenes`` in their order. Raises `DataError` unless all have one grid and dtype."""
    if not scenes:
        raise DataError("a stack of no scenes; give one or more")
    first = scenes[0]
    for other in scenes:
        if not first.grid.equals(other.grid):
            raise DataError(
                f"{other.file} has another grid than {first.file}; stack scenes of one tile, or "
                "export them with one region, crs and crsTransform"
            )
        if other.dtype != first.dtype:
            raise DataError(f"{other.file} is {other.dtype}, but {first.file} is {first.dtype}")
    labels = [next(iter(days_of(scene.name)), "") for scene in scenes]
    if "" in labels or len(set(labels)) < len(labels):
        labels = [scene.name for scene in scenes]
    if len(set(labels)) < len(labels):
        raise DataError(f"a stack of {', '.join(labels)}; give each scene once")
    return Stack(
        scenes=tuple(scenes),
        file=first.file,
        name="-".join([first.name, *labels[1:][-1:]]),
        grid=first.grid,
        bands=tuple(
            f"{label}/{band}"
            for label, scene in zip(labels, scenes, strict=True)
            for band in scene.bands
        ),
        dtype=first.dtype,
        block=first.block,
    )
