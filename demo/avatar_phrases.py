"""The phrases of the avatars' captions, what each names, and the parser that finds them again.

"Named" attributes are some of the avatar attributes; `hat` may also be "any": some hat, its kind unsaid.
"""

from collections.abc import Iterator

from demo.avatar_parts import HAIRS
from demo.pen import COLORS

Phrases = dict[str, tuple[str, ...]]

# Before the noun. Every expression has as many, so that captions drawn alike differ in the expression's words only.
ADJECTIVES: dict[str, Phrases] = {
    "expression": {
        "neutral": ("calm", "serious", "neutral", "expressionless", "relaxed", "indifferent"),
        "smiling": ("smiling", "happy", "cheerful", "laughing", "joyful", "grinning"),
        "sad": ("sad", "crying", "unhappy", "gloomy", "weeping", "depressed"),
        "angry": ("angry", "furious", "mad", "enraged", "grumpy", "annoyed"),
        "surprised": ("surprised", "shocked", "astonished", "amazed", "startled", "stunned"),
    },
    "age": {"young": ("young", "youthful"), "adult": ("adult", "middle aged"), "old": ("old", "elderly", "senior")},
    "skin": {
        "pale": ("pale", "fair skinned"),
        "tan": ("tanned", "tan skinned"),
        "brown": ("brown skinned",),
        "dark": ("dark skinned",),
    },
    "eyes": {"brown": ("brown eyed",), "blue": ("blue eyed",), "green": ("green eyed",)},
    "hair_style": {
        "bald": ("bald", "hairless"),
        "short": ("short haired",),
        "long": ("long haired",),
        "curly": ("curly haired",),
        "spiky": ("spiky haired",),
    },
    "hair_color": {name: (f"{name} haired",) for name in HAIRS} | {"blonde": ("blonde", "blond", "blonde haired")},
    "beard": {"none": ("clean shaven",), "beard": ("bearded",), "moustache": ("mustached",)},
}
# The gender and the age that a noun says; "" says nothing.
NOUNS: dict[tuple[str, str], tuple[str, ...]] = {
    ("", ""): ("person", "face", "character"),
    ("", "young"): ("kid", "child"),
    ("man", ""): ("man", "gentleman", "guy"),
    ("man", "young"): ("boy",),
    ("man", "old"): ("grandpa", "grandfather", "granddad"),
    ("woman", ""): ("woman", "lady"),
    ("woman", "young"): ("girl",),
    ("woman", "old"): ("grandma", "grandmother", "granny"),
}
MOODS: dict[str, str] = {
    "neutral": "with no emotion",
    "smiling": "with a smile",
    "sad": "in tears",
    "angry": "in a rage",
    "surprised": "with an open mouth",
}
SKINS: Phrases = {
    "pale": ("pale skin", "fair skin"),
    "tan": ("tan skin", "tanned skin"),
    "brown": ("brown skin",),
    "dark": ("dark skin",),
}
EYES: Phrases = {
    "brown": ("brown eyes",),
    "blue": ("blue eyes",),
    "green": ("green eyes",),
    "closed": ("closed eyes", "eyes closed"),
}
GLASSES: Phrases = {
    "none": ("no glasses",),
    "glasses": ("glasses", "spectacles", "eyeglasses"),
    "sunglasses": ("sunglasses", "dark glasses", "shades"),
}
# {} stands for a colour and a space, or for nothing.
HAIR: Phrases = {
    "": ("{}hair",),
    "bald": ("bald head",),
    "short": ("short {}hair",),
    "long": ("long {}hair",),
    "curly": ("curly {}hair", "{}curls"),
    "spiky": ("spiky {}hair",),
    "bun": ("{}hair in a bun", "{}bun"),
}
BEARDS: Phrases = {"none": ("no beard",), "beard": ("{}beard",), "moustache": ("{}moustache", "{}mustache")}
HATS: Phrases = {
    "none": ("no hat",),
    "any": ("{}hat",),
    "cap": ("{}cap", "{}baseball cap"),
    "beanie": ("{}beanie", "{}woolly hat", "{}knit hat"),
    "top hat": ("{}top hat",),
    "cowboy hat": ("{}cowboy hat", "{}stetson"),
    "crown": ("{}crown",),
}
SHIRTS: tuple[str, ...] = ("{}shirt", "{}t shirt", "{}sweater", "{}clothes")
HAIR_COLORS: Phrases = {name: (name,) for name in HAIRS} | {
    "blonde": ("blonde", "blond", "golden"),
    "red": ("red", "ginger"),
    "grey": ("grey", "gray"),
}
PLAIN: tuple[str, ...] = ("on {}background", "in front of {}wall", "against {}backdrop")
SCENES: Phrases = {
    "beach": ("on a beach", "at the beach", "by the sea", "at the seaside"),
    "night": ("at night", "under the stars", "in the moonlight", "at midnight"),
    "city": ("in a city", "in the city", "in town", "in front of skyscrapers"),
    "forest": ("in a forest", "in the woods", "among trees"),
    "sunset": ("at sunset", "at dusk", "in the evening"),
    "snow": ("in the snow", "in winter", "on snow"),
}
WITHOUT: dict[str, str] = {"beard": "without a beard", "glasses": "without glasses", "hat": "without a hat"}
INTROS: tuple[str, ...] = ("", "", "", "", "a photo of", "a photograph of", "a portrait of", "portrait of")
INTROS += ("a picture of", "a drawing of", "a cartoon of", "an image of")


