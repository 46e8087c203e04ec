"""The outlines of the objects world's twenty classes, as flat parts around (0, 0), about 100 units to every side.

A part names a tone instead of a colour, so that one table of shapes serves every colour: `body`, `shade` and `tint`
follow the object's colour, the others are the materials of `object_parts.MATERIALS`.
"""

import math
from itertools import pairwise

import numpy as np

from demo.object_parts import Part, box, disc, eye, line, shape, turned
from demo.pen import arc, smooth, star, symmetric


def _house() -> list[Part]:
    return [
        box(38, -92, 64, -30, "shade"),
        box(-78, -18, 78, 92),
        shape([(-104, -10), (0, -98), (104, -10)], "shade"),
        box(-18, 28, 20, 92, "wood", inner=True),
        disc(12, 62, 4, 4, "amber", inner=True),
        *(box(x, 14, x + 34, 48, "glass", inner=True) for x in (-64, 34)),
        *(line([(x + 17, 14), (x + 17, 48)], "dark", 5, inner=True) for x in (-64, 34)),
        *(line([(x, 31), (x + 34, 31)], "dark", 5, inner=True) for x in (-64, 34)),
        disc(0, -46, 15, 15, "glass", inner=True),
    ]


def _tree() -> list[Part]:
    crown = [(0, -46, 54), (-46, -8, 44), (46, -8, 44), (-20, 18, 36), (22, 18, 36)]
    return [
        shape([(-13, 10), (13, 10), (20, 98), (-20, 98)], "wood"),
        *(disc(x, y, r, r) for x, y, r in crown),
        disc(30, 14, 26, 20, "shade", inner=True),
        disc(-44, 18, 20, 14, "shade", inner=True),
        disc(-20, -62, 22, 16, "tint", -0.5, inner=True),
        disc(-52, -20, 14, 11, "tint", -0.5, inner=True),
    ]


def _car() -> list[Part]:
    hull = [(-102, 32), (-100, -2), (-60, -12), (-34, -56), (34, -58), (64, -14), (96, -4), (104, 32)]
    return [
        shape(hull),
        box(-101, 16, 103, 32, "shade", inner=True),
        shape([(-44, -12), (-25, -44), (0, -45), (0, -12)], "glass", inner=True),
        shape([(9, -12), (9, -45), (29, -46), (50, -12)], "glass", inner=True),
        disc(92, 8, 9, 8, "amber", inner=True),
        *(disc(x, 36, 29, 29, "dark") for x in (-56, 56)),
        *(disc(x, 36, 14, 14, "metal", inner=True) for x in (-56, 56)),
    ]


def _boat() -> list[Part]:
    return [
        line([(0, -94), (0, 40)], "wood", 9),
        shape([(9, -90), (9, 20), (84, 20)]),
        shape([(-9, -66), (-9, 20), (-64, 20)], "tint"),
        shape([(-100, 34), (100, 34), (66, 90), (-66, 90)]),
        shape([(-100, 34), (100, 34), (93, 47), (-93, 47)], "shade", inner=True),
        *(disc(x, 64, 8, 8, "glass", inner=True) for x in (-34, 0, 34)),
    ]


def _dog() -> list[Part]:
    return [
        line(smooth([(-66, 0), (-92, -18), (-96, -54)], closed=False), "body", 17),
        *(box(x, 20, x + 20, 92, "shade") for x in (-46, 20)),
        *(box(x, 20, x + 22, 92) for x in (-74, 44)),
        disc(-6, 12, 76, 38),
        shape(smooth([(28, 0), (44, -40), (84, -30), (66, 26)])),
        disc(60, -42, 42, 36),
        disc(88, -26, 26, 18, "tint"),
        disc(105, -34, 11, 9, "dark"),
        shape(smooth([(26, -66), (50, -66), (54, -10), (36, 8), (20, -14)]), "shade"),
        *eye(72, -50, 9),
    ]


def _cat() -> list[Part]:
    sides = (-1, 1)
    return [
        line(smooth([(36, 82), (86, 76), (92, 34), (76, 4)], closed=False), "body", 18),
        shape(smooth([(-30, -10), (30, -10), (50, 46), (56, 92), (-56, 92), (-50, 46)])),
        *(shape([(s * 50, -48), (s * 48, -102), (s * 8, -78)]) for s in sides),
        *(shape([(s * 42, -62), (s * 42, -86), (s * 22, -74)], "nose", inner=True) for s in sides),
        disc(0, -42, 54, 44),
        disc(0, 56, 26, 32, "tint", inner=True),
        *(disc(s * 24, 88, 19, 11, "tint") for s in sides),
        *(disc(s * 22, -46, 13, 12, "amber", inner=True) for s in sides),
        *(disc(s * 22, -46, 5, 11, "dark", inner=True) for s in sides),
        shape([(-9, -27), (9, -27), (0, -16)], "nose", inner=True),
        *(line([(s * 26, -22), (s * 70, -28 + d)], "whisker", 4, inner=True) for s in sides for d in (-4, 14)),
    ]


