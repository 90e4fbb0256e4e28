from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.ndimage import map_coordinates

from dlbench.data import photosphere
from dlbench.data.photosphere import CADENCE, FINE, PIXEL, Domain, observe, scene, transport

SIZE = 128
CELL = PIXEL / FINE

Scene = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [scene(0, number, SIZE) for number in range(4)]


def test_scenes_follow_from_seed_and_number() -> None:
    images, velocities = scene(1, 5, 64)
    assert images.shape == (64, 64, 2)
    assert velocities.shape == (64, 64, 6)
    assert images.dtype == velocities.dtype == np.float32
    for first, second in zip((images, velocities), scene(1, 5, 64), strict=True):
        np.testing.assert_array_equal(first, second)
    for seed, number in ((2, 5), (1, 6)):
        other = scene(seed, number, 64)
        assert abs(np.corrcoef(images.ravel(), other[0].ravel())[0, 1]) < 0.3
        assert abs(np.corrcoef(velocities.ravel(), other[1].ravel())[0, 1]) < 0.3


def test_speeds_are_those_of_each_depth(scenes: list[Scene]) -> None:
    for _, velocities in scenes:
        depths = velocities.astype(np.float64).reshape(SIZE, SIZE, 3, 2)
        speeds = np.sqrt((depths**2).mean(axis=(0, 1, 3)))
        np.testing.assert_allclose(speeds, [1.39, (1.39 * 1.10) ** 0.5, 1.10], rtol=1e-3)
        assert np.abs(depths.mean(axis=(0, 1))).max() < 1e-4
        # What fades with height are the small scales.
        steps = np.sqrt((np.diff(depths, axis=0) ** 2).mean(axis=(0, 1, 3))) / speeds
        assert steps[0] > 1.1 * steps[1] > 1.2 * steps[2]


def test_intensity_has_the_contrast_of_imax(scenes: list[Scene]) -> None:
    for images, _ in scenes:
        assert np.median(images) == pytest.approx(1, abs=1e-6)
        assert images.std() / images.mean() == pytest.approx(0.135, rel=2e-3)
        assert 0.4 < images.min() < 0.75
        assert 1.2 < images.max() < 1.7


def test_granules_lie_a_little_more_than_a_megametre_apart(scenes: list[Scene]) -> None:
    """The first ring of the autocorrelation, where neighbours lie."""
    power = np.mean([np.abs(np.fft.fft2(i[..., 0] - i[..., 0].mean())) ** 2 for i, _ in scenes], 0)
    correlation = np.fft.ifft2(power).real
    y, x = np.indices(power.shape)
    distance = np.hypot(*(np.minimum(i, SIZE - i) for i in (y, x))) * PIXEL
    ring = np.rint(distance / 60).astype(int).ravel()
    profile = np.bincount(ring, correlation.ravel()) / np.bincount(ring)
    assert 1100 < 60 * (14 + profile[14:36].argmax()) < 1700
    assert profile[10:17].min() < 0


def test_bright_granules_spread_and_dark_lanes_sink(scenes: list[Scene]) -> None:
    for images, velocities in scenes:
        vx, vy = velocities[..., 0], velocities[..., 1]
        divergence = np.roll(vx, -1, 1) - np.roll(vx, 1, 1) + np.roll(vy, -1, 0) - np.roll(vy, 1, 0)
        seen = images.mean(axis=-1)
        assert np.corrcoef(seen.ravel(), divergence.ravel())[0, 1] > 0.5


def test_noise_is_what_lies_beyond_the_telescope(scenes: list[Scene]) -> None:
    """In the corners of a pixel's Fourier plane no light arrives through a 1 m aperture."""
    frequency = np.fft.fftfreq(SIZE, PIXEL)
    beyond = np.hypot(frequency[:, None], frequency) > 1.02 / 78.5
    for images, _ in scenes:
        for image in np.moveaxis(images, -1, 0):
            power = np.abs(np.fft.fft2(image)) ** 2 / SIZE**2
            assert power[beyond].mean() ** 0.5 / image.mean() == pytest.approx(3e-3, rel=0.1)


