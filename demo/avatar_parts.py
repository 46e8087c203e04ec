"""The parts of an avatar's face, each drawn by a pen in the head's frame (chin near y 206, crown near y 54)."""

from typing import NamedTuple

import numpy as np

from demo.pen import Pen, Rgb, arc, dark, ellipse, light, mix, smooth

SKINS: dict[str, Rgb] = {
    "pale": (255, 224, 202),
    "tan": (238, 184, 132),
    "brown": (184, 122, 82),
    "dark": (110, 68, 50),
}
HAIRS: dict[str, Rgb] = {
    "black": (36, 33, 42),
    "brown": (130, 74, 32),
    "blonde": (246, 206, 98),
    "red": (206, 74, 28),
    "grey": (150, 152, 160),
    "white": (240, 240, 244),
    "pink": (250, 130, 184),
    "blue": (52, 100, 220),
    "green": (52, 164, 76),
}
IRISES: dict[str, Rgb] = {"brown": (122, 66, 24), "blue": (28, 116, 238), "green": (22, 164, 62)}
INK: Rgb = (40, 24, 28)
MOUTH: Rgb = (110, 22, 34)
TEETH: Rgb = (255, 255, 255)


class Build(NamedTuple):
    """A head's measures: half width, top and chin, eye height and size, and how square the jaw is."""

    width: float
    top: float
    chin: float
    eye_y: float
    eye: float
    jaw: float


BUILDS: dict[tuple[str, str], Build] = {
    ("man", "young"): Build(65, 62, 203, 142, 1.14, 0.78),
    ("man", "adult"): Build(62, 52, 210, 134, 0.96, 0.56),
    ("man", "old"): Build(58, 48, 213, 134, 0.84, 0.62),
    ("woman", "young"): Build(63, 62, 201, 142, 1.20, 0.92),
    ("woman", "adult"): Build(58, 54, 206, 135, 1.04, 0.95),
    ("woman", "old"): Build(56, 50, 209, 135, 0.88, 0.84),
}


def face_outline(build: Build) -> np.ndarray:
    """Returns the head's outline [40, 2]: an ellipse above the eyes, a jaw of varying squareness below."""
    angles = np.arange(40) * (2 * np.pi / 40)
    c, s = np.cos(angles), np.sin(angles)
    wide = np.sign(c) * np.abs(c) ** np.where(s > 0, build.jaw, 0.9)
    middle = build.eye_y + 4
    y = np.where(s > 0, middle + s * (build.chin - middle), middle + s * (middle - build.top))
    return np.stack([128 + build.width * wide, y], axis=1)


def draw_head(pen: Pen, build: Build, skin: Rgb, woman: bool) -> None:
    """Draws ears and the face."""
    edge = dark(skin, 0.5)
    for side in (-1, 1):
        pen.ellipse(128 + side * (build.width + 2), build.eye_y + 12, 12, 18, skin, edge)
        pen.ellipse(128 + side * (build.width + 3), build.eye_y + 13, 5, 9, mix(skin, edge, 0.4))
    pen.polygon(face_outline(build), skin, edge)


def draw_earrings(pen: Pen, build: Build) -> None:
    """Draws a gold ball under each ear."""
    for side in (-1, 1):
        pen.ellipse(128 + side * (build.width + 6), build.eye_y + 38, 8, 8, (255, 214, 60), (150, 100, 10), 5)


def draw_age(pen: Pen, build: Build, skin: Rgb, age: str) -> None:
    """Draws rosy cheeks and freckles on the young; furrows, folds and bags under the eyes on the old."""
    line = dark(skin, 0.44 if sum(skin) > 300 else 0.72)
    if age == "young":
        rose = mix(skin, (244, 72, 84), 0.42 if sum(skin) > 300 else 0.55)
        for side in (-1, 1):
            pen.ellipse(128 + side * 45, build.eye_y + 27, 15, 10, rose)
    elif age == "old":
        for y, half in ((95, 28), (106, 22)):
            pen.stroke(arc(128, y + 12, half, 11, 205, 335, 6), line, 5)
        for side in (-1, 1):
            pen.stroke(arc(128 + side * 28, build.eye_y + 9, 18, 16, 30, 150, 6), line, 5)
            fold = [(128 + side * 20, build.eye_y + 24), (128 + side * 34, build.eye_y + 36)]
            pen.stroke(np.array([*fold, (128 + side * 37, build.eye_y + 54)]), line, 6)
            foot = (128 + side * (build.width - 4), build.eye_y - 6)
            pen.stroke(np.array([foot, (foot[0] - side * 9, foot[1] + 6)]), line, 5)


