"""The figure shows what it is given: signs as colours, bad pixels grey, arrows where they point."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from dlbench.velocity_pictures import DIVERGING, velocity_figure

IMAGE = np.random.default_rng(0).random((30, 40, 2))
NAMES = ["first"]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        picture.load()
        return np.asarray(picture.convert("RGB"))


def velocity(vx: float, vy: float) -> np.ndarray:
    return np.full((30, 40, 6), [vx, vy, 9, 9, 9, 9], np.float32)


def draw(path: Path, truths: Sequence[np.ndarray] | None, *predictions: np.ndarray) -> np.ndarray:
    images = [IMAGE] * len(predictions)
    names = NAMES * len(predictions)
    velocity_figure(images, truths, predictions, path, names=names, pixel_km=39.6)
    return pixels(path)


def share(picture: np.ndarray, color: Any) -> float:
    return float((np.abs(picture.astype(int) - color) <= 1).all(axis=-1).mean())


def test_colours_follow_the_sign_on_one_scale(tmp_path: Path) -> None:
    picture = draw(tmp_path / "a.png", None, velocity(2.0, -1.0))
    ends = {v: colormaps[DIVERGING](0.5 + v / 4, bytes=True)[:3] for v in (2.0, 1.0, -1.0, -2.0)}
    # vx fills one panel of three, and the colour bar has but a little of each colour.
    vx, vy = share(picture, ends[2.0]), share(picture, ends[-1.0])
    assert vx > 0.15
    assert vy == pytest.approx(vx, rel=0.1)
    assert share(picture, ends[1.0]) < 0.01 > share(picture, ends[-2.0])
    width = picture.shape[1]
    columns = np.nonzero((np.abs(picture.astype(int) - ends[2.0]) <= 1).all(axis=-1))[1]
    assert width / 3 < np.median(columns) < 2 * width / 3


def test_rows_are_truth_prediction_and_error(tmp_path: Path) -> None:
    alone = draw(tmp_path / "a.png", None, velocity(2.0, -1.0))
    bad = velocity(2.0, -1.0)
    bad[:15] = np.nan  # the first rows, which are at the bottom
    picture = draw(tmp_path / "b.png", [velocity(2.0, 1.0)], bad)
    assert picture.shape[0] > 2 * alone.shape[0]
    assert picture.shape[1] == alone.shape[1]
    grey = (picture == 0x8A).all(axis=-1).sum(axis=1)
    width, panel, gap, head = (150 * inches for inches in (2.7, 2.7 * 0.75, 0.1, 0.35))
    lines = np.flatnonzero(grey > width)  # no text has that much
    np.testing.assert_allclose(grey[lines], 2 * width, rtol=0.03)  # of vx and of vy
    # The lower halves of the second row of panels and of the third.
    assert lines[0] == pytest.approx(head + panel + gap + panel / 2, abs=3)
    assert lines[-1] == pytest.approx(head + 3 * panel + 2 * gap, abs=3)
    assert len(lines) == pytest.approx(panel, rel=0.03)


def test_arrows_point_where_the_velocity_goes(tmp_path: Path) -> None:
    yellow = np.array([0xF0, 0xE4, 0x42])
    lengths = {}
    for name, one in (("right", velocity(2.0, 0.0)), ("up", velocity(0.0, 2.0))):
        # One arrow in the middle, away from the key's.
        only = np.full_like(one, np.nan)
        only[13:16, 19:22] = one[13:16, 19:22]
        picture = draw(tmp_path / f"{name}.png", None, only)
        found = (np.abs(picture.astype(int) - yellow) <= 2).all(axis=-1)
        found[:50] = False
        y, x = np.nonzero(found)
        lengths[name] = np.ptp(y) / np.ptp(x)
        along = {"right": x, "up": -y}[name]
        middle = (along.min() + along.max()) / 2
        assert along.mean() > middle + 2  # the head has more ink than the tail
    assert lengths["right"] < 0.6
    assert lengths["up"] > 1.6


def test_nothing_finite_and_no_motion_are_drawn(tmp_path: Path) -> None:
    draw(tmp_path / "a.png", [velocity(0, 0)], velocity(0, 0))
    draw(tmp_path / "b.png", [velocity(np.nan, np.nan)], velocity(np.nan, 0))


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path, fine = tmp_path / "a.png", velocity(1, 1)

    def figure(images: Any, truths: Any, predictions: Any, names: Any = NAMES) -> None:
        velocity_figure(images, truths, predictions, path, names=names, pixel_km=39.6)

    with pytest.raises(ValueError, match="there are 0 images; needed are 1 to 4"):
        figure([], None, [])
    with pytest.raises(ValueError, match="there are 5 images"):
        figure([IMAGE] * 5, None, [fine] * 5)
    with pytest.raises(ValueError, match="2 predictions for 1 images"):
        figure([IMAGE], None, [fine] * 2)
    with pytest.raises(ValueError, match="0 truths for 1 images"):
        figure([IMAGE], [], [fine])
    with pytest.raises(ValueError, match="2 names for 1 images"):
        figure([IMAGE], None, [fine], ["a", "b"])
    with pytest.raises(ValueError, match=r"a truth has shape \(30, 39, 6\), its image"):
        figure([IMAGE], [fine[:, 1:]], [fine])
    with pytest.raises(ValueError, match=r"a prediction has shape \(30, 40, 1\)"):
        figure([IMAGE], None, [fine[..., :1]])
    assert not list(tmp_path.iterdir())
