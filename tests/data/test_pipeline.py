from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlbench.config import Augmentation
from dlbench.data import IGNORE, ClassInfo, DataError, DataSet, build
from dlbench.data.dataset import Sample
from dlbench.data.preparation import prepare

pytest.importorskip("tensorflow")
from dlbench.data import pipeline
from dlbench.data.pipeline import (
    epoch_order,
    evaluation_batches,
    rank_share,
    steps_per_epoch,
    training_batches,
)

PLAIN = Augmentation(flip_left_right=False)
RICH = Augmentation(flip_up_down=True, rotate90=True, scale=(0.7, 1.5), brightness=0.1)


class Numbered(DataSet):
    """Samples whose first pixel is their index; counts its reads."""

    name = "numbered"
    bands = ("one", "two")
    classes = (ClassInfo("a", (0, 0, 0), 0), ClassInfo("b", (1, 1, 1), 1))
    dtype = np.dtype(np.uint16)
    splits = ("train", "val")

    def __init__(self, samples: int) -> None:
        super().__init__(Path("/"))
        self.samples = samples
        self.reads = 0

    def count(self, split: str) -> int:
        self.require_split(split)
        return self.samples

    def read(self, split: str, index: int, jitter: np.random.Generator | None = None) -> Sample:
        self.reads += 1
        rng = np.random.default_rng(index)
        image = rng.integers(0, 65536, (8, 8, 2), dtype=np.uint16)
        image[0, 0] = index
        return image, rng.integers(0, 2, (8, 8), np.uint8)

    def sample_name(self, split: str, index: int) -> str:
        return f"{split}/{index}"


class Jittery(Numbered):
    jitters = True

    def read(self, split: str, index: int, jitter: np.random.Generator | None = None) -> Sample:
        image, target = super().read(split, index)
        return image + np.uint16(jitter.integers(100) if jitter else 0), target


