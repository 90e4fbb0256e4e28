"""Procedural granulation: two images of the quiet Sun 30 s apart and the flow that moved them.

Granules rise, spread and sink in dark lanes: mass conservation ties the divergence of the
horizontal flow to the brightness, as in convection. A turbulent, solenoidal part and mesogranules
come on top. The intensity is carried along just this flow, evolves, and is seen through the
telescope, so the velocities are the truth and not another method's estimate.

Simpler than the Sun in two ways. The flow above optical depth 1 is the same flow, its small scales
faded with height, whereas the upper photosphere also has motions which the intensity does not show:
scores there are optimistic. And what is carried into a lane stays in sight instead of sinking, so
lanes are narrower, and the contrast a few per cent lower, in the second image.
"""

from __future__ import annotations

import numpy as np
from scipy.fft import fftfreq, irfft2, rfft2, rfftfreq
from scipy.ndimage import map_coordinates, spline_filter
from scipy.optimize import brentq
from scipy.spatial import cKDTree

from dlbench.data.granulation import CADENCE_S as CADENCE
from dlbench.data.granulation import KM_PER_ARCSEC
from dlbench.data.granulation import PIXEL_KM as PIXEL

APERTURE, WAVELENGTH = 1.0, 525e-9
"""Metres: SUNRISE/IMaX (Martínez Pillet et al. 2011, Solar Physics 268)."""
CONTRAST = 0.135
"""Rms of the intensity over its mean: IMaX's continuum after reconstruction."""
NOISE = 3e-3
"""Of the mean intensity: IMaX after reconstruction, which raises it (Martínez Pillet et al.)."""
SPEEDS = (1.39, (1.39 * 1.10) ** 0.5, 1.10)
"""km/s: a component's standard deviation at each of `DEPTHS`, as in DeepVel's simulation; the
middle one is the geometric mean of the others."""
GRANULE_SIZE, GRANULE_SPACING = 1000.0, 1300.0
"""km: a granule, and the mean distance of its neighbours (a lane between them included)."""
LIFETIME = 360.0
"""Seconds until a structure of `GRANULE_SIZE` correlates with itself by 1/e, as it moves along: a
tracked granule's mean life (Hirzberger et al. 1999, ApJ 515, 441). Of others it goes as size^(2/3),
a turn-over time."""
MESOGRANULES, MESOGRANULE_SPEED = (5000.0, 10_000.0), 0.4
"""km: their wavelengths; km/s: standard deviation of a component."""
SCALE_HEIGHT = 150.0
"""km: of the photosphere's density; flows of one layer feel the upflow smoothed over so much."""
BALANCE = 2000.0
"""km: over longer waves what rises also sinks, so that granules alone drive no larger flow."""
SOLENOIDAL = 0.25
"""Share of the energy of the small scales that is turbulence without divergence."""

FINE = 2
"""Cells of the computing grid per pixel side; a pixel's centre is the cell (FINE y, FINE x)."""
LANE = 0.12
"""Half-width of a lane as a share of half the distance between two granules."""
WRINKLE = 110.0
"""km: standard deviation of what bends the granules out of straight-edged cells."""
VIGOUR = 0.2
"""Standard deviation among granules of brightness and upflow."""
TEXTURE = 0.2
"""Standard deviation of the fine texture over that of the granules."""


class Domain:
    """A periodic square of ``size`` pixels: its Fourier modes and what is diagonal in them.

    A field is (cells, cells), rows first; its modes are those of the real transform. Vectors have
    a first axis (x, y).
    """

    def __init__(self, size: int) -> None:
        self.cells = FINE * size
        step = PIXEL / FINE
        frequency_y = fftfreq(self.cells, step).astype(np.float32)[:, None]
        frequency_x = rfftfreq(self.cells, step).astype(np.float32)[None]
        self.frequency = np.hypot(frequency_x, frequency_y)
        """Cycles per km."""
        self.gradient = 2j * np.pi * np.stack(np.broadcast_arrays(frequency_x, frequency_y))
        """Of a field's modes, per km."""
        wavelength = 1 / np.maximum(self.frequency, 1e-9)
        self.k = 2 * np.pi * self.frequency
        """Radians per km."""
        lifetime = LIFETIME * (wavelength / GRANULE_SIZE) ** (2 / 3)
        # Not exp(-t / lifetime), which falls at once: what changes at finite speed correlates with
        # itself as 1 - O(t^2).
        self.persistence = np.exp(-((CADENCE / lifetime) ** 2))
        """Correlation of each mode over the cadence, its wavelength taken as the size."""
        # A circular aperture's transfer function is exact where the lens is: no light beyond D/λ.
        radian = float(np.degrees(3600)) * KM_PER_ARCSEC
        share = np.minimum(self.frequency * (radian * WAVELENGTH / APERTURE), 1)
        aperture = 2 / np.pi * (np.arccos(share) - share * np.sqrt(1 - share**2))
        self.telescope = aperture * np.sinc(PIXEL * frequency_x) * np.sinc(PIXEL * frequency_y)
        """Transfer function of the aperture and of a pixel's area."""

    def modes(self, field: np.ndarray) -> np.ndarray:
        return rfft2(field, workers=1)

    def field(self, modes: np.ndarray) -> np.ndarray:
        return irfft2(modes, s=(self.cells, self.cells), workers=1)

    def power(self, modes: np.ndarray) -> np.ndarray:
        """Each mode's part of the mean square of its field, its mirror image included."""
        power = np.abs(modes).astype(np.float64) ** 2 / self.cells**4
        power[..., 1:-1] *= 2
        return power

    def noise(self, rng: np.random.Generator) -> np.ndarray:
        """Modes of white noise of deviation 1."""
        return self.modes(rng.standard_normal((self.cells, self.cells), np.float32))


