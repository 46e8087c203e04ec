"""Backgrounds of the avatars: plain colours and six simple scenes, a few large shapes each."""

import numpy as np
from PIL import Image

from demo.pen import COLORS, Pen, Rgb, ellipse, light, mix, new_canvas, smooth

TINTS: dict[str, tuple[float, float, float]] = {
    "night": (0.92, 0.93, 1.0),
    "sunset": (1.0, 0.95, 0.88),
    "snow": (0.99, 1.0, 1.02),
}
_BACKDROPS: dict[str, Rgb] = {
    **{name: mix(color, (255, 255, 255), 0.12) for name, color in COLORS.items()},
    "black": (50, 50, 58),
    "white": (236, 237, 240),
}


def background(name: str, rng: np.random.Generator) -> Image.Image:
    """Returns a canvas [256, 256] with the named background, its shapes a little shifted."""
    dx, dy = rng.uniform(-14, 14), rng.uniform(-8, 8)
    if name in _BACKDROPS:
        return _plain(_BACKDROPS[name])
    return {"beach": _beach, "night": _night, "city": _city, "forest": _forest, "sunset": _sunset, "snow": _snow}[name](
        dx, dy
    )


def _plain(color: Rgb) -> Image.Image:
    canvas = new_canvas(color, mix(color, (0, 0, 0), 0.10))
    Pen(canvas).ellipse(128, 128, 112, 112, light(color, 0.16))
    return canvas


def _beach(dx: float, dy: float) -> Image.Image:
    canvas = new_canvas((104, 196, 250), (196, 236, 255))
    pen = Pen(canvas)
    pen.ellipse(216 + dx, 36 + dy, 24, 24, (255, 226, 80))
    pen.polygon(np.array([(0, 120 + dy), (256, 120 + dy), (256, 200), (0, 200)]), (24, 134, 204))
    pen.polygon(
        smooth([(-20, 180 + dy), (80, 168 + dy), (180, 180 + dy), (280, 168 + dy), (280, 290), (-20, 290)], 4),
        (250, 222, 150),
    )
    trunk = smooth([(14, 190), (30 + dx / 2, 130), (40 + dx / 2, 70)], 4, closed=False)
    pen.stroke(trunk, (140, 92, 48), 12)
    x, y = 40 + dx / 2, 66
    for end_x, end_y in ((-44, 8), (-30, -34), (16, -42), (44, -8), (34, 30), (-28, 36)):
        leaf = [(x, y), (x + end_x * 0.5 - end_y * 0.2, y + end_y * 0.5 - 12), (x + end_x, y + end_y)]
        pen.stroke(smooth(leaf, 3, closed=False), (34, 142, 66), 14)
    return canvas


def _night(dx: float, dy: float) -> Image.Image:
    canvas = new_canvas((14, 16, 54), (44, 52, 116))
    pen = Pen(canvas)
    pen.ellipse(212 + dx, 44 + dy, 28, 28, (255, 244, 190))
    pen.ellipse(200 + dx, 38 + dy, 25, 25, (20, 22, 64))
    for x, y in ((28, 34), (74, 20), (20, 96), (52, 66), (238, 104), (150, 14), (222, 158), (24, 160)):
        pen.polygon(ellipse(x + dx / 2, y + dy / 2, 5, 5, n=6), (255, 250, 214))
    return canvas


def _city(dx: float, dy: float) -> Image.Image:
    canvas = new_canvas((170, 206, 236), (226, 234, 240))
    pen = Pen(canvas)
    for x, top, width, color in (
        (-14, 92, 56, (116, 128, 152)),
        (38, 36, 50, (88, 98, 126)),
        (158, 70, 46, (120, 134, 158)),
        (200, 24, 60, (84, 94, 122)),
    ):
        left, high = x + dx, top + dy
        pen.polygon(np.array([(left, high), (left + width, high), (left + width, 256), (left, 256)]), color)
        for row in range(4):
            for column in (0.18, 0.58):
                wx, wy = left + width * column, high + 16 + 34 * row
                pen.polygon(np.array([(wx, wy), (wx + 13, wy), (wx + 13, wy + 17), (wx, wy + 17)]), (255, 228, 130))
    return canvas


def _forest(dx: float, dy: float) -> Image.Image:
    canvas = new_canvas((190, 226, 206), (150, 204, 150))
    pen = Pen(canvas)
    pen.polygon(np.array([(0, 212), (256, 212), (256, 256), (0, 256)]), (74, 140, 58))
    for x, top, color in (
        (84, 44, (70, 140, 84)),
        (176, 40, (70, 140, 84)),
        (22, 16, (28, 98, 54)),
        (234, 10, (28, 98, 54)),
    ):
        cx, y = x + dx, top + dy
        pen.polygon(np.array([(cx - 8, 170), (cx + 8, 170), (cx + 8, 226), (cx - 8, 226)]), (98, 66, 40))
        for step in range(3):
            base, half = y + 66 + 50 * step, 28 + 10 * step
            pen.polygon(np.array([(cx, base - 66 - 6 * step), (cx + half, base), (cx - half, base)]), color)
    return canvas


def _sunset(dx: float, dy: float) -> Image.Image:
    canvas = new_canvas((122, 54, 138), (255, 142, 56))
    pen = Pen(canvas)
    band = [(0, 110 + dy), (256, 110 + dy), (256, 190), (0, 190)]
    pen.polygon(np.array(band), (244, 110, 84))
    pen.ellipse(206 + dx, 150 + dy, 42, 42, (255, 226, 92))
    pen.polygon(np.array([(0, 172 + dy), (256, 172 + dy), (256, 256), (0, 256)]), (112, 46, 104))
    for y, half in ((186, 36), (202, 26), (218, 16)):
        pen.polygon(ellipse(206 + dx, y + dy, half, 4, n=8), (255, 190, 90))
    return canvas


def _snow(dx: float, dy: float) -> Image.Image:
    canvas = new_canvas((150, 182, 216), (206, 224, 240))
    pen = Pen(canvas)
    pen.polygon(np.array([(-20, 190), (52 + dx, 64 + dy), (120, 190)]), (120, 146, 184))
    pen.polygon(
        np.array([(52 + dx, 64 + dy), (75 + dx, 106 + dy), (52 + dx, 98 + dy), (28 + dx, 106 + dy)]), (250, 252, 255)
    )
    pen.polygon(
        smooth([(-30, 184 + dy), (70, 166 + dy), (190, 184 + dy), (290, 164 + dy), (290, 300), (-30, 300)], 4),
        (246, 250, 255),
    )
    for x, y in (
        (26, 30),
        (76, 48),
        (112, 12),
        (184, 40),
        (232, 22),
        (18, 118),
        (240, 84),
        (206, 118),
        (236, 150),
        (146, 18),
    ):
        pen.polygon(ellipse(x + dx / 2, y + dy, 7, 7, n=8), (255, 255, 255))
    return canvas
