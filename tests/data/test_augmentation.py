from __future__ import annotations

import numpy as np
import pytest

from dlbench.config import Augmentation
from dlbench.data.augmentation import augment, fit
from dlbench.data.dataset import IGNORE, DataError

NONE = Augmentation(flip_left_right=False)


def _blocks(dtype: type, bands: int = 3, side: int = 8, blocks: int = 8) -> tuple:
    """A mosaic whose image value is the label in every band, for telling where pixels went."""
    rng = np.random.default_rng(5)
    label = rng.integers(0, 6, (blocks, blocks), np.uint8).repeat(side, 0).repeat(side, 1)
    scale = 40 if np.issubdtype(dtype, np.integer) else 0.125
    image = np.repeat(label[..., None], bands, axis=-1).astype(dtype) * dtype(scale)
    return image, label, scale


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("bands", [1, 3, 13])
def test_image_and_label_move_together(dtype: type, bands: int) -> None:
    image, label, scale = _blocks(dtype, bands)
    settings = Augmentation(flip_up_down=True, rotate90=True, scale=(0.6, 1.8))
    aligned, total = 0, 0
    for seed in range(30):
        out, target = augment(image, label, (64, 64), settings, np.random.default_rng(seed))
        assert out.dtype == dtype
        assert out.shape == (64, 64, bands)
        assert target.shape == (64, 64)
        assert (out[target == IGNORE] == 0).all()
        seen = np.rint(out / scale)
        assert (seen == seen[..., :1]).all()
        aligned += int((seen[..., 0] == target).sum())
        total += int((target != IGNORE).sum())
    # Bilinear blends of the block borders pass through other labels' values.
    assert aligned / total > 0.85


@pytest.mark.parametrize("zoom", [0.5, 0.8, 1.25, 1.5, 2.0, 3.0])
def test_no_shift_between_image_and_label(zoom: float) -> None:
    """An edge of two classes lies where the image passes half its height, to a fraction of the
    pixel that nearest sampling allows, whichever way the edge faces.
    """
    shifts = []
    for edge in range(20, 44):
        label = np.zeros((64, 64), np.uint8)
        label[:, edge:] = 1
        image = (label * np.float32(1))[..., None]
        out, target = augment(
            image, label, None, NONE.model_copy(update={"scale": (zoom, zoom)}),
            np.random.default_rng(edge),
        )  # fmt: skip
        inside = (target != IGNORE).any(axis=1)
        row = target[inside][0].astype(float)
        valid = row != IGNORE
        if not 0 < (row[valid] == 1).sum() < valid.sum():
            continue
        shifts.append((row[valid] == 1).sum() - out[inside][0, valid, 0].sum())
    assert len(shifts) >= 8
    assert np.abs(shifts).max() <= 0.5 + 1e-3
    assert abs(np.mean(shifts)) <= 0.3


def test_fit_keeps_centres_and_means() -> None:
    ramp = np.linspace(0, 1000, 96, dtype=np.float32)
    image = np.broadcast_to(ramp[:, None, None], (96, 60, 2)).copy()
    label = np.arange(96, dtype=np.uint8)[:, None].repeat(60, axis=1)
    small, target = fit(image, label, (32, 20))
    # Thirds: every output pixel's centre is the centre of an input pixel.
    np.testing.assert_allclose(small[2:-2, 3, 0], ramp[1::3][2:-2], rtol=1e-4)
    np.testing.assert_array_equal(target[:, 0], np.arange(1, 96, 3))
    assert fit(image, label, (96, 60))[0] is image
    assert fit(image, label, None)[1] is label


def test_shrinking_is_antialiased() -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None]
    small, _ = fit(board, board[..., 0], (16, 16))
    assert np.abs(small.astype(int) - 127).max() <= 8


def test_same_generator_same_sample() -> None:
    image, label, _ = _blocks(np.uint8)
    settings = Augmentation(scale=(0.5, 2.0), brightness=0.2, contrast=0.3, rotate90=True)
    one, two, other = (
        augment(image, label, (48, 48), settings, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])
    assert (one[0] != other[0]).any()


def test_flips_and_turns_are_all_drawn() -> None:
    image, label, _ = _blocks(np.uint8)
    settings = Augmentation(flip_left_right=True, flip_up_down=True, rotate90=True)
    seen = {
        augment(image, label, None, settings, np.random.default_rng(seed))[1].tobytes()
        for seed in range(100)
    }
    expected = {
        np.rot90(flipped, turns).tobytes()
        for flipped in (label, label[:, ::-1])
        for turns in range(4)
    }
    assert seen == expected


