"""A procedural suburb seen from the air in near infrared, red and green.

Streets, houses, gardens, car parks and building yards lie under one sun. Classes share their
colours on purpose (roofs and asphalt, crowns and lawns): what tells them apart is texture, shape
and surroundings, as in real imagery, so a classifier of single pixels fails.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

# Class indices in the order of `dlbench.data.isprs.CLASSES`.
IMPERVIOUS, BUILDING, GRASS, TREE, CAR, CLUTTER = range(6)
SOLID = (BUILDING, CAR, CLUTTER)

# Reflectance in near infrared, red, green.
LEAF = np.array([0.62, 0.20, 0.25])
DRY = np.array([0.50, 0.36, 0.33])
ASPHALT = np.array([0.33, 0.36, 0.36])
PAVING = np.array([0.50, 0.52, 0.51])
ROOFS = np.array([[0.33, 0.36, 0.36], [0.46, 0.48, 0.48], [0.46, 0.44, 0.38], [0.40, 0.35, 0.32]])
PAINTS = np.array(
    [[0.85, 0.87, 0.88], [0.85, 0.87, 0.88], [0.62, 0.64, 0.65], [0.10, 0.11, 0.12],
     [0.58, 0.46, 0.14], [0.34, 0.14, 0.30], [0.70, 0.72, 0.45]]
)  # fmt: skip

Patch = tuple[slice, slice]


def scene(seed: int, area: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One scene: image (size, size, 3) uint8 near infrared, red, green; label (size, size)."""
    return survey(seed, area, size)[:2]


