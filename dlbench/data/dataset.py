"""What every data set is: its classes, bands and splits, and how one sample is read."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from dlbench.errors import UserError

if TYPE_CHECKING:
    from dlbench.data.fetching import Download

IGNORE = 255
"""Class index of a pixel that neither trains nor counts; among values that is NaN."""

Sample = tuple[np.ndarray, np.ndarray]
"""Image (height, width, bands) in the file's dtype; target (height, width) uint8 class indices, or
(height, width, outputs) float32 values."""


class DataError(UserError):
    """Data that cannot be used; the message names the file, the reason and the remedy."""


@dataclass(frozen=True)
class ClassInfo:
    """One class; its index is its place in `DataSet.classes`, ``code`` its value in the files."""

    name: str
    color: tuple[int, int, int]
    code: int


class DataSet(abc.ABC):
    """Samples of one folder in the data set's real layout, addressed by split and index."""

    name: ClassVar[str]
    task: ClassVar[str] = "segmentation"
    """A row of `dlbench.tasks.TASKS`: what is learnt from the samples."""
    bands: tuple[str, ...]
    classes: tuple[ClassInfo, ...] = ()
    """Empty where targets are values."""
    headline_leaves_out: ClassVar[tuple[str, ...]] = ()
    """Classes, by name, that the data set's own benchmark leaves out of the means it ranks by."""
    dtype: np.dtype[Any]
    shown: tuple[int, int, int] | None = None
    """The bands that pictures show as red, green and blue; None: the first three."""
    units: ClassVar[str]
    """Unit of the image values."""
    value_range: tuple[float, float] = (0.0, 255.0)
    """What the image values lie between, but for a few: what a network's input is rescaled by."""
    ground_sampling_distance: float | None
    """Metres a pixel; None where the ground is seen in perspective."""
    read_as: str | None = None
    """As `Facts.read_as`."""
    licence: ClassVar[str]
    source: ClassVar[str]
    """Where to get it."""
    splits: tuple[str, ...]
    """The splits that this folder holds."""
    jitters: bool = False
    """Whether `read` heeds ``jitter``: then training samples differ by epoch, so none is cached."""
    resizes: bool = False
    """Whether whole samples are brought to ``size``."""
    crops: ClassVar[bool] = False
    """Whether ``size`` cuts windows out of samples that are stored whole."""
    layout: ClassVar[str] = ""
    """How files lie in the data set's folder, for those who unpack it."""
    downloads: ClassVar[Mapping[str, Download]] = {}
    """The parts, by name, that `dlbench.data.fetching` can fetch; none of what asks to register."""
    options: Mapping[str, Any] = {}
    """What `dlbench.data.build` was told beside root and size."""

    def __init__(self, root: Path, size: tuple[int, int] | None = None) -> None:
        self.root = Path(root)
        self.size = size
        if not self.root.is_dir():
            reason = "is not a folder" if self.root.exists() else "does not exist"
            raise DataError(
                f"the data folder of {self.name}, {self.root}, {reason}; "
                f"give the unpacked data set as data.root=... (from {self.source})"
            )

    @property
    def outputs(self) -> tuple[str, ...]:
        """What a network gives for each pixel, by name: a score a class, or the target's values."""
        return tuple(c.name for c in self.classes)

    @abc.abstractmethod
    def count(self, split: str) -> int:
        """Number of samples in a split."""

    @abc.abstractmethod
    def read(self, split: str, index: int, jitter: np.random.Generator | None = None) -> Sample:
        """One sample, deterministic but for draws from ``jitter``.

        Windowed rasters return `size`; pictures return their native size, for the pipeline to
        resize. Raises `DataError` that names the file.
        """

    @abc.abstractmethod
    def sample_name(self, split: str, index: int) -> str:
        """A name for a sample by which its file and place are found."""

    def missing(self) -> list[str]:
        """What the whole data set has and this folder lacks, a line each; not all of it is needed
        to train."""
        return []

    def require_split(self, split: str) -> None:
        """Raise `DataError` unless this folder holds ``split``."""
        if split not in self.splits:
            held = ", ".join(self.splits) or "none"
            raise DataError(f"{self.name} at {self.root} has no split '{split}'; it holds: {held}")