def test_nothing_asked_nothing_changed() -> None:
    image, label, _ = _blocks(np.uint16)
    out, target = augment(image, label, None, NONE, np.random.default_rng(0))
    np.testing.assert_array_equal(out, image)
    np.testing.assert_array_equal(target, label)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_shading_stays_in_range_and_does_not_wrap(dtype: type) -> None:
    top = np.iinfo(dtype).max
    ramp: np.ndarray = np.linspace(0, top, 256).astype(dtype)[None, :, None].repeat(4, axis=0)
    label = np.zeros((4, 256), np.uint8)
    settings = NONE.model_copy(update={"brightness": 0.5, "contrast": 0.5})
    means = []
    for seed in range(40):
        draws = np.random.default_rng(seed)
        out, _ = augment(ramp, label, None, settings, draws, (0.0, float(top)))
        assert (np.diff(out[0, :, 0].astype(int)) >= 0).all()
        means.append(out.mean() / top)
    assert min(means) < 0.3
    assert max(means) > 0.7


def test_shading_leaves_the_padding_and_the_label() -> None:
    image, label, _ = _blocks(np.uint8)
    settings = NONE.model_copy(update={"brightness": 0.5, "scale": (0.5, 0.5)})
    out, target = augment(image + np.uint8(9), label, None, settings, np.random.default_rng(0))
    assert (out[target == IGNORE] == 0).all()
    assert (target != IGNORE).sum() == 32 * 32


def test_quarter_turns_need_squares() -> None:
    image, label, _ = _blocks(np.uint8)
    with pytest.raises(ValueError, match=r"rotate90 needs square samples, they are 32 x 48"):
        augment(image, label, (32, 48), Augmentation(rotate90=True), np.random.default_rng(0))


def flow(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image, and the velocities that are its gradient (x, y), times 1 and 2."""
    rng = np.random.default_rng(3)
    image: np.ndarray = rng.normal(size=(height, width, 2)).astype(np.float32)
    down, right = np.gradient(image[..., 0])
    gradient = np.stack([right, down], axis=-1)
    return image, np.concatenate([gradient, 2 * gradient], axis=-1).astype(np.float32)


def test_velocities_turn_with_the_image() -> None:
    """Whatever is drawn, the velocities stay the gradient of the image."""
    image, velocity = flow(12, 12)
    settings = Augmentation(flip_left_right=True, flip_up_down=True, rotate90=True)
    seen = set()
    for seed in range(60):
        turned, found = augment(image, velocity, None, settings, np.random.default_rng(seed))
        down, right = np.gradient(turned[..., 0])
        np.testing.assert_allclose(found[..., 0], right, rtol=1e-6)
        np.testing.assert_allclose(found[..., 1], down, rtol=1e-6)
        np.testing.assert_allclose(found[..., 2:], 2 * found[..., :2], rtol=1e-6)
        seen.add(turned.tobytes())
    assert len(seen) == 8, "a square's eight symmetries"


def test_velocities_are_neither_zoomed_nor_resized() -> None:
    image, velocity = flow(12, 12)
    with pytest.raises(DataError, match="a zoom would change the kilometres a pixel"):
        augment(image, velocity, None, Augmentation(scale=(0.5, 2.0)), np.random.default_rng(0))
    with pytest.raises(DataError, match="12 x 12 pixels with velocities cannot be resized"):
        fit(image, velocity, (6, 6))


@pytest.mark.parametrize(("dtype", "scale"), [(np.float32, 1.0), (np.uint8, 255.0)])
def test_noise_is_truly_added(dtype: type, scale: float) -> None:
    image: np.ndarray = np.full((200, 200, 2), 0.5 * scale).astype(dtype)
    settings = Augmentation(flip_left_right=False, noise=0.05)
    label = np.zeros((200, 200), np.uint8)
    noisy, _ = augment(image, label, None, settings, np.random.default_rng(0), (0.0, scale))
    change = noisy.astype(np.float64) - image
    assert noisy.dtype == dtype
    assert change.std() == pytest.approx(0.05 * scale, rel=0.02)
    assert abs(change.mean()) < 0.001 * scale
    assert abs(np.corrcoef(change[..., 0].ravel(), change[..., 1].ravel())[0, 1]) < 0.02
    again, _ = augment(image, label, None, settings, np.random.default_rng(0), (0.0, scale))
    np.testing.assert_array_equal(again, noisy)


def test_reflectances_change_by_fractions_of_what_they_lie_between() -> None:
    """Of 16 bits they take up a part: 5,000 of 65,536, and a fifth of all would be no ground."""
    image = np.full((200, 200, 2), 2500, np.uint16)
    label = np.zeros((200, 200), np.uint8)
    brighter = NONE.model_copy(update={"brightness": 0.2})
    means = []
    for seed in range(60):
        draws = np.random.default_rng(seed)
        means.append(augment(image, label, None, brighter, draws, (0.0, 5000.0))[0].mean())
    assert 1500 <= min(means) < 1700
    assert 3300 < max(means) <= 3500
    noisy = NONE.model_copy(update={"noise": 0.02})
    out, _ = augment(image, label, None, noisy, np.random.default_rng(0), (0.0, 5000.0))
    assert out.astype(float).std() == pytest.approx(100, rel=0.02)
