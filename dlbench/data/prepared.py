"""Data sets that were decoded once and for all: `dlbench.data.preparation` writes them.

A folder of shards, ``train-0000.bin`` and so on, with an index ``prepared.json``. A shard is
records one after the other; a record is the whole image (height, width, bands) of a scene, or of a
sample, and then its target, as plain arrays in C order. They are mapped into memory, so a window
is read by copying its pixels. Each block of rows has a checksum, which is verified when the block
is first touched.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from dlbench.data.dataset import DataError, DataSet, Sample
from dlbench.data.facts import Facts
from dlbench.data.options import with_defaults
from dlbench.data.windows import WindowedDataSet, cut

INDEX = "prepared.json"
FORMAT = 3
"""Raised whenever older folders could no longer be read, or hold other samples than the same files
and options would give now; that is whenever `statistics.VERSION` is, too."""
ALIGNMENT = 64
"""Bytes: where arrays begin in a shard."""
FREE_OPTIONS = frozenset({"stride"})
"""Options that choose among what is stored, and so need not agree."""


class Record(BaseModel):
    """Where the arrays of a scene or sample lie in its shard."""

    model_config = ConfigDict(frozen=True)

    name: str
    row: int = 0
    """Where a part of a scene begins in it."""
    column: int = 0
    height: int
    width: int
    image: int
    """Offset in bytes."""
    target: int
    rows: int
    """Of a block."""
    checksums: tuple[int, ...]
    """CRC-32 of each block: its rows of the image, then of the target."""


class Shard(BaseModel):
    model_config = ConfigDict(frozen=True)

    file: str
    size: int
    """Bytes."""
    records: tuple[Record, ...]


class Index(BaseModel):
    """What a folder was prepared from, and where everything lies."""

    model_config = ConfigDict(frozen=True)

    format: int
    source: str
    """The folder that was read."""
    options: dict[str, Any]
    """All that the data set has, defaults too, but for `FREE_OPTIONS`."""
    window: tuple[int, int] | None
    """The size that windows must have: it took part in what is of which split."""
    windowed: bool
    sparse: bool
    crops: bool
    facts: Facts
    shown: tuple[int, int, int] | None
    splits: dict[str, tuple[Shard, ...]]


def is_prepared(root: Path) -> bool:
    """Whether a folder holds shards, those that are not yet whole too."""
    return (Path(root) / INDEX).is_file() or any(Path(root).glob("*-0000.bin"))


def open_prepared(
    kind: type[DataSet], root: Path, size: tuple[int, int] | None, options: Mapping[str, Any]
) -> DataSet:
    """What ``root`` holds as the data set that it was made from.

    Raises `DataError` unless name and options are those that it was prepared with.
    """
    index = _read_index(Path(root))
    if index.facts.name != kind.name:
        raise DataError(f"{root} holds {index.facts.name}, prepared, but data.name is {kind.name}")
    asked = resolved_options(kind, options)
    for key, given in asked.items():
        if given != index.options.get(key):
            raise DataError(
                f"{root} was prepared with {key}={json.dumps(index.options.get(key))}, asked for "
                f"is {key}={json.dumps(given)}; set data.options.{key} likewise, or prepare "
                f"another folder: {command(kind.name, index.source)} {key}=..."
            )
    if index.window is not None and size is not None and tuple(size) != index.window:
        raise DataError(
            f"{root} was prepared for data.size={list(index.window)}, by which the scenes were "
            f"shared among the splits, not for {list(size)}; set that, or prepare another folder: "
            f"{command(kind.name, index.source)} size=[{size[0]},{size[1]}]"
        )
    if index.windowed:
        return PreparedScenes(index, kind, root, size, options.get("stride"))
    return PreparedSamples(index, kind, root, size)


def resolved_options(kind: type[DataSet], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide what is prepared, those not given by their defaults."""
    found = with_defaults(kind, options)
    return {key: value for key, value in found.items() if key not in FREE_OPTIONS}


def command(name: str, source: str) -> str:
    return f"python -m dlbench.data prepare {name} {source} OUT"


class PreparedScenes(WindowedDataSet):
    """Windows of scenes that were prepared; they move as those of the files do."""

    _outputs: tuple[str, ...]

    def __init__(
        self,
        index: Index,
        kind: type[DataSet],
        root: Path,
        size: tuple[int, int] | None = None,
        stride: int | None = None,
    ) -> None:
        _adopt(self, index, kind)
        super().__init__(root, size, stride)
        self.sparse = index.sparse
        self._scenes = _open_records(self.root, index)

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._outputs

    def scenes(self, split: str) -> Sequence[_Stored]:
        return self._scenes[split]

    def sample_name(self, split: str, index: int) -> str:
        window = self._grid(split)[index]
        scene = window.scene
        assert isinstance(scene, _Stored)
        row, column = scene.row + window.row, scene.column + window.column
        return f"{split}/{scene.name}/row{row}-column{column}"


