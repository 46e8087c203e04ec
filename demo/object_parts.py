"""The pieces that the objects world's classes are drawn from."""

import math
from typing import NamedTuple

import numpy as np

from demo.pen import Rgb, ellipse

MATERIALS: dict[str, Rgb] = {
    "glass": (186, 226, 246),
    "wood": (134, 84, 44),
    "cream": (246, 234, 208),
    "leaf": (60, 142, 62),
    "amber": (252, 186, 44),
    "flame": (252, 132, 28),
    "coffee": (92, 56, 32),
    "metal": (196, 200, 208),
    "dark": (36, 34, 42),
    "bright": (250, 250, 250),
    "nose": (236, 130, 140),
}

Point = tuple[float, float]


class Part(NamedTuple):
    """One flat piece of an object.

    Attributes:
        points: [N, 2], a closed polygon, or an open line where `width` is set.
        tone: `body`, `shade`, `tint`, `spot`, `center` or a material.
        width: The line's width, 0 for a polygon.
        inner: Whether it lies within other parts and needs no contrast outline.
    """

    points: np.ndarray
    tone: str
    width: float = 0.0
    inner: bool = False


def shape(points: list[Point] | np.ndarray, tone: str = "body", inner: bool = False) -> Part:
    """Returns a closed polygon through points [N, 2]."""
    return Part(np.asarray(points, dtype=float), tone, 0.0, inner)


def disc(x: float, y: float, rx: float, ry: float, tone: str = "body", tilt: float = 0.0, inner: bool = False) -> Part:
    """Returns an ellipse, tilted clockwise by radians."""
    return Part(ellipse(x, y, rx, ry, tilt), tone, 0.0, inner)


def box(left: float, top: float, right: float, bottom: float, tone: str = "body", inner: bool = False) -> Part:
    """Returns an upright rectangle."""
    return shape([(left, top), (right, top), (right, bottom), (left, bottom)], tone, inner)


def line(points: list[Point] | np.ndarray, tone: str, width: float, inner: bool = False) -> Part:
    """Returns an open line through points [N, 2]."""
    return Part(np.asarray(points, dtype=float), tone, width, inner)


def eye(x: float, y: float, r: float) -> list[Part]:
    """Returns an eye of radius r that looks to the right."""
    return [disc(x, y, r, r, "bright", inner=True), disc(x + 0.2 * r, y, 0.6 * r, 0.6 * r, "dark", inner=True)]


def turned(parts: list[Part], angle: float) -> list[Part]:
    """Returns the parts turned clockwise by radians."""
    c, s = math.cos(angle), math.sin(angle)
    turn = np.array([[c, s], [-s, c]])
    return [part._replace(points=part.points @ turn) for part in parts]
