"""The figure shows what it is given: signs as colours, bad pixels grey, arrows where they point."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from dlbench import velocity_pictures
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


def test_prediction_is_right_of_its_truth(tmp_path: Path) -> None:
    bad = velocity(2.0, -1.0)
    bad[:15] = np.nan  # the first rows, which are at the bottom
    picture = draw(tmp_path / "a.png", [velocity(-2.0, 1.0)], bad)
    where = {}
    for v in (-2.0, 2.0, 1.0, -1.0):
        color = np.array(colormaps[DIVERGING](0.5 + v / 4, bytes=True)[:3])
        found = (np.abs(picture.astype(int) - color) <= 1).all(axis=-1)
        where[v] = np.flatnonzero(found.sum(axis=0) > 50)  # the colour bar is lower
    # The widths of 40 pixels of truth and prediction of vx, then of vy: no one in another's place.
    order = [where[v] for v in (-2.0, 2.0, 1.0, -1.0)]
    for columns in order:
        assert len(columns) == np.ptp(columns) + 1 == pytest.approx(150 * 1.32, abs=4)
    assert all(a[-1] < b[0] for a, b in pairwise(order))
    grey = (picture == 0x8A).all(axis=-1)
    # No text has that much.
    y, x = np.nonzero(grey & (grey.sum(axis=1) > 300)[:, None] & (grey.sum(axis=0) > 50))
    assert set(x) <= {*where[2.0], *where[-1.0]}
    top = 150 * 0.52
    panel = 150 * 1.32 * 0.75
    assert (y.min(), y.max()) == pytest.approx((top + panel / 2, top + panel), abs=3)


def labels(
    monkeypatch: pytest.MonkeyPatch, truths: Sequence[np.ndarray], *predictions: np.ndarray
) -> list[str]:
    figures: list[Any] = []
    monkeypatch.setattr(velocity_pictures, "save", lambda figure, path: figures.append(figure))
    names = NAMES * len(truths)
    images = [IMAGE] * len(truths)
    velocity_figure(images, truths, predictions, Path("a.png"), names=names, pixel_km=39.6)
    return [axes.get_xlabel() for axes in figures[0].axes[:-1]]


def test_each_predicted_map_has_its_rmse_and_correlation(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, still = velocity(0.0, 0.0), velocity(0.0, 0.0)
    truth[..., 0] = np.tile([1.0, -1.0], (30, 20))
    truth[..., 1] = np.tile([[1.0], [-1.0]], (15, 40))
    prediction = truth.copy()
    prediction[..., 0] += 0.25
    # The stripes of vx are orthogonal to those of vy, and of the same size: r is 1 / sqrt(2).
    prediction[..., 1] += truth[..., 0]
    prediction[:2, :2] = np.nan
    still[..., 1] = np.nan
    shown = labels(monkeypatch, [truth, velocity(3.0, 0.0)], prediction, still)
    first, second = shown[:6], shown[6:]
    assert first == ["", "", "", "RMSE 0.25, r 1.00", "", "RMSE 1.00, r 0.71"]
    x = "x (Mm)"
    assert second == [x, x, x, "RMSE 3.00, r –", x, "nothing to compare"]


@pytest.mark.parametrize(
    ("samples", "shape", "tallest"), [(4, (50, 50), 1100), (1, (20, 200), 310), (1, (200, 20), 550)]
)
def test_it_fits_a_page(tmp_path: Path, samples: int, shape: tuple[int, int], tallest: int) -> None:
    images, maps = [np.random.default_rng(1).random((*shape, 2))] * samples, np.ones((*shape, 2))
    path, names = tmp_path / "a.png", ["sample"] * samples
    velocity_figure(images, [maps] * samples, [maps] * samples, path, names=names, pixel_km=39.6)
    height, width, _ = pixels(path).shape
    assert 1300 <= width <= 1450
    assert tallest - 100 <= height <= tallest


def test_arrows_point_where_the_velocity_goes(tmp_path: Path) -> None:
    yellow = np.array([0xF0, 0xE4, 0x42])
    lengths = {}
    for name, one in (("right", velocity(2.0, 0.0)), ("up", velocity(0.0, 2.0))):
        # One arrow in the middle, away from the key's at the bottom.
        only = np.full_like(one, np.nan)
        only[13:15, 19:21] = one[13:15, 19:21]
        picture = draw(tmp_path / f"{name}.png", None, only)
        found = (np.abs(picture.astype(int) - yellow) <= 2).all(axis=-1)
        found[-100:] = False
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
