"""The objects world: one or two everyday objects in nine colours on scenes and plain grounds, 64 px.

Every picture and caption is a pure function of (seed, index).
"""

import numpy as np
from PIL import Image

from demo.object_captions import WORDS, caption, parse
from demo.object_parts import MATERIALS, Part
from demo.object_shapes import SHAPES
from demo.pen import CANVAS, COLORS, Example, Pen, Rgb, dark, light, lit, mix, new_canvas, to_array

__all__ = ["ATTRIBUTES", "WORDS", "caption", "draw", "example", "parse", "sample_attributes"]

SCENES = ("sky", "grass", "sea", "sand", "night")
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "class": tuple(SHAPES),
    "color": tuple(COLORS),
    "ground": (*SCENES, *COLORS),
    "second_class": ("none", *SHAPES),
    "second_color": ("none", *COLORS),
}
PAIR_SHARE = 0.25
SCENE_SHARE = 0.5


def example(seed: int, index: int) -> Example:
    """Returns the picture, attributes and caption number `index` of the stream `seed`."""
    rng = np.random.default_rng((seed, index))
    attributes = sample_attributes(rng)
    return Example(draw(attributes, rng), attributes, caption(attributes, rng))


def sample_attributes(rng: np.random.Generator) -> dict[str, str]:
    """Returns one value per attribute; an object is never of the class beside it."""
    first, second = (str(name) for name in rng.choice(ATTRIBUTES["class"], size=2, replace=False))
    color, second_color, plain = (str(name) for name in rng.choice(ATTRIBUTES["color"], size=3))
    ground = str(rng.choice(SCENES)) if rng.random() < SCENE_SHARE else plain
    if rng.random() >= PAIR_SHARE:
        second = second_color = "none"
    return {
        "class": first,
        "color": color,
        "ground": ground,
        "second_class": second,
        "second_color": second_color,
    }


def draw(attributes: dict[str, str], rng: np.random.Generator) -> np.ndarray:
    """Draws the attributes at a place, size, tilt and light of `rng`'s choice: uint8 [64, 64, 3]."""
    canvas = _ground(attributes["ground"], rng)
    dim = attributes["ground"] in ("night", "black")
    pen = Pen(canvas)
    if attributes["second_class"] == "none":
        scale = rng.uniform(0.62, 1.06)
        room = CANVAS / 2 - 112 * scale
        x, y = 128 + rng.uniform(-1, 1, size=2) * (max(room, 6) + 5)
        _object(pen, attributes["class"], attributes["color"], dim, (x, y), scale, rng)
    else:
        for name, side in (("", -1), ("second_", 1)):
            scale = rng.uniform(0.48, 0.59)
            x, y = 128 + side * rng.uniform(58, 66), 128 + rng.uniform(-40, 40)
            _object(pen, attributes[f"{name}class"], attributes[f"{name}color"], dim, (x, y), scale, rng)
    slope = rng.uniform(-0.12, 0.12, size=2)
    return lit(to_array(canvas), rng.uniform(0.9, 1.06), (slope[0], slope[1]), (1.0, 1.0, 1.0))


def _object(
    pen: Pen, kind: str, color: str, dim: bool, place: tuple[float, float], scale: float, rng: np.random.Generator
) -> None:
    tones = _tones(color, rng)
    outline = light(tones["body"], 0.75) if dim else dark(tones["body"], 0.78)
    tones["feeler"] = outline
    frame = pen.frame(scale, rng.uniform(-0.16, 0.16), place, (0.0, 0.0), mirror=bool(rng.random() < 0.5))
    border = 13 / scale**0.5
    for part in SHAPES[kind]:
        if not part.inner:
            _paint(frame, part, outline, border)
    for part in SHAPES[kind]:
        _paint(frame, part, tones[part.tone], 0.0)


