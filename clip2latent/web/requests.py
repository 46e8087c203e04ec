"""Requests of a visitor: what exists is within the limits, and names no file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from clip2latent.edit import parse_layers
from clip2latent.mixtures import read_mixtures
from clip2latent.paste import LOCATIONS
from clip2latent.web import limits
from clip2latent.web.limits import real, whole

MOST_LAYERS = 64
PICTURE = "picture"
"""How a prompt is written that an uploaded picture is a part of."""


@dataclass(frozen=True)
class Options:
    """How prompts are drawn; see `Sampling`.

    Attributes:
        num: images kept of each prompt.
        candidates: images to choose from, for each prompt.
        guidance: a number, also as a text; None or "" for what the model recommends.
        steps: sampling steps.
        seed: a whole number.
        truncation: 1 for the full variety.
        negative: what not to draw; "" for nothing.
    """

    num: int = 4
    candidates: int = 16
    guidance: float | str | None = None
    steps: int = 8
    seed: int = 0
    truncation: float = 1.0
    negative: str = ""

    def __post_init__(self) -> None:
        num = whole("number", self.num, 1, limits.NUM)
        _set(self, "num", num)
        _set(self, "candidates", whole("candidates", self.candidates, num, limits.CANDIDATES))
        _set(self, "guidance", limits.written("guidance", self.guidance, 0, limits.GUIDANCE))
        _set(self, "steps", whole("steps", self.steps, 1, limits.STEPS))
        _set(self, "seed", whole("seed", self.seed, 0, limits.SEED))
        _set(self, "truncation", real("truncation", self.truncation, 0, limits.TRUNCATION))
        _set(self, "negative", _prompt("negative prompt", self.negative, empty=True))


@dataclass(frozen=True)
class Picture:
    """An uploaded picture, an encoded square, and its weight beside the prompt; made by `pictures.decode`."""

    png: bytes = field(repr=False)
    weight: float = 1.0

    def __post_init__(self) -> None:
        _set(self, "weight", real("weight of the picture", self.weight, 0.05, 10))


@dataclass(frozen=True)
class Draw:
    """Images of prompts.

    Attributes:
        model: a name that the server knows.
        prompts: texts and mixtures of texts; () for variations of the picture alone.
        options: how.
        picture: a part of each prompt; None for none.
    """

    model: str
    prompts: tuple[str, ...]
    options: Options = field(default_factory=Options)
    picture: Picture | None = None

    def __post_init__(self) -> None:
        prompts = tuple(_prompt(f"prompt {number}", prompt) for number, prompt in enumerate(self.prompts, 1))
        _set(self, "prompts", prompts)
        if not prompts and self.picture is None:
            raise ValueError("prompt: expected what the picture shows, such as an old man with glasses")
        rows = max(1, len(prompts))
        if rows > limits.PROMPTS:
            raise ValueError(f"prompts={rows}: expected at most {limits.PROMPTS}, a line each")
        for name, each, most in (
            ("number", self.options.num, limits.KEPT),
            ("candidates", self.options.candidates, limits.DRAWN),
        ):
            if rows * each > most:
                raise ValueError(
                    f"{name}={each}: expected at most {most // rows} of each of {rows} prompts, {most} together"
                )


@dataclass(frozen=True)
class Refine:
    """Images of a prompt, each mixed of candidates and optimised for `steps` steps."""

    model: str
    prompt: str
    num: int = 1
    steps: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        _set(self, "prompt", _prompt("prompt", self.prompt))
        _few(self)
        _set(self, "steps", whole("refinement steps", self.steps, 1, limits.REFINE_STEPS))


@dataclass(frozen=True)
class Edit:
    """Images of a prompt, and the same moved along directions.

    Attributes:
        directions: names that the server knows for the model, and how far; those of strength 0 are left out.
        truncation: 1 changes nothing; towards 0 the images come nearer to the average one.
    """

    model: str
    prompt: str
    num: int = 2
    seed: int = 0
    directions: tuple[tuple[str, float], ...] = ()
    truncation: float = 1.0

    def __post_init__(self) -> None:
        _set(self, "prompt", _prompt("prompt", self.prompt))
        _few(self)
        strengths = [(name, real(name, far, -limits.STRENGTH, limits.STRENGTH)) for name, far in self.directions]
        _set(self, "directions", tuple(pair for pair in strengths if pair[1]))
        _set(self, "truncation", real("towards the average", self.truncation, 0, limits.TRUNCATION))


@dataclass(frozen=True)
class Mix:
    """Images of a prompt with some layers of another's, or of random ones where `style` is ""."""

    model: str
    prompt: str
    style: str = ""
    layers: str = "4-"
    num: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        _set(self, "prompt", _prompt("prompt to keep", self.prompt))
        _set(self, "style", _prompt("prompt to take from", self.style, empty=True))
        _few(self)
        layers = limits.text("layers", self.layers)
        if len(layers) > 40:
            raise ValueError(f"layers of {len(layers)} characters: expected at most 40, such as 0-3 or 2,4-")
        parse_layers(layers, MOST_LAYERS)
        _set(self, "layers", layers)


