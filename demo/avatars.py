"""The avatar world: cartoon portraits drawn from independent attributes, a pure function of (seed, index)."""

import json
import sys

import numpy as np

from demo import avatar_parts as parts
from demo import avatar_wear as wear
from demo.avatar_captions import WORDS, caption_of, name_some, parse
from demo.pen import COLORS, Example, Pen, dark, lit, mix, to_array
from demo.scenes import TINTS, background

__all__ = [
    "ATTRIBUTES",
    "WORDS",
    "agrees",
    "caption",
    "caption_of",
    "draw",
    "example",
    "held_out_prompts",
    "name_some",
    "parse",
    "sample_attributes",
    "visible",
]

_COLOR_NAMES = tuple(COLORS)
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "gender": ("man", "woman"),
    "age": ("young", "adult", "old"),
    "skin": tuple(parts.SKINS),
    "hair_style": ("bald", "short", "long", "curly", "spiky", "bun"),
    "hair_color": tuple(parts.HAIRS),
    "beard": ("none", "beard", "moustache"),
    "glasses": ("none", "glasses", "sunglasses"),
    "hat": ("none", "cap", "beanie", "top hat", "cowboy hat", "crown"),
    "hat_color": _COLOR_NAMES,
    "expression": ("neutral", "smiling", "sad", "angry", "surprised"),
    "eyes": ("brown", "blue", "green", "closed"),
    "shirt_color": _COLOR_NAMES,
    "background": (*_COLOR_NAMES, "beach", "night", "city", "forest", "sunset", "snow"),
}

SHARES: dict[str, tuple[float, ...]] = {
    "hair_style": (0.10, 0.18, 0.18, 0.18, 0.18, 0.18),
    "beard": (0.50, 0.25, 0.25),
    "glasses": (0.46, 0.30, 0.24),
    "hat": (0.40, 0.12, 0.12, 0.12, 0.12, 0.12),
    "background": (0.05,) * 9 + (0.55 / 6,) * 6,
}


def sample_attributes(rng: np.random.Generator) -> dict[str, str]:
    """Returns a value for every attribute, independently; uniform, but for these shares.

    Bald 10 % of heads; no beard 50 %; no glasses 46 %, sunglasses 24 %; no hat 40 %; a plain background 45 %.
    """
    return {name: values[_choice(rng, SHARES.get(name), len(values))] for name, values in ATTRIBUTES.items()}


def _choice(rng: np.random.Generator, weights: tuple[float, ...] | None, n: int) -> int:
    if weights is None:
        return int(rng.integers(n))
    return min(int(np.searchsorted(np.cumsum(weights), rng.random(), side="right")), n - 1)


def visible(attributes: dict[str, str]) -> dict[str, str]:
    """Returns the attributes that can be seen.

    Left out are the colour of a missing hat, eyes behind sunglasses, and the hair's colour where only brows have it.
    """
    hidden = set()
    if attributes["hat"] == "none":
        hidden.add("hat_color")
    if attributes["hair_style"] == "bald" and attributes["beard"] == "none":
        hidden.add("hair_color")
    if attributes["glasses"] == "sunglasses":
        hidden.add("eyes")
    return {name: value for name, value in attributes.items() if name not in hidden}


def draw(attributes: dict[str, str], rng: np.random.Generator) -> np.ndarray:
    """Returns the portrait, uint8 [64, 64, 3]; the rng decides pose, size, light and the scene's shift."""
    a = attributes
    canvas = background(a["background"], rng)
    scale, tilt = rng.uniform(0.93, 1.03), rng.uniform(-0.09, 0.09)
    shift = (rng.uniform(-9, 9), rng.uniform(-6, 6))
    woman, young, hat = a["gender"] == "woman", a["age"] == "young", a["hat"] != "none"
    build = parts.BUILDS[a["gender"], a["age"]]
    skin, hair = parts.SKINS[a["skin"]], parts.HAIRS[a["hair_color"]]
    brow = dark(hair, 0.66) if a["skin"] != "dark" else dark(hair, 0.35 if sum(hair) > 380 else 0.85)
    body = Pen(canvas).frame(scale, tilt * 0.3, shift)
    head = Pen(canvas).frame(scale, tilt, (shift[0], shift[1] + 7), pivot=(128, 208))

    wear.draw_hair_back(head, build, a["hair_style"], hair, hat)
    wear.draw_body(body, COLORS[a["shirt_color"]], skin, woman, young)
    parts.draw_head(head, build, skin, woman)
    parts.draw_age(head, build, skin, a["age"])
    parts.draw_beard(head, build, a["beard"], mix(hair, dark(hair), 0.2))
    if a["glasses"] == "glasses":
        parts.draw_lenses(head, build, skin)
    parts.draw_nose(head, build, skin)
    parts.draw_mouth(head, build, skin, a["expression"], woman)
    if a["glasses"] != "sunglasses":
        parts.draw_eyes(head, build, a["eyes"], a["expression"], skin, woman)
    if a["hair_style"] == "bald" and not hat:
        parts.draw_gleam(head, build, skin)
    wear.draw_hair_front(head, build, a["hair_style"], hair, hat, a["age"] == "old")
    if a["expression"] == "sad":
        parts.draw_tear(head, build)
    parts.draw_glasses(head, build, a["glasses"])
    parts.draw_brows(head, build, a["expression"], brow, woman)
    if woman:
        parts.draw_earrings(head, build)
    wear.draw_hat(head, build, a["hat"], COLORS[a["hat_color"]])

    slope = (rng.uniform(-0.16, 0.16), rng.uniform(-0.10, 0.02))
    return lit(to_array(canvas), rng.uniform(0.93, 1.05), slope, TINTS.get(a["background"], (1.0, 1.0, 1.0)))


def example(seed: int, index: int) -> Example:
    """Returns the example of a seed and an index."""
    rng = np.random.default_rng((seed, index))
    attributes = sample_attributes(rng)
    image = draw(attributes, rng)
    return Example(image, attributes, caption(attributes, rng))


def caption(attributes: dict[str, str], rng: np.random.Generator) -> str:
    """Returns a sentence that names some of the visible attributes."""
    return caption_of(name_some(visible(attributes), rng), rng)


def agrees(name: str, wanted: str, value: str) -> bool:
    """Returns whether an attribute's value is what a caption named; any hat is a hat of "any" kind."""
    return value != "none" if wanted == "any" else value == wanted


def held_out_prompts(count: int = 64, split: str = "held-out") -> list[dict]:
    """Returns prompts for evaluation: {"prompt": sentence, "attributes": what it names, 2 to 6 of them}.

    They come from a seed that no training uses: the bytes of "held-out", far above any seed one would type; those that
    choose the best checkpoint, from another, the bytes of "validation".
    """
    seed = int.from_bytes(split.encode(), "big")
    prompts: list[dict] = []
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        named = name_some(visible(sample_attributes(rng)), rng, count=2 + index % 4)
        prompts.append({"prompt": caption_of(named, rng), "attributes": named})
    return prompts


if __name__ == "__main__":
    # python -m demo.avatars > configs/prompts/demo.jsonl
    # python -m demo.avatars validation 32 > configs/prompts/demo-validation.jsonl
    for prompt in held_out_prompts(int((sys.argv[2:] or [64])[0]), (sys.argv[1:] or ["held-out"])[0]):
        print(json.dumps(prompt))
