"""Drawing for the demo worlds: flat polygons through one affine pen on a 256 px canvas, reduced to 64 px.

Coordinates are canvas units: x to the right, y down, 0 to 256. Points are arrays [N, 2].
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

SIDE = 64
CANVAS = 256

Rgb = tuple[int, int, int]

COLORS: dict[str, Rgb] = {
    "red": (218, 48, 44),
    "blue": (44, 92, 214),
    "green": (46, 160, 70),
    "yellow": (250, 212, 48),
    "purple": (136, 62, 186),
    "orange": (246, 134, 30),
    "black": (44, 44, 52),
    "white": (244, 244, 246),
    "pink": (250, 146, 190),
}


class Example(NamedTuple):
    """One drawn example of a world.

    Attributes:
        image: uint8 [64, 64, 3].
        attributes: Every attribute it was drawn from, visible or not.
        caption: A sentence naming some of the visible attributes.
    """

    image: np.ndarray
    attributes: dict[str, str]
    caption: str


class Pen:
    """Draws shapes on a canvas through one affine map (scale, then tilt, then shift, about a pivot).

    `frame` returns a second pen on the same canvas, whose map is applied before this one's.
    """

    def __init__(self, canvas: Image.Image, matrix: np.ndarray | None = None) -> None:
        """Takes an RGB canvas [256, 256] and a map [3, 2]: points [N, 2] go to points @ matrix[:2] + matrix[2]."""
        self.canvas = canvas
        self.matrix = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]) if matrix is None else matrix
        self._draw = ImageDraw.Draw(canvas)
        self._unit = math.sqrt(abs(np.linalg.det(self.matrix[:2])))

    def frame(
        self,
        scale: float = 1.0,
        tilt: float = 0.0,
        shift: tuple[float, float] = (0.0, 0.0),
        pivot: tuple[float, float] = (CANVAS / 2, CANVAS / 2),
        mirror: bool = False,
    ) -> "Pen":
        """Returns a pen in a scaled, tilted (radians, clockwise) and shifted frame; the pivot goes to pivot + shift."""
        c, s = scale * math.cos(tilt), scale * math.sin(tilt)
        inner = np.array([[c, s], [-s, c], [0.0, 0.0]])
        if mirror:
            inner[0] = -inner[0]
        inner[2] = np.add(pivot, shift) - np.asarray(pivot) @ inner[:2]
        matrix = inner @ self.matrix[:2]
        matrix[2] += self.matrix[2]
        return Pen(self.canvas, matrix)

    def polygon(self, points: np.ndarray, fill: Rgb, outline: Rgb | None = None, width: float = 6.0) -> None:
        """Fills a closed polygon; an outline of that width lies centred on its border, under the fill."""
        mapped = self._map(points)
        if outline is not None:
            self._draw.line(mapped + mapped[:4], fill=outline, width=self._pixels(width))
        self._draw.polygon(mapped, fill=fill)

    def ellipse(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        fill: Rgb,
        outline: Rgb | None = None,
        width: float = 6.0,
        tilt: float = 0.0,
    ) -> None:
        """Fills an ellipse, with an outline of half the width around it, so that it matches `polygon`."""
        if outline is not None:
            self._draw.polygon(self._map(ellipse(x, y, rx + width / 2, ry + width / 2, tilt)), fill=outline)
        self._draw.polygon(self._map(ellipse(x, y, rx, ry, tilt)), fill=fill)

    def stroke(self, points: np.ndarray, fill: Rgb, width: float, caps: bool = True) -> None:
        """Draws an open line, with round ends unless `caps` is False."""
        mapped = self._map(points)
        pixels = self._pixels(width)
        self._draw.line(mapped, fill=fill, width=pixels, joint="curve" if pixels > 8 else None)
        if caps:
            r = pixels / 2
            for x, y in (mapped[:2], mapped[-2:]):
                self._draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)

    def _map(self, points: np.ndarray) -> list[float]:
        return (np.asarray(points, dtype=float) @ self.matrix[:2] + self.matrix[2]).ravel().tolist()

    def _pixels(self, width: float) -> int:
        return max(1, round(width * self._unit))


def new_canvas(top: Rgb, bottom: Rgb) -> Image.Image:
    """Returns a canvas [256, 256] with a vertical gradient."""
    column = np.linspace(top, bottom, CANVAS).round().astype(np.uint8)[:, None]
    return Image.fromarray(column).resize((CANVAS, CANVAS), Image.Resampling.NEAREST)


def to_array(canvas: Image.Image) -> np.ndarray:
    """Returns the canvas reduced four times: uint8 [64, 64, 3]."""
    return np.asarray(canvas.reduce(CANVAS // SIDE))


def lit(
    image: np.ndarray,
    brightness: float,
    slope: tuple[float, float] = (0.0, 0.0),
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> np.ndarray:
    """Returns uint8 [64, 64, 3] under a light: brightness, its change over the image in x and y, and a tint."""
    ramp = np.linspace(-0.5, 0.5, SIDE, dtype=np.float32)
    light = brightness + slope[0] * ramp[None, :] + slope[1] * ramp[:, None]
    shaded = image * (light[:, :, None] * np.asarray(tint, dtype=np.float32))
    return np.minimum(shaded, 255.0).astype(np.uint8)


def mix(a: Rgb, b: Rgb, share: float) -> Rgb:
    """Returns the colour that share of the way from a to b."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))


