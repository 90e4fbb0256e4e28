"""Miniature road scenes in the layout of CamVid: streets seen from a car, all 11 classes and void.

What a thing is shows in its shape and surroundings: walls, cars and clothes are of any colour, and
road, pavement and walls of greys that overlap.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from dlbench.data.camvid import CLASSES, VOID
from dlbench.data.dataset import DataError
from dlbench.data.options import Count, Split
from dlbench.data.scenes import new_folder

VERSION = 1
"""Raised whenever the same arguments would give other pixels."""
PICTURES = {"train": 64, "val": 16, "test": 16}
SIZE = 360, 480
"""Height and width of the real pictures."""
SMALLEST = 48
INDEX = {one.name: one.code for one in CLASSES}
Color = tuple[int, int, int]
Point = tuple[float, float]


def make(
    folder: Path,
    seed: int = 0,
    pictures: Mapping[Split, Count] | None = None,
    size: tuple[int, int] = SIZE,
) -> Path:
    """Write streets of ``size`` (height, width), as many as ``pictures`` says of each split, to a
    new ``folder``, whole or not at all.

    Raises `DataError` for a size too small to show them, and where a folder is in the way.
    """
    if min(size) < SMALLEST:
        raise DataError(f"size is {list(size)}, allowed: at least {SMALLEST} x {SMALLEST} pixels")
    pictures = PICTURES if pictures is None else pictures
    with new_folder(folder, "manifest.json", "pictures") as unfinished:
        for number, (split, count) in enumerate(pictures.items()):
            folders = split, f"{split}annot"
            for name in folders:
                (unfinished / name).mkdir()
            lines = []
            for index in range(count):
                rng = np.random.default_rng([seed, number, index])
                name = f"{split}_{index:04d}.png"
                for place, values in zip(folders, street(rng, size), strict=True):
                    Image.fromarray(values).save(unfinished / place / name)
                # Of the machine on which the real lists were written.
                lines.append(" ".join(f"/SegNet/CamVid/{place}/{name}" for place in folders))
            (unfinished / f"{split}.txt").write_text("\n".join(lines) + "\n")
        manifest = {"generator": VERSION, "seed": seed, "pictures": pictures, "size": list(size)}
        (unfinished / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return Path(folder)


def street(rng: np.random.Generator, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A picture (height, width, 3) and its classes (height, width) as CamVid has them, uint8."""
    canvas = _Canvas(*size, rng)
    _houses_and_trees(canvas)
    _ground(canvas)
    _roadside(canvas)
    _traffic(canvas)
    return canvas.photograph(), canvas.label()


