"""Sentences that name some of an avatar's attributes, in varied order and words; `parse` recovers them exactly."""

from collections.abc import Sequence

import numpy as np

from demo import avatar_phrases as phrases
from demo.avatar_phrases import WORDS, parse

__all__ = ["WORDS", "caption_of", "name_some", "parse"]

# How eagerly an attribute is named; one that is absent (no hat) is named a twelfth as often.
_EAGERNESS: dict[str, float] = {
    "gender": 4.0,
    "age": 2.6,
    "skin": 0.7,
    "hair_style": 1.2,
    "hair_color": 1.2,
    "beard": 1.4,
    "glasses": 1.4,
    "hat": 1.6,
    "hat_color": 1.6,
    "expression": 3.2,
    "eyes": 0.8,
    "shirt_color": 0.8,
    "background": 1.3,
}
_ADJECTIVE_CHANCES = {
    "expression": 0.5,
    "age": 1.0,
    "skin": 0.3,
    "eyes": 0.15,
    "hair_style": 0.4,
    "hair_color": 0.3,
    "beard": 0.25,
}


class _Dice:
    """Random choices, each of which takes one number from the generator, however many the options."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def chance(self, probability: float) -> bool:
        return self._rng.random() < probability

    def pick(self, options: Sequence[str]) -> str:
        return options[int(self._rng.random() * len(options))]

    def shuffled(self, items: list[str]) -> list[str]:
        return [items[i] for i in self._rng.permutation(len(items))]


def name_some(visible: dict[str, str], rng: np.random.Generator, count: int | None = None) -> dict[str, str]:
    """Returns a random part of the visible attributes, in a form that `caption_of` can say.

    Args:
        visible: The attributes one can see in the picture.
        rng: Source of chance.
        count: How many to name; by default 1 to 8, 5.5 in the mean. One more where a colour needs its thing.
    """
    count = 1 + int(rng.binomial(7, 0.63)) if count is None else count
    waits = {
        name: rng.exponential() / (_EAGERNESS[name] / (12.0 if value == "none" else 1.0))
        for name, value in visible.items()
    }
    chosen = sorted(waits, key=waits.__getitem__)[:count]
    named = {name: value for name, value in visible.items() if name in chosen}
    vague = rng.random() < 0.15
    if "hat_color" in named and "hat" not in named:
        named["hat"] = visible["hat"] if visible["hat"] == "crown" else "any"
    elif vague and named.get("hat", "crown") not in ("crown", "none"):
        named["hat"] = "any"
    if "hair_color" in named and visible["hair_style"] == "bald":
        named["beard"] = visible["beard"]
    return named


def caption_of(named: dict[str, str], rng: np.random.Generator) -> str:
    """Returns a sentence that names exactly these attributes; `hat` may be "any".

    Sentences drawn from equal generators for attributes that differ only in the expression, differ only in how that is
    said.

    Raises:
        ValueError: A hat's colour without a hat, or hair's colour on a bald head without a beard.
    """
    _check(named)
    dice, left = _Dice(rng), dict(named)
    subject = _subject(left, dice)
    clauses = _clauses(left, dice)
    place = _place(left, dice)
    intro, gap, place_first = dice.pick(phrases.INTROS), dice.pick((" ", " ", ", ")), dice.chance(0.15)
    if place and not place_first:
        clauses.append(place)
    sentence = f"{intro} {gap.join([subject, *clauses])}".strip()
    return f"{place}, {sentence}" if place and place_first else sentence


def _check(named: dict[str, str]) -> None:
    if "hat_color" in named and named.get("hat", "none") == "none":
        raise ValueError(f"named: hat_color={named['hat_color']!r} needs a hat; add hat='any' where its kind is unsaid")
    if "hair_color" in named and named.get("hair_style") == "bald" and named.get("beard", "none") == "none":
        raise ValueError(f"named: hair_color={named['hair_color']!r} needs hair; leave out hair_style or add a beard")


def _subject(left: dict[str, str], dice: _Dice) -> str:
    """Returns the noun with its adjectives, and takes from `left` what they say."""
    gender, age = left.pop("gender", ""), left.get("age", "")
    absorbed = dice.chance(0.35) and (gender, age) in phrases.NOUNS
    noun = dice.pick(phrases.NOUNS[gender, age if absorbed else ""])
    if absorbed:
        left.pop("age", None)
    kept = set()
    if "hair_color" in left:
        kept |= {"hair_style", "beard"} if left.get("hair_style") != "bald" else {"beard", "hair_color"}
        if {"hair_style", "beard"} & left.keys():
            kept.add("hair_color")
    adjectives: list[str] = []
    for name, chance in _ADJECTIVE_CHANCES.items():
        words = phrases.ADJECTIVES[name].get(left.get(name, ""))
        told = words is not None and dice.chance(chance)
        if told and name not in kept and len(adjectives) < 3:
            adjectives.append(dice.pick(words))
            del left[name]
    return _article(" ".join([*adjectives, noun]))


def _clauses(left: dict[str, str], dice: _Dice) -> list[str]:
    """Returns what follows the noun, but for the place, and takes it from `left`."""
    clauses, things, worn = [], _hair_and_beard(left, dice), []
    for name, values in (("skin", phrases.SKINS), ("eyes", phrases.EYES)):
        if name in left:
            things.append(dice.pick(values[left.pop(name)]))
    for name, values in (("glasses", phrases.GLASSES), ("hat", phrases.HATS), ("beard", phrases.BEARDS)):
        if left.get(name) == "none" and dice.chance(0.5):
            clauses.append(phrases.WITHOUT[name])
        elif name in left:
            thing = _tinted(dice.pick(values[left[name]]), left.pop("hat_color", "") if name == "hat" else "")
            (worn if left[name] != "none" and dice.chance(0.5) else things).append(thing)
        left.pop(name, None)
    if "shirt_color" in left:
        shirt = _tinted(dice.pick(phrases.SHIRTS), left.pop("shirt_color"))
        if dice.chance(0.4):
            worn.append(shirt)
        else:
            clauses.append(f"{dice.pick(('in', 'in', 'dressed in'))} {_article(shirt)}")
    if "expression" in left:
        value = left.pop("expression")
        word = dice.pick(phrases.ADJECTIVES["expression"][value])
        look = word if word.endswith("ing") else f"looking {word}"
        clauses.append(dice.pick((look, f"with {_article(f'{word} face')}", phrases.MOODS[value])))
    clauses += [
        f"{verb} {_listed(dice.shuffled(items))}" for verb, items in (("with", things), ("wearing", worn)) if items
    ]
    return dice.shuffled(clauses)


def _hair_and_beard(left: dict[str, str], dice: _Dice) -> list[str]:
    """Returns hair and beard, one of them in the hair's colour, and takes them from `left`."""
    things, color = [], left.pop("hair_color", "")
    color = dice.pick(phrases.HAIR_COLORS[color]) if color else ""
    style, beard = left.pop("hair_style", ""), left.get("beard", "none")
    of_beard = color and beard != "none" and (style == "bald" or dice.chance(0.4))
    if style or (color and not of_beard):
        things.append(_tinted(dice.pick(phrases.HAIR[style]), "" if of_beard else color))
    if beard != "none":
        things.append(_tinted(dice.pick(phrases.BEARDS[left.pop("beard")]), color if of_beard else ""))
    return things


def _place(left: dict[str, str], dice: _Dice) -> str:
    if "background" not in left:
        return ""
    value = left["background"]
    if value in phrases.SCENES:
        return dice.pick(phrases.SCENES[value])
    lead, wall = dice.pick(phrases.PLAIN).split("{}")
    return f"{lead}{_article(f'{value} {wall}')}"


def _tinted(form: str, color: str) -> str:
    return phrases.colored(form, color) if color else phrases.plain(form)


def _listed(things: list[str]) -> str:
    things = [_article(thing) for thing in things]
    return things[0] if len(things) == 1 else f"{', '.join(things[:-1])} and {things[-1]}"


def _article(phrase: str) -> str:
    """Returns the phrase with "a" or "an" before it, or alone where it takes none."""
    words = phrase.split()
    if words[-1].endswith("s") or words[0] == "no" or not {"hair", "skin", "closed"}.isdisjoint(words):
        return phrase
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
