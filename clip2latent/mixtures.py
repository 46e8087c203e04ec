"""Mixtures: what a prompt names, texts and pictures with weights: "a cat", "photo.png", "photo.png | a smile::0.5"."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from clip2latent.prompts import check_prompts

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""How the prompts end that name picture files."""
BLANK = "{}"
"""The place in a template where a text goes."""


class Part(NamedTuple):
    """A text or a picture in a mixture.

    Attributes:
        source: the text, or the picture's path.
        is_picture: which of them.
        weight: its share; below 0 leads away from it.
    """

    source: str
    is_picture: bool
    weight: float = 1.0


class Mixture(NamedTuple):
    """A prompt as its user wrote it, and the one or more parts that it names."""

    prompt: str
    parts: tuple[Part, ...]

    @property
    def texts(self) -> list[str]:
        """The texts among the parts, in order."""
        return [part.source for part in self.parts if not part.is_picture]


def read_mixtures(prompts: Sequence[str], template: str = BLANK) -> list[Mixture]:
    """Reads prompts into mixtures.

    The parts of a mixture stand between bars, each with a weight after two colons, or with weight 1: "a cat::2|a dog".
    A part that ends as pictures do, such as photo.png, is a picture file; everything else is a text.

    Args:
        prompts: P texts.
        template: has {} where each text goes; pictures stay as they are.

    Raises:
        ValueError: for no prompt, an empty one or an empty part, a weight that is not a number, weights of which none
            is positive, and a template without {}.
        FileNotFoundError: for a picture that is not there.
    """
    if BLANK not in template:
        raise ValueError(
            f'template={template!r}: expected a text with {BLANK} for the prompt, such as "a photograph of {BLANK}"'
        )
    return [_read(prompt, template) for prompt in check_prompts(prompts)]


def _read(prompt: str, template: str) -> Mixture:
    pieces = prompt.split("|")
    if len(pieces) == 1:
        return Mixture(prompt, (_part(prompt, 1.0, template),))
    parts = tuple(_part(*_weighed(piece, prompt), template) for piece in pieces)
    if max(part.weight for part in parts) <= 0:
        raise ValueError(f"prompt {prompt!r}: expected at least one weight above 0")
    return Mixture(prompt, parts)


def _weighed(piece: str, prompt: str) -> tuple[str, float]:
    """Splits "a cat::2" into its text and its weight."""
    text, colons, number = piece.rpartition("::")
    text, weight = (text.strip(), number.strip()) if colons else (piece.strip(), "1")
    if not text:
        raise ValueError(
            f'prompt {prompt!r} has an empty part: write a mixture as "a cat | a dog" or "a cat::2 | a dog"'
        )
    try:
        value = float(weight)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f'prompt {prompt!r}: {weight!r} is not a weight: write "a cat::2 | a dog::0.5"')
    return text, value


def _part(text: str, weight: float, template: str) -> Part:
    if not text.strip().lower().endswith(PICTURES):
        return Part(template.replace(BLANK, text), False, weight)
    path = text.strip()
    if not Path(path).is_file():
        raise FileNotFoundError(f"no picture {path}: a prompt that ends in {Path(path).suffix} names a picture file")
    return Part(path, True, weight)