def dark(color: Rgb, share: float = 0.45) -> Rgb:
    """Returns the colour that share of the way to a bluish black: shadows and outlines."""
    return mix(color, (16, 12, 24), share)


def light(color: Rgb, share: float = 0.35) -> Rgb:
    """Returns the colour that share of the way to white: highlights."""
    return mix(color, (255, 255, 255), share)


@cache
def _circle(n: int) -> np.ndarray:
    angles = np.arange(n) * (2 * math.pi / n)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def ellipse(x: float, y: float, rx: float, ry: float, tilt: float = 0.0, n: int = 28) -> np.ndarray:
    """Returns n points [n, 2] of an ellipse, tilted clockwise by radians."""
    points = _circle(n) * (rx, ry)
    if tilt:
        c, s = math.cos(tilt), math.sin(tilt)
        points = points @ np.array([[c, s], [-s, c]])
    return np.add(points, (x, y))


def arc(x: float, y: float, rx: float, ry: float, start: float, end: float, n: int = 12) -> np.ndarray:
    """Returns n points [n, 2] of an ellipse from `start` to `end` degrees (0 right, 90 down, 180 left, 270 up)."""
    angles = np.radians(np.linspace(start, end, n))
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


def star(x: float, y: float, outer: float, inner: float, n: int = 5, turn: float = -90.0) -> np.ndarray:
    """Returns the 2n corners [2n, 2] of a star, its first point at `turn` degrees."""
    angles = np.radians(turn + np.arange(2 * n) * (180.0 / n))
    radii = np.where(np.arange(2 * n) % 2 == 0, outer, inner)
    return np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)


def smooth(points: list[tuple[float, float]], n: int = 4, closed: bool = True) -> np.ndarray:
    """Returns a Catmull-Rom curve through the points, n samples a segment: [n * segments (+ 1 if open), 2]."""
    p = np.asarray(points, dtype=float)
    if closed:
        before, after, after2 = np.roll(p, 1, 0), np.roll(p, -1, 0), np.roll(p, -2, 0)
        here = p
    else:
        padded = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
        before, here, after, after2 = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = (np.arange(n) / n)[None, :, None]
    a, b, c, d = (q[:, None] for q in (before, here, after, after2))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, p[-1:]])


def symmetric(half: list[tuple[float, float]], axis: float = CANVAS / 2) -> list[tuple[float, float]]:
    """Returns a closed outline from its right half, top to bottom; points on the axis are not doubled."""
    left = [(2 * axis - x, y) for x, y in reversed(half) if x != axis]
    return half + left