def test_telescope_is_a_round_aperture_over_square_pixels() -> None:
    """The transfer function of an aperture is the overlap of two copies of it."""
    domain = Domain(64)
    y, x = (np.mgrid[:800, :800] - 399.5) / 400
    disc = x**2 + y**2 < 1
    radian = 180 * 3600 / np.pi * 725
    for mode in (5, 11, 26):
        frequency = mode / (64 * PIXEL)
        shift = 800 * frequency * radian * 525e-9  # In pixels of a disc 800 wide.
        overlap = (disc[:, round(shift) :] & disc[:, : 800 - round(shift)]).sum() / disc.sum()
        pixel = np.sin(np.pi * frequency * PIXEL) / (np.pi * frequency * PIXEL)
        assert domain.telescope[0, mode] == pytest.approx(overlap * pixel, abs=3e-3)
        assert domain.telescope[mode, 0] == pytest.approx(domain.telescope[0, mode])
    assert domain.telescope[0, 0] == 1


def test_a_uniform_flow_shifts_the_image_by_just_so_many_pixels() -> None:
    domain = Domain(64)
    pattern = np.random.default_rng(0).normal(size=(128, 128)).astype(np.float32)
    for vx, vy in ((1.0, 0.0), (0.0, -2.5), (3.3, 1.7)):
        flow = np.ones((2, 128, 128)) * np.array([vx, vy])[:, None, None]
        first, second = (
            np.fft.fft2(observe(domain, transport(pattern, flow, seconds)))
            for seconds in (-CADENCE / 2, CADENCE / 2)
        )
        for mode in (1, 4, 8, 16):
            for axis, speed in ((1, vx), (0, vy)):
                place = (0, mode) if axis else (mode, 0)
                turn = np.angle(second[place] / first[place])
                expected = -2 * np.pi * mode / 64 * speed * 30 / 39.6
                error = (turn - expected + np.pi) % (2 * np.pi) - np.pi
                assert abs(error) / (2 * np.pi * mode / 64) < 2e-3, "pixels"


def test_a_pixel_has_the_velocity_of_its_centre() -> None:
    """Rows that slide over each other: each is shifted by the velocity that stands beside it."""
    size = 64
    domain = Domain(size)
    stripes = np.sin(2 * np.pi * 4 * np.arange(FINE * size) / (FINE * size))
    pattern = np.broadcast_to(stripes, (FINE * size, FINE * size))
    vx = np.cos(2 * np.pi * np.arange(FINE * size) / (FINE * size))[:, None]
    flow = np.stack([np.broadcast_to(vx, pattern.shape), np.zeros(pattern.shape)])
    first, second = (
        np.fft.fft(observe(domain, transport(pattern, flow, seconds)))[:, 4]
        for seconds in (-CADENCE / 2, CADENCE / 2)
    )
    seen = -np.angle(second / first) / (2 * np.pi * 4 / size) * PIXEL / CADENCE
    # The telescope mixes neighbouring rows; that takes 0.6 % but no side. Half a cell is 2.5 %.
    stored = flow[0, ::FINE, 0]
    np.testing.assert_allclose(seen, stored, atol=8e-3)
    aside = np.sin(2 * np.pi * np.arange(size) / size)
    assert abs(seen @ aside) / (aside @ aside) < 1e-3


