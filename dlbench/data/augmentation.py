"""Random changes of a sample, and its change of size: NumPy and Pillow, any bands and dtype."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image

from dlbench.config import Augmentation
from dlbench.data.dataset import IGNORE, DataError, DataSet, Sample

Box = tuple[float, float, float, float]
"""Top, left, bottom, right in pixels, edges of pixels being whole numbers."""


def fit(image: np.ndarray, target: np.ndarray, size: tuple[int, int] | None) -> Sample:
    """Change a sample to ``size`` (height, width): antialiased image, nearest class.

    Velocities belong to a pixel's size, so they cannot be resized: `DataError`.
    """
    if size is None or image.shape[:2] == tuple(size):
        return image, target
    if target.ndim == 3:
        raise DataError(
            f"a sample of {image.shape[0]} x {image.shape[1]} pixels with velocities cannot be "
            f"resized to {size[0]} x {size[1]}; set data.size to no more than the sample's size"
        )
    height, width = target.shape
    return _resample(image, target, (0.0, 0.0, float(height), float(width)), size)


def augment(
    image: np.ndarray,
    target: np.ndarray,
    size: tuple[int, int] | None,
    augmentation: Augmentation,
    generator: np.random.Generator,
    value_range: tuple[float, float] = DataSet.value_range,
) -> Sample:
    """Draw one variant of a sample, of ``size`` or else its own size.

    Brightness and noise are fractions of ``value_range``, the data set's. Image (height, width,
    bands) keeps its dtype; a target of classes (height, width) takes `IGNORE` where the zoom shows
    ground beyond the sample; one of values (height, width, outputs) holds vectors, x and y in turn,
    that turn with the image. Raises `DataError` for what cannot be done.
    """
    size = size or (target.shape[0], target.shape[1])
    require_possible(augmentation, size, target.ndim == 2)
    # Every draw is made whether used or not: switching one change on leaves the others' as is. One
    # by one, since NumPy hands the interpreter to another thread to draw several.
    low, high = augmentation.scale
    zoom = math.exp(generator.uniform(math.log(low), math.log(high)))
    place = generator.random(), generator.random()
    shift, stretch = generator.uniform(-1.0, 1.0), generator.uniform(-1.0, 1.0)
    left_right, up_down = generator.random() < 0.5, generator.random() < 0.5
    turns = int(generator.integers(4))

    extent = value_range[1] - value_range[0]
    image = _shade(image, augmentation, shift * augmentation.brightness * extent, stretch)
    image, target = _zoom(image, target, size, zoom, place)
    if augmentation.flip_left_right and left_right:
        image, target = image[:, ::-1], _vectors(target[:, ::-1], ((-1, 0), (0, 1)))
    if augmentation.flip_up_down and up_down:
        image, target = image[::-1], _vectors(target[::-1], ((1, 0), (0, -1)))
    if augmentation.rotate90:
        image, target = np.rot90(image, turns), np.rot90(target, turns)
        for _ in range(turns):  # x to the right becomes y upwards, where y counts down the rows
            target = _vectors(target, ((0, 1), (-1, 0)))
    if augmentation.noise:
        image = _add_noise(image, augmentation.noise * extent, generator)
    return image, target


def require_possible(
    augmentation: Augmentation, size: tuple[int, int] | None, classes: bool
) -> None:
    """Raise `DataError` if quarter turns are asked of samples that are not square, or a zoom of
    samples that hold velocities in place of ``classes``; ``size`` None: not known yet."""
    if augmentation.rotate90 and size and size[0] != size[1]:
        raise DataError(
            f"data.augmentation.rotate90 needs square samples, they are {size[0]} x {size[1]}; "
            "set rotate90=false or a square data.size"
        )
    if augmentation.scale != (1.0, 1.0) and not classes:
        raise DataError(
            f"data.augmentation.scale is {list(augmentation.scale)}, but a zoom would change the "
            "kilometres a pixel that velocities go by; set scale=[1.0, 1.0]"
        )


def _vectors(target: np.ndarray, matrix: tuple[tuple[int, int], tuple[int, int]]) -> np.ndarray:
    """Multiply the vectors (height, width, (x, y, x, y, ...)) by ``matrix``; classes stay."""
    if target.ndim == 2:
        return target
    vectors = target.reshape(*target.shape[:2], -1, 2)
    return (vectors @ np.array(matrix, target.dtype).T).reshape(target.shape)


def _zoom(
    image: np.ndarray,
    target: np.ndarray,
    size: tuple[int, int],
    zoom: float,
    place: tuple[float, float],
) -> Sample:
    height, width = target.shape[:2]
    if zoom == 1.0:
        return fit(image, target, size)
    if zoom > 1.0:
        top, left = (
            p * (1.0 - 1.0 / zoom) * side for p, side in zip(place, (height, width), strict=True)
        )
        return _resample(image, target, (top, left, top + height / zoom, left + width / zoom), size)
    inner = (max(1, round(size[0] * zoom)), max(1, round(size[1] * zoom)))
    top, left = (int(p * (s - i + 1)) for p, s, i in zip(place, size, inner, strict=True))
    window = np.s_[top : top + inner[0], left : left + inner[1]]
    canvas = np.zeros((*size, image.shape[2]), image.dtype)
    ground = np.full(size, IGNORE, np.uint8)
    canvas[window], ground[window] = fit(image, target, inner)
    return canvas, ground


def _shade(
    image: np.ndarray, augmentation: Augmentation, shift: float, stretch: float
) -> np.ndarray:
    """Change contrast about each band's mean, then add ``shift``; integers stay in their range."""
    if not (augmentation.brightness or augmentation.contrast):
        return image
    values = image.astype(np.float32)
    mean = values.mean(axis=(0, 1))
    values = mean + (values - mean) * np.float32(1.0 + stretch * augmentation.contrast)
    values += np.float32(shift)
    return _as_before(values, image.dtype)


def _add_noise(image: np.ndarray, deviation: float, generator: np.random.Generator) -> np.ndarray:
    drawn = generator.standard_normal(image.shape, np.float32)
    return _as_before(image + drawn * np.float32(deviation), image.dtype)


def _as_before(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    if np.issubdtype(dtype, np.integer):
        values = np.rint(values).clip(np.iinfo(dtype).min, np.iinfo(dtype).max)
    return values.astype(dtype)


def _resample(image: np.ndarray, target: np.ndarray, box: Box, size: tuple[int, int]) -> Sample:
    top, left, bottom, right = box
    # Pillow takes any box as it is, and widens its filter when it shrinks (antialiasing); both
    # it and the rows and columns below put the centre of output pixel i at (i + 1/2) * ratio.
    bytes_in = image.dtype == np.uint8
    bands = [
        np.asarray(
            Image.fromarray(
                np.ascontiguousarray(image[..., b], dtype=np.uint8 if bytes_in else np.float32)
            ).resize((size[1], size[0]), Image.Resampling.BILINEAR, (left, top, right, bottom))
        )
        for b in range(image.shape[2])
    ]
    resized = np.stack(bands, axis=-1)
    if not bytes_in:
        if np.issubdtype(image.dtype, np.integer):
            resized = np.rint(resized)
        resized = resized.astype(image.dtype)
    rows = _centres(top, bottom, size[0], target.shape[0])
    columns = _centres(left, right, size[1], target.shape[1])
    return resized, target[rows[:, None], columns]


def _centres(start: float, stop: float, count: int, limit: int) -> np.ndarray:
    centres = start + (np.arange(count) + 0.5) * (stop - start) / count
    return np.floor(centres).astype(np.intp).clip(0, limit - 1)