def survey(seed: int, area: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A scene with heights (size, size) above ground, in widths of a pixel."""
    canvas = _Canvas(np.random.Generator(np.random.PCG64([seed, area])), size)
    canvas.streets()
    canvas.lots()
    canvas.street_cars()
    canvas.trees()
    return canvas.photograph(), canvas.label, canvas.height


class _Canvas:
    """A scene under way: label, reflectance, height and relief shading of every pixel.

    Things are placed in street coordinates: u across the streets, v along them, both in pixels
    from the middle of the scene; the streets bend gently and lie at any angle.
    """

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng = rng
        self.size = size
        angle = rng.uniform(0, np.pi)
        self.across = np.array([math.sin(angle), math.cos(angle)])
        self.along = np.array([math.cos(angle), -math.sin(angle)])
        """Unit vectors (y, x) of u and v."""
        self.bend = rng.uniform((4, 90, 0), (12, 130, 6))
        y, x = np.mgrid[:size, :size] - (size - 1) / 2
        self.v = self.along[0] * y + self.along[1] * x
        self.u = self.across[0] * y + self.across[1] * x + self._bend(self.v)
        self.reach = 0.72 * size + 40
        azimuth, elevation = np.radians(rng.uniform((135, 38), (165, 46)))
        self.sun = np.array([-math.cos(azimuth), math.sin(azimuth)])
        """Unit vector (y, x) towards the sun; north is up."""
        self.sun_tangent = math.tan(elevation)
        self.grain, self.mottle, self.drift = (self._noise(scale) for scale in (0.8, 5, 22))
        self.asphalt = ASPHALT * rng.uniform(0.85, 1.3) * rng.uniform(0.95, 1.05, 3)
        self.label = np.full((size, size), GRASS, np.uint8)
        self.height = np.zeros((size, size))
        self.shade = np.ones((size, size))
        dry = np.clip(0.25 + 0.4 * self.drift, 0, 0.8)[..., None]
        lawn = 1 + 0.05 * self.grain + 0.08 * self.mottle
        self.color = (LEAF * (1 - dry) + DRY * dry) * lawn[..., None]
        self.street_u = np.arange(-3, 4) * rng.uniform(190, 215) + rng.uniform(-95, 95)
        self.cross_v = (rng.uniform(-0.3, 0.3) + np.array([-0.62, 0.0, 0.62])) * 512

    def streets(self) -> None:
        """Streets with pavements, and centre lines that stop at crossings."""
        everywhere = np.s_[:, :]
        du = np.abs(self.u[..., None] - self.street_u).min(axis=-1)
        dv = np.abs(self.v[..., None] - self.cross_v).min(axis=-1)
        nearest = np.minimum(du, dv)
        self._paint(everywhere, nearest < 21, IMPERVIOUS, self._paving(everywhere))
        self._paint(everywhere, nearest < 15, IMPERVIOUS, self._asphalt(everywhere))
        for distance, along, other in ((du, self.v, dv), (dv, self.u, du)):
            dashes = (distance < 1.0) & (along % 22 < 12) & (other > 17)
            self._paint(everywhere, dashes, IMPERVIOUS, 0.75)

    def lots(self) -> None:
        """Houses, car parks, building yards and gardens on both sides of every street."""
        deck: list[str] = []
        for street in self.street_u:
            for side in (-1, 1):
                v = -self.reach + self.rng.uniform(0, 30)
                while v < self.reach:
                    if not deck:
                        deck = ["house"] * 8 + ["parking", "yard", "yard", "garden"]
                        self.rng.shuffle(deck)
                    length = self.rng.uniform(56, 94)
                    middle = v + length / 2
                    v += length + self.rng.uniform(4, 14)
                    if np.abs(middle - self.cross_v).min() < 22 + length / 2:
                        continue
                    if not self._is_inside(street + side * 60, middle):
                        continue
                    kind = deck.pop()
                    if kind == "house":
                        self._house(street, side, middle, length)
                    elif kind == "parking":
                        self._parking(street, side, middle, length)
                    elif kind == "yard":
                        self._yard(street + side * self.rng.uniform(54, 62), middle)

    def street_cars(self) -> None:
        """Cars along both kerbs."""
        for street in self.street_u:
            for side in (-1, 1):
                v = -self.reach + self.rng.uniform(0, 60)
                while v < self.reach:
                    if np.abs(v - self.cross_v).min() > 34:
                        self._car(street + side * 8.5, v, parallel=True)
                    v += self.rng.choice([26, 45, 90]) + self.rng.uniform(0, 30)

    def trees(self) -> None:
        """Crowns of rough relief on grass, overhanging what is beside it."""
        wanted = round(85 * (self.size / 512) ** 2)
        for _ in range(8 * wanted):
            if wanted == 0:
                break
            y, x = self.rng.uniform(0, self.size, 2)
            radius = self.rng.uniform(10, 18)
            window, dy, dx = self._around(y, x, 1.2 * radius)
            bearing = np.arctan2(dy, dx)
            lobes = 1 + 0.09 * np.sin(3 * bearing + y) + 0.05 * np.sin(7 * bearing + x)
            r = np.hypot(dy, dx) / (radius * lobes)
            crown = r < 1
            ground = self.label[window]
            if (ground[crown] == GRASS).mean() < 0.7 or np.isin(ground[crown], SOLID).any():
                continue
            wanted -= 1
            dome = 0.6 * radius * np.sqrt(np.clip(1 - r**2, 0, 1))
            leaves = 1.5 * self._rough(r.shape, 1.9) + 0.6 * self._rough(r.shape, 1.0)
            tint = LEAF * self.rng.uniform(0.90, 1.12) * (1 + 0.05 * self.grain[window][..., None])
            self._paint(window, crown, TREE, tint, 7 + dome + leaves)
            gradient = np.stack(np.gradient(dome + leaves)).clip(-1.6, 1.6)
            self.shade[window][crown] = self._lambert(gradient)[crown]

    def photograph(self) -> np.ndarray:
        """The scene as the camera sees it: shadows, uneven light, haze, blur and noise."""
        sky = np.array([0.30, 0.36, 0.40])
        light = sky + (1 - sky) * (self.shade * (1 - self._shadow()))[..., None]
        ramp = np.linspace(-0.5, 0.5, self.size)
        slope = self.rng.uniform(-0.16, 0.16, 2)
        light *= 1 + slope[0] * ramp[:, None, None] + slope[1] * ramp[:, None]
        gain, haze = self.rng.uniform(0.88, 1.14, 3), self.rng.uniform(0.0, 0.06)
        radiance = gaussian_filter(self.color * light, (0.55, 0.55, 0)) * gain + haze
        radiance += self.rng.normal(0, 0.008, radiance.shape)
        return np.clip(np.rint(255 * radiance), 0, 255).astype(np.uint8)

    def _house(self, street: float, side: int, v: float, length: float) -> None:
        depth, width = self.rng.uniform(48, 66), length - self.rng.uniform(14, 22)
        u = street + side * (21 + self.rng.uniform(10, 18) + depth / 2)
        if not self._roof(u, v, depth, width, (GRASS,)):
            return
        if self.rng.random() < 0.4:
            self._roof(u + side * depth / 2, v + width / 4, 40, width / 2, (GRASS, BUILDING))
        drive = v + self.rng.uniform(-0.3, 0.3) * width
        window, du, dv = self._near((street + u) / 2, drive, depth)
        strip = (np.abs(du) < abs(u - street) / 2) & (np.abs(dv) < 6.5)
        strip &= self.label[window] == GRASS
        self._paint(window, strip, IMPERVIOUS, self._paving(window))

    def _roof(self, u: float, v: float, depth: float, width: float, on: tuple[int, ...]) -> bool:
        """A gabled or flat roof, ribbed along its length, with a ridge or parapet and a stack."""
        window, du, dv = self._near(u, v, (depth + width) / 2)
        body = (np.abs(du) < depth / 2) & (np.abs(dv) < width / 2)
        if not body.any() or not np.isin(self.label[window][body], on).all():
            return False
        lengthwise = width > depth
        down, across, extent = (self.across, du, depth) if lengthwise else (self.along, dv, width)
        gabled = self.rng.random() < 0.75
        pitch = self.rng.uniform(0.3, 0.5) if gabled else 0.0
        eaves = self.rng.uniform(14, 20)
        top = eaves + pitch * extent / 2
        color = self.rng.choice(ROOFS) * self.rng.uniform(0.85, 1.2)
        ribs = 1 + 0.20 * np.sign(np.sin(2 * np.pi * across / self.rng.uniform(4.6, 5.6)))
        texture = ribs * (1 + 0.04 * self.grain[window])
        self._paint(
            window, body, BUILDING, color * texture[..., None], top - pitch * np.abs(across)
        )
        self.shade[window][body] = self._lambert(-pitch * np.sign(across) * down[:, None, None])[
            body
        ]
        crest = np.abs(across) < 1.2 if gabled else np.abs(across) > extent / 2 - 2.5
        self._paint(window, body & crest, BUILDING, color * 1.4, top)
        stack = np.maximum(np.abs(du - 0.2 * depth), np.abs(dv + 0.2 * width)) < 2.6
        self._paint(window, body & stack, BUILDING, color * 0.4, top + 4)
        return True

    def _parking(self, street: float, side: int, v: float, length: float) -> None:
        depth = 76
        u = street + side * (20 + depth / 2)
        window, du, dv = self._near(u, v, depth)
        lot = (np.abs(du) < depth / 2) & (np.abs(dv) < length / 2)
        if not np.isin(self.label[window][lot], (GRASS, IMPERVIOUS)).all():
            return
        self._paint(window, lot, IMPERVIOUS, self._asphalt(window))
        places = np.arange(-length / 2 + 8, length / 2 - 7, 12.5)
        lines = np.abs(dv[..., None] - places + 6.2).min(axis=-1) < 0.7
        for row in (-24, 24):
            bays = lot & (np.abs(du - row) < 12)
            self._paint(window, bays & lines, IMPERVIOUS, 0.75)
            for place in places[self.rng.random(len(places)) < 0.7]:
                self._car(u + row, v + place, parallel=False)

    def _yard(self, u: float, v: float) -> None:
        """A heap of pieces of every colour: building material, scrap, rubble."""
        radius = self.rng.uniform(26, 35)
        window, du, dv = self._near(u, v, 1.3 * radius)
        bearing = np.arctan2(du, dv)
        lobes = 1 + 0.10 * np.sin(2 * bearing + u) + 0.07 * np.sin(5 * bearing + v)
        r = (np.abs(du) ** 3 + np.abs(dv) ** 3) ** (1 / 3) / (radius * lobes)
        heap = r < 1
        if not heap.any() or (self.label[window][heap] != GRASS).any():
            return
        # Pieces are cells of a grid that noise has crumpled.
        warp = 1.6 * self._rough(du.shape, 2.0), 1.6 * self._rough(du.shape, 2.0)
        row, column = (
            np.floor((d + w) / 4.5).astype(int) % 32 for d, w in zip((du, dv), warp, strict=True)
        )
        pool = np.concatenate([ROOFS, PAINTS, [LEAF, DRY, PAVING]])
        pieces = self.rng.choice(pool, (32, 32)) * self.rng.uniform(0.6, 1.2, (32, 32, 1))
        rise = self.rng.uniform(0, 4, (32, 32))[row, column] + 4 * (1 - r)
        self._paint(window, heap, CLUTTER, pieces[row, column], rise)

    def _car(self, u: float, v: float, parallel: bool) -> None:
        """A car of 4.6 m x 2.1 m: paint, dark panes, light roof."""
        window, du, dv = self._near(u, v, 12)
        long, wide = (dv, np.abs(du)) if parallel else (du, np.abs(dv))
        body = (np.abs(long) / 9.3) ** 4 + (wide / 4.3) ** 4 < 1
        if not body.any() or (self.label[window][body] != IMPERVIOUS).any():
            return
        long = long * self.rng.choice([-1, 1])
        paint = self.rng.choice(PAINTS) * self.rng.uniform(0.9, 1.1)
        self._paint(window, body, CAR, paint, 5.0)
        for start, stop, color in ((1.7, 4.6, 0.07), (-7.2, -4.8, 0.07), (-4.4, 1.2, paint * 1.25)):
            part = body & (wide < 3.3) & (long > start) & (long < stop)
            self._paint(window, part, CAR, np.minimum(color, 1), 6.0)

    def _asphalt(self, window: Patch) -> np.ndarray:
        grain = 1 + 0.035 * self.grain[window] + 0.05 * self.drift[window]
        return self.asphalt * grain[..., None]

    def _paving(self, window: Patch) -> np.ndarray:
        joints = (self.u[window] % 5 < 1) | (self.v[window] % 5 < 1)
        return PAVING * (1 - 0.1 * joints + 0.03 * self.grain[window])[..., None]

    def _paint(
        self,
        window: Patch,
        where: np.ndarray,
        kind: int,
        color: np.ndarray | float,
        height: np.ndarray | float = 0.0,
    ) -> None:
        self.label[window][where] = kind
        self.color[window][where] = np.broadcast_to(color, (*where.shape, 3))[where]
        self.height[window][where] = np.broadcast_to(height, where.shape)[where]

    def _bend(self, v: np.ndarray) -> np.ndarray:
        return self.bend[0] * np.sin(v / self.bend[1] + self.bend[2])

    def _place(self, u: float, v: float) -> np.ndarray:
        straight = u - self._bend(np.asarray(v))
        return straight * self.across + v * self.along + (self.size - 1) / 2

    def _is_inside(self, u: float, v: float) -> bool:
        return bool(np.all((self._place(u, v) > -60) & (self._place(u, v) < self.size + 60)))

    def _near(self, u: float, v: float, radius: float) -> tuple[Patch, np.ndarray, np.ndarray]:
        """The part of the scene about a place, and its distances from it in u and v."""
        y, x = self._place(u, v)
        window, _, _ = self._around(y, x, radius)
        return window, self.u[window] - u, self.v[window] - v

    def _around(self, y: float, x: float, radius: float) -> tuple[Patch, np.ndarray, np.ndarray]:
        rows, columns = (
            slice(*(min(max(0, round(edge)), self.size) for edge in (c - radius, c + radius + 1)))
            for c in (y, x)
        )
        window = rows, columns
        dy, dx = np.mgrid[window]
        return window, dy - y, dx - x

    def _lambert(self, gradient: np.ndarray) -> np.ndarray:
        """Direct light on a slope (2, ...) relative to level ground."""
        facing = 1 - (gradient[0] * self.sun[0] + gradient[1] * self.sun[1]) / self.sun_tangent
        return np.clip(facing, 0, None) / np.sqrt(1 + gradient[0] ** 2 + gradient[1] ** 2)

    def _shadow(self) -> np.ndarray:
        """Share of the sun that something taller towards it takes from each pixel."""
        shadow = np.zeros(self.height.shape, bool)
        margin = math.ceil(self.height.max() / self.sun_tangent)
        padded = np.pad(self.height, margin)
        for step in range(1, margin):
            dy, dx = np.rint(self.sun * step).astype(int) + margin
            sunward = padded[dy : dy + self.size, dx : dx + self.size]
            shadow |= sunward - step * self.sun_tangent > self.height + 0.5
        return gaussian_filter(shadow.astype(float), 0.8)

    def _rough(self, shape: tuple[int, ...], scale: float) -> np.ndarray:
        values = gaussian_filter(self.rng.normal(size=shape), scale)
        return 3.5 * scale * values

    def _noise(self, scale: float) -> np.ndarray:
        """Smooth noise of mean 0 and deviation 1 that varies over ``scale`` pixels."""
        # Coarse noise is made small and enlarged: a wide filter on every pixel would take longer.
        step = max(1, int(scale // 3))
        side = -(-self.size // step) + 8
        values = zoom(
            gaussian_filter(self.rng.normal(size=(side, side)), scale / step), step, order=1
        )
        values = values[: self.size, : self.size]
        return (values - values.mean()) / values.std()