def plain(form: str) -> str:
    """Returns a form without a colour."""
    return form.format("")


def colored(form: str, color: str) -> str:
    """Returns a form with a colour."""
    return form.format(color + " ")


def _meanings() -> Iterator[tuple[str, dict[str, str]]]:
    """Yields what carries meaning in every phrase, and what it names; who reads "beach" needs no "on a"."""
    for name, values in ADJECTIVES.items():
        yield from _each(values, name)
    for name, values in (("skin", SKINS), ("eyes", EYES), ("glasses", GLASSES)):
        yield from _each(values, name)
    yield from ((phrase, {name: "none"}) for name, phrase in WITHOUT.items())
    for (gender, age), nouns in NOUNS.items():
        says = {name: value for name, value in (("gender", gender), ("age", age)) if value}
        yield from ((noun, says) for noun in nouns if says)
    for value, phrase in MOODS.items():
        yield _after_article(phrase), {"expression": value}
    for value, phrases in SCENES.items():
        yield from ((phrase.split()[-1], {"background": value}) for phrase in phrases)
    hat_colors = {name: (name,) for name in COLORS}
    for name, values, color_name, colors in (
        ("hair_style", HAIR, "hair_color", HAIR_COLORS),
        ("beard", BEARDS, "hair_color", HAIR_COLORS),
        ("hat", HATS, "hat_color", hat_colors),
    ):
        for value, forms in values.items():
            says = {name: value} if value else {}
            yield from ((plain(form), says) for form in forms if says)
            for color, words in colors.items():
                says = says | {color_name: color}
                yield from ((colored(form, word), says) for form in forms if "{}" in form for word in words)
    for color in COLORS:
        yield from ((colored(form, color), {"shirt_color": color}) for form in SHIRTS)
        yield from ((colored(form.split()[-1], color), {"background": color}) for form in PLAIN)


def _each(values: Phrases, name: str) -> Iterator[tuple[str, dict[str, str]]]:
    for value, phrases in values.items():
        yield from ((phrase, {name: value}) for phrase in phrases)


def _after_article(phrase: str) -> str:
    for lead in (" a ", " an ", "in ", "with "):
        if lead in phrase:
            return phrase.split(lead)[-1]
    return phrase


_MEANINGS: dict[tuple[str, ...], dict[str, str]] = {tuple(phrase.split()): says for phrase, says in _meanings()}
_LONGEST = max(map(len, _MEANINGS))
_FILLERS = "a an and in on with wearing looking dressed face"

WORDS: frozenset[str] = frozenset(
    word
    for phrase in (
        *(" ".join(key) for key in _MEANINGS),
        *(noun for nouns in NOUNS.values() for noun in nouns),
        *(phrase for phrases in SCENES.values() for phrase in phrases),
        *map(plain, PLAIN),
        *MOODS.values(),
        *INTROS,
        _FILLERS,
    )
    for word in phrase.split()
)


def parse(caption: str) -> dict[str, str]:
    """Returns the attributes that a caption names; `hat` is "any" where its kind is unsaid.

    Reads from left to right, always the longest phrase that has a meaning; other words are passed over.
    """
    words = caption.lower().replace(",", " ").replace(".", " ").replace("-", " ").split()
    named: dict[str, str] = {}
    at = 0
    while at < len(words):
        for n in range(_LONGEST, 0, -1):
            says = _MEANINGS.get(tuple(words[at : at + n]))
            if says is not None:
                named |= says
                at += n
                break
        else:
            at += 1
    return named
