"""A data set of a few noisy pictures in CamVid's layout, drawn in milliseconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def draw_street(root: Path) -> None:
    """Seven training and five validation pairs of 32 x 32 pixels."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 7), ("val", 5)):
        (root / split).mkdir(parents=True)
        (root / f"{split}annot").mkdir()
        lines = []
        for number in range(count):
            label = generator.integers(0, 12, (4, 4), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
            picture = (label[..., None] * [20, 10, 5]).astype(np.uint8)
            picture += generator.integers(0, 20, picture.shape, np.uint8)
            Image.fromarray(picture).save(root / split / f"{number}.png")
            Image.fromarray(label).save(root / f"{split}annot" / f"{number}.png")
            lines.append(f"/SegNet/CamVid/{split}/{number}.png ./{split}annot/{number}.png\n")
        (root / f"{split}.txt").write_text("".join(lines))