def _paint(pen: Pen, part: Part, fill: Rgb, border: float) -> None:
    if part.width:
        pen.stroke(part.points, fill, part.width + border)
    else:
        pen.polygon(part.points, fill, fill if border else None, border)


def _tones(color: str, rng: np.random.Generator) -> dict[str, Rgb]:
    jitter = rng.integers(-9, 10, size=3)
    body = tuple(int(value) for value in np.clip(np.add(COLORS[color], jitter), 0, 255))
    black = color == "black"
    return MATERIALS | {
        "body": body,
        "shade": light(body, 0.2) if black else dark(body, 0.2 if color == "white" else 0.27),
        "tint": light(body, 0.4 if black else 0.55),
        "spot": dark(body, 0.25) if color == "white" else (250, 250, 250),
        "center": MATERIALS["coffee"] if color in ("yellow", "orange") else MATERIALS["amber"],
        "whisker": light(body, 0.7) if black else dark(body, 0.7),
    }


def _ground(name: str, rng: np.random.Generator) -> Image.Image:
    if name in COLORS:
        base = tuple(int(v) for v in np.clip(np.add(COLORS[name], rng.integers(-8, 9, size=3)), 0, 255))
        return new_canvas(light(base, rng.uniform(0.0, 0.12)), dark(base, rng.uniform(0.0, 0.1)))
    if name == "night":
        return _night(rng)
    if name == "sky":
        return _sky(rng)
    return _field(name, rng)


def _sky(rng: np.random.Generator) -> Image.Image:
    canvas = new_canvas((96, 176, 240), (196, 228, 250))
    pen = Pen(canvas)
    for _ in range(rng.integers(3, 6)):
        x, y, r = rng.uniform(0, 256), rng.uniform(10, 246), rng.uniform(14, 24)
        for dx, dy, size in ((-1.1, 0.25, 0.7), (0.0, 0.0, 1.0), (1.1, 0.25, 0.75)):
            pen.ellipse(x + dx * r, y + dy * r, 1.1 * size * r, 0.7 * size * r, (232, 244, 253))
    return canvas


def _night(rng: np.random.Generator) -> Image.Image:
    canvas = new_canvas((14, 16, 48), (40, 44, 92))
    pen = Pen(canvas)
    for x, y, r in rng.uniform((0, 0, 1.6), (256, 256, 4.2), size=(34, 3)):
        pen.ellipse(x, y, r, r, (250, 246, 214))
    if rng.random() < 0.6:
        x, y = rng.uniform(24, 232), rng.uniform(22, 60)
        pen.ellipse(x, y, 20, 20, (250, 242, 204))
        pen.ellipse(x + 9, y - 5, 17, 17, (18, 20, 54))
    return canvas


def _field(name: str, rng: np.random.Generator) -> Image.Image:
    near, far, mark = {
        "grass": ((74, 160, 60), (134, 202, 92), (52, 128, 48)),
        "sea": ((20, 96, 170), (64, 158, 212), (168, 220, 244)),
        "sand": ((222, 186, 122), (244, 218, 164), (190, 150, 92)),
    }[name]
    canvas = new_canvas((168, 216, 246), (224, 240, 250))
    horizon = int(rng.uniform(70, 110))
    canvas.paste(new_canvas(far, near).resize((CANVAS, CANVAS - horizon)), (0, horizon))
    pen = Pen(canvas)
    for x, depth in rng.uniform((0, 0.05), (256, 1.0), size=(22, 2)):
        y, size = horizon + depth * (256 - horizon), 4 + 7 * depth
        if name == "grass":
            pen.stroke(np.array([(x - size, y - size), (x, y + size / 2), (x + size, y - size)]), mark, 4, caps=False)
        elif name == "sea":
            pen.stroke(np.array([(x - 2 * size, y), (x - size, y - size / 2), (x, y), (x + size, y)]), mark, 4)
        else:
            pen.ellipse(x, y, 2 + size / 3, 1.5 + size / 4, mix(mark, near, 0.3))
    return canvas
