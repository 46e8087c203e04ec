"""The objects world's captions: a grammar that names some attributes, and a parser that recovers them exactly."""

import re

import numpy as np

NOUNS: dict[str, tuple[str, ...]] = {
    "house": ("house", "house", "cottage", "home"),
    "tree": ("tree",),
    "car": ("car", "car", "automobile"),
    "boat": ("boat", "boat", "sailboat", "ship"),
    "dog": ("dog", "dog", "puppy"),
    "cat": ("cat", "cat", "kitten"),
    "bird": ("bird",),
    "fish": ("fish",),
    "flower": ("flower", "flower", "blossom"),
    "mushroom": ("mushroom", "mushroom", "toadstool"),
    "rocket": ("rocket", "rocket", "spaceship"),
    "clock": ("clock", "clock", "alarm clock"),
    "cup": ("cup", "cup", "mug"),
    "apple": ("apple",),
    "star": ("star",),
    "heart": ("heart",),
    "cloud": ("cloud",),
    "butterfly": ("butterfly",),
    "umbrella": ("umbrella", "umbrella", "parasol"),
    "guitar": ("guitar",),
}
COLOR_NAMES: dict[str, tuple[str, ...]] = {
    "red": ("red", "red", "red", "crimson"),
    "blue": ("blue",),
    "green": ("green",),
    "yellow": ("yellow",),
    "purple": ("purple", "purple", "violet"),
    "orange": ("orange",),
    "black": ("black",),
    "white": ("white",),
    "pink": ("pink",),
}
SCENE_PHRASES: dict[str, tuple[str, ...]] = {
    "sky": ("in the sky", "in the blue sky", "among the clouds", "against a blue sky"),
    "grass": ("on the grass", "on grass", "on a lawn", "in a meadow", "in a green field"),
    "sea": ("on the sea", "at sea", "on the water", "in the ocean"),
    "sand": ("on the sand", "on sand", "in the desert", "on a sandy beach"),
    "night": ("at night", "in the dark", "under the night sky", "in a starry night"),
}
PLAIN_PHRASES = (
    "on a {} background",
    "on a {} background",
    "with a {} background",
    "against a {} backdrop",
    "on a plain {} ground",
    "in front of a {} wall",
)
OPENINGS = ("", "", "", "a picture of ", "a photo of ", "a photograph of ", "an image of ", "a drawing of ")
BESIDE = ("and", "next to", "beside", "near", "to the left of", "on the left of")
RIGHT_OF = ("to the right of", "on the right of")
ANYTHING = ("object", "thing")


def _alternatives(phrases: dict[str, tuple[str, ...]]) -> dict[str, str]:
    pairs = {phrase: name for name, options in phrases.items() for phrase in options}
    return dict(sorted(pairs.items(), key=lambda pair: -len(pair[0])))


_NOUN = _alternatives(NOUNS)
_COLOR = _alternatives(COLOR_NAMES)
_SCENE = _alternatives(SCENE_PHRASES)
_COLOR_RE = "|".join(_COLOR)
_SCENE_RE = re.compile(r"\b(" + "|".join(_SCENE) + r")\b")
_PLAIN_RE = re.compile(
    "|".join(
        rf"\b{phrase.replace(' a ', ' an? ').format(f'({_COLOR_RE})')}\b" for phrase in dict.fromkeys(PLAIN_PHRASES)
    )
)
_OBJECT_RE = re.compile(
    rf"\b(?:({_COLOR_RE}) )?({'|'.join([*_NOUN, *ANYTHING])})\b(?: (?:that is|which is|in) ({_COLOR_RE})\b)?"
)


def caption(attributes: dict[str, str], rng: np.random.Generator) -> str:
    """Returns a sentence that names some of the attributes, in varied order and words.

    With two objects the first is the one on the left, unless the words say "right of".
    """
    scene = _ground_phrase(attributes["ground"], rng) if rng.random() < 0.75 else ""
    pair = attributes["second_class"] != "none" and rng.random() < 0.9
    nameless = not pair and rng.random() < 0.05
    things = _object_phrase("" if nameless else attributes["class"], attributes["color"], rng)
    if pair:
        other = _object_phrase(attributes["second_class"], attributes["second_color"], rng)
        if rng.random() < 0.2:
            things = f"{other} {rng.choice(RIGHT_OF)} {things}"
        else:
            things = f"{things} {rng.choice(BESIDE)} {other}"
    if scene and rng.random() < 0.15:
        return f"{scene}, {things}"
    return f"{rng.choice(OPENINGS)}{things} {scene}".strip()


def parse(caption: str) -> dict[str, str]:
    """Returns the attributes a caption names; those it does not name are absent."""
    text = caption.lower()
    named: dict[str, str] = {}
    if scene := _SCENE_RE.search(text):
        named["ground"] = _SCENE[scene[1]]
        text = text.replace(scene[0], ";")
    elif plain := _PLAIN_RE.search(text):
        named["ground"] = _COLOR[plain[plain.lastindex]]
        text = text.replace(plain[0], ";")
    found = [(_NOUN.get(noun), before or after) for before, noun, after in _OBJECT_RE.findall(text)][:2]
    if any(phrase in text for phrase in RIGHT_OF):
        found.reverse()
    for prefix, (noun, color) in zip(("", "second_"), found, strict=False):
        if noun:
            named[f"{prefix}class"] = noun
        if color:
            named[f"{prefix}color"] = _COLOR[color]
    return named


def _object_phrase(kind: str, color: str, rng: np.random.Generator) -> str:
    noun = str(rng.choice(NOUNS[kind] if kind else ANYTHING))
    shade = str(rng.choice(COLOR_NAMES[color]))
    draw = rng.random()
    if draw < 0.12 and kind:
        return _article(noun)
    if draw < 0.2:
        return f"{_article(noun)} {rng.choice(('that is', 'which is', 'in'))} {shade}"
    return _article(f"{shade} {noun}")


def _ground_phrase(ground: str, rng: np.random.Generator) -> str:
    if ground in SCENE_PHRASES:
        return str(rng.choice(SCENE_PHRASES[ground]))
    phrase = str(rng.choice(PLAIN_PHRASES)).format(rng.choice(COLOR_NAMES[ground]))
    return re.sub(r"\ba (?=[aeiou])", "an ", phrase)


def _article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


WORDS: frozenset[str] = frozenset(
    " ".join(
        [
            *_NOUN,
            *_COLOR,
            *_SCENE,
            *(phrase.format("") for phrase in PLAIN_PHRASES),
            *OPENINGS,
            *BESIDE,
            *RIGHT_OF,
            *ANYTHING,
            "a an that is which is in",
        ]
    ).split()
)
