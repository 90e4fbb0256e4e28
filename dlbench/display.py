"""Arrays as pictures: images of any type stretched to bytes, classes in their colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dlbench.data.dataset import IGNORE, ClassInfo

Pixels = npt.NDArray[np.uint8]

LABELLED = 0.1
"""Share of an image's pixels that must have a class for its contrast to be theirs."""
NEUTRAL = (38, 38, 38)
"""Colour of void pixels and missing values: in no data set's palette."""


def telling(
    image: np.ndarray,
    truth: np.ndarray,
    bands: Sequence[int] | None,
    value_range: tuple[float, float] | None,
) -> np.ndarray | None:
    """Where (height, width) an image shows ground and neither clouds nor nothing; None: unknown."""
    labelled = truth != IGNORE
    if labelled.mean() >= LABELLED or value_range is None:
        return labelled if labelled.any() else None
    values = image[..., _chosen(image, bands)]
    within = np.all((values > value_range[0]) & (values < value_range[1]), axis=-1)
    return within if within.any() else None


def displayed(
    image: np.ndarray, bands: Sequence[int] | None = None, counted: np.ndarray | None = None
) -> Pixels:
    """Image ``(height, width, bands)`` of any real type -> ``(height, width, 3)`` uint8.

    ``bands`` names one band (grey) or three (red, green, blue); by default the first three, or the
    first of one or two. Each is stretched from its 2nd to its 98th percentile, of the pixels
    ``counted`` (height, width) where that is given; pixels without finite values are `NEUTRAL`.
    """
    chosen = _chosen(image, bands)
    values = image[..., chosen].astype(np.float64)
    known = np.isfinite(values).all(axis=-1)
    picture = np.empty((*image.shape[:2], 3), np.uint8)
    picture[...] = NEUTRAL
    if known.any():
        within = known if counted is None else known & counted
        taken = within if within.any() else known
        low, high = np.percentile(values[taken], (2, 98), axis=0)
        # A constant band has nothing to stretch: it becomes middle grey.
        spread = np.where(high > low, high - low, np.inf)
        level = (values[known] - low) / spread + np.where(high > low, 0.0, 0.5)
        picture[known] = np.rint(255.0 * np.clip(level, 0.0, 1.0)).astype(np.uint8)
    return picture


def colored(labels: np.ndarray, classes: Sequence[ClassInfo]) -> Pixels:
    """Class indices ``(height, width)`` -> class colours ``(height, width, 3)``, uint8."""
    palette = np.full((256, 3), NEUTRAL, np.uint8)
    palette[: len(classes)] = [c.color for c in classes]
    unknown = np.setdiff1d(labels, [*range(len(classes)), IGNORE])
    if unknown.size:
        raise ValueError(
            f"labels hold {unknown.tolist()}; allowed are 0 to {len(classes) - 1} and {IGNORE}"
        )
    return palette[labels]


def _chosen(image: np.ndarray, bands: Sequence[int] | None) -> list[int]:
    if image.ndim != 3:
        raise ValueError(f"image has shape {image.shape}; needed is (height, width, bands)")
    chosen = list(bands) if bands is not None else [0, 1, 2] if image.shape[2] >= 3 else [0]
    if len(chosen) not in (1, 3) or not all(0 <= band < image.shape[2] for band in chosen):
        raise ValueError(
            f"bands are {chosen}; needed are one or three of 0 to {image.shape[2] - 1}"
        )
    return chosen
