"""What an avatar wears: hair, hats and clothes, drawn in the head's frame (chin near y 206, crown near y 54)."""

import numpy as np

from demo.avatar_parts import Build
from demo.pen import Pen, Rgb, arc, dark, light, mix, smooth, star, symmetric


def draw_body(pen: Pen, shirt: Rgb, skin: Rgb, woman: bool, young: bool) -> None:
    """Draws neck, shoulders and shirt; the collar differs by gender."""
    neck, shoulder = (21, 92) if woman else (33, 116)
    if young:
        neck, shoulder = neck * 0.85, shoulder * 0.88
    edge = dark(skin, 0.5)
    shoulders = symmetric(
        [(128, 218), (128 + neck, 219), (128 + shoulder - 18, 231), (128 + shoulder, 262), (128, 330)]
    )
    pen.polygon(smooth(shoulders, 3), shirt, dark(shirt, 0.5) if sum(shirt) > 160 else (96, 96, 106))
    if woman:
        pen.polygon(arc(128, 216, 42, 24, 0, 180, 10), skin, dark(shirt, 0.35))
    pen.polygon(np.array([(128 - neck, 180), (128 + neck, 180), (128 + neck, 228), (128 - neck, 228)]), skin, None)
    pen.polygon(
        np.array([(128 - neck, 196), (128 + neck, 196), (128 + neck, 217), (128 - neck, 217)]), mix(skin, edge, 0.6)
    )
    if not woman:
        pen.polygon(np.array([(128 - neck, 224), (128 + neck, 224), (128, 250)]), skin)
        collar = light(shirt, 0.4) if sum(shirt) < 600 else mix(shirt, (150, 150, 165), 0.35)
        for side in (-1, 1):
            flap = [(128 + side * neck, 214), (128 + side * (neck + 10), 226), (128 + side * 12, 254), (128, 248)]
            pen.polygon(np.array(flap), collar, dark(shirt, 0.5), 4)


def hair_edge(color: Rgb) -> Rgb:
    """Returns the outline of hair: darker, or lighter around black."""
    return dark(color, 0.6) if sum(color) > 160 else (12, 10, 16)


def draw_hair_back(pen: Pen, build: Build, style: str, color: Rgb, hat: bool) -> None:
    """Draws the hair behind the head."""
    edge, w = hair_edge(color), build.width
    if style == "long":
        half = [
            (128, 34),
            (128 + w, 62),
            (128 + w + 22, 130),
            (128 + w + 24, 200),
            (128 + w + 18, 240),
            (128 + 36, 244),
        ]
        pen.polygon(smooth(symmetric([*half, (128, 236)]), 3), color, edge)
    elif style == "curly":
        for x, y in ((-70, 150), (70, 150), (-80, 120), (80, 120)) if hat else _CURLS:
            pen.ellipse(128 + x * w / 60, y + build.top - 54, 25, 25, color, edge)
    elif style == "bun":
        x, y = (204, 178) if hat else (128, 30)
        pen.ellipse(x, y, 29 if hat else 34, 29 if hat else 27, color, edge)
        pen.stroke(arc(x, y, 17, 14, 190, 330, 7), light(color, 0.3), 5)
    elif style == "spiky":
        spread = (-178, -158, -22, -2) if hat else range(-180, 1, 20)
        for degrees in spread:
            angle = np.radians(degrees)
            tip = (128 + (w + 38) * np.cos(angle), 118 + (108 if not hat else 80) * np.sin(angle))
            base = [(128 + (w - 4) * np.cos(angle + d), 122 + (w + 8) * np.sin(angle + d)) for d in (-0.3, 0.3)]
            pen.polygon(np.array([base[0], tip, base[1]]), color, edge)


_CURLS = (
    *((-74, 152), (74, 152), (-80, 118), (80, 118), (-72, 84), (72, 84)),
    *((-52, 56), (52, 56), (-24, 42), (24, 42)),
)


def draw_hair_front(pen: Pen, build: Build, style: str, color: Rgb, hat: bool, old: bool) -> None:
    """Draws the hair on the forehead and beside the face; an old hairline is higher."""
    if style == "bald":
        return
    edge, w, top, y = hair_edge(color), build.width, build.top, build.eye_y
    if style in ("short", "bun", "spiky"):
        side = y - 4 if style == "short" else y - 16
        half = [
            (128, top - 14),
            (128 + w * 0.7, top - 2),
            (128 + w + 7, y - 44),
            (128 + w + 5, side),
            (128 + w - 7, side),
        ]
        line = {"short": top + 36, "bun": top + 30, "spiky": top + 26}[style] - (10 if old else 0)
        inner = [(128 + w - 13, y - 40), (128 + w * 0.45, line)]
        pen.polygon(smooth(symmetric([*half, *inner, (128, line - 4)]), 3), color, edge)
        if style == "spiky":
            for x in (-30, -8, 14, 36):
                pen.polygon(
                    np.array([(128 + x - 13, line - 8), (128 + x + 13, line - 8), (128 + x - 3, line + 12)]), color
                )
    elif style == "curly":
        for x, v in ((-58, y - 30), (58, y - 30)) if hat else _FRINGE:
            pen.ellipse(128 + x, v if hat else top + v, 19, 19, color, edge)
        if not hat:
            pen.ellipse(128, top + 2, w - 6, 20, color)
    elif style == "long":
        part = [
            (128 + 14, top - 14),
            (128 + w, top + 8),
            (128 + w + 14, y),
            (128 + w + 16, y + 60),
            (128 + w - 4, y + 70),
        ]
        inner = [(128 + w - 4, y + 20), (128 + w - 12, y - 34), (128 + 14, top + (10 if old else 18))]
        pen.polygon(smooth(part + inner, 3), color, edge)
        left = [(256 - x + (28 if x < 145 else 0), v) for x, v in part + inner]
        pen.polygon(smooth(left, 3), color, edge)
    if not hat:
        gleam = light(color, 0.38 if sum(color) > 160 else 0.24)
        pen.stroke(arc(112, top + 22, w * 0.62, 24, 215, 285, 7), gleam, 8)