class PreparedSamples(DataSet):
    """Samples that were prepared, each whole; where the data set cuts windows, so does this."""

    _outputs: tuple[str, ...]

    def __init__(
        self, index: Index, kind: type[DataSet], root: Path, size: tuple[int, int] | None = None
    ) -> None:
        _adopt(self, index, kind)
        super().__init__(root, size)
        self._samples = _open_records(self.root, index)
        self._cut = size if index.crops else None
        if self._cut is None:
            return
        for sample in (sample for samples in self._samples.values() for sample in samples):
            if sample.height < self._cut[0] or sample.width < self._cut[1]:
                raise DataError(
                    f"data.size is {list(self._cut)}, but {sample.name} in {sample.file} has "
                    f"{sample.height} x {sample.width} pixels; set it to no more than that"
                )
        training = self._samples.get("train", [])
        self.jitters = any((s.height, s.width) != self._cut for s in training[:1])

    @property
    def outputs(self) -> tuple[str, ...]:
        return self._outputs

    def count(self, split: str) -> int:
        self.require_split(split)
        return len(self._samples[split])

    def read(self, split: str, index: int, jitter: np.random.Generator | None = None) -> Sample:
        self.require_split(split)
        sample = self._samples[split][index]
        place = 0, 0, sample.height, sample.width
        if self._cut is not None:
            place = cut(sample.height, sample.width, self._cut, jitter)
        return sample.read(*place)

    def sample_name(self, split: str, index: int) -> str:
        return self._samples[split][index].name


class _Stored:
    """A record as a `Scene`."""

    def __init__(self, file: Path, data: np.ndarray, record: Record, index: Index) -> None:
        self.file, self.name = file, record.name
        self.row, self.column = record.row, record.column
        self.height, self.width = record.height, record.width
        bands, outputs = len(index.facts.bands), len(index.facts.outputs)
        pixels = record.height, record.width
        self._image = _view(data, record.image, (*pixels, bands), index.facts.dtype)
        self._target = (
            _view(data, record.target, pixels, "uint8")
            if index.facts.classes
            else _view(data, record.target, (*pixels, outputs), "float32")
        )
        self._rows, self._checksums = record.rows, record.checksums
        self._verified = np.zeros(len(record.checksums), bool)
        self._anew = command(index.facts.name, index.source)

    def read(self, row: int, column: int, height: int, width: int) -> Sample:
        blocks = slice(row // self._rows, -(-(row + height) // self._rows))
        if not self._verified[blocks].all():
            self._verify(blocks)
        window = np.s_[row : row + height, column : column + width]
        # The image is copied where it goes, into its batch; of the target some may become void.
        return self._image[window], np.array(self._target[window])

    def _verify(self, blocks: slice) -> None:
        for block in range(blocks.start, blocks.stop):
            rows = slice(block * self._rows, (block + 1) * self._rows)
            if checksum(self._image[rows], self._target[rows]) != self._checksums[block]:
                raise DataError(
                    f"{self.file} is damaged: rows {rows.start} to "
                    f"{min(rows.stop, self.height) - 1} of {self.name} fail their checksum; copy "
                    f"it anew, or prepare the data set again: {self._anew}"
                )
            self._verified[block] = True


def checksum(image: np.ndarray, target: np.ndarray) -> int:
    """CRC-32 of rows of an image and then of its target."""
    return zlib.crc32(target.data, zlib.crc32(image.data))


def _view(data: np.ndarray, offset: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return np.ndarray(shape, dtype, buffer=data, offset=offset)


def _adopt(dataset: DataSet, index: Index, kind: type[DataSet]) -> None:
    """Give a prepared data set the attributes of the one that it was made from."""
    facts = {name: getattr(index.facts, name) for name in Facts.model_fields}
    outputs = facts.pop("outputs")
    vars(dataset).update(
        facts,
        dtype=np.dtype(index.facts.dtype),
        shown=index.shown,
        layout=kind.layout,
        headline_leaves_out=kind.headline_leaves_out,
        resizes=kind.resizes,
        splits=tuple(index.splits),
        _outputs=outputs,
    )


def _read_index(root: Path) -> Index:
    path = root / INDEX
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["format"]
        if found == FORMAT:
            return Index.model_validate(content)
    except FileNotFoundError:
        raise DataError(
            f"{root} lacks {INDEX}, so it was not prepared to the end; repeat the command that "
            "began it: python -m dlbench.data prepare ..."
        ) from None
    except (OSError, ValueError, TypeError, KeyError, ValidationError) as error:
        raise DataError(
            f"{path} is damaged ({type(error).__name__}); prepare the data set again"
        ) from error
    raise DataError(
        f"{path} is of format {found}, this version reads {FORMAT}: it cannot be read, or holds "
        "other samples than its files give now; prepare the data set again"
    )


def _open_records(root: Path, index: Index) -> dict[str, list[_Stored]]:
    """The records by split, their shards mapped. Raises `DataError` for a shard that is missing or
    not as long as it was."""
    records: dict[str, list[_Stored]] = {}
    for split, shards in index.splits.items():
        records[split] = []
        for shard in shards:
            path = root / shard.file
            size = path.stat().st_size if path.is_file() else None
            if size != shard.size:
                state = "is missing" if size is None else f"has {size} bytes, not {shard.size}"
                raise DataError(
                    f"{path} {state}; copy it anew, or prepare the data set again: "
                    f"{command(index.facts.name, index.source)}"
                )
            data = np.memmap(path, np.uint8, "r")
            records[split] += [_Stored(path, data, record, index) for record in shard.records]
    return records