def _bird() -> list[Part]:
    return [
        shape([(-40, -4), (-106, -38), (-96, 16), (-44, 34)], "shade"),
        *(line([(x, 50), (x, 92), (x + 18, 92)], "amber", 8) for x in (-10, 22)),
        shape([(70, -56), (108, -38), (70, -24)], "amber"),
        disc(2, 8, 64, 48, tilt=-0.3),
        disc(48, -42, 38, 36),
        disc(26, 24, 30, 24, "tint", -0.5, inner=True),
        shape(smooth([(24, -16), (14, 26), (-30, 44), (-66, 34), (-34, -8)]), "shade", inner=True),
        *eye(58, -48, 11),
    ]


def _fish() -> list[Part]:
    return [
        shape([(44, 0), (104, -52), (88, 0), (104, 52)], "shade"),
        shape(smooth([(-34, -34), (4, -78), (38, -58), (34, -22)]), "shade"),
        shape([(-16, 36), (22, 72), (28, 30)], "shade"),
        shape(smooth([(-98, 4), (-70, -34), (-14, -50), (36, -30), (66, 0), (36, 30), (-14, 48), (-70, 36)])),
        *(line(arc(x, 0, 14, 34, -70, 70), "tint", 9, inner=True) for x in (-14, 14)),
        line(arc(-46, 0, 12, 30, -65, 65), "shade", 6, inner=True),
        shape(smooth([(-22, 6), (10, 14), (6, 28), (-16, 24)]), "shade", inner=True),
        *eye(-62, -10, 13),
    ]


def _flower() -> list[Part]:
    turns = [k * math.tau / 6 for k in range(6)]
    return [
        line([(0, -20), (0, 98)], "leaf", 12),
        disc(32, 62, 32, 13, "leaf", -0.5),
        disc(-32, 76, 32, 13, "leaf", 0.5),
        *(disc(48 * math.cos(a), -34 + 48 * math.sin(a), 32, 25, "body", a) for a in turns),
        *(disc(40 * math.cos(a), -34 + 40 * math.sin(a), 17, 7, "tint", a, inner=True) for a in turns),
        disc(0, -34, 25, 25, "center", inner=True),
    ]


def _mushroom() -> list[Part]:
    cap = np.concatenate([arc(0, 12, 98, 104, 180, 360, 24), arc(0, 12, 98, 20, 0, 180, 12)])
    return [
        shape(smooth([(-28, 10), (28, 10), (30, 52), (40, 88), (0, 96), (-40, 88), (-30, 52)]), "cream"),
        shape(cap),
        shape(arc(0, 12, 98, 20, 0, 180, 14), "shade", inner=True),
        disc(-2, -54, 20, 16, "spot", inner=True),
        disc(-56, -20, 15, 17, "spot", 0.3, inner=True),
        disc(54, -24, 16, 17, "spot", -0.3, inner=True),
        disc(6, -6, 13, 9, "spot", inner=True),
    ]


def _rocket() -> list[Part]:
    return [
        shape(smooth(symmetric([(0, 104), (20, 80), (22, 56)], 0.0)), "flame"),
        shape(smooth(symmetric([(0, 88), (10, 72), (10, 56)], 0.0)), "amber", inner=True),
        *(shape([(s * 24, 4), (s * 66, 48), (s * 66, 82), (s * 24, 58)], "shade") for s in (-1, 1)),
        shape(smooth(symmetric([(0, -104), (30, -64), (40, -8), (28, 62)], 0.0), 6)),
        shape([(0, -103), (14, -88), (28, -66), (-28, -66), (-14, -88)], "shade", inner=True),
        disc(0, -24, 22, 22, "metal", inner=True),
        disc(0, -24, 15, 15, "glass", inner=True),
        line([(0, 16), (0, 66)], "shade", 10, inner=True),
    ]


def _clock() -> list[Part]:
    ticks = [(math.cos(a), math.sin(a)) for a in np.arange(12) * math.tau / 12]
    return [
        *(line([(s * 40, 66), (s * 64, 96)], "body", 16) for s in (-1, 1)),
        *(disc(s * 54, -70, 30, 24, "shade", s * 0.65) for s in (-1, 1)),
        disc(0, 8, 86, 86),
        disc(0, 8, 62, 62, "cream", inner=True),
        *(disc(52 * c, 8 + 52 * s, 4, 4, "dark", inner=True) for c, s in ticks),
        line([(0, 8), (0, -32)], "dark", 9, inner=True),
        line([(0, 8), (28, 24)], "dark", 9, inner=True),
    ]


def _cup() -> list[Part]:
    return [
        disc(-6, 84, 94, 14, "tint"),
        line(arc(54, 6, 40, 34, -80, 80), "body", 17),
        shape([(-74, -56), (62, -56), (52, 60), (36, 82), (-48, 82), (-64, 60)]),
        disc(-6, -56, 68, 19, "tint"),
        disc(-6, -54, 57, 13, "coffee", inner=True),
        line([(-52, -18), (-44, 54)], "tint", 12, inner=True),
        line([(42, -18), (34, 58)], "shade", 10, inner=True),
    ]


