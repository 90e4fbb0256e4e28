from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dlbench.data.dataset import IGNORE, ClassInfo, DataError, Sample
from dlbench.data.windows import (
    SPLITS,
    Part,
    WindowedDataSet,
    split_by_blocks,
)


@dataclass(frozen=True)
class _Numbers:
    """A scene whose pixel values are their row and column."""

    height: int
    width: int
    file: Path = Path("numbers.tif")
    name: str = "numbers"

    def read(self, row: int, column: int, height: int, width: int) -> Sample:
        assert row >= 0 <= column and row + height <= self.height and column + width <= self.width
        rows, columns = np.mgrid[row : row + height, column : column + width]
        return np.stack([rows, columns], axis=-1).astype(np.uint16), np.zeros(
            (height, width), np.uint8
        )


class _Blocks(WindowedDataSet):
    name = "blocks"
    bands = ("row", "column")
    classes = (ClassInfo("only", (0, 0, 0), 0),)
    dtype = np.dtype(np.uint16)
    units = "pixels"
    ground_sampling_distance = None
    licence = source = "none"
    splits = SPLITS

    def scenes(self, split: str) -> list[Part]:
        return split_by_blocks(_Numbers(203, 317), self.window)[split]


def _seen(data: WindowedDataSet, split: str, jitter: bool) -> np.ndarray:
    seen = np.zeros((203, 317), int)
    for index in range(data.count(split)):
        generator = np.random.default_rng(index) if jitter else None
        image, target = data.read(split, index, generator)
        kept = target != IGNORE
        np.add.at(seen, (image[kept][:, 0], image[kept][:, 1]), 1)
    return seen


def test_blocks_share_out_the_scene_and_no_window_leaves_its_split(tmp_path: Path) -> None:
    data = _Blocks(tmp_path, (16, 24))
    still = {split: _seen(data, split, jitter=False) for split in SPLITS}
    assert (sum(np.minimum(seen, 1) for seen in still.values()) == 1).all()
    assert still["val"].max() == still["test"].max() == 1
    shares = [np.minimum(still[split], 1).mean() for split in SPLITS]
    np.testing.assert_allclose(shares, (0.6, 0.2, 0.2), atol=0.05)
    moved = _seen(data, "train", jitter=True)
    assert not (moved * still["val"]).any()
    assert not (moved * still["test"]).any()


def test_every_part_of_the_scene_has_each_split_near() -> None:
    parts = split_by_blocks(_Numbers(1000, 1000), (20, 20))
    for split in SPLITS:
        for half in (slice(0, 500), slice(500, 1000)):
            assert any(half.start <= part.row < half.stop for part in parts[split])
            assert any(half.start <= part.column < half.stop for part in parts[split])


def test_a_scene_of_one_window_is_all_training() -> None:
    parts = split_by_blocks(_Numbers(30, 30), (20, 20))
    assert [len(parts[split]) for split in SPLITS] == [1, 0, 0]


def test_a_scene_smaller_than_the_window_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"numbers\.tif is .* smaller than the windows of 300 x 20"):
        _Blocks(tmp_path, (300, 20)).count("train")
