"""Balanced epochs: how often each sample comes, and that ranks and resumed runs agree on it."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlbench.config import Augmentation
from dlbench.data import IGNORE, ClassInfo, DataError, DataSet, build
from dlbench.data.dataset import Sample
from dlbench.data.sampling import balanced, draws, probabilities


def test_each_class_is_as_likely_and_its_samples_by_their_pixels() -> None:
    pixels = np.array([[90, 0, 0], [10, 10, 0], [0, 30, 0], [0, 0, 0]])
    # The third class is nowhere; of the others each has one half.
    np.testing.assert_allclose(balanced(pixels, "x"), [0.45, 0.05 + 0.125, 0.375, 0.0])
    with pytest.raises(DataError, match="the split has no label at all"):
        balanced(np.zeros((3, 2), int), "the split")


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_draws_are_as_often_as_expected(count: int) -> None:
    rng = np.random.default_rng(count)
    likely = rng.random(count) ** 4 * (rng.random(count) < 0.7)
    likely[rng.integers(count)] = 1.0
    expected = count * likely / likely.sum()
    total = np.zeros(count)
    for seed in range(50):
        order, repeats = draws(likely, np.random.default_rng(seed))
        assert len(order) == len(repeats) == count
        found = np.bincount(order, minlength=count)
        assert (np.floor(expected - 1e-9) <= found).all()
        assert (found <= np.ceil(expected + 1e-9)).all()
        seen: Counter[int] = Counter()
        for index, repeat in zip(order.tolist(), repeats.tolist(), strict=True):
            assert repeat == seen[index]
            seen[index] += 1
        total += found
    assert np.abs(total / 50 - expected).max() < 0.5
    if count == 1000:
        assert not (np.sort(order) == order).all()


def test_rare_classes_of_a_data_set(miniature: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = build("vaihingen", miniature, (100, 100))
    likely = probabilities(data)
    assert likely.sum() == pytest.approx(1.0)
    pixels = np.stack(
        [np.bincount(data.read("train", i)[1].ravel(), minlength=6)[:6] for i in range(18)]
    )
    uniform, drawn = pixels.mean(axis=0), likely @ pixels
    rarest = uniform.argmin()
    assert drawn[rarest] > uniform[rarest]
    assert np.abs(drawn / drawn.sum() - 1 / 6).sum() < np.abs(uniform / uniform.sum() - 1 / 6).sum()


class Pixels(DataSet):
    """Sample i is all of class 1 if i is 0, else of class 0; its first pixel is its index."""

    name = "pixels"
    bands = ("one",)
    classes = (ClassInfo("a", (0, 0, 0), 0), ClassInfo("b", (1, 1, 1), 1))
    dtype = np.dtype(np.uint16)
    splits = ("train",)
    jitters = True

    def count(self, split: str) -> int:
        return 13

    def read(self, split: str, index: int, jitter: np.random.Generator | None = None) -> Sample:
        image = np.full((4, 4, 1), 1000 * index, np.uint16)
        image[1, 1] += np.uint16(jitter.integers(1000) if jitter else 0)
        return image, np.full((4, 4), index == 0, np.uint8)

    def sample_name(self, split: str, index: int) -> str:
        return str(index)


LIKELY = balanced(np.array([[0, 16]] + 12 * [[16, 0]]), "x")


def _epochs(ranks: int, batch: int, steps: int, start: tuple[int, int] = (0, 0)) -> np.ndarray:
    """Images (samples, 4, 4) of all ranks in the order of the global batches."""
    pipeline = pytest.importorskip("dlbench.data.pipeline")
    parts = []
    for rank in range(ranks):
        batches = pipeline.training_batches(
            Pixels(Path("/")), batch=batch, ranks=ranks, rank=rank, seed=5, epochs_from=start,
            augmentation=Augmentation(flip_left_right=False), size=None, likely=LIKELY,
        )  # fmt: skip
        parts.append(list(itertools.islice(batches, steps)))
    found = []
    for step in zip(*parts, strict=True):
        for image, target in step:
            found.append(image[(target != IGNORE).any(axis=(1, 2)), ..., 0])
    return np.concatenate(found)


def test_one_rank_and_four_see_the_same_and_a_resumed_epoch_goes_on() -> None:
    pytest.importorskip("tensorflow")
    alone = _epochs(1, 4, 8)
    assert len(alone) == 26
    for epoch in (alone[:13], alone[13:]):
        indices = epoch[:, 0, 0] // 1000
        assert (indices == 0).sum() in (6, 7), "half of what is drawn is of the rare class"
        repeated = epoch[indices == 0, 1, 1]
        assert len(set(repeated.tolist())) > 3, "each time moved in another way"
    assert sorted(alone[:13, 0, 0]) != alone[:13, 0, 0].tolist()
    assert (alone[:13] != alone[13:]).any()
    np.testing.assert_array_equal(_epochs(4, 1, 8), alone)
    np.testing.assert_array_equal(_epochs(1, 4, 6, (0, 8)), alone[8:])
    np.testing.assert_array_equal(_epochs(4, 1, 3, (1, 4)), alone[17:])


def test_values_have_no_classes(granulation_tree: Path) -> None:
    data = build("granulation", granulation_tree, (64, 64))
    with pytest.raises(DataError, match="granulation has values in place of classes"):
        probabilities(data)