@dataclass(frozen=True)
class Compose:
    """A picture pasted onto another, both optimised.

    Attributes:
        generator: a name that the server knows.
        prompt: what the whole shows.
        foreground: a text; "" for the prompt.
        background: a text; "" for the prompt.
        scale: side of the foreground over the background's.
        locations: places to try.
        steps: of the place that wins.
        seed: a whole number.
    """

    generator: str
    prompt: str
    foreground: str = ""
    background: str = ""
    scale: float = 0.55
    locations: tuple[str, ...] = ("bottom-left", "bottom-right", "centre")
    steps: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("prompt", "foreground", "background"):
            _set(self, name, _prompt(name, getattr(self, name), empty=name != "prompt", plain=True))
        _set(self, "scale", real("size", self.scale, 0.2, 0.9))
        places = tuple(limits.choice("place", place, LOCATIONS) for place in self.locations)
        if not places:
            raise ValueError(f"places=none: expected at least one of {', '.join(LOCATIONS)}")
        _set(self, "locations", tuple(dict.fromkeys(places)))
        _set(self, "steps", whole("composing steps", self.steps, 1, limits.COMPOSE_STEPS))
        _set(self, "seed", whole("seed", self.seed, 0, limits.SEED))


Request = Draw | Refine | Edit | Mix | Compose


def read_lines(value: Any) -> tuple[str, ...]:
    """Returns the prompts of a box of several lines, blank ones left out; ValueError for too long a text."""
    longest = limits.PROMPTS * (limits.PROMPT_LENGTH + 2)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"prompt={type(value).__name__}: expected a text")
    if len(value or "") > longest:
        raise ValueError(f"prompts of {len(value)} characters: expected at most {longest} together")
    return tuple(line.strip() for line in (value or "").splitlines() if line.strip())


def _few(request: Any) -> None:
    """Checks what the requests share that work on few images."""
    _set(request, "num", whole("number", request.num, 1, limits.FEW))
    _set(request, "seed", whole("seed", request.seed, 0, limits.SEED))


def _prompt(name: str, value: Any, empty: bool = False, plain: bool = False) -> str:
    """A prompt, and whether it can be read as a mixture: said at once, not when its turn has come."""
    prompt = limits.text(name, value)
    if not prompt and not empty:
        raise ValueError(f"{name} is empty: write what the picture shows, such as an old man with glasses")
    if plain and "|" in prompt:
        raise ValueError(f"{name}={prompt[:80]!r}: expected a plain text, without |")
    if prompt:
        read_mixtures([prompt])
    return prompt


def _set(request: Any, name: str, value: Any) -> None:
    object.__setattr__(request, name, value)
