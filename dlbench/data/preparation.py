"""Decode a data set once and for all, into the shards that `dlbench.data.prepared` reads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from dlbench.checkpoint import write_atomically
from dlbench.data import statistics
from dlbench.data.dataset import DataError, DataSet, Sample
from dlbench.data.facts import facts
from dlbench.data.prepared import (
    ALIGNMENT,
    FORMAT,
    INDEX,
    Index,
    PreparedSamples,
    PreparedScenes,
    Record,
    Shard,
    checksum,
    resolved_options,
)
from dlbench.data.windows import Part, Scene, WindowedDataSet, place_of

SHARD_BYTES = 256 * 2**20
BLOCK_BYTES = 2**20
STRIP_ROWS = 256
"""Rows of a scene that are read at once."""
_OURS = re.compile(rf"\.?\w+-\d{{4}}\.(bin|json)(\.\w+)?|\.{re.escape(INDEX)}\.\w+")
"""What a process that was killed leaves, files that it was writing included."""


@dataclass(frozen=True)
class _Whole:
    """One scene or sample to be stored: ``read`` gives its size and its rows, strip by strip."""

    name: str
    row: int
    column: int
    work: int
    read: Callable[[], tuple[int, int, Iterator[Sample]]]


@dataclass(frozen=True)
class _Plan:
    split: str
    number: int
    wholes: Sequence[_Whole]

    @property
    def stem(self) -> str:
        return f"{self.split}-{self.number:04d}"


def prepare(
    dataset: DataSet,
    out: Path,
    splits: Sequence[str] | None = None,
    *,
    workers: int = 2,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write ``splits`` of an open data set, default all, to the folder ``out``; ``progress`` is
    told of each piece of work that is done, and of how much there is.

    The index comes last, so an unfinished folder is none that could be opened; the same call goes
    on with it, shard by shard. Raises `DataError` for what cannot be read or written, and for a
    folder in the way.
    """
    out = Path(out)
    splits = tuple(dataset.splits if splits is None else splits)
    for split in splits:
        dataset.require_split(split)
    _require_place(dataset, out)
    plans = [plan for split in splits for plan in _plans(dataset, split, shard_bytes)]
    total = sum(whole.work for plan in plans for whole in plan.wholes)
    marks = {split: statistics.fingerprint(dataset, split) for split in splits}

    def write(plan: _Plan) -> Shard:
        mark = f"{marks[plan.split]}-{FORMAT}-{shard_bytes}"
        return _shard(dataset, out, plan, mark, lambda done: progress(done, total))

    try:
        out.mkdir(parents=True, exist_ok=True)
        for left in out.glob(".*"):  # half-written
            left.unlink()
        with ThreadPoolExecutor(workers, thread_name_prefix="dlbench-prepare") as pool:
            try:
                shards = list(pool.map(write, plans))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        index = _index(dataset, splits, plans, shards)
        text = json.dumps(index.model_dump(mode="json")).encode()
        write_atomically(out / INDEX, lambda file: file.write(text))
        for plan in plans:
            (out / f"{plan.stem}.json").unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot write to {out}: {error.strerror}; mend that and repeat the command, which "
            "goes on where it stopped"
        ) from error
    return out


def _require_place(dataset: DataSet, out: Path) -> None:
    if isinstance(dataset, (PreparedScenes, PreparedSamples)):
        raise DataError(f"{dataset.root} is prepared already; copy it, or give its source")
    if out.resolve().is_relative_to(dataset.root.resolve()):
        raise DataError(f"{out} lies in the data set's own folder {dataset.root}; choose another")
    if (out / INDEX).is_file():
        raise DataError(f"{out} holds a prepared data set; remove it, or choose another folder")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file; choose a new folder")
    if out.is_dir() and (other := [p for p in out.iterdir() if not _OURS.fullmatch(p.name)]):
        raise DataError(f"{out} holds {other[0].name} and is in the way; choose a new folder")


def _plans(dataset: DataSet, split: str, shard_bytes: int) -> Iterator[_Plan]:
    """Share the scenes or samples of a split among shards, always in the same way."""
    if isinstance(dataset, WindowedDataSet):
        scenes = dataset.scenes(split)
        wholes = [_scene(scene) for scene in scenes]
        pixels = [scene.height * scene.width for scene in scenes]
    else:
        wholes = [_sample(dataset, split, index) for index in range(dataset.count(split))]
        pixels = [dataset.read(split, 0)[0][..., 0].size] * len(wholes) if wholes else []
    if not wholes:
        raise DataError(f"the split '{split}' of {dataset.name} at {dataset.root} is empty")
    pixel_bytes = len(dataset.bands) * dataset.dtype.itemsize + _target_bytes(dataset)
    chosen: list[_Whole] = []
    size = number = 0
    for whole, count in zip(wholes, pixels, strict=True):
        if chosen and size + count * pixel_bytes > shard_bytes:
            yield _Plan(split, number, chosen)
            chosen, size, number = [], 0, number + 1
        chosen.append(whole)
        size += count * pixel_bytes
    yield _Plan(split, number, chosen)