def scene(
    seed: int, number: int, size: int, texture: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Scene ``number`` of a seed, periodic: images (size, size, 2), velocities (size, size, 6).

    Both float32, rows downwards. The images are 30 s apart, intensity over the median of both;
    the velocities hold midway between them: vx (along columns), vy (along rows) at each of
    `DEPTHS`, in km/s. ``texture`` is an image (height, width) at `PIXEL` / `FINE` km that takes
    the place of the random fine texture.
    """
    rng = np.random.Generator(np.random.PCG64([seed, number]))
    domain = Domain(size)
    granules = _unit(domain, domain.modes(_granules(domain, rng)))
    flow = _flow(domain, granules, rng)
    pattern = granules + TEXTURE * _texture(domain, rng, texture)
    velocity = domain.field(flow)
    frames = [
        observe(domain, transport(_evolved(domain, pattern, rng), velocity, seconds))
        for seconds in (-CADENCE / 2, CADENCE / 2)
    ]
    images = np.stack(frames, axis=-1)
    images = 1 + np.float32(CONTRAST) * (images - images.mean()) / images.std()
    images += np.float32(NOISE) * rng.standard_normal(images.shape, np.float32)
    layers = np.concatenate([domain.field(f)[:, ::FINE, ::FINE] for f in _upwards(domain, flow)])
    return images / np.float32(np.median(images)), np.ascontiguousarray(np.moveaxis(layers, 0, -1))


def transport(field: np.ndarray, velocity: np.ndarray, seconds: float) -> np.ndarray:
    """The field (cells, cells) after ``seconds`` along the steady ``velocity`` (2, ...) in km/s."""
    # In cells a second, (y, x) like the places.
    velocity = velocity[::-1].astype(np.float32) * np.float32(FINE / PIXEL)
    splines = [_spline(v) for v in velocity]
    place = np.indices(field.shape, np.float32)

    def at(where: np.ndarray) -> np.ndarray:
        return np.stack([_sample(spline, where) for spline in splines])

    # Runge-Kutta of fourth order, backwards in time: where did what is here now come from?
    k1 = velocity
    k2 = at(place - seconds / 2 * k1)
    k3 = at(place - seconds / 2 * k2)
    k4 = at(place - seconds * k3)
    return _sample(_spline(field), place - seconds / 6 * (k1 + 2 * k2 + 2 * k3 + k4))


def observe(domain: Domain, field: np.ndarray) -> np.ndarray:
    """The pixels (size, size) of a field (cells, cells) seen through the telescope."""
    return domain.field(domain.modes(field) * domain.telescope)[::FINE, ::FINE]


def _spline(field: np.ndarray) -> np.ndarray:
    return spline_filter(field, 3, np.float32, mode="grid-wrap")


def _sample(spline: np.ndarray, place: np.ndarray) -> np.ndarray:
    return map_coordinates(spline, place, np.float32, 3, mode="grid-wrap", prefilter=False)


def _granules(domain: Domain, rng: np.random.Generator) -> np.ndarray:
    """Bright, flat cells of a wrinkled Voronoi tessellation with narrow dark lanes; mean 0."""
    side = domain.cells
    spacing = GRANULE_SPACING * FINE / PIXEL
    count = max(4, round(side**2 / (spacing**2 * 3**0.5 / 2)))
    seeds = rng.uniform(0, side, (count, 2))
    # Moving every seed once to the middle of its cell leaves small and large granules, no slivers.
    coarse = np.moveaxis(np.mgrid[0:side:8, 0:side:8], 0, -1).reshape(-1, 2)
    _, owner = cKDTree(seeds, boxsize=side).query(coarse)
    offset = (coarse - seeds[owner] + side / 2) % side - side / 2
    area = np.maximum(np.bincount(owner, minlength=count), 1)
    moves = [np.bincount(owner, offset[:, axis], minlength=count) / area for axis in range(2)]
    # Twice: -1e-17 modulo side is side itself, which no longer lies in the period.
    seeds = (seeds + np.stack(moves, axis=-1)) % side % side
    smooth = (_turbulence(domain) / np.maximum(domain.k, 1e-9) ** 3) ** 0.5
    place = np.indices((side, side)).astype(np.float64)
    for axis in range(2):
        wrinkle = domain.field(_unit(domain, domain.noise(rng) * smooth))
        place[axis] += WRINKLE * FINE / PIXEL * wrinkle
    distance, owner = cKDTree(seeds, boxsize=side).query(np.moveaxis(place, 0, -1), k=2)
    near, far = np.moveaxis(distance, -1, 0)
    vigour = 1 + VIGOUR * rng.standard_normal(count)
    lanes = np.exp(-(((far - near) / (far + near) / LANE) ** 2))
    cells = (1 - lanes) * vigour[owner[..., 0]]
    return (cells - cells.mean()).astype(np.float32)


def _flow(domain: Domain, granules: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Modes (2, ...) of the horizontal velocity at optical depth 1, from those of the granules.

    All of it is a gradient or a curl of something periodic, so its mean over the scene is 0 (on the
    Sun, rotation is taken out by alignment); a part of the scene has a mean of its own.
    """
    k = np.maximum(domain.k, 1e-9)
    along = domain.gradient
    across = along[::-1] * np.array([1, -1], np.float32)[:, None, None]
    # What rises spreads: the divergence of the flow is the upflow of the granules.
    upflow = granules * np.exp(-((domain.k * SCALE_HEIGHT) ** 2) / 2)
    upflow = upflow * (1 - np.exp(-((domain.frequency * BALANCE) ** 2)))
    divergent = along * (upflow / -(k**2))
    solenoidal = across * (domain.noise(rng) * (_turbulence(domain) / k) ** 0.5 / k)
    wavelength = 2 * np.pi / k
    band = (wavelength > 0.999 * MESOGRANULES[0]) & (wavelength < 1.001 * MESOGRANULES[1])
    large = along * (domain.noise(rng) * band / k)
    small = (1 - SOLENOIDAL) ** 0.5 * _unit(domain, divergent)
    small = small + SOLENOIDAL**0.5 * _unit(domain, solenoidal)
    flow = (SPEEDS[0] ** 2 - MESOGRANULE_SPEED**2) ** 0.5 * _unit(domain, small)
    if band.any():
        flow = flow + MESOGRANULE_SPEED * _unit(domain, large)
    # A Gaussian of one pixel: the flow that the pixels resolve.
    return SPEEDS[0] * _unit(domain, flow * np.exp(-((domain.k * PIXEL) ** 2) / 2))


def _upwards(domain: Domain, flow: np.ndarray) -> list[np.ndarray]:
    """The flow at each of `DEPTHS`: mode k faded by exp(-k height) to the speed of that depth."""
    power = domain.power(flow).mean(axis=0)

    def excess(height: float, speed: float) -> float:
        return float((power * np.exp(-2 * height * domain.k)).sum()) - speed**2

    heights = [0.0, *(brentq(excess, 0, 1e4, args=(speed,)) for speed in SPEEDS[1:])]
    return [flow * np.exp(-np.float32(h) * domain.k) for h in heights]


def _texture(domain: Domain, rng: np.random.Generator, image: np.ndarray | None) -> np.ndarray:
    """Modes of fine detail, of deviation 1: a turbulent cascade, or an image mirrored all over."""
    if image is None:
        k = np.maximum(domain.k, 1e-9)
        return _unit(domain, domain.noise(rng) * (_turbulence(domain) / k) ** 0.5)
    half = domain.cells // 2
    top, left = (rng.integers(max(0, n - half) + 1) for n in image.shape)
    part = image[top : top + half, left : left + half].astype(np.float32)
    quarter = np.pad(part, [(0, half - n) for n in part.shape], mode="symmetric")
    whole = np.pad(quarter, (0, half), mode="symmetric")
    whole = np.roll(whole, rng.integers(domain.cells, size=2), axis=(0, 1))
    # Its granules go: they are others than those that drive the flow.
    return _unit(domain, domain.modes(whole) * (domain.frequency > 1 / GRANULE_SIZE))


def _turbulence(domain: Domain) -> np.ndarray:
    """Energy per wave number: k^4, a peak at the distance of granules, k^(-5/3) beyond."""
    x = domain.frequency * GRANULE_SPACING
    return x**4 / (1 + 2.4 * x**2) ** (17 / 6)


def _evolved(domain: Domain, modes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The pattern of one frame: two such correlate, mode by mode, as `Domain.persistence` says."""
    noise = domain.noise(rng)
    own = np.abs(modes) * noise / np.maximum(np.abs(noise), 1e-9)
    kept = domain.persistence
    return domain.field(np.sqrt(kept) * modes + np.sqrt(1 - kept) * own)


def _unit(domain: Domain, modes: np.ndarray) -> np.ndarray:
    """Scaled so that the mean square of a component is 1."""
    modes = modes.copy()
    modes[..., 0, 0] = 0
    mean_square = domain.power(modes).sum(axis=(-2, -1)).mean()
    return modes / np.float32(max(mean_square, 1e-30) ** 0.5)