def draw_nose(pen: Pen, build: Build, skin: Rgb) -> None:
    """Draws a small nose."""
    y = build.eye_y + 24
    pen.stroke(arc(128, y - 4, 9, 8, 15, 165, 7), dark(skin, 0.42), 5)
    pen.ellipse(126, y - 8, 4, 4, light(skin, 0.35))


def draw_mouth(pen: Pen, build: Build, skin: Rgb, expression: str, woman: bool) -> None:
    """Draws the mouth of an expression; a woman's has red lips."""
    y = build.eye_y + 45
    lips = (
        mix(skin, (214, 22, 56), 0.9)
        if woman
        else dark(mix(skin, (150, 40, 40), 0.3), 0.5 if sum(skin) > 300 else 0.75)
    )
    if expression == "smiling":
        bowl = np.concatenate([arc(128, y - 9, 35, 30, 0, 180, 14), [(110.0, y - 6), (146.0, y - 6)]])
        pen.polygon(bowl, MOUTH, lips, 9 if woman else 7)
        pen.ellipse(128, y + 13, 14, 6, (232, 92, 100))
        teeth = [(96, y - 8), (160, y - 8), (155, y + 3), (128, y + 5), (101, y + 3)]
        pen.polygon(np.array(teeth), TEETH)
    elif expression == "sad":
        pen.stroke(arc(128, y + 20, 29, 24, 205, 335, 10), lips, 10 if woman else 8)
        pen.stroke(arc(128, y + 16, 9, 5, 20, 160, 5), dark(skin, 0.35), 4)
    elif expression == "angry":
        half = [(144, y - 11), (157, y - 5), (160, y + 16), (144, y + 10)]
        box = half + [(256 - x, v) for x, v in reversed(half)]
        pen.polygon(smooth(box, 3), TEETH, lips if woman else INK, 8)
        for x in (112, 128, 144):
            pen.stroke(np.array([(x, y - 10.0), (x, y + 10.0)]), dark(TEETH, 0.6), 3, caps=False)
        pen.stroke(np.array([(99, y + 0.5), (157, y + 0.5)]), dark(TEETH, 0.6), 3, caps=False)
    elif expression == "surprised":
        pen.ellipse(128, y + 2, 17, 20, MOUTH, lips, 13 if woman else 8)
        pen.ellipse(128, y + 14, 10, 6, (232, 92, 100))
    elif woman:
        bow = [(106, y), (119, y - 6), (128, y - 3), (137, y - 6), (150, y), (139, y + 7), (128, y + 9), (117, y + 7)]
        pen.polygon(smooth(bow, 3), lips)
        pen.stroke(np.array([(108, y), (128, y + 1.5), (148, y)]), dark(lips, 0.5), 3)
    else:
        pen.stroke(np.array([(107, y), (128, y + 2), (149, y)]), lips, 7)


def draw_eyes(pen: Pen, build: Build, eyes: str, expression: str, skin: Rgb, woman: bool) -> None:
    """Draws open eyes with a coloured iris, or closed ones as arcs; lids follow the expression."""
    wide = {"surprised": 1.16, "angry": 0.94}.get(expression, 1.0) * build.eye
    for side in (-1, 1):
        x, y = 128 + side * 28, build.eye_y
        if eyes == "closed":
            pen.stroke(arc(x, y - 5, 17 * build.eye, 11, 10, 170, 8), INK, 7)
            if woman:
                for degrees in (35, 90, 145):
                    lash = arc(x, y - 5, 17 * build.eye, 11, degrees, degrees, 1)[0]
                    pen.stroke(np.array([lash, np.add(lash, ((lash[0] - x) * 0.35, 8))]), INK, 4)
            continue
        rx, ry = 18 * wide, 17 * wide
        pen.ellipse(x, y, rx, ry, (255, 255, 255), dark(skin, 0.75), 7)
        pen.ellipse(x, y + 1, 11.5 * build.eye, 12.5 * build.eye, IRISES[eyes], dark(IRISES[eyes], 0.5), 4)
        pen.ellipse(x, y + 1, 5, 5.5, INK)
        pen.ellipse(x + 4, y - 5, 3.6, 3.6, (255, 255, 255))
        if expression in ("angry", "sad"):
            inner, outer = (-0.05, -0.95) if expression == "angry" else (-1.0, -0.1)
            lid = [(x - side * rx * 1.15, y + inner * ry), (x + side * rx * 1.15, y + outer * ry)]
            top = [(x + side * rx * 1.15, y - ry * 1.35), (x - side * rx * 1.15, y - ry * 1.35)]
            pen.polygon(np.array(lid + top), skin)
            pen.stroke(np.array(lid), INK, 6)
        elif woman:
            pen.stroke(arc(x, y, rx + 1, ry + 1, 200, 340, 8), INK, 7)
        if woman:
            corner = (x + side * rx * 0.9, y - ry * 0.35)
            pen.stroke(np.array([corner, (corner[0] + side * 10, corner[1] - 9)]), INK, 6)
            pen.stroke(np.array([(corner[0], corner[1] + 6), (corner[0] + side * 10, corner[1] + 2)]), INK, 4)