class _Canvas:
    """A picture and its classes, painted from far to near in units of its height.

    ``x`` is 0 at the vanishing point, to which the street runs; ``depth`` is 1 at the lower border
    of the picture and 0 at the horizon.
    """

    def __init__(self, height: int, width: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.height, self.width = height, width
        self.horizon = rng.uniform(0.38, 0.5)
        self.centre = rng.uniform(0.35, 0.65) * width / height
        self.left, self.right = -self.centre, width / height - self.centre
        self.road = -rng.uniform(0.45, 0.8), rng.uniform(0.45, 0.8)
        """Where its borders meet the lower border of the picture."""
        sky = np.array(rng.choice([[150, 185, 225], [215, 220, 225], [120, 160, 215]]))
        self._color = Image.new("RGB", (width, height), tuple(sky.tolist()))
        self._class = Image.new("L", (width, height), INDEX["Sky"])
        self._on_color, self._on_class = map(ImageDraw.Draw, (self._color, self._class))

    def row(self, depth: float) -> float:
        """Where the ground of a depth lies, from the upper border."""
        return self.horizon + depth * (1 - self.horizon)

    def polygon(self, points: Sequence[Point], kind: str | int, color: Color) -> None:
        places = [self._pixel(point) for point in points]
        self._on_color.polygon(places, fill=color)
        self._on_class.polygon(places, fill=_code(kind))

    def box(
        self, left: float, top: float, right: float, low: float, kind: str | int, color: Color
    ) -> None:
        corners = [(left, top), (right, top), (right, low), (left, low)]
        self.polygon(corners, kind, color)

    def disc(
        self, x: float, y: float, radius: Point | float, kind: str | int, color: Color
    ) -> None:
        across, along = radius if isinstance(radius, tuple) else (radius, radius)
        corners = self._pixel((x - across, y - along)) + self._pixel((x + across, y + along))
        self._on_color.ellipse(corners, fill=color)
        self._on_class.ellipse(corners, fill=_code(kind))

    def any_color(self, low: int = 30, high: int = 220) -> Color:
        red, green, blue = self.rng.integers(low, high, 3).tolist()
        return red, green, blue

    def grey(self, low: int, high: int) -> Color:
        level = int(self.rng.integers(low, high))
        return level, level, min(level + int(self.rng.integers(0, 12)), 255)

    def photograph(self) -> np.ndarray:
        """As a camera sees it: mottled, unevenly lit, a little out of focus, with noise."""
        rng, shape = self.rng, (self.height, self.width)
        color = np.asarray(self._color, np.float32)
        scale = self.height / 180
        mottle = sum(
            weight * _unit(gaussian_filter(rng.normal(size=shape), sigma * scale))
            for weight, sigma in ((6.0, 1.0), (5.0, 4.0), (12.0, 25.0))
        )
        # Leaves are rough, the sky is smooth.
        label = self.label()
        rough = np.select([label == INDEX["Sky"], label == INDEX["Tree"]], [0.3, 2.0], 1.0)
        exposure = rng.uniform(0.7, 1.15)
        color = exposure * (color + (mottle * rough)[..., None])
        color = gaussian_filter(color, (0.4 * scale, 0.4 * scale, 0))
        color += rng.normal(0, 3, color.shape)
        return np.clip(np.rint(color), 0, 255).astype(np.uint8)

    def label(self) -> np.ndarray:
        return np.array(self._class)

    def _pixel(self, point: Point) -> Point:
        return (point[0] + self.centre) * self.height, point[1] * self.height


def _code(kind: str | int) -> int:
    return INDEX[kind] if isinstance(kind, str) else kind


def _unit(field: np.ndarray) -> np.ndarray:
    return np.asarray(field / field.std())


def _houses_and_trees(canvas: _Canvas) -> None:
    """Along both sides, smaller and nearer the middle with distance."""
    rng = canvas.rng
    for side in (-1, 1):
        reach = canvas.right if side > 0 else -canvas.left
        near = 0.06
        places = []
        while near < reach:
            far = near + rng.uniform(0.12, 0.4) * (0.4 + near)
            places.append((near, far))
            near = far
        for inner, outer in places:
            foot = canvas.horizon + 0.25 * inner
            roof = canvas.horizon - rng.uniform(0.25, 0.7) * (0.25 + inner)
            left, right = sorted((side * inner, side * outer))
            if rng.random() < 0.75:
                canvas.box(left, roof, right, foot, "Building", _wall(canvas))
                _windows(canvas, left, roof, right, foot)
            if rng.random() < 0.45:
                _tree(canvas, side * rng.uniform(inner, outer), foot, 0.08 + 0.25 * inner)


def _wall(canvas: _Canvas) -> Color:
    base = canvas.rng.choice([[150, 100, 80], [170, 160, 140], [120, 115, 115], [190, 180, 165]])
    red, green, blue = (base + canvas.rng.integers(-20, 20, 3)).tolist()
    return red, green, blue


def _windows(canvas: _Canvas, left: float, roof: float, right: float, foot: float) -> None:
    glass = canvas.any_color(20, 90)
    step = max((foot - roof) / canvas.rng.integers(3, 6), 0.02)
    for top in np.arange(roof + 0.3 * step, foot - 0.7 * step, step):
        for start in np.arange(left + 0.3 * step, right - 0.7 * step, step):
            canvas.box(start, top, start + 0.4 * step, top + 0.5 * step, "Building", glass)


def _tree(canvas: _Canvas, x: float, foot: float, radius: float) -> None:
    rng = canvas.rng
    leaves = np.array([55, 85, 40]) + rng.integers(-20, 25, 3)
    crown = foot - rng.uniform(1.5, 2.5) * radius
    width = 0.08 * radius
    canvas.box(x - width, crown, x + width, foot, "Tree", (70, 55, 45))
    for _ in range(7):
        shade = np.clip(leaves + rng.integers(-18, 18), 0, 255)
        red, green, blue = shade.tolist()
        across, along = rng.normal(0, 0.4 * radius, 2)
        size = radius * rng.uniform(0.4, 0.8)
        canvas.disc(x + across, crown + along, size, "Tree", (red, green, blue))


def _ground(canvas: _Canvas) -> None:
    """Pavements to the borders, the road with its markings between."""
    rng = canvas.rng
    low, horizon = 1.0, canvas.horizon
    paving, tar = canvas.grey(95, 165), canvas.grey(75, 130)
    outside = canvas.left - 1, canvas.right + 1
    left, right = canvas.road
    fan = [(-0.02, horizon), (0.02, horizon), (outside[1], canvas.row(0.45))]
    canvas.polygon(
        [*fan, (outside[1], low), (outside[0], low), (outside[0], canvas.row(0.45))],
        "Pavement", paving,
    )  # fmt: skip
    canvas.polygon([(-0.02, horizon), (0.02, horizon), (right, low), (left, low)], "Road", tar)
    paint = canvas.grey(190, 235)
    lane = rng.uniform(0.35, 0.65)
    for depth in np.geomspace(0.06, 0.8, 6):
        ends = depth, 1.25 * depth
        x = [(left + lane * (right - left)) * d for d in ends]
        width = [0.012 * d for d in ends]
        canvas.polygon(
            [
                (x[0] - width[0], canvas.row(ends[0])), (x[0] + width[0], canvas.row(ends[0])),
                (x[1] + width[1], canvas.row(ends[1])), (x[1] - width[1], canvas.row(ends[1])),
            ],
            "Road", paint,
        )  # fmt: skip


def _roadside(canvas: _Canvas) -> None:
    """Fences, poles with and without signs, people, and things that are of no class."""
    rng = canvas.rng
    for side, kerb in zip((-1, 1), canvas.road, strict=True):
        if rng.random() < 0.6:
            _fence(canvas, 1.6 * kerb, side)
        for depth in np.sort(rng.uniform(0.12, 0.7, rng.integers(2, 5))):
            x, foot = 1.12 * kerb * depth + side * 0.02, canvas.row(depth)
            draw = rng.choice(["pole", "sign", "person", "bin"], p=[0.3, 0.25, 0.35, 0.1])
            if draw == "person":
                _person(canvas, x + side * rng.uniform(0, 0.15) * depth, foot, 0.42 * depth)
            elif draw == "bin":
                size = 0.06 * depth
                canvas.box(x - size, foot - 3 * size, x + size, foot, VOID, canvas.any_color())
            else:
                height, width = rng.uniform(0.8, 1.3) * (0.15 + depth), 0.006 + 0.012 * depth
                metal = canvas.grey(70, 150)
                canvas.box(x - width, foot - height, x + width, foot, "Pole", metal)
                if draw == "sign":
                    _sign(canvas, x, foot - height, 0.05 + 0.09 * depth)


def _fence(canvas: _Canvas, x: float, side: int) -> None:
    color = canvas.any_color(50, 150)
    far, near = 0.15, canvas.rng.uniform(0.5, 0.9)
    tall = 0.28

    def bar(start: float, end: float, top: float, low: float) -> None:
        corners = [(d, share) for d, share in ((start, top), (end, top), (end, low), (start, low))]
        canvas.polygon(
            [(x * d, canvas.row(d) - share * tall * d) for d, share in corners], "Fence", color
        )

    for top in (1.0, 0.55):
        bar(far, near, top, top - 0.2)
    for depth in np.arange(far, near, 0.035):
        bar(depth, depth + 0.016, 1.0, 0.0)


def _sign(canvas: _Canvas, x: float, y: float, size: float) -> None:
    colors: list[Color] = [(190, 40, 45), (40, 70, 165), (225, 190, 50), (235, 235, 235)]
    color = colors[canvas.rng.integers(len(colors))]
    if canvas.rng.random() < 0.5:
        canvas.disc(x, y, size, "SignSymbol", color)
        canvas.disc(x, y, 0.6 * size, "SignSymbol", (235, 235, 235))
    else:
        canvas.box(x - size, y - size, x + size, y + 0.6 * size, "SignSymbol", color)


def _person(
    canvas: _Canvas, x: float, foot: float, height: float, kind: str = "Pedestrian"
) -> None:
    skin, top, trousers = (185, 140, 115), canvas.any_color(), canvas.any_color(20, 110)
    width = 0.14 * height
    canvas.box(x - 0.8 * width, foot - 0.5 * height, x + 0.8 * width, foot, kind, trousers)
    canvas.box(x - width, foot - 0.85 * height, x + width, foot - 0.45 * height, kind, top)
    canvas.disc(x, foot - 0.9 * height, 0.09 * height, kind, skin)


def _traffic(canvas: _Canvas) -> None:
    """Cars and bicycles, the far ones first."""
    rng = canvas.rng
    left, right = canvas.road
    for depth in np.sort(rng.uniform(0.1, 0.6, rng.integers(3, 6))):
        x, foot = depth * (left + rng.uniform(0.1, 0.9) * (right - left)), canvas.row(depth)
        if rng.random() < 0.7:
            _car(canvas, x, foot, 0.36 * depth)
        else:
            _bicyclist(canvas, x, foot, 0.48 * depth)


def _car(canvas: _Canvas, x: float, foot: float, width: float) -> None:
    color, half, tall = canvas.any_color(), width / 2, 0.8 * width
    waist = foot - 0.5 * tall
    for side in (-0.8, 0.8):
        canvas.box(
            x + side * half - 0.1 * width, foot - 0.15 * tall, x + side * half + 0.1 * width, foot,
            "Car", (25, 25, 28),
        )  # fmt: skip
    canvas.box(x - half, waist, x + half, foot - 0.08 * tall, "Car", color)
    roof = [(x - 0.75 * half, foot - tall), (x + 0.75 * half, foot - tall)]
    canvas.polygon([*roof, (x + half, waist), (x - half, waist)], "Car", color)
    glass = [(x - 0.65 * half, foot - 0.93 * tall), (x + 0.65 * half, foot - 0.93 * tall)]
    canvas.polygon(
        [*glass, (x + 0.85 * half, waist), (x - 0.85 * half, waist)], "Car", (45, 55, 65)
    )
    for side in (-0.8, 0.8):
        canvas.disc(x + side * half, waist + 0.12 * tall, 0.07 * width, "Car", (200, 60, 50))


def _bicyclist(canvas: _Canvas, x: float, foot: float, height: float) -> None:
    radius = 0.2 * height
    for side in (-1, 1):
        canvas.disc(x + side * 1.1 * radius, foot - radius, radius, "Bicyclist", (30, 30, 32))
        canvas.disc(
            x + side * 1.1 * radius, foot - radius, 0.7 * radius, "Bicyclist", canvas.grey(90, 130)
        )
    canvas.box(
        x - 1.1 * radius, foot - 1.9 * radius, x + 1.1 * radius, foot - 1.6 * radius,
        "Bicyclist", canvas.any_color(),
    )  # fmt: skip
    _person(canvas, x, foot - 1.2 * radius, height - 1.2 * radius, "Bicyclist")
