"""Prediction over images of any size by overlapping tiles, without seams; free of TensorFlow.

A network sees a pixel together with those around it. Near a tile's border some of these are cut
off; so tiles overlap, and of each tile's result the middle alone is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import numpy as np

from dlbench.config import ConfigError

Window = tuple[slice, slice]
"""Rows and columns."""


@dataclass(frozen=True)
class Tile:
    """A part of the image that the network sees at once."""

    source: Window
    """Of the image: what the network sees."""
    inner: Window
    """Of the tile's result: what is kept."""
    target: Window
    """Of the image's result: where that goes."""

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.source
        return rows.stop - rows.start, columns.stop - columns.start


@dataclass(frozen=True)
class Tiling:
    """Tiles of ``tile`` x ``tile`` pixels over an image of ``height`` x ``width``, row by row.

    Every pixel is kept from one tile, the one whose border is farthest from it: at least
    ``overlap`` pixels, but for the image's own border. With an overlap of the network's receptive
    radius or more, the result is that of the whole image.

    No tile reaches over the image: the last ones are shifted inwards, and an image that is smaller
    than a tile is one tile. All tiles start on multiples of ``align``, the stride of the network;
    where the image's size is no such multiple, the last ones are up to ``align - 1`` smaller.
    """

    height: int
    width: int
    tile: int
    overlap: int = 0
    align: int = 1

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.align) < 1 or self.overlap < 0:
            raise ConfigError(
                f"height={self.height} width={self.width} align={self.align} must be at least 1, "
                f"overlap={self.overlap} at least 0"
            )
        if self.tile % self.align:
            raise ConfigError(f"tile={self.tile} must be a multiple of {self.align}")
        if self.tile < self._smallest:
            raise ConfigError(
                f"tile={self.tile} leaves nothing between overlaps of {self.overlap} pixels on "
                f"each side; take tile={self._smallest} or more, or a smaller overlap"
            )

    def __iter__(self) -> Iterator[Tile]:
        columns = self._spans(self.width)
        for row in self._spans(self.height):
            for column in columns:
                yield Tile(*zip(row, column, strict=True))

    def __len__(self) -> int:
        return len(self._spans(self.height)) * len(self._spans(self.width))

    @property
    def _smallest(self) -> int:
        return (-(-2 * self.overlap // self.align) + 1) * self.align

    def _spans(self, length: int) -> list[tuple[slice, slice, slice]]:
        """Along one axis: (source, inner, target) of each tile."""
        # In units of `align`; equal steps of at most `longest` spread what is left over evenly.
        last = max(0, -(-(length - self.tile) // self.align))
        longest = (self.tile - 2 * self.overlap) // self.align
        steps = -(-last // longest)
        starts = [i * last // max(steps, 1) * self.align for i in range(steps + 1)]
        stops = [*(start + self.tile for start in starts[:-1]), length]
        # Between two tiles the cut is in the middle of what they share.
        cuts = [(a + b) // 2 for a, b in zip(starts[1:], stops, strict=False)]
        return [
            (slice(start, stop), slice(low - start, high - start), slice(low, high))
            for start, stop, low, high in zip(
                starts, stops, [0, *cuts], [*cuts, length], strict=True
            )
        ]


def predict_tiled(
    predict: Callable[[np.ndarray], Any],
    image: Any,
    tile: int,
    overlap: int,
    batch: int = 1,
    *,
    align: int = 1,
    output: Any = None,
) -> Any:
    """What ``predict`` makes of ``image``, tile by tile.

    ``image`` is ``(height, width, channels)`` and gives an array for two slices: NumPy's, a memory
    map, an HDF5 data set; it is never read whole. ``predict`` maps
    ``(batch, height, width, channels)`` to ``(batch, height, width, outputs)`` of the same height
    and width. Returns ``output``, where the result goes, or a new array
    ``(height, width, outputs)``.
    """
    height, width = image.shape[:2]
    tiles_in_order = Tiling(height, width, tile, overlap, align)
    for _, alike in groupby(tiles_in_order, lambda tile: tile.shape):
        while tiles := list(islice(alike, batch)):
            results = np.asarray(predict(np.stack([image[t.source] for t in tiles])))
            if results.shape[:3] != (len(tiles), *tiles[0].shape):
                raise ValueError(
                    f"predict made {results.shape} of {len(tiles)} tiles of {tiles[0].shape}; "
                    "needed is (batch, height, width, outputs)"
                )
            if output is None:
                output = np.empty((height, width, *results.shape[3:]), results.dtype)
            for one, result in zip(tiles, results, strict=True):
                output[one.target] = result[one.inner]
    return output