def _target_bytes(dataset: DataSet) -> int:
    return 1 if dataset.classes else 4 * len(dataset.outputs)


def _scene(scene: Scene) -> _Whole:
    def strips() -> Iterator[Sample]:
        for row in range(0, scene.height, STRIP_ROWS):
            yield scene.read(row, 0, min(STRIP_ROWS, scene.height - row), scene.width)

    _, row, column = place_of(scene, 0, 0)
    size = scene.height, scene.width
    return _Whole(scene.name, row, column, scene.height, lambda: (*size, strips()))


def _sample(dataset: DataSet, split: str, index: int) -> _Whole:
    def read() -> tuple[int, int, Iterator[Sample]]:
        image, target = dataset.read(split, index)
        return image.shape[0], image.shape[1], iter([(image, target)])

    return _Whole(dataset.sample_name(split, index), 0, 0, 1, read)


def _shard(
    dataset: DataSet, out: Path, plan: _Plan, mark: str, done: Callable[[int], None]
) -> Shard:
    """Write a shard and what it holds, unless both are there from before."""
    path, note = out / f"{plan.stem}.bin", out / f"{plan.stem}.json"
    try:
        content = json.loads(note.read_text())
        if content["mark"] == mark and path.stat().st_size == content["shard"]["size"]:
            done(sum(whole.work for whole in plan.wholes))
            return Shard.model_validate(content["shard"])
    except (OSError, ValueError, TypeError, KeyError):
        pass  # Not written yet, or not whole.
    records: list[Record] = []

    def write(file: IO[bytes]) -> None:
        for whole in plan.wholes:
            records.append(_record(dataset, file, whole, done))

    write_atomically(path, write)
    shard = Shard(file=path.name, size=path.stat().st_size, records=tuple(records))
    text = json.dumps({"mark": mark, "shard": shard.model_dump(mode="json")}).encode()
    write_atomically(note, lambda file: file.write(text))
    return shard


def _record(
    dataset: DataSet, file: IO[bytes], whole: _Whole, done: Callable[[int], None]
) -> Record:
    height, width, strips = whole.read()
    image_row = width * len(dataset.bands) * dataset.dtype.itemsize
    target_row = width * _target_bytes(dataset)
    image_at = _aligned(file.seek(0, 2))
    target_at = _aligned(image_at + height * image_row)
    # A power of two, so that blocks fit into strips.
    rows = min(STRIP_ROWS, 1 << (max(BLOCK_BYTES // image_row, 1).bit_length() - 1))
    checksums, row = [], 0
    for strip in strips:
        image, target = (np.ascontiguousarray(part) for part in strip)
        assert image.dtype == dataset.dtype
        assert (image.nbytes, target.nbytes) == (len(image) * image_row, len(image) * target_row)
        for at, part, part_row in ((image_at, image, image_row), (target_at, target, target_row)):
            file.seek(at + row * part_row)
            file.write(part.data)
        checksums += [
            checksum(image[start : start + rows], target[start : start + rows])
            for start in range(0, len(image), rows)
        ]
        row += len(image)
        done(whole.work * len(image) // height if height > len(image) else whole.work)
    assert row == height
    return Record(
        name=whole.name,
        row=whole.row,
        column=whole.column,
        height=height,
        width=width,
        image=image_at,
        target=target_at,
        rows=rows,
        checksums=tuple(checksums),
    )


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _index(
    dataset: DataSet, splits: Sequence[str], plans: Sequence[_Plan], shards: Sequence[Shard]
) -> Index:
    windowed = isinstance(dataset, WindowedDataSet)
    # Parts of a scene are cut by the size of the windows.
    by_window = isinstance(dataset, WindowedDataSet) and any(
        isinstance(scene, Part) for split in splits for scene in dataset.scenes(split)
    )
    held: dict[str, Any] = {
        split: [s for p, s in zip(plans, shards, strict=True) if p.split == split]
        for split in splits
    }
    return Index(
        format=FORMAT,
        source=str(dataset.root.resolve()),
        options=resolved_options(type(dataset), dataset.options),
        window=dataset.size if by_window else None,
        windowed=windowed,
        sparse=isinstance(dataset, WindowedDataSet) and dataset.sparse,
        crops=dataset.crops,
        facts=facts(dataset),
        shown=dataset.shown,
        splits=held,
    )
