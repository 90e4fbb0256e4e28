"""A procedural farmland: parcels between tracks and woods, and what Sentinel-2 sees of them.

`landscape` draws the ground once, `reflectance` looks at it on any day. Some classes are alike on
purpose: winter wheat and barley differ by weeks in their ripening, maize and soya by their sowing
and harvest, oil palm and forest by texture alone. So neither one date nor one pixel suffices.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from affine import Affine
from rasterio.crs import CRS
from scipy.ndimage import gaussian_filter, label

from dlbench.data.dataset import DataError
from dlbench.data.grid import Grid

PIXEL = 10.0
"""Metres."""


@dataclass(frozen=True)
class Place:
    """Where a landscape lies: a tile of Sentinel-2's grid, easting and northing of the corner in
    the north-west."""

    tile: str
    epsg: int
    origin: tuple[float, float]


FERRARA = Place("T32TQQ", 32632, (600_000.0, 4_920_000.0))
IOWA = Place("T15TVG", 32615, (450_000.0, 4_650_000.0))
SASKATCHEWAN = Place("T13UDS", 32613, (450_000.0, 5_650_000.0))
CAMEROON = Place("T32NNK", 32632, (550_000.0, 450_000.0))


@dataclass(frozen=True)
class Cover:
    """What grows or lies on a parcel; days are of the year, half-way up and half-way down."""

    name: str
    canopy: str
    """A row of `SPECTRA`; the rest of the ground is soil."""
    green: tuple[int, int] | None = None
    """None: the same all year."""
    fullest: float = 0.9
    """Share of the ground that the canopy hides at its height, from 0 to 1."""
    straw: float = 0.0
    """Share of straw in place of soil after the harvest, from 0 to 1."""
    rows: float = 0.0
    """Contrast of planted blocks and the paths between them."""
    mottle: float = 0.05
    """Contrast of patches some pixels wide."""


COVERS = (
    Cover("winter wheat", "crop", (75, 172), straw=0.8),
    Cover("winter barley", "crop", (70, 154), straw=0.8),
    Cover("rapeseed", "broadleaf", (60, 162), straw=0.5),
    Cover("maize", "crop", (158, 262), straw=0.3),
    Cover("soya", "crop", (172, 246), straw=0.2),
    Cover("sunflower", "broadleaf", (148, 228), straw=0.2),
    Cover("sugar beet", "broadleaf", (146, 300)),
    Cover("grassland", "crop", None, fullest=0.7, mottle=0.10),
    Cover("vineyard", "broadleaf", (118, 296), fullest=0.5, rows=0.25),
    Cover("oil palm", "wood", None, fullest=0.92, rows=0.30),
    Cover("forest", "wood", None, fullest=0.92, mottle=0.12),
    Cover("built-up", "roof", None, fullest=0.7, mottle=0.25),
    Cover("water", "water", None, fullest=1.0, mottle=0.02),
    Cover("road", "roof", None, fullest=0.6, mottle=0.10),
)
INDEX = {cover.name: index for index, cover in enumerate(COVERS)}
"""Class index of a cover by its name."""

# Surface reflectance in the 13 bands B01 .. B8A .. B12, of the order that the field reports.
SPECTRA = {
    "soil": (0.08, 0.10, 0.13, 0.17, 0.19, 0.21, 0.23, 0.25, 0.26, 0.27, 0.01, 0.33, 0.28),
    "straw": (0.09, 0.12, 0.17, 0.23, 0.27, 0.30, 0.32, 0.35, 0.37, 0.37, 0.01, 0.42, 0.30),
    "crop": (0.02, 0.03, 0.07, 0.03, 0.11, 0.34, 0.43, 0.46, 0.48, 0.48, 0.01, 0.21, 0.10),
    "broadleaf": (0.02, 0.03, 0.09, 0.04, 0.14, 0.39, 0.50, 0.53, 0.55, 0.55, 0.01, 0.25, 0.12),
    "wood": (0.015, 0.02, 0.04, 0.02, 0.06, 0.20, 0.26, 0.28, 0.30, 0.30, 0.01, 0.14, 0.06),
    "water": (0.03, 0.04, 0.04, 0.02, 0.015, 0.012, 0.01, 0.01, 0.008, 0.006, 0.001, 0.004, 0.003),
    "roof": (0.12, 0.14, 0.16, 0.18, 0.19, 0.20, 0.21, 0.22, 0.23, 0.23, 0.01, 0.26, 0.25),
}
# What the air adds, most in the blue, and the share it lets through; B10 sees cirrus only.
PATH = (0.10, 0.07, 0.04, 0.02, 0.016, 0.014, 0.012, 0.010, 0.008, 0.006, 0.001, 0.001, 0.0)
TRANSMITTANCE = (0.75, 0.80, 0.85, 0.9, 0.9, 0.9, 0.9, 0.92, 0.93, 0.5, 0.02, 0.95, 0.93)
NOISE = 0.004
"""Of the sensor, relative to its signal."""
DAYS_OF_CHANGE = 9.0
"""In which a canopy goes from 27 % to 73 % of its height."""


def grid(size: int, place: Place = FERRARA) -> Grid:
    """The pixels of a landscape."""
    transform = Affine(PIXEL, 0, place.origin[0], 0, -PIXEL, place.origin[1])
    return Grid(CRS.from_epsg(place.epsg), transform, size, size)


def landscape(seed: int, size: int, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Parcels (size, size) int32, and the index in `COVERS` of each pixel (size, size) uint8.

    Parcels are numbered from 1 and sown with ``classes``, names of covers, about as often each;
    between them lie roads (parcel 0) and forest, whose patches are parcels too. The same
    arguments give the same ground. Raises `DataError` for unknown names.
    """
    unknown = sorted(set(classes) - set(INDEX))
    if unknown or not classes:
        raise DataError(f"classes is {list(classes)}; allowed are one or more of {list(INDEX)}")
    rng = np.random.default_rng([seed, size])
    angle = rng.uniform(0, np.pi)
    y, x = np.mgrid[:size, :size] + 0.5
    v = x * np.sin(angle) + y * np.cos(angle) + size
    u = x * np.cos(angle) - y * np.sin(angle) + size
    u = u + 4 * np.sin(v / rng.uniform(30, 50))
    # Tracks part the land into blocks, and blocks across into parcels of their own widths.
    tracks = np.cumsum(rng.uniform(26, 44, 3 * size // 26))
    block = np.searchsorted(tracks, u)
    parcel = np.zeros((size, size), np.int32)
    on_track = np.searchsorted(tracks, u - 1.0) != np.searchsorted(tracks, u + 1.0)
    for number in np.unique(block):
        cuts = np.cumsum(rng.uniform(12, 36, 3 * size // 12)) - rng.uniform(0, 12)
        inside = block == number
        parcel[inside] = 1 + number * len(cuts) + np.searchsorted(cuts, v[inside])
    parcel[on_track] = 0
    field = gaussian_filter(rng.normal(size=(size, size)), 14)
    woods, _ = label(field > np.quantile(field, 0.9))
    parcel[woods > 0] = parcel.max() + woods[woods > 0]

    numbers, compact = np.unique(parcel, return_inverse=True)
    compact = compact.reshape(parcel.shape).astype(np.int32) + (numbers[0] != 0)
    # Shuffled rounds, so that no class is rare by chance.
    count = int(compact.max()) + 1
    rounds = [rng.permutation(len(classes)) for _ in range(count // len(classes) + 1)]
    sown = np.array([INDEX[name] for name in classes], np.uint8)[np.concatenate(rounds)][:count]
    sown[0] = INDEX["road"]
    cover = sown[compact]
    cover[woods > 0] = INDEX["forest"]
    return compact, cover


def numbered(cover: np.ndarray, numbers: Mapping[str, int], others: int = 0) -> np.ndarray:
    """The number (height, width) uint8 of each pixel's cover, by its name."""
    of_cover = np.full(len(COVERS), others, np.uint8)
    of_cover[[INDEX[name] for name in numbers]] = list(numbers.values())
    return of_cover[cover]


def overpasses(
    cover: np.ndarray, parcel: np.ndarray, dates: Iterable[date], seed: int
) -> Iterator[tuple[int, date, np.ndarray]]:
    """Each date with its number, and the `reflectance` that is seen on it."""
    for number, day in enumerate(dates):
        yield number, day, reflectance(cover, parcel, day.timetuple().tm_yday, seed)


def reflectance(cover: np.ndarray, parcel: np.ndarray, day: int, seed: int = 0) -> np.ndarray:
    """Top-of-atmosphere reflectance (height, width, 13) float32 on a ``day`` of the year.

    ``cover`` and ``parcel`` are of `landscape`. ``seed`` is that of the ground: soils, farmers'
    dates and textures are the same on every day, the sensor's noise is not.
    """
    rng = np.random.default_rng([seed, 1])
    parcels = int(parcel.max()) + 1
    delay = rng.normal(0, 4, parcels)[parcel]
    wetness = (1 + 0.12 * rng.normal(size=parcels))[parcel]
    vigour = np.clip(1 - 0.06 * np.abs(rng.normal(size=parcels)), 0.7, 1)[parcel]
    direction = rng.uniform(0, np.pi, parcels)[parcel]
    patches = gaussian_filter(rng.normal(size=cover.shape), 1.5)
    patches /= patches.std()

    y, x = np.indices(cover.shape)
    # Paths every 40 m, two pixels of trees and two that are half open.
    stripes = np.sign(np.sin((x * np.cos(direction) + y * np.sin(direction)) * (np.pi / 2) + 0.4))
    rows, mottle, fullest, straw = (
        np.array([getattr(c, name) for c in COVERS])[cover]
        for name in ("rows", "mottle", "fullest", "straw")
    )
    rises, falls = (np.array([c.green[i] if c.green else 0 for c in COVERS]) for i in (0, 1))
    always = np.array([c.green is None for c in COVERS])[cover]
    greening = _logistic(day - rises[cover] - delay)
    ripening = _logistic(day - falls[cover] - delay)
    green = np.where(always, 1.0, greening * (1 - ripening))
    canopy = fullest * vigour * green
    # Ripe grain and stubble cover the soil until it is ploughed in early autumn.
    dry = straw * np.where(always, 0.0, ripening) * (day < 270) * (1 - canopy)

    leaf = np.array([SPECTRA[c.canopy] for c in COVERS])[cover]
    soil = np.array(SPECTRA["soil"]) * wetness[..., None]
    ground = leaf * canopy[..., None] + np.array(SPECTRA["straw"]) * dry[..., None]
    ground += soil * (1 - canopy - dry)[..., None]
    texture = 1 + rows * stripes + mottle * patches
    ground *= np.clip(texture, 0.3, 1.7)[..., None]

    seen = np.array(PATH) + np.array(TRANSMITTANCE) * ground
    noise = np.random.default_rng([seed, 2, day]).normal(1, NOISE, seen.shape)
    return np.clip(seen * noise, 0, None).astype(np.float32)


def _logistic(days: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-2 * days / DAYS_OF_CHANGE))
