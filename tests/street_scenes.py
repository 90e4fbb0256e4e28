"""Data sets of a few pictures in CamVid's layout, drawn in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

Pair = tuple[np.ndarray, np.ndarray]
"""A picture (height, width, 3) and its label (height, width), uint8."""


def write_split(
    root: Path, split: str, pairs: Iterable[Pair], name: str = "{}.png", labels: str = "."
) -> None:
    """Pictures, labels, and the list of both; ``name`` is of a number, and ``labels`` is where the
    list has the folder of labels."""
    (root / split).mkdir(parents=True)
    (root / f"{split}annot").mkdir()
    lines = []
    for number, (picture, label) in enumerate(pairs):
        file = name.format(number)
        Image.fromarray(picture).save(root / split / file)
        Image.fromarray(label).save(root / f"{split}annot" / file)
        lines.append(f"/SegNet/CamVid/{split}/{file} {labels}/{split}annot/{file}\n")
    (root / f"{split}.txt").write_text("".join(lines))


def squares(generator: np.random.Generator, classes: int) -> np.ndarray:
    """A label of 32 x 32 pixels in squares of 8."""
    drawn = generator.integers(0, classes, (4, 4), np.uint8)
    return drawn.repeat(8, axis=0).repeat(8, axis=1)


def draw_street(root: Path) -> None:
    """Seven training and five validation pairs of 32 x 32 pixels, with noise."""
    generator = np.random.default_rng(0)

    def pair(_: int) -> Pair:
        label = squares(generator, 12)
        picture = (label[..., None] * [20, 10, 5]).astype(np.uint8)
        picture += generator.integers(0, 20, picture.shape, np.uint8)
        return picture, label

    for split, count in (("train", 7), ("val", 5)):
        write_split(root, split, map(pair, range(count)))