_FRINGE = ((-52, 22), (52, 22), (-32, 12), (32, 12), (-11, 16), (12, 16))


def draw_hat(pen: Pen, build: Build, hat: str, color: Rgb) -> None:
    """Draws a hat; each kind has its own silhouette."""
    if hat == "none":
        return
    edge = dark(color, 0.55) if sum(color) > 160 else (10, 10, 14)
    shade, gleam = mix(color, edge, 0.4), light(color, 0.4 if sum(color) > 160 else 0.22)
    pen = pen.frame(shift=(0, build.top - 54))
    w = build.width
    if hat == "cap":
        crown = [
            (128 - w - 8, 92),
            (128 - w - 2, 52),
            (96, 20),
            (128, 14),
            (160, 20),
            (128 + w + 2, 52),
            (128 + w + 8, 92),
        ]
        pen.polygon(smooth(crown, 3), color, edge)
        pen.stroke(arc(128, 60, 26, 40, 200, 268, 7), gleam, 7)
        pen.ellipse(128, 14, 9, 7, shade, edge)
        brim = [
            (128 - w + 2, 84),
            (128, 72),
            (128 + w, 80),
            (128 + w + 46, 100),
            (128 + w + 38, 112),
            (128 + w, 100),
            (128, 94),
        ]
        pen.polygon(smooth([*brim, (128 - w + 4, 98)], 3), shade, edge)
    elif hat == "beanie":
        crown = [(128 - w - 6, 84), (128 - w + 4, 44), (128, 16), (128 + w - 4, 44), (128 + w + 6, 84)]
        pen.polygon(smooth(crown, 3), color, edge)
        pen.stroke(arc(120, 70, 38, 42, 205, 265, 7), gleam, 7)
        pen.ellipse(128, 16, 23, 21, gleam, edge)
        band = [(128 - w - 10, 76), (128, 64), (128 + w + 10, 76), (128 + w + 10, 98), (128, 88), (128 - w - 10, 98)]
        pen.polygon(smooth(band, 3), shade, edge)
        for x in (-44, -22, 0, 22, 44):
            pen.stroke(np.array([(128 + x, 70 + abs(x) * 0.12), (128 + x, 84 + abs(x) * 0.12)]), edge, 4, caps=False)
    elif hat == "top hat":
        pen.polygon(np.array([(74, 2), (182, 2), (176, 78), (80, 78)]), color, edge)
        pen.ellipse(128, 2, 54, 8, gleam, edge)
        pen.polygon(
            np.array([(79, 52), (177, 52), (176, 76), (80, 76)]),
            light(color, 0.75) if sum(color) < 560 else (70, 70, 84),
        )
        pen.stroke(np.array([(92, 16), (94, 44)]), gleam, 9)
        pen.ellipse(128, 84, w + 34, 14, shade, edge)
    elif hat == "cowboy hat":
        crown = [(72, 84), (78, 34), (94, 6), (112, 4), (128, 16), (144, 4), (162, 6), (178, 34), (184, 84)]
        pen.polygon(smooth(crown, 3), color, edge)
        pen.stroke(np.array([(128, 20), (128, 40)]), shade, 6)
        pen.stroke(np.array([(94, 24), (90, 50)]), gleam, 8)
        pen.polygon(
            np.array([(72, 62), (184, 62), (185, 82), (71, 82)]),
            dark(color, 0.6) if sum(color) > 160 else (130, 92, 52),
        )
        brim = [(128, 100), (188, 94), (218, 74), (238, 48), (230, 92), (192, 112), (128, 118)]
        rest = [(256 - x, y) for x, y in reversed(brim[1:-1])]
        pen.polygon(smooth([(128, 80), (180, 78), *brim[2:], *rest[:-1], (76, 78)], 3), color, edge)
    elif hat == "crown":
        spikes = [(66, 88), (58, 18), (92, 54), (128, 8), (164, 54), (198, 18), (190, 88)]
        pen.polygon(np.array([*spikes, (128, 96)]), color, edge)
        for x, y in ((58, 18), (128, 8), (198, 18)):
            pen.ellipse(x, y, 10, 10, gleam, edge)
        pen.stroke(arc(128, 66, 66, 16, 20, 160, 8), shade, 12)
        for x, y in ((90, 78), (128, 83), (166, 78)):
            pen.polygon(star(x, y, 10, 9, 4), (255, 255, 255) if sum(color) < 640 else (220, 60, 70))
