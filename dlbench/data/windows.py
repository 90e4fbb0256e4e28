"""Data sets of scenes larger than a sample: which windows are read, and of which split they are."""

from __future__ import annotations

import abc
import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from dlbench.data.dataset import IGNORE, DataError, DataSet, Sample

SPLITS = ("train", "val", "test")
MOST_WINDOWS = 10_000_000
"""Of a scene: each is remembered, and a damaged header can tell of any number of pixels."""


class Frame(NamedTuple):
    """A rectangle of pixels that holds a scene, from whose row and column it is counted."""

    row: int
    column: int
    height: int
    width: int


class Scene(Protocol):
    """An image with its labels, read in windows."""

    @property
    def file(self) -> Path:
        """What an error names."""

    @property
    def name(self) -> str:
        """By which a sample is found again; no slashes."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def read(self, row: int, column: int, height: int, width: int) -> Sample:
        """The sample of a window that lies on the scene. Raises `DataError`."""


@dataclass(frozen=True)
class Part:
    """A rectangle of a scene, which no window leaves."""

    whole: Scene
    row: int
    column: int
    height: int
    width: int

    @property
    def file(self) -> Path:
        return self.whole.file

    @property
    def name(self) -> str:
        return self.whole.name

    def read(self, row: int, column: int, height: int, width: int) -> Sample:
        return self.whole.read(self.row + row, self.column + column, height, width)


def place_of(scene: Scene, row: int, column: int) -> tuple[Scene, int, int]:
    """The whole scene that a window is of, its row and column there."""
    while isinstance(scene, Part):
        row, column, scene = scene.row + row, scene.column + column, scene.whole
    return scene, row, column


def split_by_blocks(
    scene: Scene, window: tuple[int, int], frame: Frame | None = None
) -> dict[str, list[Part]]:
    """Share the blocks of one scene among the splits: of five, three train, one val, one test.

    Samples beside each other are alike, so windows at random would score a model on what it has
    all but seen; whole blocks keep the splits apart (Roberts et al., Ecography 2017). A block is
    some four windows long and wide, fewer where the scene is small; each split has blocks in all
    parts of the scene, for any seed and number of ranks the same. Blocks of a ``frame``, which
    overlapping scenes share, are cut to the scene; what is left too small for a window is left out.
    """
    if frame is None:
        frame = Frame(0, 0, scene.height, scene.width)
    rows = _blocks(frame.height, window[0], frame.row, scene.height)
    columns = _blocks(frame.width, window[1], frame.column, scene.width)
    parts: dict[str, list[Part]] = {split: [] for split in SPLITS}
    for i, (top, bottom) in rows:
        for j, (left, right) in columns:
            # Steps of a knight: no two neighbours have the same remainder.
            split = {2: "val", 4: "test"}.get((i + 2 * j) % 5, "train")
            parts[split].append(Part(scene, top, left, bottom - top, right - left))
    return parts


def _blocks(length: int, window: int, start: int, side: int) -> list[tuple[int, tuple[int, int]]]:
    """The blocks of ``length`` pixels from ``start`` on, by number, cut to a ``side`` from 0."""
    count = min(max(length // (4 * window), 5), max(length // window, 1))
    edges = [start + i * length // count for i in range(count + 1)]
    cut = [(max(a, 0), min(b, side)) for a, b in itertools.pairwise(edges)]
    whole = length == side
    return [(i, (a, b)) for i, (a, b) in enumerate(cut) if whole or b - a >= window]


def cut(
    height: int, width: int, size: tuple[int, int], jitter: np.random.Generator | None
) -> tuple[int, int, int, int]:
    """Row, column, height and width of a window of ``size``: anywhere, or without ``jitter`` in
    the middle."""
    room = height - size[0], width - size[1]
    if jitter is None:
        return room[0] // 2, room[1] // 2, *size
    row, column = jitter.integers((room[0] + 1, room[1] + 1)).tolist()
    return row, column, *size


@dataclass(frozen=True)
class _Window:
    scene: Scene
    row: int
    column: int
    first_row: int
    """Rows above and columns to the left of these belong to the window before."""
    first_column: int


class WindowedDataSet(DataSet):
    """Windows of ``size`` that cover each scene.

    The last window of a row or column is moved inwards to stay on the scene. In training it
    overlaps its neighbour, and every window moves at random by up to half its size; in ``val``
    and ``test`` the overlap is `IGNORE`, so that every pixel counts exactly once. ``stride``
    spaces training windows (default: their size).
    """

    jitters = True
    sparse: bool = False
    """Whether little of the ground is labelled, and windows without any label, on pixels that can
    be used, are no samples."""

    def __init__(
        self, root: Path, size: tuple[int, int] | None = None, stride: int | None = None
    ) -> None:
        super().__init__(root, size)
        if size is None:
            raise DataError(
                f"{self.name} is cut into windows: give data.size=[height, width], say [256, 256]"
            )
        if stride is not None and not 1 <= stride <= min(size):
            raise DataError(f"stride is {stride}, allowed: 1 to the window's {min(size)} pixels")
        self.window = size
        self._stride = stride
        self._windows: dict[str, list[_Window]] = {}

    @abc.abstractmethod
    def scenes(self, split: str) -> Sequence[Scene]:
        """The scenes of a split that `splits` names, headers checked. Raises `DataError`."""

    def count(self, split: str) -> int:
        return len(self._grid(split))

    def read(self, split: str, index: int, jitter: np.random.Generator | None = None) -> Sample:
        """One window; with ``jitter`` moved by up to half its size, but kept on its scene."""
        window = self._grid(split)[index]
        scene, row, column = window.scene, window.row, window.column
        height, width = self.window
        if jitter is not None:
            row, column = (
                min(max(start + int(jitter.integers(-(side // 2), side // 2 + 1)), 0), room)
                for start, side, room in (
                    (row, height, scene.height - height),
                    (column, width, scene.width - width),
                )
            )
        image, target = scene.read(row, column, height, width)
        if jitter is None and split != "train":
            target[: window.first_row - row] = IGNORE
            target[:, : window.first_column - column] = IGNORE
        return image, target

    def sample_name(self, split: str, index: int) -> str:
        window = self._grid(split)[index]
        whole, row, column = place_of(window.scene, window.row, window.column)
        return f"{split}/{whole.name}/row{row}-column{column}"

    def _grid(self, split: str) -> list[_Window]:
        if split not in self._windows:
            self.require_split(split)
            stride = self._stride if split == "train" else None
            scenes = self.scenes(split)
            windows = [window for one in scenes for window in _cover(one, self.window, stride)]
            if self.sparse:
                # Labels are few, but imagery takes its time to be decoded.
                with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                    kept = pool.map(partial(_has_label, size=self.window), windows)
                    windows = list(itertools.compress(windows, kept))
            if not windows:
                raise DataError(
                    f"{self.name} at {self.root} has no label in the split '{split}' that "
                    "clouds and gaps of the imagery leave; lower data.size for smaller blocks, or "
                    "give whole scenes: data.options.scenes=..."
                )
            self._windows[split] = windows
        return self._windows[split]


def _has_label(window: _Window, size: tuple[int, int]) -> bool:
    """Whether a window has one where its image can be used; imagery is read only under labels."""
    # It brings libraries of maps along, which data sets of others that cut windows do not need.
    from dlbench.data.labelled_imagery import LabelledImagery

    scene, row, column = place_of(window.scene, window.row, window.column)
    if isinstance(scene, LabelledImagery) and (scene.target(row, column, *size) == IGNORE).all():
        return False
    try:
        return bool((scene.read(row, column, *size)[1] != IGNORE).any())
    except DataError:
        return True  # a sample all the same: who reads it tells of it, or leaves it out


def _cover(scene: Scene, window: tuple[int, int], stride: int | None) -> list[_Window]:
    if scene.height < window[0] or scene.width < window[1]:
        raise DataError(
            f"{scene.file} is {scene.height} x {scene.width} pixels, smaller than the windows "
            f"of {window[0]} x {window[1]}; lower data.size"
        )
    if scene.height * scene.width > MOST_WINDOWS * window[0] * window[1]:
        raise DataError(
            f"{scene.file} says it is {scene.height} x {scene.width} pixels, more than "
            f"{MOST_WINDOWS:,} windows of {window[0]} x {window[1]}; fetch it again if its header "
            "is damaged, or raise data.size"
        )
    rows = _starts(scene.height, window[0], stride or window[0])
    columns = _starts(scene.width, window[1], stride or window[1])
    return [_Window(scene, r, c, nr, nc) for r, nr in rows for c, nc in columns]


def _starts(extent: int, side: int, stride: int) -> list[tuple[int, int]]:
    """Starts that cover ``extent``, each with the first pixel that no start before it covers."""
    starts = [*range(0, extent - side, stride), extent - side]
    covered = [0, *(start + side for start in starts[:-1])]
    return list(zip(starts, covered, strict=True))