def test_the_velocity_is_the_one_that_carried(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[np.ndarray] = []

    def spy(field: np.ndarray, velocity: np.ndarray, seconds: float) -> np.ndarray:
        used.append(velocity)
        return transport(field, velocity, seconds)

    monkeypatch.setattr(photosphere, "transport", spy)
    _, velocities = scene(6, 0, 64)
    for velocity in used:
        stored = np.moveaxis(velocities[..., :2], -1, 0)
        np.testing.assert_allclose(stored, velocity[:, ::FINE, ::FINE], atol=1e-5)


def test_transport_follows_the_exact_paths() -> None:
    """Against an integration of the paths with a tolerance, of what the flow carries."""
    cells, reach = 64, 2 * np.pi / (64 * CELL)

    def speed(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return 2 * np.sin(reach * x) + np.cos(2 * reach * y), -1.5 * np.cos(reach * x + reach * y)

    def pattern(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.sin(3 * reach * x) + np.cos(2 * reach * (y - x))

    y, x = np.indices((cells, cells)) * CELL
    carried = transport(pattern(x, y), np.stack(speed(x, y)), 20.0)

    def back(_: float, place: np.ndarray) -> np.ndarray:
        return -np.concatenate(speed(*np.split(place, 2)))

    paths = solve_ivp(back, (0, 20), np.concatenate([x.ravel(), y.ravel()]), rtol=1e-8, atol=1e-6)
    origin = np.split(paths.y[:, -1], 2)
    np.testing.assert_allclose(carried.ravel(), pattern(*origin), atol=1e-3)
    assert np.abs(carried - pattern(x, y)).max() > 0.3


def test_the_velocity_takes_one_image_to_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photosphere, "LIFETIME", 1e12)
    monkeypatch.setattr(photosphere, "NOISE", 0.0)
    images, velocities = scene(3, 0, SIZE)
    y, x = np.indices((SIZE, SIZE))

    def residual(vx: np.ndarray, vy: np.ndarray) -> float:
        half = CADENCE / 2 / PIXEL
        before, after = (
            map_coordinates(image, (y + moved * vy, x + moved * vx), mode="grid-wrap")
            for image, moved in ((images[..., 0], -half), (images[..., 1], half))
        )
        return float((before - after).std())

    vx, vy = velocities[..., 0], velocities[..., 1]
    still = residual(0 * vx, 0 * vy)
    assert residual(vx, vy) < 0.25 * still
    assert residual(vy, vx) > 0.9 * still
    assert residual(-vx, -vy) > 1.2 * still


def test_small_structures_forget_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without transport, the frames' modes correlate as exp(-(30 s / lifetime)^2)."""
    monkeypatch.setattr(photosphere, "transport", lambda field, velocity, seconds: field)
    monkeypatch.setattr(photosphere, "NOISE", 0.0)
    cross, power = np.zeros((2, SIZE, SIZE))
    for number in range(3):
        first, second = np.fft.fft2(np.moveaxis(scene(4, number, SIZE)[0], -1, 0).astype(float))
        cross += (first * second.conj()).real
        power += (np.abs(first) ** 2 + np.abs(second) ** 2) / 2
    frequency = np.fft.fftfreq(SIZE, PIXEL)
    wavelength = 1 / np.maximum(np.hypot(frequency[:, None], frequency), 1e-9)
    for length in (1000.0, 500.0, 250.0):
        ring = np.abs(np.log(wavelength / length)) < 0.08
        lifetime = 360 * (length / 1000) ** (2 / 3)
        correlation = cross[ring].sum() / power[ring].sum()
        assert correlation == pytest.approx(np.exp(-((30 / lifetime) ** 2)), abs=0.04)


def test_a_frame_lends_its_texture() -> None:
    frame = np.random.default_rng(0).normal(size=(40, 200))
    plain, velocity = scene(5, 0, 64)
    images, same = scene(5, 0, 64, frame)
    np.testing.assert_array_equal(velocity, same)
    assert 0.5 < np.corrcoef(images.ravel(), plain.ravel())[0, 1] < 0.99
    assert images.std() / images.mean() == pytest.approx(0.135, rel=2e-3)
    bland, _ = scene(5, 0, 64, np.ones((9, 9)))
    assert np.isfinite(bland).all()