def draw_brows(pen: Pen, build: Build, expression: str, color: Rgb, woman: bool) -> None:
    """Draws eyebrows; their slant carries much of the expression."""
    inner, outer, arch = {
        "neutral": (-28, -27, 4),
        "smiling": (-27, -25, 8),
        "sad": (-40, -17, 0),
        "angry": (-10, -34, 0),
        "surprised": (-36, -34, 11),
    }[expression]
    width = 6.5 if woman else 11
    if expression in ("angry", "sad"):
        width += 2
    for side in (-1, 1):
        start, end = (128 + side * 11, build.eye_y + inner), (128 + side * 48, build.eye_y + outer)
        peak = (128 + side * 31, build.eye_y + (inner + outer) / 2 - arch)
        pen.stroke(smooth([start, peak, end], 3, closed=False), color, width)


def draw_tear(pen: Pen, build: Build) -> None:
    """Draws a tear on one cheek."""
    x, y = 165, build.eye_y + 32
    pen.polygon(
        smooth([(x, y - 15), (x + 8, y + 2), (x, y + 10), (x - 8, y + 2)], 3), (120, 206, 255), (30, 110, 200), 4
    )


def draw_beard(pen: Pen, build: Build, beard: str, color: Rgb) -> None:
    """Draws a full beard along the jaw, or a moustache."""
    edge, y, w = dark(color, 0.5), build.eye_y, build.width
    if beard == "beard":
        half = [(w + 1, y + 4), (w - 1, y + 40), (w - 14, y + 66), (w - 34, y + 84)]
        inside = [(w - 10, y + 32), (w - 22, y + 40), (17, y + 30)]
        right = [(128 + x, v) for x, v in half]
        left = [(128 - x, v) for x, v in reversed(half)]
        rim = [(128 - x, v) for x, v in inside] + [(128, y + 35)] + [(128 + x, v) for x, v in reversed(inside)]
        outline = np.concatenate(
            [smooth([*right, (128, y + 91), *left], 3, closed=False), smooth(rim, 3, closed=False)]
        )
        pen.polygon(outline, color, edge)
        for x in (-24, 0, 24):
            pen.stroke(np.array([(128 + x, y + 68), (128 + x * 0.9, y + 80)]), mix(color, edge, 0.45), 4)
    elif beard == "moustache":
        half = [(137, y + 27), (156, y + 31), (170, y + 43), (180, y + 40), (170, y + 52), (150, y + 47), (134, y + 40)]
        left = [(256 - x, v) for x, v in reversed(half)]
        pen.polygon(smooth([*half, (128, y + 39), *left, (128, y + 30)], 3), color, edge, 5)


def draw_lenses(pen: Pen, build: Build, skin: Rgb) -> None:
    """Draws the pale lenses of clear glasses, under the eyes."""
    for side in (-1, 1):
        pen.ellipse(128 + side * 30, build.eye_y + 1, 26, 25, mix(skin, (226, 242, 255), 0.72))


def draw_gleam(pen: Pen, build: Build, skin: Rgb) -> None:
    """Draws the gleam of a bald head."""
    pen.stroke(arc(118, build.top + 40, build.width * 0.6, 30, 205, 275, 7), light(skin, 0.45), 8)


def draw_glasses(pen: Pen, build: Build, glasses: str) -> None:
    """Draws clear glasses with thick frames, or dark sunglasses with a gleam."""
    y = build.eye_y + 1
    if glasses == "glasses":
        for side in (-1, 1):
            pen.stroke(ellipse(128 + side * 30, y, 27, 26)[np.arange(29) % 28], (34, 36, 60), 7, caps=False)
            pen.stroke(np.array([(128 + side * 57, y - 4), (128 + side * (build.width + 4), y - 8)]), (34, 36, 60), 7)
        pen.stroke(np.array([(123, y - 4), (133, y - 4)]), (34, 36, 60), 7)
    elif glasses == "sunglasses":
        frame = (14, 14, 20)
        pen.stroke(np.array([(128 - build.width - 4, y - 14), (128 + build.width + 4, y - 14)]), frame, 9)
        for side in (-1, 1):
            x = 128 + side * 30
            lens = [(x - 24, y - 17), (x + 24, y - 17), (x + 26, y), (x + 16, y + 19), (x - 16, y + 19), (x - 26, y)]
            pen.polygon(smooth(lens, 3), (40, 42, 58), frame, 8)
            pen.polygon(
                np.array([(x - 14, y - 11), (x - 2, y - 11), (x - 14, y + 7), (x - 19, y - 1)]), (112, 122, 150)
            )