def _batches(data: DataSet, steps: int, **options: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    options = {"batch": 2, "seed": 7, "augmentation": RICH, "size": (8, 8), **options}
    image_and_target = itertools.islice(training_batches(data, **options), steps)
    return [(image, target) for image, target in image_and_target]


def _global(data: DataSet, ranks: int, batch: int, steps: int, **options: Any) -> list[tuple]:
    """Global batches: what counts of all ranks' batches, put together again."""
    each = [
        _batches(data, steps, ranks=ranks, rank=rank, batch=batch, **options)
        for rank in range(ranks)
    ]
    joined = []
    for parts in zip(*each, strict=True):
        images = np.concatenate([image for image, _ in parts])
        targets = np.concatenate([target for _, target in parts])
        counts = (targets != IGNORE).any(axis=(1, 2))
        joined.append((images[counts], targets[counts]))
    return joined


def _equal(one: list[tuple], two: list[tuple]) -> None:
    assert len(one) == len(two)
    for (image, target), (other_image, other_target) in zip(one, two, strict=True):
        np.testing.assert_array_equal(image, other_image)
        np.testing.assert_array_equal(target, other_target)


def test_steps_per_epoch() -> None:
    assert steps_per_epoch(16, 4, 2) == 2
    assert steps_per_epoch(17, 4, 2) == 3
    assert steps_per_epoch(17, 4, 2, drop_remainder=True) == 2
    assert steps_per_epoch(1, 4, 2) == 1
    with pytest.raises(DataError, match=r"7 samples are fewer than one global batch \(4 x 2"):
        steps_per_epoch(7, 4, 2, drop_remainder=True)


def test_epoch_order_is_a_permutation_of_its_own() -> None:
    orders = [epoch_order(101, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(101))
    for one, two in itertools.combinations(orders, 2):
        assert (one != two).any()
    np.testing.assert_array_equal(epoch_order(101, 1, 1), orders[-1])


@pytest.mark.parametrize("count", [1, 2, 5, 13, 16, 101])
@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("batch", [1, 3, 4])
def test_shares_are_disjoint_complete_and_even(count: int, ranks: int, batch: int) -> None:
    order = epoch_order(count, 0, 0)
    for step in range(steps_per_epoch(count, batch, ranks)):
        done = step * batch * ranks
        shares = [rank_share(order, done, batch, ranks, rank) for rank in range(ranks)]
        whole = order[done : done + batch * ranks]
        np.testing.assert_array_equal(np.concatenate(shares), whole)
        sizes = [len(share) for share in shares]
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= batch


@pytest.mark.parametrize("count", [1, 5, 8, 13])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_every_sample_counts_once_an_epoch(count: int, ranks: int) -> None:
    data = Numbered(count)
    steps = steps_per_epoch(count, 2, ranks)
    batches = _global(data, ranks, 2, 2 * steps, augmentation=PLAIN)
    for epoch in range(2):
        images = [image for image, _ in batches[epoch * steps : (epoch + 1) * steps]]
        seen = np.concatenate(images)[:, 0, 0, 0]
        assert sorted(seen) == list(range(count))


def test_steps_that_are_left_of_an_epoch() -> None:
    assert steps_per_epoch(17, 4, 2, done=16) == 1
    assert steps_per_epoch(17, 4, 2, done=9) == 1
    assert steps_per_epoch(17, 4, 2, done=8) == 2
    assert steps_per_epoch(17, 4, 2, drop_remainder=True, done=8) == 1
    assert steps_per_epoch(10, 1, 5, drop_remainder=True, done=6) == 1, "an epoch has an end"


@pytest.mark.parametrize("seed", range(60))
def test_ranks_that_change_share_out_each_sample_once(seed: int) -> None:
    """Counted one by one, over ranks that change after any step of two epochs."""
    generator = np.random.default_rng(seed)
    count, batch = int(generator.integers(1, 40)), int(generator.integers(1, 5))
    for epoch in range(2):
        order = epoch_order(count, seed, epoch)
        seen: list[int] = []
        while len(seen) < count:
            ranks = int(generator.integers(1, 6))
            left = steps_per_epoch(count, batch, ranks, done=len(seen))
            for _ in range(int(generator.integers(1, left + 1))):
                done = len(seen)
                for rank in range(ranks):
                    share = rank_share(order, done, batch, ranks, rank)
                    assert len(share) <= batch
                    seen += share.tolist()
        assert seen == order.tolist()


@pytest.mark.parametrize("kind", [Numbered, Jittery])
def test_batches_of_ranks_that_change_hold_the_order_of_one_rank(kind: type[Numbered]) -> None:
    """3 ranks, 2 in mid-epoch, 4 in the next, batch 2: 13 samples an epoch, then 12 of 13."""
    whole = _global(kind(13), 1, 1, 25)
    parts = [
        _global(kind(13), 3, 2, 1),  # 6 samples
        _global(kind(13), 2, 2, 3, epochs_from=(0, 6)),  # 4 and 3, then 4 of the next epoch
        _global(kind(13), 4, 2, 1, epochs_from=(1, 4)),  # 8
    ]
    joined = [np.concatenate(column) for column in zip(*itertools.chain(*parts), strict=True)]
    alone = [np.concatenate(column) for column in zip(*whole, strict=True)]
    for found, expected in zip(joined, alone, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_rank_left_without_a_sample_still_makes_its_step() -> None:
    batches = _batches(Numbered(1), 3, ranks=4, rank=3)
    assert len(batches) == 3
    for image, target in batches:
        assert image.shape == (1, 8, 8, 2)
        assert (target == IGNORE).all()


def test_dropped_remainder_leaves_equal_batches() -> None:
    batches = _batches(Numbered(13), 6, drop_remainder=True, ranks=2, rank=1)
    assert {image.shape for image, _ in batches} == {(2, 8, 8, 2)}


@pytest.mark.parametrize("kind", [Numbered, Jittery])
def test_equal_global_batches_hold_equal_samples_on_any_ranks(kind: type[Numbered]) -> None:
    one, two, four = (_global(kind(13), ranks, 4 // ranks, 9) for ranks in (1, 2, 4))
    _equal(one, two)
    _equal(one, four)


@pytest.mark.parametrize("kind", [Numbered, Jittery])
@pytest.mark.parametrize("start", [(0, 3), (1, 0), (1, 6), (2, 1)])
def test_a_resumed_run_goes_on_as_if_uninterrupted(
    kind: type[Numbered], start: tuple[int, int]
) -> None:
    steps = steps_per_epoch(13, 2, 1)
    whole = _batches(kind(13), 3 * steps)
    done = start[0] * steps + start[1]
    place = (start[0], 2 * start[1])
    _equal(whole[done:], _batches(kind(13), 3 * steps - done, epochs_from=place))


def test_threads_and_cache_change_nothing() -> None:
    whole = _batches(Numbered(13), 14)
    _equal(whole, _batches(Numbered(13), 14, workers=5))
    _equal(whole, _batches(Numbered(13), 14, cache=False))


def test_epochs_and_seeds_differ_in_augmentation() -> None:
    def only(**options: Any) -> np.ndarray:
        return np.stack([image[0] for image, _ in _batches(Numbered(1), 6, batch=1, **options)])

    images = only()
    assert len({image.tobytes() for image in images}) == 6
    assert (only(seed=8) != images).any()


def test_cache_reads_each_sample_once_but_jittered_ones_anew() -> None:
    still, moving = Numbered(4), Jittery(4)
    _batches(still, 20, workers=1)
    assert still.reads == 4
    _batches(moving, 20, workers=1)
    assert moving.reads >= 40


def test_images_travel_in_their_own_dtype() -> None:
    ((image, target),) = _batches(Numbered(4), 1, size=None)
    assert (image.dtype.name, target.dtype.name) == ("uint16", "uint8")
    assert (image.shape, target.shape) == ((2, 8, 8, 2), (2, 8, 8))


def test_batches_are_of_the_declared_kinds_whatever_a_reader_gives() -> None:
    class Foreign(Numbered):
        def read(self, *place: Any) -> Sample:
            image, target = super().read(*place)
            return image.astype(">u2"), target.astype(np.int64)

    ((image, target),) = _batches(Foreign(4), 1, size=None)
    assert (image.dtype, target.dtype) == (np.dtype(np.uint16), np.dtype(np.uint8))
    ((expected, _),) = _batches(Numbered(4), 1, size=None)
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("count", [1, 7, 13, 16])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_evaluation_chunks_do_not_depend_on_ranks(count: int, ranks: int) -> None:
    alone = list(evaluation_batches(Numbered(count), "val", batch=3, size=None))
    shared: dict[int, tuple] = {}
    for rank in range(ranks):
        chunks = evaluation_batches(
            Numbered(count), "val", batch=3, size=None, ranks=ranks, rank=rank
        )
        for chunk in chunks:
            shared[int(chunk[3][0])] = chunk
    assert len(shared) == len(alone) == -(-count // 3)
    for place, chunk in enumerate(alone):
        for part, other in zip(chunk, shared[3 * place], strict=True):
            np.testing.assert_array_equal(part, other)
    indices = np.concatenate([chunk[3] for chunk in alone])
    np.testing.assert_array_equal(indices, np.arange(count))
    np.testing.assert_array_equal(np.concatenate([c[0] for c in alone])[:, 0, 0, 0], indices)


def test_evaluation_can_be_repeated_from_memory(camvid_tree: Path) -> None:
    data = Numbered(5)
    batches = evaluation_batches(data, "val", batch=2, size=(4, 4), workers=1)
    first, second = list(batches), list(batches)
    assert data.reads == 5
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one[0], two[0])
        assert one[1].shape[1:] == (4, 4)
        assert one[2].shape[1:] == (8, 8)


def test_what_is_kept_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for 5 samples of 8 x 8 pixels, 4 bytes of image and one of target each."""
    monkeypatch.setattr(pipeline, "MOST_BYTES", 6 * 8 * 8 * 5 - 1)
    for workers in (1, 4):
        data = Numbered(13)
        batches = evaluation_batches(data, "val", batch=2, size=None, workers=workers)
        first, second, third = list(batches), list(batches), list(batches)
        assert data.reads == 13 + 2 * 8
        for one, two, three in zip(first, second, third, strict=True):
            for part, again, last in zip(one, two, three, strict=True):
                np.testing.assert_array_equal(part, again)
                np.testing.assert_array_equal(part, last)
    data = Numbered(13)
    _equal(_batches(Numbered(13), 21), _batches(data, 21, workers=1))
    assert data.reads in range(13 + 2 * 8, 13 + 2 * 8 + 8), "three epochs, and begun the fourth"


def test_vaihingen_windows_through_the_pipeline(miniature: Path) -> None:
    data = build("vaihingen", miniature, (64, 64))
    one = _batches(data, 3, size=(64, 64))
    two = _batches(data, 3, size=(64, 64), workers=4)
    _equal(one, two)
    assert one[0][0].shape == (2, 64, 64, 3)


@pytest.fixture(params=["files", "prepared"])
def windows(request: pytest.FixtureRequest, miniature: Path, tmp_path: Path) -> DataSet:
    """18 windows that jitter, of two tiles."""
    files = build("vaihingen", miniature, (100, 100))
    if request.param == "files":
        return files
    return build("vaihingen", prepare(files, tmp_path / "prepared", ["train"]), (100, 100))


def test_windows_come_once_an_epoch_on_any_ranks(windows: DataSet, miniature: Path) -> None:
    """Against windows read one by one: one rank and four, two epochs, a remainder in each."""
    files = build("vaihingen", miniature, (100, 100))
    steps = steps_per_epoch(18, 4, 1)
    expected = []
    for epoch in range(2):
        order = epoch_order(18, 7, epoch)
        assert sorted(order) == list(range(18))
        for index in order:
            draws = np.random.Generator(np.random.PCG64([7, epoch, int(index), 1]))
            expected.append(files.read("train", int(index), draws))
    for ranks in (1, 4):
        batches = _global(
            windows, ranks, 4 // ranks, 2 * steps, augmentation=PLAIN, size=(100, 100)
        )
        assert [len(image) for image, _ in batches] == 2 * [4, 4, 4, 4, 2]
        for part in range(2):
            found = np.concatenate([batch[part] for batch in batches])
            np.testing.assert_array_equal(found, np.stack([sample[part] for sample in expected]))


@pytest.mark.parametrize("ranks", [1, 4])
def test_windows_of_a_resumed_epoch_are_those_it_lacked(windows: DataSet, ranks: int) -> None:
    options: dict[str, Any] = {"ranks": ranks, "batch": 4 // ranks, "size": (100, 100)}
    whole = _global(windows, steps=7, **options)
    _equal(whole[3:], _global(windows, steps=4, epochs_from=(0, 12), **options))


def test_a_damaged_file_is_named_to_the_user(camvid_tree: Path) -> None:
    damaged = camvid_tree / "train/frame_3.png"
    damaged.write_bytes(damaged.read_bytes()[:200])
    data = build("camvid", camvid_tree)
    with pytest.raises(Exception, match=str(damaged)) as error:
        _batches(data, 3, size=(12, 16), augmentation=PLAIN)
    assert "it is damaged or incomplete" in str(error.value)


def test_unequal_pictures_make_no_batch(camvid_tree: Path) -> None:
    from PIL import Image

    for folder in ("train", "trainannot"):
        path = camvid_tree / folder / "frame_0.png"
        Image.open(path).resize((20, 12), Image.Resampling.NEAREST).save(path)
    with pytest.raises(Exception, match=r"differ in size .*set data\.size="):
        _batches(build("camvid", camvid_tree), 3, size=None, augmentation=PLAIN)


def test_quarter_turns_of_oblong_samples_are_refused_at_once(camvid_tree: Path) -> None:
    with pytest.raises(ValueError, match="rotate90 needs square samples"):
        training_batches(
            build("camvid", camvid_tree), batch=2, seed=0, augmentation=RICH, size=(12, 16)
        )