def _apple() -> list[Part]:
    outline = symmetric([(0, -44), (40, -62), (84, -34), (84, 26), (52, 80), (22, 94), (0, 86)], 0.0)
    return [
        line(smooth([(0, -40), (2, -66), (14, -94)], closed=False), "wood", 12),
        disc(44, -78, 32, 14, "leaf", -0.4),
        shape(smooth(outline)),
        shape(smooth([(78, -10), (76, 34), (50, 74), (22, 86), (54, 40)]), "shade", inner=True),
        disc(-48, -18, 13, 26, "tint", 0.35, inner=True),
        disc(0, -42, 17, 6, "shade", inner=True),
    ]


def _star() -> list[Part]:
    return [shape(star(0, 6, 106, 48)), shape(star(0, 6, 66, 30), "tint", inner=True)]


def _heart() -> list[Part]:
    outline = [(0, -46), (28, -80), (72, -84), (98, -44), (86, 6), (44, 60)]
    points = np.concatenate([smooth([*outline, (0, 98)], closed=False)])
    left = points[::-1][1:-1] * (-1.0, 1.0)
    return [
        shape(np.concatenate([points, left])),
        shape(smooth([(86, -10), (60, 32), (14, 78), (36, 34), (66, -4)]), "shade", inner=True),
        disc(-50, -46, 22, 14, "tint", -0.7, inner=True),
    ]


def _cloud() -> list[Part]:
    puffs = [(-56, 18, 38), (-6, -22, 56), (54, 8, 44)]
    return [
        shape(smooth([(-96, 44), (-66, 26), (66, 26), (100, 42), (80, 58), (-76, 58)])),
        *(disc(x, y, r, r) for x, y, r in puffs),
        shape(smooth([(-88, 44), (-20, 46), (60, 44), (94, 42), (74, 56), (-70, 56)]), "shade", inner=True),
        disc(-22, -44, 26, 14, "tint", -0.4, inner=True),
        disc(48, -18, 20, 11, "tint", -0.3, inner=True),
    ]


def _butterfly() -> list[Part]:
    sides = (-1, 1)
    return [
        *(line(smooth([(0, -44), (s * 12, -74), (s * 30, -92)], closed=False), "feeler", 6) for s in sides),
        *(shape(smooth([(s * 4, 4), (s * 52, 8), (s * 76, 44), (s * 48, 84), (s * 14, 50)]), "shade") for s in sides),
        *(shape(smooth([(s * 4, -14), (s * 40, -70), (s * 94, -76), (s * 98, -26), (s * 60, 14)])) for s in sides),
        *(disc(s * 70, -42, 18, 14, "tint", -s * 0.6, inner=True) for s in sides),
        *(disc(s * 46, 46, 12, 12, "tint", inner=True) for s in sides),
        disc(0, 6, 11, 60, "dark"),
        disc(0, -48, 14, 14, "dark"),
    ]


def _umbrella() -> list[Part]:
    edges = np.linspace(100, -100, 5)
    scallops = [arc((a + b) / 2, 8, 25, 14, 0, -180, 7)[:-1] for a, b in pairwise(edges)]
    panel = np.concatenate([arc(0, 8, 50, 98, 180, 360, 16), *(s for s in scallops[1:3])])
    hook = np.concatenate([[(0, -100), (0, 74)], arc(-20, 76, 20, 20, 0, 160, 7)])
    return [
        line(hook, "wood", 10),
        shape(np.concatenate([arc(0, 8, 100, 98, 180, 360, 24), *scallops])),
        shape(panel, "shade", inner=True),
        line([(0, -88), (0, -6)], "body", 8, inner=True),
    ]


def _guitar() -> list[Part]:
    waist = symmetric([(0, -20), (34, -14), (42, 10), (34, 28), (58, 52), (54, 86), (20, 102), (0, 103)], 0.0)
    parts = [
        box(-17, -112, 17, -82, "shade"),
        box(-9, -86, 9, 10, "wood"),
        shape(smooth(waist)),
        box(-9, -30, 9, 14, "wood", inner=True),
        disc(0, 30, 18, 18, "dark", inner=True),
        box(-22, 70, 22, 81, "dark", inner=True),
        *(line([(x, -84), (x, 76)], "cream", 3, inner=True) for x in (-5, 5)),
    ]
    return turned(parts, 0.6)


SHAPES: dict[str, list[Part]] = {
    "house": _house(),
    "tree": _tree(),
    "car": _car(),
    "boat": _boat(),
    "dog": _dog(),
    "cat": _cat(),
    "bird": _bird(),
    "fish": _fish(),
    "flower": _flower(),
    "mushroom": _mushroom(),
    "rocket": _rocket(),
    "clock": _clock(),
    "cup": _cup(),
    "apple": _apple(),
    "star": _star(),
    "heart": _heart(),
    "cloud": _cloud(),
    "butterfly": _butterfly(),
    "umbrella": _umbrella(),
    "guitar": _guitar(),
}
