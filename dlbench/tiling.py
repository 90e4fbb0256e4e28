"""Prediction over images of any size by overlapping tiles, without seams; free of TensorFlow.

A network sees a pixel together with those around it. Near a tile's border some of these are cut
off; so tiles overlap. Of each tile's result the middle alone is kept (`predict_tiled`), or where
a network sees too far for that, the results are blended (`blend_tiled`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any, TypeVar

import numpy as np

from dlbench.config import ConfigError

Job = TypeVar("Job")
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

    def number(self, source: Window) -> int:
        """Of the tile that sees ``source``, counted row by row."""
        rows, columns = (
            [span.start for span, _, _ in self._spans(length)]
            for length in (self.height, self.width)
        )
        return rows.index(source[0].start) * len(columns) + columns.index(source[1].start)

    def weighted(self, length: int) -> list[tuple[slice, np.ndarray]]:
        """Along an axis of ``length``: the source of each tile, and the weights of its pixels.

        The weights of a pixel add up to 1 over the tiles. Towards a neighbour they fall as a raised
        cosine of ``overlap`` pixels and are 0 in the last ``overlap / 2``: what is predicted there
        lacks its surroundings most.
        """
        total = np.zeros(length)
        found = []
        for source, _, _ in self._spans(length):
            place = np.arange(source.start, source.stop) + 0.5
            weights = np.ones(len(place))
            if self.overlap:
                for border, distance in (
                    (source.start > 0, place - source.start),
                    (source.stop < length, source.stop - place),
                ):
                    if border:
                        ramp = np.clip(distance / self.overlap - 0.5, 0.0, 1.0)
                        weights *= np.sin(0.5 * np.pi * ramp) ** 2
            total[source] += weights
            found.append((source, weights))
        return [(source, (w / total[source]).astype(np.float32)) for source, w in found]

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


def blend_tiled(
    read: Callable[[list[Window]], Any],
    predict: Callable[[Any], np.ndarray],
    tiling: Tiling,
    outputs: int,
    batch: int = 1,
    columns: slice | None = None,
) -> Generator[tuple[Window, np.ndarray], None, None]:
    """Blocks of the mean of what tiles predict, from top to bottom, each pixel in one of them.

    Tiles weigh as `Tiling.weighted` says. ``read`` gives what is in windows of one shape, in a
    thread, while ``predict`` maps what was read before to float32 ``(batch, height, width,
    outputs)``. A block is ``(rows, columns, outputs)`` float32, to be used before the next; held
    are ``tile`` rows of ``columns``, those that are wanted (by default all). Tiles that reach over
    these weigh the same, so that parts that are made apart fit without seams.
    """
    wanted = columns or slice(0, tiling.width)
    down = tiling.weighted(tiling.height)
    across = [
        (span, weights)
        for span, weights in tiling.weighted(tiling.width)
        if weights[_common(span, wanted, span.start)].any()
    ]

    def batches() -> Iterator[tuple[int, list[Any]]]:
        for number in range(len(down)):
            for _, alike in groupby(across, lambda part: part[0].stop - part[0].start):
                while chosen := list(islice(alike, batch)):
                    yield number, chosen

    def load(job: tuple[int, list[Any]]) -> Any:
        number, chosen = job
        return read([(down[number][0], span) for span, _ in chosen])

    tallest = down[0][0].stop
    sums = np.zeros((tallest, wanted.stop - wanted.start, outputs), np.float32)
    with closing(_ahead(load, batches())) as loaded:
        for number, row in groupby(loaded, lambda item: item[0][0]):
            rows, by_row = down[number]
            for (_, chosen), images in row:
                results = predict(images)
                shape = (len(chosen), len(by_row), len(chosen[0][1]), outputs)
                if results.shape != shape:
                    raise ValueError(f"predict made {results.shape}; needed is {shape}")
                for (span, by_column), result in zip(chosen, results, strict=True):
                    inside = _common(span, wanted, span.start)
                    weights = by_row[:, None] * by_column[inside]
                    part = sums[: len(by_row), _common(span, wanted, wanted.start)]
                    part += result[:, inside] * weights[..., None]
            stop = down[number + 1][0].start if number + 1 < len(down) else tiling.height
            done = stop - rows.start
            for left in range(wanted.start, wanted.stop, tiling.tile):
                block = slice(left, min(left + tiling.tile, wanted.stop))
                yield (
                    (slice(rows.start, stop), block),
                    sums[:done, _common(block, wanted, wanted.start)],
                )
            for top in range(0, tallest, done):  # what the next tiles share moves up
                rest = sums[top + done : top + 2 * done]
                sums[top : top + len(rest)] = rest
            sums[tallest - done :] = 0.0


def _common(a: slice, b: slice, start: int) -> slice:
    """What two spans share, counted from ``start``."""
    return slice(max(a.start, b.start) - start, max(min(a.stop, b.stop), a.start, b.start) - start)


def _ahead(
    load: Callable[[Job], Any], jobs: Iterable[Job]
) -> Generator[tuple[Job, Any], None, None]:
    """Each job with what ``load`` makes of it in a thread, while the one before is worked on."""
    with ThreadPoolExecutor(1) as reader:
        before: tuple[Job, Future[Any]] | None = None
        for job in jobs:
            coming = job, reader.submit(load, job)
            if before is not None:
                yield before[0], before[1].result()
            before = coming
        if before is not None:
            yield before[0], before[1].result()
