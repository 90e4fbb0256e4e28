"""Samples to batches: the order of an epoch, its share of each rank, augmentation, prefetching.

What is drawn depends on seed, epoch and sample alone, never on ranks or threads, so runs on any
number of ranks with equal global batch see equal data, and a resumed run sees what it missed, on
however many ranks: the place in an epoch is a number of samples of its order.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from dlbench.config import Augmentation
from dlbench.data import sampling
from dlbench.data.augmentation import augment, fit, require_possible
from dlbench.data.batches import Batch, Batches
from dlbench.data.dataset import IGNORE, DataError, DataSet, Sample

MOST_BYTES = 2**30
"""Of the samples of a split that a process keeps."""
_ORDER, _AUGMENTATION = 0, 1


def steps_per_epoch(
    count: int, batch: int, ranks: int, drop_remainder: bool = False, done: int = 0
) -> int:
    """Steps that each rank makes per epoch, or after ``done`` samples of one that others began;
    the last is smaller unless it is dropped. One step is always left.
    """
    left = count - done
    whole = left // (batch * ranks)
    if whole == 0 and drop_remainder and done == 0:
        raise DataError(
            f"{count} samples are fewer than one global batch ({batch} x {ranks} ranks), and "
            "training.drop_remainder leaves none; lower training.batch or keep the remainder"
        )
    return max(whole, 1) if drop_remainder or left % (batch * ranks) == 0 else whole + 1


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """The permutation (count,) of sample indices in an epoch, the same on every rank."""
    return _generator(seed, epoch, 0, _ORDER).permutation(count)


def rank_share(order: np.ndarray, done: int, batch: int, ranks: int, rank: int) -> np.ndarray:
    """The sample indices of one rank in the step after ``done`` samples: a contiguous share of the
    global batch."""
    return np.array_split(order[done : done + batch * ranks], ranks)[rank]


def training_batches(
    data: DataSet,
    *,
    split: str = "train",
    batch: int,
    ranks: int = 1,
    rank: int = 0,
    seed: int,
    epochs_from: tuple[int, int] = (0, 0),
    augmentation: Augmentation,
    size: tuple[int, int] | None,
    cache: bool = True,
    workers: int = 2,
    drop_remainder: bool = False,
    likely: np.ndarray | None = None,
    unreadable: Unreadable | None = None,
) -> Batches:
    """Endless batches of one rank from (epoch, samples done of it) ``epochs_from`` on.

    An epoch has each sample once or, where ``likely`` (samples,) tells how likely each is to be
    drawn, as many drawn by that; what comes again is moved and changed in another way. Yields image
    (batch, height, width, bands) in the data set's dtype and target, a batch of what `Sample` says.
    Ranks make equally many steps: one that the remainder leaves without a sample gets one whose
    target is all void. So does a sample that cannot be read, which ``unreadable`` then notes;
    without that it ends the epoch with the reader's `DataError`.
    """
    require_possible(augmentation, size, bool(data.classes))
    count = _count(data, split)
    steps_per_epoch(count, batch, ranks, drop_remainder)  # refuses an epoch without a step
    reader = _Reader(data, split, cache)
    void = IGNORE if data.classes else np.nan

    def jobs() -> Iterator[list[tuple[int, int, int, bool]]]:
        epoch, done = epochs_from
        all_places = np.arange(count)
        while True:
            order, repeats = epoch_order(count, seed, epoch), np.zeros(count, np.int64)
            if likely is not None:
                order, repeats = sampling.draws(likely, _generator(seed, epoch, 0, _ORDER))
            for _ in range(steps_per_epoch(count, batch, ranks, drop_remainder, done)):
                places = rank_share(all_places, done, batch, ranks, rank)
                done += batch * ranks
                if len(places):
                    yield [(epoch, int(order[p]), int(repeats[p]), True) for p in places]
                else:
                    yield [(epoch, int(order[0]), 0, False)]
            epoch, done = epoch + 1, 0

    def work(job: tuple[int, int, int, bool]) -> Sample:
        epoch, index, repeat, counts = job
        generator = _generator(seed, epoch, index, _AUGMENTATION, repeat)
        try:
            image, target = reader(index, generator)
        except DataError as error:
            if unreadable is None:
                raise
            unreadable.note(index, error)
            image, target = unreadable.stand_in(reader, index, count)
            counts = False
        image, target = augment(image, target, size, augmentation, generator, data.value_range)
        return image, target if counts else np.full_like(target, void)

    kinds = data.dtype, _target_kind(data)
    return Batches(jobs, work, workers, kinds, f"{data.name}/{split} at {data.root}")


def evaluation_batches(
    data: DataSet,
    split: str,
    *,
    batch: int,
    ranks: int = 1,
    rank: int = 0,
    size: tuple[int, int] | None,
    cache: bool = True,
    workers: int = 2,
) -> Batches:
    """One rank's fixed chunks of a split: chunk c, samples [c * batch, (c + 1) * batch), goes to
    rank c % ranks, so every batch is the same for any number of ranks; none is padded.

    Yields image (batch, height, width, bands), target as `training_batches` does, target at its
    native size likewise and sample indices (batch,) int64.
    """
    count = _count(data, split)
    reader = _Reader(data, split, cache)

    def jobs() -> Iterator[list[int]]:
        for chunk in range(rank, -(-count // batch), ranks):
            yield list(range(chunk * batch, min((chunk + 1) * batch, count)))

    def work(index: int) -> Batch:
        image, native = reader(index, None)
        return *fit(image, native, size), native, np.asarray(index, np.int64)

    target = _target_kind(data)
    kinds = data.dtype, target, target, np.dtype(np.int64)
    return Batches(jobs, work, workers, kinds, f"{data.name}/{split} at {data.root}")


class Unreadable:
    """The samples of a process that could not be read."""

    def __init__(self) -> None:
        self.indices: set[int] = set()
        self._lock = threading.Lock()

    def note(self, index: int, error: DataError) -> None:
        """Tell of a sample, but once."""
        with self._lock:
            if index not in self.indices:
                self.indices.add(index)
                print(f"warning: left out of training: {error}", file=sys.stderr, flush=True)

    def stand_in(self, reader: _Reader, index: int, count: int) -> Sample:
        """The next of ``count`` samples that can be read, whose shape a batch needs."""
        for other in range(index + 1, index + count):
            if other % count in self.indices:
                continue
            try:
                return reader(other % count, None)
            except DataError as error:
                self.note(other % count, error)
        raise DataError("no training sample can be read; python -m dlbench.data check tells why")


class _Reader:
    """Reads samples, where they do not jitter and ``cache`` is set each but once, as far as
    `MOST_BYTES` go. Those kept are not exchanged for others: each is read once an epoch."""

    def __init__(self, data: DataSet, split: str, cache: bool) -> None:
        self._data = data
        self._split = split
        self._samples: dict[int, Sample] = {}
        self._room = MOST_BYTES if cache else 0
        self._lock = threading.Lock()

    def __call__(self, index: int, jitter: np.random.Generator | None) -> Sample:
        if self._data.jitters and jitter is not None:
            return self._data.read(self._split, index, jitter)
        if index in self._samples:
            return self._samples[index]
        sample = self._data.read(self._split, index)
        size = sum(part.nbytes for part in sample)
        with self._lock:
            if index not in self._samples and size <= self._room:
                self._samples[index] = sample
                self._room -= size
        return sample


def _target_kind(data: DataSet) -> np.dtype[Any]:
    return np.dtype(np.uint8 if data.classes else np.float32)


def _count(data: DataSet, split: str) -> int:
    count = data.count(split)
    if count == 0:
        raise DataError(f"the split '{split}' of {data.name} at {data.root} holds no sample")
    return count


def _generator(
    seed: int, epoch: int, index: int, purpose: int, repeat: int = 0
) -> np.random.Generator:
    repeated = [repeat] if repeat else []
    return np.random.Generator(np.random.PCG64([seed, epoch, index, purpose, *repeated]))
