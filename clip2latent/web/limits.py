"""What a visitor may ask for: numbers and texts checked once, where they enter."""

from __future__ import annotations

import contextlib
import math
from typing import Any

from clip2latent.mixtures import PICTURES

PROMPTS, PROMPT_LENGTH = 8, 400
"""Prompts in a request, and letters in each."""
NUM, KEPT, FEW = 16, 32, 4
"""Images kept of each prompt, of all prompts of a request, and of a prompt that is refined, edited or mixed."""
CANDIDATES, DRAWN = 64, 256
"""Candidates of each prompt, and of all prompts of a request."""
STEPS, GUIDANCE, TRUNCATION, SEED = 100, 20.0, 2.0, 2**32 - 1
REFINE_STEPS, COMPOSE_STEPS = 300, 200
STRENGTH = 3.0
"""Of an edit along a direction, either way."""
UPLOAD_BYTES, UPLOAD_PIXELS = 8 * 2**20, 40 * 10**6


def whole(name: str, value: Any, least: int, most: int) -> int:
    """Returns a whole number that a page sent, as 4 or 4.0.

    Raises:
        ValueError: for anything else, naming what was expected.
    """
    number = _number(value)
    if not math.isfinite(number) or number != int(number) or not least <= number <= most:
        raise ValueError(f"{name}={_shown(value)}: expected a whole number from {least} to {most}")
    return int(number)


def real(name: str, value: Any, least: float, most: float) -> float:
    """Returns a number that a page sent.

    Raises:
        ValueError: for anything else, naming what was expected.
    """
    number = _number(value)
    if not least <= number <= most:  # NaN is in no range
        raise ValueError(f"{name}={_shown(value)}: expected a number from {least:g} to {most:g}")
    return number


def written(name: str, value: Any, least: float, most: float) -> float | None:
    """Returns a number that was written into a text box, None for an empty one; ValueError as for `real`."""
    if isinstance(value, str) and len(value) <= 40:
        with contextlib.suppress(ValueError):
            value = float(value) if value.strip() else None
    return None if value is None else real(name, value, least, most)


def text(name: str, value: Any) -> str:
    """Returns a prompt that a page sent, without the blanks around it: "" for none.

    A prompt of the command line may name a picture file of the machine. A visitor's must not: whatever could be read
    so is refused, in each part of a mixture.

    Raises:
        ValueError: for what is not a text, a text that is too long, control characters, and names of picture files.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name}={_shown(value)}: expected a text")
    if len(value) > PROMPT_LENGTH:
        raise ValueError(f"{name} of {len(value)} characters: expected at most {PROMPT_LENGTH}")
    if any(not letter.isprintable() for letter in value.strip()):
        raise ValueError(f"{name}={_shown(value)}: expected a text of one line, without control characters")
    for piece in value.split("|"):
        for part in (piece, piece.rpartition("::")[0]):
            if part.strip().lower().endswith(PICTURES):
                raise ValueError(
                    f"{name}={_shown(part.strip())}: expected a text; it ends like a picture's file, and a page opens"
                    " none: upload the picture as the image prompt"
                )
    return value.strip()


def choice(name: str, value: Any, known: tuple[str, ...]) -> str:
    """Returns one of the known values; ValueError for any other."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name}={_shown(value)}: expected one of {', '.join(known) or 'none'}")
    return value


def _number(value: Any) -> float:
    """A number as a float, NaN for what is none; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _shown(value: Any) -> str:
    """A value for a message: its beginning, as the rest may be of any length."""
    if isinstance(value, int) and abs(value) > 10**20:
        return "a number of many digits"
    shown = repr(value[:80] if isinstance(value, (str, bytes, list, tuple)) else value)
    return shown if len(shown) <= 100 else f"{shown[:100]}..."
